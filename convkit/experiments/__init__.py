"""The papers' tables and figures in small, as named runs that can be interrupted and go on."""

from convkit.experiments.clipping import EXPERIMENTS as CLIPPING
from convkit.experiments.convnorm import EXPERIMENTS as CONVNORM
from convkit.experiments.decay import EXPERIMENTS as DECAY
from convkit.experiments.experiment import Experiment
from convkit.experiments.methods_table import EXPERIMENTS as METHODS_TABLE
from convkit.experiments.robustness import EXPERIMENTS as ROBUSTNESS
from convkit.experiments.robustness_images import EXPERIMENTS as ROBUSTNESS_IMAGES
from convkit.experiments.separation import EXPERIMENTS as SEPARATION
from convkit.experiments.spectra import EXPERIMENTS as SPECTRA
from convkit.experiments.spectra_network import EXPERIMENTS as SPECTRA_NETWORK
from convkit.experiments.sphere import EXPERIMENTS as SPHERE

EXPERIMENTS: dict[str, Experiment] = {
    **{**CLIPPING, **DECAY, **METHODS_TABLE, **CONVNORM, **SPHERE},
    **{**ROBUSTNESS, **ROBUSTNESS_IMAGES, **SEPARATION, **SPECTRA_NETWORK, **SPECTRA},
}
