"""What every hook on an optimizer must do: resume bit for bit, come off, and be missed by a copy."""

import copy
import gc
import io
import math
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.testing import assert_close

from convkit.constraints import Handle, centered_sphere, clip_operator_norm, clip_reshaped_norm, norm_decay
from convkit.operators.network import input_shapes
from tests.helpers.refusals import refused
from tests.helpers.small_network import batch, kernels, network, saved, sgd, train
from tests.helpers.wrapped_optimizers import SAM, CallsItsBase, Lookahead, WithoutInit


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return input_shapes(model, batch(model[0].weight.device))


HOOKS = {  # their numbers, exact in float32, may come from other libraries
    "centered_sphere": lambda o, m, real=float, whole=int: centered_sphere(o, kernels(m), real(0.75)),
    "clip_operator_norm": lambda o, m, real=float, whole=int: clip_operator_norm(
        o, m, shapes(m), real(0.75), whole(3), whole(2)
    ),
    "clip_reshaped_norm": lambda o, m, real=float, whole=int: clip_reshaped_norm(o, m, real(0.5), whole(3)),
    "norm_decay": lambda o, m, real=float, whole=int: norm_decay(o, m, shapes(m), real(0.125), real(1), real(0.25)),
}
KINDS = {
    "numpy": (np.float32, np.int64),
    "0-d arrays": (np.asarray, np.asarray),
    "tensors": (lambda x: torch.tensor(float(x), requires_grad=True), torch.tensor),
}
every_hook = pytest.mark.parametrize("name", HOOKS)


def start(name: str, device: torch.device, seed: int = 0) -> tuple[nn.Module, optim.Optimizer, Handle]:
    torch.manual_seed(seed)
    model = network(device)
    optimizer = sgd(model, 0.05, momentum=0.9)
    return model, optimizer, HOOKS[name](optimizer, model)


@every_hook
def test_the_hook_acts_and_one_made_on_resumed_weights_leaves_them_bit_for_bit(device, name):
    with_hook, optimizer, first = start(name, device)
    train(with_hook, optimizer, 3)
    without, other, handle = start(name, device)
    handle.remove()
    train(without, other, 3)
    assert (with_hook[0].weight - without[0].weight).norm() > 1e-3
    first.remove()
    before = copy.deepcopy(with_hook.state_dict())
    HOOKS[name](optimizer, with_hook)
    assert_close(with_hook.state_dict(), before, rtol=0, atol=0)


@every_hook
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_a_resumed_run_goes_on_bit_for_bit_and_a_saved_state_does_not_change(device, name, order):
    model, optimizer, handle = start(name, device)
    train(model, optimizer, 4)
    (number,) = handle.live
    setattr(handle, number, 0.8 * getattr(handle, number))  # as a panel does
    states, kept = saved(model, optimizer, handle), handle.state_dict()
    train(model, optimizer, 4, start=4)

    resumed = start(name, device, seed=1)
    for i in order:
        resumed[i].load_state_dict(states[i])
    (again,) = saved(resumed[2])
    for state in (again, kept):
        assert_close(state.pop("h", {}), states[2].get("h", {}), rtol=0, atol=0)
        assert state == {key: value for key, value in states[2].items() if key != "h"}
    train(resumed[0], resumed[1], 4, start=4)
    assert_close(resumed[0].state_dict(), model.state_dict(), rtol=0, atol=0)
    assert resumed[2].steps == handle.steps == 8
    assert getattr(resumed[2], number) == getattr(handle, number)


