"""A short run of two networks against each other, which may be killed and gone on with."""

import copy

from convkit.data.registry import digits
from convkit.data.subsets import subset
from convkit.methods.pair import gan_pair
from convkit.training.gan import fit_gan


def small():
    return subset(digits(), 120)


def pair(method):
    return gan_pair(small(), method, channels=(4, 6), latent=5)


def begin(file, method="spectral_norm", **options):
    """The records of the run, and its networks, the averaged one included; saved in the file every two steps."""
    networks = pair(method)
    averaged = copy.deepcopy(networks[0])
    options = {"steps": 8, "batch_size": 8, "measure_every": 4, "sample_every": 3, **options}
    run = fit_gan(
        *(*networks, small(), method), averaged=averaged, checkpoint=file, checkpoint_every=2, samples=3, **options
    )
    return run, (*networks, averaged)
