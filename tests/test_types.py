"""What a type checker tells someone who uses the library: right uses pass, and each misuse is found in its line."""

import json
import subprocess
import sys

import pytest

from tests import ROOT

RIGHT = """
from dataclasses import replace

import torch
from torch import Tensor, nn

from convkit import ConvOperator, NoFourierBlocks, conv_operators, input_shapes, leading_singular_values, operator_norm
from convkit.attacks import pgd
from convkit.audit import layer_table
from convkit.data import DATA, Loader, digits
from convkit.methods import METHODS, Knob, Method, Settings, Shapes
from convkit.models import MODELS, LayerFactory, plain_layer
from convkit.operators import HasOperator
from convkit.training import Objective, PGDTraining, fit

kernel = torch.ones(2, 3, 3, 3)
A = ConvOperator(kernel, 8)
B = ConvOperator(kernel, (8, 9), stride=(1, 3), padding="valid", dilation=[1, 2], padding_mode="zeros")
C = ConvOperator(kernel, kernel.shape[2:], 1, ((1, 1), (0, 2)), groups=2)
D = ConvOperator(kernel, 8, padding=1)
stride: tuple[int, ...] = replace(B, kernel=-kernel).stride
rows: tuple[tuple[int, int], ...] = C.pads
norm: Tensor = operator_norm(A, 2)
try:
    leading_singular_values(B.torus(), 3)
except NoFourierBlocks as error:
    text: str = str(error)


class Twice(nn.Module):
    def operator(self, input_shape: object) -> ConvOperator:
        return A


def measured(layer: HasOperator) -> Tensor:
    return operator_norm(layer.operator((8, 9)), 2) + operator_norm(ConvOperator.from_layer(layer, 8), 2)


measured(Twice())
pgd(nn.Flatten(), kernel, kernel, 0.1, 0.1, 3, norm="inf", loss=lambda logits, y: logits[:, 0])
norms: list[float] = layer_table(nn.Conv2d(3, 2, 3), torch.ones(1, 3, 8, 9)).column("norm2")
ConvOperator.from_layer(nn.Conv2d(3, 2, 3), (8, 9))
shapes: dict[str, tuple[int, ...]] = input_shapes(nn.Conv2d(3, 2, 3), torch.ones(1, 3, 8, 9))
operators: dict[str, ConvOperator] = conv_operators(nn.Conv2d(3, 2, 3), torch.ones(1, 3, 8, 9))


def small(layer: object = plain_layer, **options: int) -> nn.Module:
    return nn.Conv2d(3, 2, 3)


MODELS.register("small", small)
DATA.register("mine", Loader(digits, offline=True))


def layers(knobs: Settings) -> LayerFactory:
    return plain_layer


def penalty(model: nn.Module, shapes: Shapes, knobs: Settings) -> Tensor:
    return float(knobs["strength"]) * sum((weight.abs().sum() for weight in model.parameters()), torch.zeros(()))


mine = Method("mine", "my method", "nobody", layers, {"strength": Knob(0.1, "strength")}, penalty=penalty)
METHODS.register("mine", mine)
objective: Objective = PGDTraining(0.1)
losses: list[float] = [r.loss for r in fit(small(), digits(), mine, steps=3, seed=1, objective=objective)]
"""
WRONG = [
    'ConvOperator(kernel, "eight")',
    "ConvOperator(kernel, 8.0)",
    "ConvOperator(kernel, (8, 9.5))",
    "ConvOperator(kernel, 8, stride=1.5)",
    "ConvOperator(kernel, 8, stride=[1.5])",
    "ConvOperator(kernel, 8, padding=None)",
    'ConvOperator(kernel, 8, padding="full")',
    'ConvOperator(kernel, 8, dilation="2")',
    "ConvOperator(kernel, 8, groups=(1, 2))",
    'ConvOperator(kernel, 8, padding_mode="reflected")',
    "ConvOperator([[[1.0]]], 8)",
    "ConvOperator(kernel)",
    "A.stride = (2, 2)",
    "count: int = operator_norm(A, 2)",
    "side: int = A.input_shape",
    'ConvOperator.from_layer("conv", 8)',
    "measured(nn.Conv2d(3, 2, 3))",
    'pgd(nn.Flatten(), kernel, kernel, 0.1, 0.1, 3, norm="l2")',
    "pgd(nn.Flatten(), kernel, kernel, 0.1, 0.1, 3, loss=operator_norm)",
    'MODELS.register("small", 3)',
    'DATA.register("mine", digits)',
    'Method("mine", "my method", "nobody", plain_layer, {})',
    'Method("mine", "my method", "nobody", layers, {"strength": 0.1})',
    "factory: LayerFactory = nn.Linear",
    'fit(small(), digits(), "mine", steps=3, batchsize=64)',
    'fit(small(), digits(), "mine", steps=3, objective=nn.functional.cross_entropy)',
]


@pytest.mark.slow
def test_a_type_checker_passes_right_uses_and_finds_each_misuse(tmp_path):
    pytest.importorskip("pyright")
    assert (ROOT / "convkit" / "py.typed").exists()  # without it other checkers take every name for one of any type
    lines = [*RIGHT.splitlines(), *WRONG]
    (tmp_path / "consumer.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {"include": ["consumer.py"], "extraPaths": [str(ROOT)], "typeCheckingMode": "standard"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = json.loads(result.stdout)["generalDiagnostics"]
    assert all(one["file"].endswith("consumer.py") for one in found)
    wrong = {lines[one["range"]["start"]["line"]]: one["message"] for one in found if one["severity"] == "error"}
    assert sorted(wrong) == sorted(WRONG), wrong
