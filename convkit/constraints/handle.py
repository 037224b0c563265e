"""Base class of optimizer hooks: removable, checkpointable, once per step, and missed by a copied optimizer."""

import functools
import sys
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from convkit.checks import number, plain

MARK = "convkit"  # entry of an optimizer's first group: the kinds of its hooks. A copy keeps the entry, not the hooks
STEP = Optimizer.profile_hook_step(lambda: None).__code__  # of what torch makes of a ``step``: it calls the hooks
_ATTACHED: "weakref.WeakKeyDictionary[Optimizer, list[weakref.ref[Handle]]]" = weakref.WeakKeyDictionary()


class Handle:
    """Base class of the handles of optimizer hooks: ``remove()`` and ``state_dict()`` are their interface.

    A subclass sets ``kind``, the name of the hook in errors and states, and ``live``, the names of the numbers that may
    be changed between steps, and defines ``_apply(args, kwargs)``, which runs at each ``optimizer.step(...)`` without
    gradients. ``steps`` counts the steps.

    An optimizer that wraps another one, an attribute of it with the same parameters, makes one step with it (SAM and
    Lookahead do, in code of their time). The hook may be made for either of them, best for the one whose ``step`` is
    called: what acts before a step then does so before the inner one, where the gradients are final, and what acts
    after it does so after both, since Lookahead moves the weights once more. SAM's ``first_step`` and ``second_step``
    are one step. A wrapper that is no ``Optimizer`` is not seen: the hook acts at each step of the one inside.

    To resume, make model, optimizer and hook as at the start, then load the state of each, in any order. A copied or
    unpickled optimizer, or one that loaded the state of another, lacks the hook: its next step raises ``RuntimeError``
    until the hook is made for it. The first handle of a process adds this check of one entry to all optimizers' steps.

    >>> layer = nn.Linear(2, 1)
    >>> handle = centered_sphere(torch.optim.SGD(layer.parameters(), lr=0.1), {"weight": layer.weight})
    >>> handle.state_dict()["kind"], handle.live
    ('centered_sphere', ('radius',))
    >>> handle.remove()
    """

    kind = ""
    live: tuple[str, ...] = ()  # kept as plain Python

    def __init__(
        self, optimizer: Optimizer, names: Iterable[str], weights: Mapping[str, Tensor], before: bool = False
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ValueError(
                f"{self.kind} needs a torch.optim.Optimizer, got {type(optimizer).__name__}; give it the one inside"
            )
        known = _parameters(optimizer)
        for name, weight in weights.items():
            if id(weight) not in known:
                raise ValueError(
                    f"{self.kind} needs parameters of the optimizer, got {name!r}, which it does not step; give it to "
                    "the optimizer, or leave it out here (of a parametrized weight the optimizer has the original)"
                )
        self.steps, self._before = 0, before
        _watch()
        self._optimizer, self._names = optimizer, list(names)
        self._device = next(iter(weights.values())).device.type
        self._hooks: list[Any] = []
        self._watched: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._ids = {id(weight) for weight in weights.values()}
        inner = [one for one in _inside(optimizer) if self._ids <= _parameters(one)]
        for one in inner[-1:] if before and inner else [*inner, optimizer]:
            self._watch(one)
        handles = _ATTACHED.setdefault(optimizer, [])
        complete = not _missing(optimizer)
        handles.append(weakref.ref(self))
        if complete:  # a copy that lacks other hooks goes on saying so
            _mark(optimizer)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, plain(value) if name in self.live else value)

    def update(self, settings: Mapping[str, object]) -> None:
        """Set the numbers named in ``live`` to those of ``settings``, whose other entries are ignored."""
        for name in self.live:
            if name in settings and getattr(self, name) != settings[name]:
                setattr(self, name, settings[name])

    def remove(self) -> None:
        """Remove the hook from the optimizer; the weights stay as they are. A second call does nothing."""
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        _ATTACHED[self._optimizer] = [ref for ref in _ATTACHED[self._optimizer] if ref() not in (self, None)]
        _mark(self._optimizer)

    def state_dict(self) -> dict[str, object]:
        """Return the hook's state without the model and the arguments: tensors, numbers and names only."""
        state: dict[str, object] = {"kind": self.kind, "names": plain(self._names), "steps": self.steps}
        return state | {name: float(number(name, getattr(self, name))) for name in self.live}

    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        """Continue from a saved state; raise ``ValueError`` for the state of another kind of hook or other layers."""
        self._check_state(state_dict)
        saved: Any = state_dict
        self.steps = int(saved["steps"])
        for name in self.live:
            setattr(self, name, float(saved[name]))

    def __reduce__(self) -> Any:
        raise TypeError(f"the handle of {self.kind} belongs to one optimizer; copy or save its state_dict() instead")

    def _check_state(self, state_dict: Mapping[str, object]) -> None:
        missing = self.state_dict().keys() - state_dict.keys()
        wanted, got = (self.kind, self._names), (state_dict.get("kind"), state_dict.get("names"))
        if missing or got != wanted:
            what = f"one without {', '.join(sorted(missing))}" if missing else f"that of {got[0]} on {got[1]}"
            raise ValueError(
                f"needed the state of {wanted[0]} on {wanted[1]}, got {what}; load the state_dict() of the same hook"
            )

    def _watch(self, optimizer: Optimizer) -> None:
        """Act at the steps of this optimizer: the one that the hook was made for, one inside it or one around it."""
        if optimizer in self._watched:
            return
        self._watched.add(optimizer)
        if not getattr(type(optimizer).step, "hooked", False):  # a wrapper may leave out Optimizer.__init__
            Optimizer.__setstate__(optimizer, {})
        register = optimizer.register_step_pre_hook if self._before else optimizer.register_step_post_hook
        self._hooks.append(register(self._hook))

    def _hook(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        frame = sys._getframe(1).f_back  # the caller of this optimizer's step
        while frame is not None:
            if frame.f_code is STEP and frame.f_locals.get("self") in self._watched:
                return  # a step within a step: the outer one acts
            frame = frame.f_back
        self._run(args, kwargs)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        with torch.no_grad(), torch.autocast(self._device, enabled=False):
            self._apply(args, kwargs)
        self.steps += 1

    def _apply(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise NotImplementedError


# ---- optimizers that wrap others -----------------------------------------------------------------------------------
def _inside(optimizer: Optimizer) -> Iterator[Optimizer]:
    """Yield the optimizers that are attributes of this one, each followed by those inside it."""
    for value in list(vars(optimizer).values()):
        if isinstance(value, Optimizer):
            yield value
            yield from _inside(value)


def _parameters(optimizer: Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def _handles(optimizer: Optimizer) -> list[Handle]:
    """Return the handles of this optimizer, of those inside it and of those around it."""
    inside = list(_inside(optimizer))
    family = [other for other in _ATTACHED if other in (optimizer, *inside) or optimizer in _inside(other)]
    return [handle for one in family for ref in _ATTACHED[one] if (handle := ref()) is not None]


# ---- optimizers that lost their hooks ------------------------------------------------------------------------------
def _mark(optimizer: Optimizer) -> None:
    if kinds := [handle.kind for handle in _handles(optimizer)]:
        optimizer.param_groups[0][MARK] = kinds
    else:
        optimizer.param_groups[0].pop(MARK, None)


def _missing(optimizer: Optimizer) -> list[str]:
    """Return the kinds of hooks that the optimizer's entry lists and that it lacks."""
    marked = optimizer.param_groups[0].get(MARK, []) if optimizer.param_groups else []
    return list((Counter(marked) - Counter(handle.kind for handle in _handles(optimizer))).elements()) if marked else []


def _notice(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise ``RuntimeError`` before a step of an optimizer that lacks hooks which its entry lists.

    A hook that acts after the steps of an optimizer inside this one is made to act after this one's, too.
    """
    for one in _inside(optimizer):
        for ref in _ATTACHED.get(one, ()):
            handle = ref()
            if handle is not None and not handle._before and handle._ids <= _parameters(optimizer):
                handle._watch(optimizer)
    if missing := _missing(optimizer):
        raise RuntimeError(
            f"this {type(optimizer).__name__} lacks the hook {', '.join(missing)} of the optimizer it is a copy of "
            "or has the state of; make the hook anew for this one and load its state_dict(), or delete "
            f"optimizer.param_groups[0][{MARK!r}] to go on without"
        )
    if optimizer in _ATTACHED:  # it may have been given the state of an optimizer without hooks
        _mark(optimizer)


@functools.cache
def _watch() -> None:
    """Add the check to all optimizers, once: at the first handle, since an import should have no side effect."""
    register_optimizer_step_pre_hook(_notice)