@every_hook
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_other_libraries_do_the_same_and_are_plain_in_its_state(device, name, kind):
    ends, states = [], []
    for real, whole in ((float, int), KINDS[kind]):
        torch.manual_seed(0)
        model = network(device)
        optimizer = sgd(model, 0.05, momentum=0.9)
        handle = HOOKS[name](optimizer, model, real, whole)
        train(model, optimizer, 3)
        (number,) = handle.live
        setattr(handle, number, real(0.5))  # as a panel does
        train(model, optimizer, 3, start=3)
        (state,) = saved(handle)  # read without running code
        assert type(getattr(handle, number)) is float
        ends.append(saved(model)[0])
        states.append(state)
    assert_close(ends[1], ends[0], rtol=0, atol=0)
    assert_close(states[1].pop("h", {}), states[0].pop("h", {}), rtol=0, atol=0)
    assert states[1] == states[0]


@every_hook
@pytest.mark.parametrize("wrong", [True, np.True_, math.nan, torch.tensor(math.inf), "0.5", None, [0.5], np.ones(1)])
def test_what_is_no_number_is_refused_when_it_is_made_and_before_a_step(device, name, wrong):
    model, optimizer, handle = start(name, device)
    words = r"needs ord 1 or|needs a momentum in|must be a positive number"
    refused(words, HOOKS[name], optimizer, model, lambda x: wrong)
    (number,) = handle.live
    setattr(handle, number, wrong)
    refused(number, train, model, optimizer, 3)  # the clips come at the third


@every_hook
def test_removing_gives_back_the_optimizer_as_it_was(device, name):
    model = network(device)
    optimizer = sgd(model, 0.05, momentum=0.9)
    before = copy.deepcopy(optimizer.state_dict())
    handle = HOOKS[name](optimizer, model)
    handle.remove()
    handle.remove()
    assert optimizer.state_dict() == before
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    train(model, optimizer, 1)
    assert handle.steps == 0


@every_hook
def test_the_state_of_another_hook_is_refused_and_changes_nothing(device, name):
    _, _, handle = start(name, device)
    other, optimizer, _ = start(name, device)
    foreign = HOOKS["norm_decay" if name != "norm_decay" else "clip_reshaped_norm"](optimizer, other).state_dict()
    mine = handle.state_dict()
    fewer = {key: value for key, value in mine.items() if key != "steps"}
    for state in (foreign | mine | {"kind": "other"}, mine | {"names": ["x"]}, mine | {"kind": 3}, fewer, {}):
        refused(f"needed the state of {name}", handle.load_state_dict, state)
    assert handle.state_dict() == mine


# ---- copies --------------------------------------------------------------------------------------------------------


def through_a_file(optimizer: optim.Optimizer) -> optim.Optimizer:
    file = io.BytesIO()
    torch.save(optimizer, file)  # by pickle
    file.seek(0)
    return torch.load(file, weights_only=False)


def with_its_state(optimizer: optim.Optimizer) -> optim.Optimizer:
    fresh = optim.SGD(optimizer.param_groups[0]["params"], lr=0.1)
    fresh.load_state_dict(optimizer.state_dict())
    return fresh


@every_hook
@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, through_a_file, with_its_state])
def test_a_copy_without_the_hook_says_so_at_its_first_step(device, name, duplicate):
    model, optimizer, _ = start(name, device)
    train(model, optimizer, 1)
    twin = duplicate(optimizer)
    before = [p.detach().clone() for p in twin.param_groups[0]["params"]]
    refused(f"this SGD lacks the hook {name} of the optimizer it is a copy of", twin.step, error=RuntimeError)
    assert_close(twin.param_groups[0]["params"], before, rtol=0, atol=0)
    train(model, optimizer, 1)  # the original goes on
    del twin.param_groups[0]["convkit"]  # as the message says
    twin.step()


def test_a_copy_that_has_got_some_of_its_hooks_back_still_lacks_the_others(device):
    model, optimizer, _ = start("norm_decay", device)
    optimizer.load_state_dict(sgd(model, momentum=0.9).state_dict())  # of one without hooks
    train(model, optimizer, 1)
    refused("lacks the hook norm_decay", copy.deepcopy(optimizer).step, error=RuntimeError)
    HOOKS["clip_reshaped_norm"](optimizer, model)
    twin_model, twin = copy.deepcopy((model, optimizer))
    HOOKS["clip_reshaped_norm"](twin, twin_model)
    refused("lacks the hook norm_decay of", twin.step, error=RuntimeError)
    HOOKS["norm_decay"](twin, twin_model)
    train(twin_model, twin, 1)


