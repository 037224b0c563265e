"""Colors, markers, line styles and a new ax, shared by all plots."""

from collections.abc import Iterable, Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito's palette: told apart with every common kind of color blindness, and in this order in gray
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
INK, FAINT = "#222222", "#BBBBBB"
GRAY, WINE, OLIVE, TEAL = "#777777", "#882255", "#999933", "#44AA99"
MARKERS = ("o", "s", "^", "D", "v", "P")
SIGNED = "PuOr_r"  # blue-violet below zero, white at zero, orange above
Marker = str | tuple[int, Literal[1], int]
Style = tuple[str, Marker, str | tuple[float, tuple[float, ...]]]  # color, marker, line style
MEANINGS = {  # color and marker by a word in a name
    **{"pairs": (GREEN, "P"), "derivative": (BLUE, "o"), "found": (ORANGE, "^"), "ReLU": (GREEN, "^")},
    **{"folded": (PURPLE, "D"), "bound": (VERMILION, "s")},
}
METHOD_LOOKS = {  # color and marker of a way to train, by the first of these words in its name: in every figure
    **{"no clip": (BLUE, "o"), "ConvNorm": (ORANGE, "s"), "sphere": (GREEN, "^"), "standardiz": (PURPLE, "D")},
    **{"WS": (PURPLE, "D"), "SN": (SKY, "v"), "spectral": (SKY, "v"), "operator norm": (SKY, "v")},
    **{"divided out": (SKY, "v"), "clip": (VERMILION, "P"), "decay": (GRAY, "X"), "l1": (GRAY, "X"), "l∞": (GRAY, "X")},
    **{"adversarial": (INK, "*"), "polar": (OLIVE, "<"), "conv_muon": (TEAL, ">"), "ConvMuon": (TEAL, ">")},
    **{"muon": (WINE, "p"), "BatchNorm": (BLUE, "o")},
    **{"BN": (BLUE, "o"), "plain": (BLUE, "o"), "none": (BLUE, "o"), "nothing": (BLUE, "o")},
}


def styles(n: int, colors: Sequence[str] = COLORS) -> list[Style]:
    """Return ``n`` different styles ``(color, marker, line style)``, for as many curves as there are.

    The first six are ``COLORS`` and ``MARKERS`` with solid lines. When the colors are used up they start again, with
    other markers (at last stars with more and more points) and another line style (a dash and more and more dots): both
    the colors with the markers and the colors with the line styles are different for every curve.
    """
    found: list[Style] = []
    for place in range(n):
        r, k = divmod(place, len(colors))
        marker = MARKERS[(r + k) % len(MARKERS)] if r < len(MARKERS) else (r, 1, 0)
        found.append((colors[k], marker, (0, (4, 1.5) + (1, 1.5) * r) if r else "-"))
    return found


def styles_by_meaning(names: Iterable[str]) -> list[Style]:
    """Return a style for each name: that of a word in it, such as "bound", or another if that is taken."""
    names = list(names)
    chosen: list[Style] = []
    others = iter(styles(len(names)))
    for name in names:
        color, marker = next((look for word, look in MEANINGS.items() if word in name), (INK, "X"))
        style: Style = (color, marker, "-")
        while style[:2] in [other[:2] for other in chosen]:
            style = next(others)
        chosen.append(style)
    return chosen


def method_styles(names: Iterable[str]) -> list[Style]:
    """Return a style for each way to train: a method has one color and one marker through all notebooks.

    Variants of a method, such as two starts or two strengths, differ in their line style alone.

    Raises ``ValueError`` for a name that holds none of the words of ``METHOD_LOOKS``.

    >>> [color for color, _, _ in method_styles(["BatchNorm", "ConvNorm, BatchNorm"])] == [BLUE, ORANGE]
    True
    """
    chosen: list[Style] = []
    for name in names:
        look = next((look for word, look in METHOD_LOOKS.items() if word.lower() in name.lower()), None)
        if look is None:
            raise ValueError(
                f"method_styles needs a known way to train, got {name!r}; words: {', '.join(METHOD_LOOKS)}"
            )
        before = sum(other[:2] == look for other in chosen)
        chosen.append((*look, (0, (4, 1.5) + (1, 1.5) * before) if before else "-"))
    return chosen


def new_ax(ax: Axes | None, size: tuple[float, float] = (6, 4)) -> Axes:
    """Return ``ax``, or the only ax of a new figure of this size in inches."""
    return Figure(size, layout="constrained").add_subplot() if ax is None else ax
