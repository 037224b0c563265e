"""The papers' tables and figures in small, as named runs that can be interrupted and go on."""

from convkit.experiments.clipping import EXPERIMENTS as CLIPPING
from convkit.experiments.convnorm import EXPERIMENTS as CONVNORM
from convkit.experiments.decay import EXPERIMENTS as DECAY
from convkit.experiments.experiment import Experiment
from convkit.experiments.methods_table import EXPERIMENTS as METHODS_TABLE
from convkit.experiments.spectra import EXPERIMENTS as SPECTRA
from convkit.experiments.sphere import EXPERIMENTS as SPHERE

EXPERIMENTS: dict[str, Experiment] = {**CLIPPING, **DECAY, **METHODS_TABLE, **CONVNORM, **SPHERE, **SPECTRA}
