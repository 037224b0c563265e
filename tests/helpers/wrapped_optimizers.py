"""Optimizers that wrap another one, in the ways in which public code writes them."""

from collections import OrderedDict, defaultdict

import torch
from torch import optim


class SAM(optim.Optimizer):
    """Sharpness-aware minimization: a step up along the gradient, back, then a step of the base optimizer."""

    def __init__(self, params, base, rho=0.05, **options):
        super().__init__(params, {"rho": rho, **options})
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self):
        grads = [p.grad.norm() for group in self.param_groups for p in group["params"] if p.grad is not None]
        scale = 1 / (torch.stack(grads).norm() + 1e-12)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p]["old_p"] = p.data.clone()
                    p.add_(group["rho"] * scale * p.grad)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data = self.state[p]["old_p"]
        self.base_optimizer.step()

    @torch.no_grad()
    def step(self, closure=None):
        closure = torch.enable_grad()(closure)
        self.first_step()
        closure()
        self.second_step()

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.base_optimizer.param_groups = self.param_groups


def interpolate(self, closure=None):
    """Step, and after every k-th step move the slow weights towards the fast ones and these to them."""
    self.optimizer.step(closure)
    self.count += 1
    if self.count % self.k == 0:
        for group, slow in zip(self.param_groups, self.slow, strict=True):
            for p, s in zip(group["params"], slow, strict=True):
                s.add_(p - s, alpha=self.alpha)
                p.copy_(s)


class Lookahead(optim.Optimizer):
    """After every k-th step the weights go back to between those of k steps ago and the new ones."""

    def __init__(self, base, alpha=0.5, k=2):
        self.optimizer, self.alpha, self.k, self.count = base, alpha, k, 0
        self.param_groups, self.state = base.param_groups, defaultdict(dict)
        super().__init__(self.param_groups, base.defaults)
        self.param_groups = base.param_groups
        self.slow = [[p.detach().clone() for p in group["params"]] for group in self.param_groups]

    def step(self, closure=None):
        with torch.no_grad():
            interpolate(self, closure)


class WithoutInit(Lookahead):
    """It leaves out ``Optimizer.__init__``: its ``step`` calls no hooks before ``zero_grad`` is called."""

    def __init__(self, base, alpha=0.5, k=2):
        self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks = OrderedDict(), OrderedDict()
        self.optimizer, self.alpha, self.k, self.count = base, alpha, k, 0
        self.param_groups, self.state, self.defaults = base.param_groups, defaultdict(dict), base.defaults
        self.slow = [[p.detach().clone() for p in group["params"]] for group in self.param_groups]

    def step(self, closure=None):
        with torch.no_grad():
            interpolate(self, closure)


class CallsItsBase(optim.SGD):
    """A subclass whose step is that of its base class, which calls the hooks, too."""

    def step(self, closure=None):
        return super().step(closure)
