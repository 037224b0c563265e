"""Figures shown with a description in words, each stored once."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any

from convkit.loading import needs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120  # a quarter sharper than the 96 pixels per inch of a page, and still small in a repository


def png_bytes(figure: Figure, **options: Any) -> bytes:
    """The figure as a PNG: the same bytes whenever the same is drawn (no date, no program name)."""
    buffer, about = io.BytesIO(), {"Software": None}
    if options or figure.dpi != DPI or not hasattr(figure.canvas, "print_png"):
        figure.savefig(buffer, format="png", dpi=DPI, metadata=about, **options)
    else:  # a panel's: drawn once, where savefig draws a figure with a layout twice, and hardly packed; a slider waits
        figure.canvas.print_png(buffer, metadata=about, pil_kwargs={"compress_level": 1})  # pyright: ignore[reportAttributeAccessIssue]
    return buffer.getvalue()


def few_colors(png: bytes) -> bytes:
    """The same picture with at most 256 colors: what is stored takes a third of the bytes.

    What it costs is some of the grays at the edges of lines and letters.
    """
    with needs("kit", "convkit.teaching"):
        from PIL import Image

    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    few = picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)  # dots would cost more than colors
    few.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def picture_bundle(png: bytes, alt: str, caption: str = "") -> dict[str, str]:
    """A picture for every viewer, once; ``caption`` is HTML put below it.

    It travels inside ``text/html``: JupyterLab and nbconvert drop the alt text of an ``image/png``, and a notebook
    that held both would hold each picture twice.
    """
    return {"text/html": picture_html(png, alt) + caption, "text/plain": str(alt)}


def picture_html(png: bytes, alt: str) -> str:
    """The picture as an ``<img>``, an inch as wide as 96 pixels of the page, or less where there is no room."""
    code = base64.b64encode(png).decode()
    width = round(int.from_bytes(png[16:20], "big") * 96 / DPI)  # bytes 16-20 of a PNG are its width
    source = f'src="data:image/png;base64,{code}"'
    return f'<img alt="{html.escape(alt)}" {source} width="{width}" style="max-width: 100%">'


def show(figure: Figure, alt: str, folded: str = "") -> None:
    """Display ``figure`` once; ``alt`` says what is to be seen, for those who do not see it.

    With ``folded`` the picture is closed behind these words until the reader clicks on them: it settles a bet.
    """
    if not alt.strip():
        raise ValueError("show needs a description of the picture, got an empty alt; say in words what is to be seen")
    with needs("kit", "convkit.teaching.show"):
        from IPython.display import display
        from matplotlib import pyplot

    bundle = picture_bundle(few_colors(png_bytes(figure, bbox_inches="tight")), alt)
    if folded:
        picture = bundle["text/html"]
        bundle["text/html"] = f"<details><summary>{html.escape(folded)}</summary>{picture}</details>"
    display(bundle, raw=True)
    pyplot.close(figure)  # else the inline backend shows it a second time, without words
