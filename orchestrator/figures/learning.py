"""The figure of learning curves: one small panel per arm, each with the base behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from orchestrator.analysis.learning import Curve
from orchestrator.analysis.wording import Unit, name_of
from orchestrator.figures.drawing import BETTER, FAINT, GRID, INK, WIDTH

_Style = Literal["-", "--"]
FROM = 0.3
"""Share of the training from which the vertical axis shows every band: the steep start would press the rest flat."""
PANELS = 18
"""Of one figure: more would not fit on a page."""
_HEAD, _FOOT, _PANEL = 0.34, 0.62, 1.2
"""Inches: the legend, the horizontal axis, one row of panels with its names."""


def parts(curves: Sequence[Curve], base: str | None) -> list[list[Curve]]:
    """The curves that have a panel, as many at a time as a printed page holds; the base has one only where it is alone."""
    shown = [curve for curve in curves if curve.arm != base] or list(curves)
    count = math.ceil(len(shown) / PANELS)
    size = math.ceil(len(shown) / count / 3) * 3 if count > 1 else len(shown)
    return [shown[start : start + size] for start in range(0, len(shown), size)]


def learning(curves: Sequence[Curve], base: str | None, unit: Unit, part: int = 0) -> Figure:
    """Mean over blocks with its pointwise interval against progress; the dashed line in every panel is the base.

    Draws one of the ``parts``; all have the same axes.
    """
    behind = next((curve for curve in curves if curve.arm == base), None)
    pages = parts(curves, base)
    shown = pages[part]
    across = 1 if len(shown) == 1 else 2 if len(pages) == 1 and len(shown) <= 6 else 3
    down = math.ceil(len(shown) / across)
    panel = 2.4 if across == 1 else _PANEL * (1.35 if across == 2 else 1.0)
    height = _HEAD + panel * down + _FOOT
    figure = Figure(figsize=(WIDTH, height))
    low, high = _limits(curves, unit)
    left, gap = 0.5 / WIDTH, 0.13 / WIDTH
    wide = (1.0 - left - 0.12 / WIDTH - gap * (across - 1)) / across
    for place, curve in enumerate(shown):
        row, column = divmod(place, across)
        bottom = (_FOOT + panel * (down - 1 - row)) / height
        axes = figure.add_axes((left + column * (wide + gap), bottom, wide, (panel - 0.3) / height))
        _frame(axes, low, high, is_left=column == 0, is_last=place + across >= len(shown))
        if behind is not None and curve is not behind:
            _draw(axes, behind, unit, FAINT, "--", 0.2)
        _draw(axes, curve, unit, BETTER, "-", 0.22)
        axes.text(0.0, 1.04, _fitting(curve.arm, across), transform=axes.transAxes, fontsize=9, color=INK, va="bottom", parse_math=False)
    _legend(figure, curves[0], behind, unit, height)
    return figure


def _frame(axes: Axes, low: float, high: float, *, is_left: bool, is_last: bool) -> None:
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(low, high)
    axes.set_xticks([0.0, 0.5, 1.0], ["0", "½", "1"] if is_last else [])
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    axes.tick_params(colors=FAINT, labelsize=9, length=2, labelleft=is_left, left=is_left)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)


def _draw(axes: Axes, curve: Curve, unit: Unit, colour: str, style: _Style, shade: float) -> None:
    mean = [value * unit.factor for value in curve.mean]
    # A point without an interval breaks the band rather than being bridged by it.
    known = [low is not None and high is not None for low, high in zip(curve.low, curve.high, strict=True)]
    lows = [(value if low is None else low) * unit.factor for low, value in zip(curve.low, curve.mean, strict=True)]
    highs = [(value if high is None else high) * unit.factor for high, value in zip(curve.high, curve.mean, strict=True)]
    axes.fill_between(curve.progress, lows, highs, where=known, color=colour, alpha=shade, linewidth=0)
    axes.plot(curve.progress, mean, color=colour, linewidth=1.5, linestyle=style, marker="o" if len(mean) == 1 else "", markersize=3)


def _limits(curves: Sequence[Curve], unit: Unit) -> tuple[float, float]:
    """From the lowest to the highest band after the steep start."""
    late = [
        limit * unit.factor
        for curve in curves
        for place, progress in enumerate(curve.progress)
        if progress >= FROM or progress == curve.progress[-1]
        for limit in (curve.mean[place], curve.low[place], curve.high[place])
        if limit is not None
    ]
    low, high = min(late), max(late)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, (min(high + margin, unit.factor * 1.02) if unit.points else high + margin)


def hidden(curves: Sequence[Curve], unit: Unit) -> bool:
    """Whether part of a curve lies below the vertical axis."""
    low, _ = _limits(curves, unit)
    return any(value * unit.factor < low for curve in curves for value in curve.mean)


def _fitting(arm: str, across: int) -> str:
    """A name on the line above a panel; one that does not fit ends in dots."""
    limit = {1: 76, 2: 38, 3: 24}[across]
    return arm if len(arm) <= limit else arm[: limit - 1] + "…"


def _legend(figure: Figure, curve: Curve, behind: Curve | None, unit: Unit, height: float) -> None:
    y = 1.0 - 0.14 / height
    words: list[tuple[str, str, _Style]] = [("arm", BETTER, "-")]
    if behind is not None:
        words.append((f"{_fitting(behind.arm, 2)} (the base)", FAINT, "--"))
    starts = (0.5 / WIDTH, 1.55 / WIDTH)
    for (word, colour, style), start in zip(words, starts, strict=False):
        figure.add_artist(
            Line2D([start, start + 0.28 / WIDTH], [y, y], transform=figure.transFigure, color=colour, linestyle=style, linewidth=1.8)
        )
        figure.text(start + 0.36 / WIDTH, y, word, fontsize=9, color=INK, va="center", parse_math=False)
    figure.text(
        0.5,
        0.14 / height,
        f"progress of training; up: {name_of(curve.metric)}{unit.score}",
        fontsize=9.5,
        color=INK,
        ha="center",
        va="center",
    )