def test_two_hooks_of_one_kind_are_missed_one_by_one(device):
    model = network(device)
    optimizer = sgd(model)
    handles = [centered_sphere(optimizer, {str(i): model[i].weight}, radius=i + 1) for i in (0, 2)]
    train(model, optimizer, 1)
    assert_close(model[2].weight.detach().flatten(1).norm(dim=1), torch.full((6,), 3.0, device=device))
    twin_model, twin = copy.deepcopy((model, optimizer))
    centered_sphere(twin, {"0": twin_model[0].weight})
    refused("lacks the hook centered_sphere of", twin.step, error=RuntimeError)
    handles[0].remove()
    train(model, optimizer, 1)
    with pytest.raises(AssertionError):
        assert_close(model[0].weight.detach().flatten(1).norm(dim=1), torch.ones(4, device=device))


def test_optimizers_without_hooks_are_left_alone_and_hooks_keep_no_optimizer_alive(device):
    model = network(device)
    plain = sgd(model)
    train(model, copy.deepcopy(plain), 1)
    train(model, plain, 1)
    assert "convkit" not in plain.param_groups[0]
    _, optimizer, handle = start("norm_decay", device)
    for duplicate in (copy.deepcopy, pickle.dumps):
        refused(r"save its state_dict\(\) instead", duplicate, handle, error=TypeError)
    gone = weakref.ref(optimizer)
    del optimizer, handle
    gc.collect()
    assert gone() is None


# ---- optimizers that wrap others -----------------------------------------------------------------------------------
def clipped_each_step(o, m, real=float, whole=int):
    return clip_operator_norm(o, m, shapes(m), real(0.75), whole(1), whole(2))


EACH_STEP = HOOKS | {"clip_operator_norm": clipped_each_step}
EACH_STEP["clip_reshaped_norm"] = lambda o, m: clip_reshaped_norm(o, m, 0.5, 1)


def sam_steps(model: nn.Module, optimizer: SAM, steps: int, closure: bool) -> None:
    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = (model(x) - 1).square().mean()
        value.backward()
        return value

    for step in range(steps):
        x = batch(next(model.parameters()).device, seed=step)
        loss()
        if closure:
            optimizer.step(loss)
        else:
            optimizer.first_step()
            loss()
            optimizer.second_step()


def new_sam(model: nn.Module) -> SAM:
    return SAM(model.parameters(), optim.SGD, lr=0.05, momentum=0.9)


def backward(model: nn.Module, step: int) -> None:
    model.zero_grad()
    (model(batch(next(model.parameters()).device, seed=step)) - 1).square().mean().backward()


def alone(name: str, model: nn.Module) -> optim.Optimizer:
    """An optimizer whose steps have length 0, so that its hook acts alone."""
    optimizer = sgd(model, 0.0)
    EACH_STEP[name](optimizer, model)
    return optimizer


