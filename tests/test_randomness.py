"""Random numbers and numbers of threads, which a process has once: whoever changes them is alone with the change."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from convkit.attacks.ensemble import _draw_privately, _Instead
from convkit.engine.workers import thread_pool
from convkit.methods.build import network
from convkit.randomness import drawing, seeded
from convkit.training.loop import fit
from tests.helpers import meetings
from tests.helpers.meetings import DATA, LONG, QUESTIONS, aside

pytestmark = pytest.mark.slow

questions = pytest.mark.parametrize("question", QUESTIONS)


# ---- training --------------------------------------------------------------------------------------------------------
@questions
def test_fit_goes_on_as_alone_while_others_look_without_a_generator_of_their_own(question, monkeypatch):
    monkeypatch.setattr(meetings, "own", lambda: None)
    knobs = {"widths": (4, 4, 4)}

    def run(hook: Callable[[nn.Module], object]) -> list[tuple[float, float]]:
        model = network("cnn9", DATA, "sphere", seed=0, **knobs)  # noise on the scales
        other = network("cnn9", DATA, "spectral_norm", seed=0, **knobs)
        model.register_forward_pre_hook(lambda module, _: (hook(other) and None) if module.training else None)
        records = fit(model, DATA, "sphere", steps=3, batch_size=8, augmentation="none")
        return [(record.loss, record.accuracy) for record in records]

    alone = run(lambda other: None)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert run(lambda other: aside(lambda: QUESTIONS[question](other))) == alone
    meanwhile = torch.get_rng_state()
    torch.set_rng_state(state)
    for _ in range(3):  # the others have drawn what they would have drawn without the training
        QUESTIONS[question](network("cnn9", DATA, "spectral_norm", seed=0, **knobs))
    assert torch.equal(torch.get_rng_state(), meanwhile)


def test_two_runs_at_once_are_those_one_after_the_other():
    def run(seed: int, meet: Callable[[], object] = lambda: None) -> list[float]:
        model = network("cnn9", DATA, "sphere", seed=seed, widths=(4, 4, 4))
        model.register_forward_pre_hook(lambda module, _: meet() if module.training else None)
        return [record.loss for record in fit(model, DATA, "sphere", steps=3, seed=seed, batch_size=8)]

    alone = run(0), run(1)
    there = [threading.Event(), threading.Event()]

    def meet(me: int) -> None:
        there[me].set()
        there[1 - me].wait(0.3)  # in vain: there is one step at a time

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(run, seed, partial(meet, seed)) for seed in range(2)]
        assert tuple(future.result(LONG) for future in futures) == alone


# ---- the global generator --------------------------------------------------------------------------------------------
def test_a_seeded_block_knows_nothing_of_other_draws_and_they_nothing_of_it():
    def draw(number: int) -> Tensor:
        with drawing(torch.device("cpu")) as generator:
            return torch.rand(number, generator=generator)

    torch.manual_seed(0)
    expected = torch.rand(7)
    with seeded(5):
        inside = torch.rand(4)
    torch.manual_seed(0)
    first = draw(2)
    with seeded(5):
        half = torch.rand(2)
        others = [aside(lambda: draw(3)).result()]
        with seeded(6):  # a block inside a block
            others.append(aside(lambda: draw(1)).result())
            torch.rand(9)
        half = torch.cat([half, draw(1), torch.rand(1)])
    assert torch.equal(half, inside)
    assert torch.equal(torch.cat([first, *others, draw(1)]), expected)

    def failing() -> None:
        with seeded(1):
            torch.rand(3)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    torch.manual_seed(0)
    assert torch.equal(draw(7), expected)

    def block() -> None:
        with seeded(0):
            pass

    aside(block)  # nobody is left waiting


def test_a_seeded_block_forks_the_generator_of_a_gpu_too(device):
    def drawn() -> Tensor:
        return torch.rand(3, device=device)

    with torch.random.fork_rng(devices=[0] if device.type == "cuda" else []):
        torch.manual_seed(0)
        expected = drawn(), drawn()
        torch.manual_seed(5)
        inner = drawn()
        torch.manual_seed(0)
        x = drawn()
        with seeded(5, x.device):
            assert torch.equal(drawn(), inner)
            with seeded(5, x.device):
                assert torch.equal(drawn(), inner)
            with drawing(x.device) as generator:
                assert generator is None
            other = aside(lambda: _one_draw(x.device)).result()  # of another thread: as if there were no block
        assert torch.equal(torch.stack([x, other]), torch.stack(expected))


def _one_draw(device: torch.device) -> Tensor:
    with drawing(device) as generator:
        return torch.rand(3, generator=generator, device=device)


@pytest.mark.parametrize("kind", ["xpu", "mps"])
def test_generators_of_other_gpus_are_seeded_and_given_back(kind, monkeypatch):
    own = torch.Generator().manual_seed(3)  # stands for that of a device which is not here
    state = own.get_state()
    if kind == "xpu":
        monkeypatch.setattr(torch.xpu, "init", lambda: None)
        monkeypatch.setattr(torch.xpu, "default_generators", (torch.Generator(), own), raising=False)
        monkeypatch.setattr(torch.xpu, "manual_seed_all", own.manual_seed)
    else:
        monkeypatch.setattr(torch.mps, "_get_default_mps_generator", lambda: own)
        monkeypatch.setattr(torch.mps, "manual_seed", own.manual_seed)
    device = torch.device(kind, 1 if kind == "xpu" else 0)
    with seeded(5, device):
        assert torch.equal(torch.rand(2, generator=own), torch.rand(2))  # both follow from 5
        with seeded(6, device):
            assert torch.equal(torch.rand(2, generator=own), torch.rand(2))
        assert torch.equal(torch.rand(2, generator=own), torch.rand(2))
    assert torch.equal(own.get_state(), state)


# ---- the number of threads -------------------------------------------------------------------------------------------
def test_threads_that_begin_beside_a_decomposition_have_as_many_as_they_would_have(monkeypatch):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    monkeypatch.setattr("convkit.engine.workers.WORK", 1e-3)
    before = torch.get_num_threads()

    def blas() -> list[int]:
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]

    try:
        torch.set_num_threads(3)
        own, entered, leave = blas(), threading.Event(), threading.Event()

        def another() -> int:
            with thread_pool(torch.device("cpu")):
                entered.set()
                assert leave.wait(LONG)
                return torch.get_num_threads()

        with ThreadPoolExecutor(1) as pool:
            with thread_pool(torch.device("cpu")) as map_pieces:
                assert aside(torch.get_num_threads).result() == 3
                assert torch.get_num_threads() == 1
                assert set(map_pieces(lambda some: torch.get_num_threads(), torch.arange(50), 9, 1.0)) == {1}
                assert aside(torch.get_num_threads).result() == 3
                future = pool.submit(another)
                assert entered.wait(LONG)
            assert torch.get_num_threads() == 3
            assert set(blas()) == {1}  # the other one is still at work
            leave.set()
            assert future.result(LONG) == 1
        assert blas() == own
        assert aside(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


# ---- random numbers of a library's own -------------------------------------------------------------------------------
def test_what_a_library_draws_is_what_it_would_draw_from_the_global_generator_which_it_does_not_touch():
    class Drawing:
        def draw(self, seed: int) -> list[Tensor]:
            torch.random.manual_seed(seed)
            torch.cuda.random.manual_seed(seed)
            x = torch.rand((2, 3)), torch.randn([20]), torch.rand(4)
            return [*x, torch.randn_like(x[0])]

    class More(Drawing):
        pass

    attack, state = More(), torch.get_rng_state()
    _draw_privately(attack)
    drawn = attack.draw(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(attack, More)
    with torch.random.fork_rng(devices=[]):
        assert all(torch.equal(one, two) for one, two in zip(drawn, More().draw(3), strict=True))
    assert _Instead(torch, rand=None).zeros is torch.zeros
