"""Live training: several methods side by side, steered, paused and stopped while they learn."""

from typing import TYPE_CHECKING

from convkit.loading import face

if TYPE_CHECKING:
    from convkit.widgets.training.panel import TrainingPanel as TrainingPanel

__getattr__, __dir__, __all__ = face(__name__)