@pytest.mark.parametrize("name", EACH_STEP)
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("closure", [False, True])
def test_a_hook_acts_once_per_step_of_sam_whichever_of_its_two_optimizers_has_it(device, name, inside, closure):
    model = network(device)
    by_hand = copy.deepcopy(model)
    optimizer, plain = new_sam(model), new_sam(by_hand)
    handle = EACH_STEP[name](optimizer.base_optimizer if inside else optimizer, model)
    sam_steps(model, optimizer, 3, closure)
    assert handle.steps == 3

    constraint = alone(name, by_hand)
    for step in range(3):
        backward(by_hand, step)
        plain.first_step()
        backward(by_hand, step)
        for p in by_hand.parameters():
            p.data = plain.state[p]["old_p"]
        parts = constraint.step, plain.base_optimizer.step
        for part in parts if name == "norm_decay" else reversed(parts):
            part()
    assert_close(model.state_dict(), by_hand.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", EACH_STEP)
@pytest.mark.parametrize("kind, inside", [(Lookahead, True), (Lookahead, False), (WithoutInit, False)])
def test_a_hook_acts_once_after_lookahead_has_moved_the_weights(device, name, kind, inside):
    model = network(device)
    by_hand = copy.deepcopy(model)
    optimizer = kind(sgd(model, 0.05, momentum=0.9))
    handle = EACH_STEP[name](optimizer.optimizer if inside else optimizer, model)
    for step in range(5):
        backward(model, step)
        optimizer.step()
    assert handle.steps == 5

    plain, constraint = Lookahead(sgd(by_hand, 0.05, momentum=0.9)), alone(name, by_hand)
    for step in range(5):
        backward(by_hand, step)
        parts = constraint.step, plain.step
        for part in parts if name == "norm_decay" else reversed(parts):
            part()
    assert_close(model.state_dict(), by_hand.state_dict(), rtol=0, atol=0)
    handle.remove()
    optimizer.step()
    assert handle.steps == 5
    assert "convkit" not in optimizer.param_groups[0]


@pytest.mark.parametrize("name", EACH_STEP)
def test_a_step_that_calls_that_of_its_base_class_is_one_step(device, name):
    ends = []
    for kind in (optim.SGD, CallsItsBase):  # the first makes torch's own step call the hooks
        torch.manual_seed(0)
        model = network(device)
        optimizer = kind(model.parameters(), lr=0.05, momentum=0.9)
        handle = EACH_STEP[name](optimizer, model)
        train(model, optimizer, 3)
        assert handle.steps == 3
        ends.append(model.state_dict())
    assert_close(ends[1], ends[0], rtol=0, atol=0)


@every_hook
def test_a_step_that_failed_leaves_nothing_behind(device, name):
    model = network(device)
    optimizer = Lookahead(sgd(model, 0.05))
    handle = HOOKS[name](optimizer, model)
    train(model, optimizer, 1)
    with pytest.raises(ZeroDivisionError), optimizer.optimizer.register_step_post_hook(lambda *_: 1 / 0):
        train(model, optimizer, 1)
    counted = handle.steps
    train(model, optimizer, 2)
    assert handle.steps == counted + 2


@every_hook
def test_a_copy_of_what_is_wrapped_lacks_the_hook_and_a_resumed_one_goes_on(device, name):
    model = network(device)
    optimizer = new_sam(model)
    handle = HOOKS[name](optimizer, model)
    sam_steps(model, optimizer, 1, closure=False)
    refused(f"lacks the hook {name}", copy.deepcopy(optimizer.base_optimizer).step, error=RuntimeError)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    sam_steps(model, optimizer, 2, closure=True)
    assert handle.steps == 3
    fresh = new_sam(model)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    refused(f"lacks the hook {name}", fresh.second_step, error=RuntimeError)


@every_hook
def test_a_scheduler_and_a_scaler_leave_one_action_per_step(device, name):
    torch.manual_seed(0)
    model, optimizer, handle = start(name, device)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    scaler = torch.amp.GradScaler(device.type, init_scale=4.0)
    for step in range(3):
        optimizer.zero_grad()
        loss = (model(batch(device, seed=step)) - 1).square().mean()
        scaler.scale(loss if step != 1 else loss * math.inf).backward()  # the second one is left out
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    assert handle.steps == 2


def test_what_is_no_optimizer_is_refused_by_name(device):
    class Wrapper:
        def __init__(self, optimizer):
            self.optimizer, self.param_groups = optimizer, optimizer.param_groups

    model = network(device)
    words = "centered_sphere needs a torch.optim.Optimizer, got Wrapper; give it the one inside"
    refused(words, centered_sphere, Wrapper(sgd(model)), kernels(model))
