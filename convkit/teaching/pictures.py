"""Figures with a description in words, for the page and for those who do not see them."""

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
    """Return the figure as a PNG; the same drawing gives the same bytes, without a date.

    Args:
        figure: A figure of Matplotlib.
        options: Arguments of ``Figure.savefig``.
    """
    buffer, metadata = io.BytesIO(), {"Software": None}
    if options or figure.dpi != DPI or not hasattr(figure.canvas, "print_png"):
        figure.savefig(buffer, format="png", dpi=DPI, metadata=metadata, **options)
    else:  # a panel's: drawn once, where savefig draws a figure with a layout twice, and hardly packed; a slider waits
        figure.canvas.print_png(buffer, metadata=metadata, pil_kwargs={"compress_level": 1})  # pyright: ignore[reportAttributeAccessIssue]
    return buffer.getvalue()


def few_colors(png: bytes) -> bytes:
    """Return the picture, a PNG, with at most 256 colors, which takes about a third of the bytes.

    Some grays at the edges of lines and letters are lost.
    """
    with needs("kit", "convkit.teaching"):
        from PIL import Image

    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    few = picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)  # dots would cost more than colors
    few.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def picture_bundle(png: bytes, alt: str, caption: str = "") -> dict[str, str]:
    """Return a picture as the MIME bundle of a notebook's output.

    The PNG is inside of ``text/html``, because JupyterLab and nbconvert drop the alt text of an ``image/png``, and both
    together would store each picture twice.

    Args:
        png: The picture.
        alt: The description in words.
        caption: HTML that is put below the picture.
    """
    return {"text/html": picture_html(png, alt) + caption, "text/plain": str(alt)}


def picture_html(png: bytes, alt: str) -> str:
    """Return the picture as an ``<img>``: an inch is 96 pixels of the page, or less where the page is narrow."""
    code = base64.b64encode(png).decode()
    width = round(int.from_bytes(png[16:20], "big") * 96 / DPI)  # bytes 16-20 of a PNG are its width
    source = f'src="data:image/png;base64,{code}"'
    return f'<img alt="{html.escape(alt)}" {source} width="{width}" style="max-width: 100%">'


def show(figure: Figure, alt: str, folded: str = "") -> None:
    """Display a figure with a description in words, and close it.

    Args:
        figure: A figure of Matplotlib.
        alt: A description of what there is to see, for readers who do not see it.
        folded: If not empty, the picture is hidden behind these words until the reader clicks on them.

    Raises ``ValueError`` for an empty description.
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
