"""What hooks on an optimizer share: they can be taken off, saved and resumed, and a copy without them is noticed."""

import functools
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from convkit.checks import number, plain

MARK = "convkit"  # entry of an optimizer's first group: the kinds of its hooks. A copy keeps the entry, not the hooks
_ATTACHED: "weakref.WeakKeyDictionary[Optimizer, list[str]]" = weakref.WeakKeyDictionary()


class Handle:
    """A hook on one optimizer: ``remove()`` takes it off; ``state_dict()`` goes into a checkpoint.

    ``steps`` counts the calls of ``optimizer.step()``. To resume, make model, optimizer and hook as at the start, then
    load the state of each, in any order. A copied or unpickled optimizer, or one that was given the state of another,
    lacks the hook: its first step raises ``RuntimeError`` until the hook is made anew for it. This is noticed in
    processes in which some handle was made: the first one adds a check, a look at one entry, to every optimizer's step.
    """

    kind = ""
    live: tuple[str, ...] = ()  # numbers that may be changed between steps; kept as plain Python

    def __init__(
        self, optimizer: Optimizer, names: Iterable[str], weights: Mapping[str, Tensor], before: bool = False
    ) -> None:
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, weight in weights.items():
            if id(weight) not in known:
                raise ValueError(
                    f"{self.kind} needs parameters of the optimizer, got {name!r}, which it does not step; give it to "
                    "the optimizer, or leave it out here (of a parametrized weight the optimizer has the original)"
                )
        self.steps = 0
        _watch()
        self._optimizer, self._names = optimizer, list(names)
        self._device = next(iter(weights.values())).device.type
        self._hook: Any = (optimizer.register_step_pre_hook if before else optimizer.register_step_post_hook)(self._run)
        kinds = _ATTACHED.setdefault(optimizer, [])
        kinds.append(self.kind)
        if not _missing(optimizer):  # a copy that lacks other hooks goes on saying so
            _mark(optimizer, kinds)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, plain(value) if name in self.live else value)

    def update(self, settings: Mapping[str, Any]) -> None:
        """Change the numbers in ``live`` to those of ``settings``; other entries are for others."""
        for name in self.live:
            if name in settings and getattr(self, name) != settings[name]:
                setattr(self, name, settings[name])

    def remove(self) -> None:
        """Take the hook off; the weights stay as they are. Once more is no error."""
        if self._hook is None:
            return
        self._hook.remove()
        self._hook = None
        _ATTACHED[self._optimizer].remove(self.kind)
        _mark(self._optimizer, _ATTACHED[self._optimizer])

    def state_dict(self) -> dict[str, Any]:
        """All but the model and the arguments of the hook; tensors, numbers and names only."""
        state = {"kind": self.kind, "names": plain(self._names), "steps": self.steps}
        return state | {name: float(number(name, getattr(self, name))) for name in self.live}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the hook that gave ``state_dict`` was; ``ValueError`` for the state of another one."""
        self._check_state(state_dict)
        self.steps = int(state_dict["steps"])
        for name in self.live:
            setattr(self, name, float(state_dict[name]))

    def __reduce__(self) -> Any:
        raise TypeError(f"the handle of {self.kind} belongs to one optimizer; copy or save its state_dict() instead")

    def _check_state(self, state_dict: Mapping[str, Any]) -> None:
        missing = self.state_dict().keys() - state_dict.keys()
        wanted, got = (self.kind, self._names), (state_dict.get("kind"), state_dict.get("names"))
        if missing or got != wanted:
            what = f"one without {', '.join(sorted(missing))}" if missing else f"that of {got[0]} on {got[1]}"
            raise ValueError(
                f"needed the state of {wanted[0]} on {wanted[1]}, got {what}; load the state_dict() of the same hook"
            )

    def _run(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        with torch.no_grad(), torch.autocast(self._device, enabled=False):
            self._apply(args, kwargs)
        self.steps += 1

    def _apply(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise NotImplementedError


# ---- optimizers that lost their hooks ------------------------------------------------------------------------------
def _mark(optimizer: Optimizer, kinds: list[str]) -> None:
    if kinds:
        optimizer.param_groups[0][MARK] = list(kinds)
    else:
        optimizer.param_groups[0].pop(MARK, None)


def _missing(optimizer: Optimizer) -> list[str]:
    """The hooks that the optimizer's entry tells of and that it does not have."""
    marked = optimizer.param_groups[0].get(MARK, []) if optimizer.param_groups else []
    return list((Counter(marked) - Counter(_ATTACHED.get(optimizer, []))).elements())


def _notice(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Before a step of any optimizer: has it the hooks that it should have?"""
    if missing := _missing(optimizer):
        raise RuntimeError(
            f"this {type(optimizer).__name__} lacks the hook {', '.join(missing)} of the optimizer it is a copy of "
            "or has the state of; make the hook anew for this one and load its state_dict(), or delete "
            f"optimizer.param_groups[0][{MARK!r}] to go on without"
        )
    if optimizer in _ATTACHED:  # it may have been given the state of an optimizer without hooks
        _mark(optimizer, _ATTACHED[optimizer])


@functools.cache
def _watch() -> None:
    """From the first handle on: importing this module leaves other people's optimizers alone."""
    register_optimizer_step_pre_hook(_notice)
