"""A short training run that may be killed and gone on with."""

from convkit.data.registry import digits
from convkit.data.subsets import subset
from convkit.methods.build import network
from convkit.training.loop import fit


def data():
    return subset(digits(), 120)


def begin(file, method="batchnorm", **options):
    """The records of the run, and its network; saved in the file every two steps."""
    images = data()
    model = network("cnn9", images, method, widths=(3, 4, 5))
    options = {"steps": 9, "batch_size": 16, "checkpoint": file, "checkpoint_every": 2, **options}
    return fit(model, images, method, **options), model
