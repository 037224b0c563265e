"""The command ``python3 -m convkit audit``: a table and a page about the layers of a network in a file."""

import argparse
import hashlib
import html
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from convkit.audit.table import LayerTable, layer_table
from convkit.checks import described, few, whole
from convkit.data.dataset import Data
from convkit.loading import MissingExtraError, needs
from convkit.methods.build import network
from convkit.methods.registry import get_method
from convkit.models.checkpoints import load_torchvision
from convkit.models.layers import batchnorm_layer, plain_layer
from convkit.models.registry import MODELS

Model = TypeVar("Model", bound=nn.Module)
COLUMNS = ("norm1", "norm2", "norm_inf", "stable_rank")
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif; line-height: 1.5 }}
body {{ max-width: 85rem; margin: 2rem auto; padding: 0 1rem }}
div {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .2rem .7rem; text-align: left; white-space: nowrap; border-bottom: 1px solid #8884 }}
</style>
</head>
<body>
<h1>{title}</h1>
{facts}<div tabindex="0">{table}</div>
<h2>How to read the table</h2>
<p>A layer is a linear map between its inputs and outputs, so it is a matrix. Norm 1 and norm inf are the largest sums
of absolute values in a column and in a row of it. Norm 2 is the largest factor by which the layer stretches an input;
the last column says how it was computed. The stable rank is the squared Frobenius norm over the squared norm 2.</p>
<p>{missing}</p>
</body>
</html>
"""


def main(arguments: list[str]) -> int:
    """Run the command ``python3 -m convkit audit`` and return its exit status."""
    parser = argparse.ArgumentParser(prog="convkit audit", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="a state_dict, as .pt (torch.save) or .safetensors")
    parser.add_argument("--arch", required=True, metavar="NAME", help=f"the network: {', '.join(MODELS)}")
    parser.add_argument("--size", required=True, type=int, metavar="N", help="height and width of the images")
    parser.add_argument("--method", metavar="NAME", help="the method whose layers it has; else plain or batchnorm")
    words = "an argument of the network, such as width=0.5 or widths=[16,32,64]; may be repeated"
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help=words)
    parser.add_argument("--exact", action="store_true", help="norm 2 itself, not its bound on the torus: much slower")
    parser.add_argument("--folded", action="store_true", help="with the gains of the BatchNorm behind each layer")
    parser.add_argument("--page", type=Path, metavar="FILE", help="where the page goes; else FILE.html, in this folder")
    options = parser.parse_args(arguments)
    try:
        page = options.page or Path(f"{options.file.name}.html")
        state = read_state(options.file)
        model = load(state, options.arch, options.size, options.method, dict(map(_option, options.option)))
        x = torch.zeros(1, _channels(state), options.size, options.size)
        table = layer_table(model, x, columns=COLUMNS, torus=not options.exact, folded=options.folded)
        print(table)
        words = f"{options.file.name} as {options.arch}, on images of {options.size} × {options.size} pixels"
        page.write_text(as_page(words, options.file, model, table), encoding="utf-8")
        print(f"written to {page}")
    except (ValueError, MissingExtraError, OSError) as error:
        print(f"convkit audit: {error}", file=sys.stderr)
        return 1
    return 0


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the state_dict in a file, without the prefixes of ``DistributedDataParallel`` and ``torch.compile``.

    A file that also holds other things is read at its entry ``"state_dict"`` or ``"model"``. No pickled code is run.
    Raises ``OSError`` for a file that cannot be opened and ``ValueError`` for one that holds no state_dict.
    """
    path.open("rb").close()  # the system's error for a file that is missing or cannot be read
    read = partial(torch.load, map_location="cpu", weights_only=True)
    if path.suffix == ".safetensors":
        with needs("safetensors", f"reading {path}"):
            read = import_module("safetensors.torch").load_file
    try:
        state = read(path)
    except Exception as error:  # whatever a damaged or foreign file leads to
        raise ValueError(
            f"needed a file of weights alone, got {path}, which cannot be read as one ({type(error).__name__}) without "
            "running code that it may hold; save the weights by torch.save(model.state_dict(), FILE)"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"needed a state_dict, names and tensors, got {path} with {described(state)}; save that alone")
    for prefix in ("_orig_mod.", "module."):
        if all(str(name).startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return dict(state)


def load(
    state: Mapping[str, Tensor],
    arch: str,
    size: int,
    method: str | None = None,
    options: Mapping[str, object] | None = None,
) -> nn.Module:
    """Return the network ``arch`` with the weights of a state_dict, in the names of the kit or of torchvision.

    Args:
        state: The weights.
        arch: A name in ``MODELS``.
        size: Height and width of the images in pixels.
        method: The name in ``METHODS`` whose layers the network has; ``None`` for ``"batchnorm"`` where the weights
            have BatchNorm's, and ``"plain"`` elsewhere.
        options: Other arguments of the function in ``MODELS``.

    Raises ``ValueError`` for unknown names, and for weights of another network.
    """
    builder: Callable[..., Any] = MODELS[arch]
    size = whole("--size", size, 1)
    channels, classes = _channels(state), [value for value in state.values() if value.ndim == 2][-1:]
    if not classes:
        raise ValueError(f"needed the weights of a classifier, got {few([*state])}, none of them a matrix")
    options = dict(options or {})
    if "fc.weight" in state and "conv1.weight" in state:
        if arch not in ("resnet18", "resnet50"):
            raise ValueError(f"torchvision's names are read for resnet18 and resnet50, got {arch!r}; take one")
        options |= {"stem": "imagenet", "layer": batchnorm_layer, "width": len(state["conv1.weight"]) / 64}
        options |= {"image_size": size, "in_channels": channels, "classes": len(classes[0])}
        return load_torchvision(_built(builder, **options), state)
    normalized = any(name.endswith("running_var") for name in state)
    layers = get_method(method or ("batchnorm" if normalized else "plain"))
    if method is None and not any(name.endswith(".0.weight") for name in state):  # those of build_model's own factories
        factory = batchnorm_layer if normalized else plain_layer
        layers = replace(layers, layer=lambda knobs: factory)
    x, y = torch.zeros(2, channels, size, size, dtype=torch.uint8), torch.zeros(2, dtype=torch.long)
    data = Data("the file", x, y, x, y, [*map(str, range(len(classes[0])))])
    plain = {} if "normalize.mean" in state else {"mean": None, "std": None}
    model = _built(network, arch, data, layers, **plain, **options)
    ours = model.state_dict()
    found = {
        "missing": [name for name in ours if name not in state],
        "unknown": [name for name in state if name not in ours],
        "of another shape": [n for n in ours if n in state and ours[n].shape != state[n].shape],
    }
    if any(found.values()):
        came = " and ".join(f"{word} {few(names)}" for word, names in found.items() if names)
        raise ValueError(
            f"needed the weights of {arch} with the layers of {layers.name!r}, got others: {came}; name the network by "
            "--arch, its layers by --method and its width by --option"
        )
    model.load_state_dict(state)
    return model


def as_page(title: str, file: Path, model: nn.Module, table: LayerTable) -> str:
    """Return a page of HTML about the layers of a network, which loads nothing from elsewhere."""
    count = sum(weight.numel() for weight in model.parameters())
    version = sys.modules["convkit"].__version__  # this package, whose names are loaded on first use
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    facts = [
        f"{count:,} parameters, {len(table)} layers. {' '.join(getattr(model, 'notes', []))}",
        f"SHA-256 of the file: {digest}. Measured by convkit {version} with torch {torch.__version__}.",
    ]
    missing = "Every part of the network that has weights and is a linear map has a row."
    if table.missing or table.unfolded:
        missing = "What could not be measured, or not as asked, is named below the table."
    return PAGE.format(
        title=html.escape(title),
        facts="".join(f"<p>{html.escape(fact.strip())}</p>\n" for fact in facts),
        table=table._repr_html_(),
        missing=missing,
    )


# ---- private ---------------------------------------------------------------------------------------------------------
def _channels(state: Mapping[str, Tensor]) -> int:
    """Return the channels of the images: those that the first kernel takes."""
    kernels = [value for value in state.values() if value.ndim == 4]
    if not kernels:
        raise ValueError(f"needed the weights of a convolutional network, got one of {few([*state])}")
    return kernels[0].shape[1]


def _built(build: Callable[..., Model], *arguments: object, **options: object) -> Model:
    """Return what is built; an argument that the network does not have is a ``ValueError``."""
    try:
        return build(*arguments, **options)
    except TypeError as error:
        raise ValueError(f"--option does not fit the network: {error}") from error


def _option(text: str) -> tuple[str, object]:
    """Return the name and the value of an option ``NAME=VALUE``, whose value is read as JSON where it is that."""
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals):
        raise ValueError(f"--option needs NAME=VALUE, as in width=0.5, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
