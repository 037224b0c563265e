"""Public weights: those of torchvision's ResNet-18 and ResNet-50, read into the networks of the kit."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn

from convkit.checks import described, few
from convkit.models.network import Network
from convkit.models.residual import Residual

STAGES = {8: (2, 2, 2, 2), 16: (3, 4, 6, 3)}  # the blocks of ResNet-18 and of ResNet-50, stage by stage
COUNT = "num_batches_tracked"  # which the oldest files do not have


@torch.no_grad()
def load_torchvision(model: Network, weights: Mapping[str, Tensor] | str | Path) -> Network:
    """Copy the weights of torchvision's ResNet-18 or ResNet-50 into the kit's network, in place, and return it.

    The outputs in evaluation mode are then those of torchvision's network, for images with the same normalization. Its
    weights for ImageNet expect the mean (0.485, 0.456, 0.406) and the standard deviation (0.229, 0.224, 0.225), as the
    first step of the network (``mean=`` and ``std=``).

    Args:
        model: ``resnet18`` or ``resnet50`` with ``stem="imagenet"``, the layers of ``batchnorm_layer`` or of the method
            ``"batchnorm"``, and as many classes as the weights have: 1000 for ImageNet.
        weights: A ``state_dict`` with torchvision's names (``conv1.weight``, ``layer1.0.bn1.bias``, ``fc.weight``,
            ...), or a file that holds one and nothing else. A file is read without running pickled code.

    Weights are converted to the dtype and the device of the network. ``num_batches_tracked``, which old files do not
    have, may be missing. Raises ``ValueError``, before any change, for another network, for names that are missing or
    unknown, and for other shapes; and ``OSError`` for a file that cannot be opened.

    >>> from convkit.models import batchnorm_layer, build_model
    >>> resnet = build_model("resnet18", layer=batchnorm_layer, width=1 / 16, stem="imagenet")
    >>> names = torchvision_names(resnet)
    >>> names["layer2.0.downsample.0.weight"], tuple(resnet.state_dict()[names["layer2.0.downsample.0.weight"]].shape)
    ('block3.shortcut.conv.weight', (8, 4, 1, 1))
    """
    names, ours = torchvision_names(model), model.state_dict()
    theirs = weights if isinstance(weights, Mapping) else _read(Path(weights))
    missing = [name for name in names if name not in theirs and not name.endswith(COUNT)]
    unknown = [str(name) for name in theirs if name not in names]
    if missing or unknown:
        found = [f"{word} {few(some)}" for word, some in (("missing", missing), ("unknown", unknown)) if some]
        raise ValueError(
            f"needed the {len(names)} names of the same network in torchvision, got {' and '.join(found)}; load a "
            "state_dict of that network"
        )
    for name, value in theirs.items():
        wanted = ours[names[name]].shape
        came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if came != tuple(wanted):
            raise ValueError(
                f"{name} needs shape {tuple(wanted)}, got {came}; build the network with the width and the classes of "
                "the weights"
            )
    for name, value in theirs.items():
        ours[names[name]].copy_(value)
    return model


def torchvision_names(model: Network) -> dict[str, str]:
    """Return the names in ``model.state_dict()`` by those that torchvision's network has for the same numbers.

    Raises ``ValueError`` for a network that is not ``resnet18`` or ``resnet50`` with ``stem="imagenet"`` and with a
    plain convolution without bias before each BatchNorm.
    """
    names: dict[str, str] = {}
    for theirs, ours in _modules(model):
        names |= {f"{theirs}.{key}": f"{ours}.{key}" for key in model.get_submodule(ours).state_dict()}
    others = {name for name in model.state_dict() if not name.startswith("normalize.")} - {*names.values()}
    if others:
        _refuse(f"one that also has {few(sorted(others))}")
    return names


# ---- private ---------------------------------------------------------------------------------------------------------
def _modules(model: Network) -> Iterator[tuple[str, str]]:
    """Yield torchvision's name and ours of each convolution, each BatchNorm and the head."""
    children = dict(model.named_children())
    blocks = [name for name, child in children.items() if isinstance(child, Residual)]
    if len(blocks) not in STAGES or not {"stem", "pool", "head"} <= {*children}:
        _refuse(f"{type(model).__name__} with the steps {few([*children])}")
    yield from _layer(model, "stem", "conv1", "bn1")
    places = [(stage, i) for stage, count in enumerate(STAGES[len(blocks)], start=1) for i in range(count)]
    for name, (stage, i) in zip(blocks, places, strict=True):
        theirs, block = f"layer{stage}.{i}", model.get_submodule(name)
        for number in range(1, 4):
            if hasattr(block, f"conv{number}"):
                yield from _layer(model, f"{name}.conv{number}", f"{theirs}.conv{number}", f"{theirs}.bn{number}")
        if not isinstance(block.shortcut, nn.Identity):
            yield from _layer(model, f"{name}.shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    yield "fc", "head"


def _layer(model: nn.Module, name: str, conv: str, norm: str) -> Iterator[tuple[str, str]]:
    """Yield the names of a convolution and of the BatchNorm behind it; raise ``ValueError`` for another layer."""
    layer = model.get_submodule(name)
    steps = [(child, type(module)) for child, module in layer.named_children()]
    plain = [kind for _, kind in steps] == [nn.Conv2d, nn.BatchNorm2d]
    if not plain or {*layer.get_submodule(steps[0][0]).state_dict()} != {"weight"}:
        _refuse(f"{type(layer).__name__} with {few([*layer.state_dict()])} as {name}")
    yield from zip((conv, norm), (f"{name}.{child}" for child, _ in steps), strict=True)


def _read(path: Path) -> Mapping[str, Tensor]:
    """Return the state_dict in a file."""
    path.open("rb").close()  # the system's error for a file that is missing or cannot be read
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch meets in a damaged or foreign file
        raise ValueError(
            f"needed a file with a state_dict, got {path}, which cannot be read as one ({type(error).__name__}); fetch "
            "it again, or save the state_dict alone by torch.save"
        ) from error
    if not isinstance(state, Mapping):
        raise ValueError(f"needed a file with a state_dict, got {path} with {described(state)}; save it alone")
    return state


def _refuse(came: str) -> NoReturn:
    raise ValueError(
        "needed resnet18 or resnet50 with stem='imagenet' whose layers are plain convolutions without bias and "
        f"BatchNorm, got {came}; build it by build_model('resnet50', layer=batchnorm_layer, stem='imagenet', ...)"
    )
