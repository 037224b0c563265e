"""The networks of the papers, by name."""

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from convkit.models.cifar import resnet32, resnet110, wrn28_10
from convkit.models.cnn import cnn9, vgg11, vgg16
from convkit.models.network import Network
from convkit.models.regnet import regnetx_200mf
from convkit.models.resnet import resnet18, resnet50, senet18

_BUILDERS = (cnn9, resnet18, resnet32, resnet110, wrn28_10, vgg11, vgg16, senet18, regnetx_200mf, resnet50)
MODELS: Mapping[str, Callable[..., Network]] = MappingProxyType({builder.__name__: builder for builder in _BUILDERS})


def build_model(name: str, **kwargs: Any) -> Network:
    """The network of that name: ``MODELS[name](**kwargs)``; ``ValueError`` with the nearest names if there is none.

    Its layers are made in ``dtype``, float32 unless given, whatever torch's default dtype is.
    """
    if not isinstance(name, str) or name not in MODELS:
        near = difflib.get_close_matches(name.lower(), MODELS, n=3, cutoff=0.5) if isinstance(name, str) else []
        named = f"the nearest names are {', '.join(near)}" if near else f"they are {', '.join(sorted(MODELS))}"
        raise ValueError(f"needed one of {len(MODELS)} models, got {name!r}; {named}")
    return MODELS[name](**kwargs)
