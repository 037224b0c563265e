"""Colors, markers and a fresh ax: what all pictures share."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito's palette: told apart with every common kind of color blindness, and in this order in gray
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
INK, FAINT = "#222222", "#BBBBBB"
MARKERS = ("o", "s", "^", "D", "v", "P")
SIGNED = "PuOr_r"  # blue-violet below zero, white at zero, orange above
LOOKS = (  # color and marker by what a name speaks of
    *(("pairs", GREEN, "P"), ("derivative", BLUE, "o"), ("found", ORANGE, "^"), ("ReLU", GREEN, "^")),
    *(("folded", PURPLE, "D"), ("bound", VERMILION, "s")),
)


def new_ax(ax: Axes | None, size: tuple[float, float] = (6, 4)) -> Axes:
    """The given ax, or the only one of a new figure of this size in inches."""
    return Figure(size, layout="constrained").add_subplot() if ax is None else ax
