"""Data sets of labeled images and point clouds, by name: subsets of them, label noise, augmentation."""

from typing import TYPE_CHECKING

from convkit.loading import face

if TYPE_CHECKING:
    from convkit.data.augmentation import AUGMENTATIONS as AUGMENTATIONS
    from convkit.data.augmentation import Augmentation as Augmentation
    from convkit.data.augmentation import augment as augment
    from convkit.data.augmentation import auto_augment as auto_augment
    from convkit.data.augmentation import cutout as cutout
    from convkit.data.augmentation import random_crop as random_crop
    from convkit.data.augmentation import random_flip as random_flip
    from convkit.data.clouds import Clouds as Clouds
    from convkit.data.clouds import jittered as jittered
    from convkit.data.clouds import modelnet40 as modelnet40
    from convkit.data.clouds import solids as solids
    from convkit.data.clouds import turn as turn
    from convkit.data.dataset import Data as Data
    from convkit.data.folder import FolderData as FolderData
    from convkit.data.label_noise import noisy_labels as noisy_labels
    from convkit.data.policies import Policy as Policy
    from convkit.data.policies import read_policy as read_policy
    from convkit.data.policies import with_policy as with_policy
    from convkit.data.registry import DATA as DATA
    from convkit.data.registry import Loader as Loader
    from convkit.data.registry import cifar10 as cifar10
    from convkit.data.registry import cifar100 as cifar100
    from convkit.data.registry import digits as digits
    from convkit.data.registry import load as load
    from convkit.data.registry import mnist as mnist
    from convkit.data.registry import shapes as shapes
    from convkit.data.subsets import holdout as holdout
    from convkit.data.subsets import scarce as scarce
    from convkit.data.subsets import subset as subset
    from convkit.data.subsets import unused as unused
    from convkit.data.trained import trained_kernels as trained_kernels

__getattr__, __dir__, __all__ = face(__name__)
