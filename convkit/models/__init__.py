"""The networks of the papers, by name, each built from a layer factory."""

from typing import TYPE_CHECKING

from convkit.loading import face

if TYPE_CHECKING:
    from convkit.models.activations import GroupSort as GroupSort
    from convkit.models.activations import MaxMin as MaxMin
    from convkit.models.checkpoints import load_torchvision as load_torchvision
    from convkit.models.checkpoints import torchvision_names as torchvision_names
    from convkit.models.dgcnn import DGCNN as DGCNN
    from convkit.models.dgcnn import EdgeConv as EdgeConv
    from convkit.models.dgcnn import edge_features as edge_features
    from convkit.models.dgcnn import nearest_neighbors as nearest_neighbors
    from convkit.models.gan import sngan_discriminator as sngan_discriminator
    from convkit.models.gan import sngan_generator as sngan_generator
    from convkit.models.layers import ConvAndNorm as ConvAndNorm
    from convkit.models.layers import LayerFactory as LayerFactory
    from convkit.models.layers import Place as Place
    from convkit.models.layers import batchnorm_layer as batchnorm_layer
    from convkit.models.layers import plain_layer as plain_layer
    from convkit.models.network import Images as Images
    from convkit.models.network import Network as Network
    from convkit.models.registry import MODELS as MODELS
    from convkit.models.registry import build_model as build_model

__getattr__, __dir__, __all__ = face(__name__)
