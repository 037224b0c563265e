"""``NormTracker``: estimates of the norms of a network's layers during training, at little cost."""

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import TypedDict, TypeVar

import torch
from torch import Tensor, nn

from convkit.engine.blocks import CHUNK, Blocks
from convkit.engine.lanczos import DENSE_LIMIT, RESIDUALS, leading_right_vectors
from convkit.engine.largest import top_frequency
from convkit.operators.dtypes import widened
from convkit.operators.evaluation import evaluation_copy
from convkit.operators.geometry import checked_at_once
from convkit.operators.network import input_shapes, layer_operator
from convkit.operators.operator import ConvOperator

WIDTH = 2  # vectors that are followed of one block at least: the two largest values may change places
FREE_WIDTH = 3  # of a layer without blocks, whose largest values lie close together
RANKING_STEPS = 2  # from a random vector, to choose which blocks to follow
Product = Callable[[Tensor], Tensor]
Result = TypeVar("Result")
Task = Generator[Tensor, tuple[Tensor, Tensor], Result]  # yields matrices, gets their singular values and vectors


class TrackerState(TypedDict):
    """The state of a ``NormTracker``, in tensors and numbers only; ``states`` holds what it tracks, by layer."""

    updates: int
    deficits: dict[str, float]
    states: dict[str, dict[str, Tensor]]


class NormTracker:
    """Track the norm 2 of every convolution and linear layer during training, from below and at little cost.

    Call ``update`` after optimizer steps. The first call and every ``refresh``-th after it compute the norms and
    choose what to track: the largest Fourier blocks of a layer (at most ``candidates``), or, where it has none, the
    layer as a whole. The calls between take the largest value on the Krylov space that ``steps`` steps build from the
    vectors of the last call; they also try as many other blocks in turn, which may replace a tracked one.
    ``deficits`` holds, by layer, the relative error of the estimate just before the last refresh. The sizes of the
    layers' inputs are those of ``model(x)``. Raises ``ValueError`` for settings below 1 and where ``conv_operators``
    does.

    >>> layer = nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")
    >>> tracker = NormTracker(nn.Sequential(layer), torch.ones(1, 1, 4))
    >>> _ = nn.init.ones_(layer.weight)
    >>> {name: round(norm, 3) for name, norm in tracker.update().items()}
    {'0': 3.0}
    """

    def __init__(self, model: nn.Module, x: Tensor, refresh: int = 50, candidates: int = 16, steps: int = 2) -> None:
        for name, number in (("refresh", refresh), ("candidates", candidates), ("steps", steps)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}; 50, 16 and 2 are usual")
        self.model, self.refresh, self.candidates, self.steps = model, refresh, candidates, steps
        self.shapes = input_shapes(model, x)
        self.updates = 0
        self.deficits: dict[str, float] = {}
        self._states: dict[str, dict[str, Tensor]] = {}
        self._operators()  # raises now for a layer without an operator

    @torch.no_grad()
    def update(self) -> dict[str, float]:
        """Return the norm of each layer with its present weights: exact at a refresh, else an estimate from below.

        Raises ``ValueError`` with the layer's name for weights that are not finite; the tracker is then as before.
        """
        norms: dict[str, float] = {}
        states, deficits = dict(self._states), dict(self.deficits)
        operators = self._operators()
        followed = _side_by_side({name: _follow(operators[name], states[name], self.steps) for name in states})
        for name, A in operators.items():
            if name in states:
                norms[name], states[name] = followed[name]
            if self.updates % self.refresh == 0:
                exact, state = _start(A, self.candidates, states.get(name))
                if name in states:
                    deficits[name] = max(0.0, 1 - norms[name] / exact) if exact > 0 else 0.0
                norms[name], states[name] = exact, state
        self._states, self.deficits = states, deficits
        self.updates += 1
        return norms

    def state_dict(self) -> TrackerState:
        """Return everything but the model and the arguments, in tensors and numbers only."""
        states = {name: dict(state) for name, state in self._states.items()}
        return {"updates": self.updates, "deficits": dict(self.deficits), "states": states}

    def load_state_dict(self, state_dict: TrackerState) -> None:
        """Continue from the state of another tracker; raise ``ValueError`` if it tracked other layers."""
        unknown = state_dict["states"].keys() - self.shapes.keys()
        if unknown or (state_dict["states"] and state_dict["states"].keys() != self.shapes.keys()):
            raise ValueError(
                f"needed the state of a tracker of layers {sorted(self.shapes)}, got one of "
                f"{sorted(state_dict['states'])}; make the tracker for the model that the state belongs to"
            )
        self.updates, self.deficits = int(state_dict["updates"]), dict(state_dict["deficits"])
        self._states = {name: dict(state) for name, state in state_dict["states"].items()}

    def _operators(self) -> dict[str, ConvOperator]:
        """Return the operator of each layer with its present weights."""
        operators: dict[str, ConvOperator] = {}

        def largest() -> Tensor:
            # of a copy: a parametrized weight may take a step when it is read in training
            with evaluation_copy(self.model, parameter=widened) as copy:
                for name, shape in self.shapes.items():
                    operators[name] = layer_operator(name, copy.get_submodule(name), shape)
            entries = [A.kernel.abs().amax() for A in operators.values()]
            return torch.stack([entry.to(entries[0].device, torch.float32) for entry in entries])

        checked_at_once(largest)
        return operators


