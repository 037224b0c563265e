"""The pretended device is as strict as a GPU where mistakes are made, and computes what the CPU computes."""

import copy

import pytest
import torch
from torch import nn

fakecuda = pytest.importorskip(
    "fakecuda", reason="needs the pretended CUDA device: python3 -m convkit test --pretend-gpu"
)
counted = fakecuda.counted
GPU = torch.device("cuda")
X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))

MISTAKES = {
    "a sum over two devices": lambda x: x + X,
    "a product over two devices": lambda x: x @ X,
    "tensors joined over two devices": lambda x: torch.cat([x, X]),
    "a kernel left behind": lambda x: nn.functional.conv2d(x, torch.ones(2, 3, 3, 3)),
    "a generator of the CPU": lambda x: torch.randn(2, device=GPU, generator=torch.Generator()),
    "whole numbers multiplied": lambda x: x.long()[0, 0] @ x.long()[0, 0],
    "indices of the GPU into the CPU": lambda x: X[torch.tensor([0], device=GPU)],
    "an index_add over two devices": lambda x: x.index_add(0, torch.tensor([0]), x[:1]),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_what_a_gpu_refuses_is_refused(mistake):
    with pytest.raises(RuntimeError):
        mistake(X.to(GPU))


def test_numpy_needs_the_cpu():
    with pytest.raises(TypeError, match="cpu"):
        X.to(GPU).numpy()


def test_what_a_gpu_allows_is_allowed():
    x = X.to(GPU)
    assert (x * torch.tensor(2.0)).is_cuda
    assert x[torch.tensor([0, 1])].is_cuda
    assert torch.where(x > 0, x, torch.tensor(0.0)).is_cuda
    assert (x.long() // 3).is_cuda


def test_training_is_that_of_the_cpu():
    def trained(device):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(320, 2)
        ).to(device)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        for _ in range(3):
            loss = nn.functional.cross_entropy(model(X.to(device)), torch.tensor([0, 1, 0, 1], device=device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return copy.deepcopy(model).cpu().state_dict()

    torch.testing.assert_close(trained("cuda"), trained("cpu"))


CELLS = {
    "LSTM": (lambda: nn.LSTM(3, 5, num_layers=2), (4, 2, 3)),
    "LSTM without bias": (lambda: nn.LSTM(3, 5, bias=False), (4, 2, 3)),
    "GRU": (lambda: nn.GRU(3, 5, bidirectional=True), (4, 2, 3)),
    "GRU without bias": (lambda: nn.GRU(3, 5, bias=False), (4, 2, 3)),
    "a cell of a GRU": (lambda: nn.GRUCell(3, 5), (2, 3)),
    "a cell of an LSTM": (lambda: nn.LSTMCell(3, 5), (2, 3)),
}


@pytest.mark.parametrize("make, shape", CELLS.values(), ids=CELLS.keys())
def test_recurrent_layers_and_their_gradients_are_those_of_the_cpu(make, shape):
    def answers(device):
        torch.manual_seed(0)
        layer, x = make().to(device), torch.rand(shape).to(device).requires_grad_()
        answer = layer(x)
        answer = answer[0] if isinstance(answer, tuple) else answer
        gradients = torch.autograd.grad(answer.square().sum(), [x, *layer.parameters()])
        return [t.cpu() for t in (answer.detach(), *gradients)]

    torch.testing.assert_close(answers("cuda"), answers("cpu"))


@pytest.mark.parametrize("f", [torch.softmax, torch.log_softmax])
def test_a_softmax_from_half_precision_to_float_and_its_gradient_are_those_of_the_cpu(f):
    def answers(device):
        x = X[0, 0].half().to(device).requires_grad_()
        answer = f(x, 1, dtype=torch.float32)
        (gradient,) = torch.autograd.grad(answer.square().sum(), x)
        assert gradient.dtype == torch.float16
        return answer.detach().cpu(), gradient.cpu()

    torch.testing.assert_close(answers("cuda"), answers("cpu"))


def test_the_mean_squared_error_is_that_of_the_cpu():
    torch.testing.assert_close(nn.functional.mse_loss(X.to(GPU), X.to(GPU) ** 2).cpu(), nn.functional.mse_loss(X, X**2))


def test_drawing_on_the_device_leaves_the_cpu_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    torch.rand(3, device=GPU)
    assert torch.equal(torch.get_rng_state(), before)
    torch.cuda.manual_seed(1)
    first = torch.rand(3, device=GPU)
    torch.cuda.manual_seed(1)
    assert torch.equal(torch.rand(3, device=GPU), first)


def test_launches_and_waits_are_counted():
    x = X.to(GPU)
    with counted() as counts:
        float((x * 2).sum())
    assert counts.launches >= 3
    assert counts.waits == {"item": 1}


def test_there_is_no_real_gpu():
    assert torch.cuda.is_available()
    assert fakecuda.cuda._pretended
