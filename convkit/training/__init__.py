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
    from convkit.training.loop import cross_entropy as cross_entropy
    from convkit.training.loop import fit as fit
    from convkit.training.margin import Margin as Margin
    from convkit.training.plan import Plan as Plan
    from convkit.training.plan import Record as Record
    from convkit.training.run import Objective as Objective
    from convkit.training.sweeps import Job as Job
    from convkit.training.sweeps import sweep as sweep

__getattr__, __dir__, __all__ = face(__name__)
