"""Drawing: colours and files of the report's figures, made without pyplot: no window, no global state of a session."""

from __future__ import annotations

import io
import re

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, FAINT, GRID = "#222222", "#6b6b6b", "#d9d9d9"
WORSE, BETTER, OPEN = "#D55E00", "#0072B2", "#6b6b6b"
"""Vermilion and blue of Okabe and Ito's palette, told apart by every kind of colour vision; grey where nothing was shown."""
WIDTH = 5.4
"""Inches. Labels stand above their rows, so that the figure is narrow and its letters stay readable on a phone."""

_ANONYMOUS = {"Date": None, "Creator": None, "Format": None, "Type": None}


def number_line(axes: Axes) -> None:
    """Rows of marks over one scale: numbers below, faint lines up through all rows, and nothing else around them."""
    axes.set_yticks([])
    axes.tick_params(axis="x", colors=FAINT, labelsize=9, length=3)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def svg(figure: Figure) -> str:
    """The figure as an <svg> element that scales with its place: no prologue, no metadata, nothing to load."""
    buffer = io.StringIO()
    # Equal figures give equal files, and words stay words.
    with matplotlib.rc_context({"svg.hashsalt": "kdsweep", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata=_ANONYMOUS)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    return text.strip() + "\n"


def png(figure: Figure) -> bytes:
    """The figure as a bitmap of 200 dots per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
    return buffer.getvalue()
