"""The panel of live training: methods side by side, steered, paused and stopped while they train."""

from typing import TYPE_CHECKING

from convkit.loading import face

if TYPE_CHECKING:
    from convkit.widgets.training.knobs import knob_sliders as knob_sliders
    from convkit.widgets.training.live import LivePanel as LivePanel
    from convkit.widgets.training.live import progress as progress
    from convkit.widgets.training.live import run as run
    from convkit.widgets.training.panel import TrainingPanel as TrainingPanel

__getattr__, __dir__, __all__ = face(__name__)
