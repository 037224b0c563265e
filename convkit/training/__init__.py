"""One training loop for every method, with objectives, checkpoints, evaluation and sweeps."""

from typing import TYPE_CHECKING

from convkit.loading import face

if TYPE_CHECKING:
    from convkit.training.adversarial import ALP as ALP
    from convkit.training.adversarial import OBJECTIVES as OBJECTIVES
    from convkit.training.adversarial import TRADES as TRADES
    from convkit.training.adversarial import FreeTraining as FreeTraining
    from convkit.training.adversarial import PGDTraining as PGDTraining
    from convkit.training.adversarial import get_objective as get_objective
    from convkit.training.checkpoint import load_checkpoint as load_checkpoint
    from convkit.training.checkpoint import save_checkpoint as save_checkpoint
    from convkit.training.distributed import Ranks as Ranks
    from convkit.training.distributed import joined as joined
    from convkit.training.evaluation import evaluate as evaluate
    from convkit.training.evaluation import mean_class_accuracy as mean_class_accuracy
    from convkit.training.gan import fit_gan as fit_gan
    from convkit.training.gan_plan import GanPlan as GanPlan
    from convkit.training.gan_plan import GanRecord as GanRecord
    from convkit.training.gan_run import hinge as hinge
    from convkit.training.generation import frechet_distance as frechet_distance
    from convkit.training.generation import generation_scores as generation_scores
    from convkit.training.generation import inception_metrics as inception_metrics
    from convkit.training.generation import inception_score as inception_score
    from convkit.training.generation import lipschitz_between as lipschitz_between
    from convkit.training.generation import make_images as make_images
    from convkit.training.generation import moments as moments
    from convkit.training.generation import precision_recall as precision_recall
    from convkit.training.loop import cross_entropy as cross_entropy
    from convkit.training.loop import fit as fit
    from convkit.training.margin import Margin as Margin
    from convkit.training.plan import Plan as Plan
    from convkit.training.plan import Record as Record
    from convkit.training.run import Objective as Objective
    from convkit.training.sweeps import Job as Job
    from convkit.training.sweeps import sweep as sweep

__getattr__, __dir__, __all__ = face(__name__)
