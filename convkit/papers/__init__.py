"""The papers' tables and figures in small, as named runs that can be interrupted and go on."""

from convkit.papers.clipping import EXPERIMENTS as CLIPPING
from convkit.papers.convnorm import EXPERIMENTS as CONVNORM
from convkit.papers.decay import EXPERIMENTS as DECAY
from convkit.papers.methods import EXPERIMENTS as METHODS_TABLE
from convkit.papers.robustness import EXPERIMENTS as ROBUSTNESS
from convkit.papers.robustness_images import EXPERIMENTS as ROBUSTNESS_IMAGES
from convkit.papers.runs import Experiment
from convkit.papers.separation import EXPERIMENTS as SEPARATION
from convkit.papers.spectra import EXPERIMENTS as SPECTRA
from convkit.papers.spectra_network import EXPERIMENTS as SPECTRA_NETWORK
from convkit.papers.sphere import EXPERIMENTS as SPHERE

EXPERIMENTS: dict[str, Experiment] = {
    **{**CLIPPING, **DECAY, **METHODS_TABLE, **CONVNORM, **SPHERE},
    **{**ROBUSTNESS, **ROBUSTNESS_IMAGES, **SEPARATION, **SPECTRA_NETWORK, **SPECTRA},
}