# ---- private -------------------------------------------------------------------------------------------------------
def _start(A: ConvOperator, candidates: int, state: dict[str, Tensor] | None) -> tuple[float, dict[str, Tensor]]:
    """Return the norm of a layer and the state from which to follow it; ``state`` is what followed it up to now."""
    B = replace(A, kernel=A.kernel.double())
    if not A.is_block_circulant:
        side = min(math.prod(A.in_shape), math.prod(A.out_shape))
        if state is None:
            others = _random(math.prod(A.in_shape), min(side, FREE_WIDTH), A.kernel).real
        else:
            others = state["vectors"][0].to(A.kernel)
        if side <= DENSE_LIMIT:
            first = torch.linalg.svd(B.matrix(), full_matrices=False).Vh[0]
        else:
            start = None if state is None else others[:, 0]
            first = leading_right_vectors(B, 1, RESIDUALS[A.kernel.dtype], start)[0].flatten()
        norm = B(first.view(1, *A.in_shape)).norm()
        vectors = torch.cat([first[:, None].to(others), others], 1)[:, : others.shape[1]]
        return float(norm), {"vectors": torch.linalg.qr(vectors)[0][None]}
    blocks, exact = Blocks(A), Blocks(B)
    frequency, group = top_frequency(blocks)
    _, S, Vh = torch.linalg.svd(exact.group(group).at(frequency)[0, 0], full_matrices=False)
    groups, _, rows, columns = blocks.taps.shape
    total = len(blocks.frequencies) * groups
    start = _random(columns, 1, blocks.taps)
    values = []
    for some in torch.arange(total, device="cpu").split(max(1, CHUNK // (16 * rows * columns))):
        V = start.expand(len(some), -1, -1)
        values.append(_alone(_improve(_products(_numbered(blocks, some)), V, RANKING_STEPS))[0])
    top = int((blocks.frequencies == frequency).all(1).nonzero()[0, 0]) * groups + group
    values = torch.cat(values)
    values[top] = math.inf  # what is known
    index = values.topk(min(candidates, total)).indices
    width = min(rows, columns, max(WIDTH, candidates // total))
    start = _random(columns, width, blocks.taps).expand(len(index), -1, -1)
    _, V = _alone(_improve(_products(_numbered(blocks, index)), start, RANKING_STEPS))
    V[0] = Vh[:width].mH
    return float(S[0]) * exact.scale, {"vectors": V, "index": index, "next": torch.tensor(0, device="cpu")}


def _follow(A: ConvOperator, state: dict[str, Tensor], steps: int) -> Task[tuple[float, dict[str, Tensor]]]:
    """Return an estimate of the norm from below, and the state after some more steps."""
    V = state["vectors"]
    if "index" not in state:

        def forward(V: Tensor) -> Tensor:
            return A(V[0].mT.reshape(-1, *A.in_shape)).flatten(1).mT[None]

        def backward(U: Tensor) -> Tensor:
            return A.adjoint(U[0].mT.reshape(-1, *A.out_shape)).flatten(1).mT[None]

        values, V = yield from _improve((forward, backward), V.to(A.kernel), steps, WIDTH)
        return float(values), {"vectors": V}
    blocks, index = Blocks(A, scale=1), state["index"].cpu()
    total = len(blocks.frequencies) * len(blocks.taps)
    V = V.to(blocks.taps.device, blocks.taps.dtype.to_complex())
    values, V = yield from _improve(_products(_numbered(blocks, index)), V, steps)
    # as many other blocks in turn, from what the largest has taught: one that grew takes the place of the least
    turn = (state["next"].cpu() + torch.arange(len(index), device="cpu")) % total
    others = turn[~torch.isin(turn, index)]
    if len(others):
        start = _random(V.shape[1], V.shape[2], blocks.taps)
        start[:, 0] = V[values.argmax(), :, 0]
        products = _products(_numbered(blocks, others))
        more, W = yield from _improve(products, start.expand(len(others), -1, -1), steps)
        values, best = torch.cat([values, more]).topk(len(index))
        V, index = torch.cat([V, W])[best], torch.cat([index, others])[best]
    return float(values.max()), {"vectors": V, "index": index, "next": (turn[-1] + 1) % total}


def _numbered(blocks: Blocks, index: Tensor) -> Tensor:
    """Return blocks by their number, frequency times groups plus group: ``(len(index), rows, columns)``."""
    groups, _, rows, columns = blocks.taps.shape
    frequencies, group = blocks.frequencies[index // groups], index % groups
    if groups == 1:
        return blocks.group(0).at(frequencies)[:, 0]
    found = blocks.taps.new_empty(len(index), rows, columns, dtype=blocks.taps.dtype.to_complex())
    for g in group.unique().tolist():
        places = (group == g).nonzero()[:, 0]
        found[places] = blocks.group(g).at(frequencies[places])[:, 0]
    return found


def _random(columns: int, width: int, like: Tensor) -> Tensor:
    """Return the same random columns at each call, complex, of the precision and device of ``like``."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(columns, width, generator=generator, dtype=torch.float32, device="cpu")
    return drawn.to(like).to(like.dtype.to_complex())


def _products(blocks: Tensor) -> tuple[Product, Product]:
    """Return the functions that multiply by the blocks and by their adjoints."""
    return lambda V: blocks @ V, lambda U: blocks.mH @ U


def _improve(
    products: tuple[Product, Product], V: Tensor, steps: int, leading: int | None = None
) -> Task[tuple[Tensor, Tensor]]:
    """Return the largest singular values and the leading vectors of B on a space around V.

    It is the Krylov space of ``B* B`` from V, or V and that from its ``leading`` columns.

    ``V`` and the returned vectors have shape ``(batch, columns, width)``; those are orthonormal. The values are on the
    CPU.
    """
    forward, backward = products
    Q, images, done = V, [], 0
    for step in range(steps + 1):
        Q, R = torch.linalg.qr(Q)
        units = R.diagonal(dim1=-2, dim2=-1).sgn()
        Q = Q * torch.where(units == 0, 1, units)[..., None, :]  # so columns that were orthonormal stay as they are
        images.append(forward(Q[..., done:]))
        done = Q.shape[-1]
        if step == steps or done == Q.shape[-2]:
            break
        W = backward(images[-1][..., :leading])
        W = W / W.norm(dim=-2, keepdim=True).clamp_min(torch.finfo(W.dtype).tiny)
        Q = torch.cat([Q, W], dim=-1)[..., : W.shape[-2]]
    S, Vh = yield torch.cat(images, dim=-1)  # Rayleigh-Ritz
    return S[..., 0], (Q @ Vh.mH)[..., : V.shape[-1]]


def _side_by_side(tasks: Mapping[str, Task[Result]]) -> dict[str, Result]:
    """Run tasks in turns and return their results: what they yield is decomposed for all of them together."""
    results: dict[str, Result] = {}
    answers: dict[str, tuple[Tensor, Tensor] | None] = dict.fromkeys(tasks)
    while answers:
        asked: dict[str, Tensor] = {}
        for name, answer in answers.items():
            try:
                asked[name] = next(tasks[name]) if answer is None else tasks[name].send(answer)
            except StopIteration as end:
                results[name] = end.value
        answers = dict(zip(asked, _decomposed(list(asked.values())), strict=True))
    return results


def _alone(task: Task[Result]) -> Result:
    return _side_by_side({"": task})[""]


def _decomposed(matrices: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return the singular values, on the CPU, and the right singular vectors, as rows, of batches of matrices.

    A GPU takes the eigenvectors of ``M* M``, small and in float64, from the CPU: the one copy is the only wait.
    """
    there = [M.to(torch.complex128) for M in matrices if M.is_cuda]
    grams = [M.mH @ M for M in there]
    if grams:
        flat = torch.cat([gram.flatten().to(grams[0].device) for gram in grams]).cpu()
        parts = flat.split([gram.numel() for gram in grams])
        grams = [part.view(gram.shape) for part, gram in zip(parts, grams, strict=True)]
    found: list[tuple[Tensor, Tensor]] = []
    for M in matrices:
        if M.is_cuda:
            gram = grams.pop(0)
            squares, V = torch.linalg.eigh(gram if M.is_complex() else gram.real)
            found.append((squares.flip(-1).clamp_min(0).sqrt().to(M.dtype.to_real()), V.flip(-1).mH.to(M)))
        else:
            _, S, Vh = torch.linalg.svd(M, full_matrices=False)
            found.append((S.cpu(), Vh))
    return found
