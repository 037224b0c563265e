"""How often attacks, the tracker and ``measure`` wait for a GPU, as each copy to the host does and each count."""

import math

import pytest
import torch
from torch import nn

from convkit.attacks import ATTACKS as ATTACKS_BY_NAME
from convkit.attacks import fgsm, pgd, robust_accuracy, simba
from convkit.audit.measurement import measure
from convkit.audit.tracker import NormTracker
from convkit.models import build_model
from convkit.norms import operator_norm
from convkit.operators.network import conv_operators
from convkit.spectra import channel_condition_numbers
from tests.helpers.refusals import refused

fakecuda = pytest.importorskip("fakecuda", reason="needs the pretended GPU: python3 -m convkit test --pretend-gpu")

COUNT = 12


def waits(call) -> int:
    """How often the second call waits, which finds what the first one may have made to be kept."""
    call()
    with fakecuda.counted() as counts:
        call()
    return counts.waited


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_model("cnn9", in_channels=1, image_size=8, widths=(4, 6, 8)).cuda().eval()


@pytest.fixture(scope="module")
def batch(network):
    x = torch.rand(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(1)).cuda()
    return x, network(x).argmax(1)


ATTACKS = {
    "fgsm": lambda *batch: fgsm(*batch, 0.1),
    "pgd": lambda *batch: pgd(*batch, 0.1, 0.03, 10),
    "in the 2-norm, thrice": lambda *batch: pgd(*batch, 0.5, 0.1, 5, norm=2, restarts=3),
    "sizes of images": lambda m, x, y: pgd(m, x, y, torch.linspace(0.1, 0.2, len(x)).cuda(), 0.1, 5),
    "the last image, from a normal start": lambda *batch: pgd(*batch, 0.1, 0.03, 5, start="normal", result="last"),
    **{name: ATTACKS_BY_NAME[name] for name in ("c-fgsm", "c-pgd-10")},
    "at targets": lambda m, x, y: pgd(m, x, y, 0.1, 0.03, 5, targets=(y + 1) % 7, loss="margin"),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_gradient_attacks_wait_once(attack, network, batch):
    assert waits(lambda: attack(network, *batch)) == 1


def test_an_attack_that_leaves_fallen_images_alone_counts_them_once_a_step(network, batch):
    assert waits(lambda: pgd(network, *batch, 1e-4, 1e-4, 10, until_wrong=True)) == 1 + 11  # the clean images, too


@pytest.mark.parametrize("basis", ["pixel", "dct"])
def test_simba_counts_the_images_once_a_query(basis, network, batch):
    steps, at_first = 10, 1
    assert waits(lambda: simba(network, *batch, 1e-4, basis, steps)) <= 1 + at_first + 2 * steps


def test_robust_accuracy_waits_twice_a_batch_beside_its_attacks(network, batch):
    batches, attacks = [batch] * 3, {"shift": lambda m, x, y: (x + 1e-3).clamp(0, 1), "fgsm": lambda *b: fgsm(*b, 0.1)}
    found = waits(lambda: robust_accuracy(network, batches, attacks, progress=False))
    assert found == len(batches) * (2 + 1)  # of which fgsm's own


def test_the_tracker_waits_once_for_all_layers(network, batch):
    tracker = NormTracker(network, batch[0])
    tracker.update()
    assert waits(tracker._operators) == 1  # whether all kernels are finite
    assert waits(tracker.update) == 2


def test_measure_waits_once_beside_its_norms_and_condition_numbers(network, batch):
    with torch.no_grad():

        def numbers():
            operators = {name: A.torus() for name, A in conv_operators(network, batch[0], "note").items()}
            for A in operators.values():
                operator_norm(A, 2)
            for A in operators.values():
                if max(A.input_shape) > 1:
                    channel_condition_numbers(A).median()

        assert waits(lambda: measure(network, batch[0])) == waits(numbers) + 1


class Deep(nn.Module):
    """A network that may fail in its forward pass, or give logits that are not finite."""

    def __init__(self, fails: bool = False, factor: float = 1.0) -> None:
        super().__init__()
        self.fails, self.factor, self.layer = fails, factor, nn.Linear(4, 3)

    def forward(self, x):
        if self.fails:
            raise RuntimeError("too deep")
        return self.factor * self.layer(x)


@pytest.mark.parametrize(
    "attack", [lambda *b: pgd(*b, 0.1, 0.1, 3), lambda *b: simba(*b, 0.1), lambda *b: fgsm(*b, 0.1)]
)
def test_what_is_read_at_the_end_is_refused_all_the_same(attack):
    model, x, y = Deep().cuda(), torch.rand(2, 4, device="cuda"), torch.tensor([0, 2], device="cuda")
    refused("images must lie in", attack, model, 2 * x + 1, y)
    refused("labels must lie in 0 .. 2", attack, model, x, y + 1)
    refused("finite logits", attack, Deep(factor=math.nan).cuda(), x, y)
    refused("images must lie in", attack, Deep(fails=True).cuda(), x - 1, y)  # which may be why it fails
    with pytest.raises(RuntimeError, match="too deep"):
        attack(Deep(fails=True).cuda(), x, y)
