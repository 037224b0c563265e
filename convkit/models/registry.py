"""`MODELS`: the registry of the papers' networks, all for images except `dgcnn`, which takes point clouds."""

from collections.abc import Callable

from torch import nn

from convkit.checks import Registry
from convkit.models.cifar import resnet32, resnet110, wrn28_10
from convkit.models.cnn import alexnet, cnn9, vgg11, vgg16
from convkit.models.dgcnn import dgcnn
from convkit.models.regnet import regnetx_200mf
from convkit.models.resnet import resnet18, resnet50, senet18

_IMAGES = (cnn9, resnet18, resnet32, resnet110, wrn28_10, vgg11, vgg16, senet18, regnetx_200mf, resnet50, alexnet)
MODELS: Registry[Callable[..., nn.Module]] = Registry(
    "MODELS", {builder.__name__: builder for builder in (*_IMAGES, dgcnn)}
)


def build_model(name: str, **kwargs: object) -> nn.Module:
    """Return a new network: ``MODELS[name](**kwargs)``.

    Its layers are made in the argument ``dtype``, float32 unless given, whatever torch's default dtype is. Raises
    ``UnknownNameError``, a ``ValueError`` that holds the nearest names, for an unknown name.
    """
    return MODELS[name](**kwargs)
