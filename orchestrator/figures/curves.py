"""Figures of tuning: curves of the best of k trials with their bands, and what each search had found at which cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from orchestrator.analysis.curves import Course, TuningCurve
from orchestrator.analysis.wording import Unit, name_of
from orchestrator.figures.drawing import BETTER, FAINT, GRID, INK, WIDTH

MOST_CURVES, MOST_COURSES = 12, 6
"""Arms that a figure shows by name; its caption says which."""
SERIES: tuple[tuple[str, str, str], ...] = (
    ("#0072B2", "-", "o"),
    ("#D55E00", "--", "s"),
    ("#009E73", "-.", "^"),
    ("#CC79A7", ":", "D"),
    ("#000000", "-", "v"),
    ("#E69F00", "--", "P"),
)
"""Colours of Okabe and Ito, with a dash and a mark each, so that they are told apart without colour."""
_FAR = 4.0
"""Ratio of costs from which their axis is logarithmic."""


def tuning_curves(curves: Sequence[TuningCurve], metric: str, unit: Unit) -> Figure:
    """One panel per arm: the median of the best of k with its band, or the band alone where trials were given up."""
    across = 1 if len(curves) == 1 else 2 if len(curves) <= 6 else 3
    down = math.ceil(len(curves) / across)
    head, foot, panel = 0.24, 0.56, 2.2 if across == 1 else 1.55
    height = head + panel * down + foot
    figure = Figure(figsize=(WIDTH, height))
    low, high = _span(curves, unit)
    left, gap = 0.52 / WIDTH, 0.15 / WIDTH
    wide = (1.0 - left - 0.14 / WIDTH - gap * (across - 1)) / across
    longest = max(len(curve.low) for curve in curves)
    for place, curve in enumerate(curves):
        row, column = divmod(place, across)
        axes = figure.add_axes((left + column * (wide + gap), (foot + panel * (down - 1 - row)) / height, wide, (panel - 0.42) / height))
        _frame(axes, is_left=column == 0, is_last=place + across >= len(curves))
        axes.set_xlim(1.0, max(2.0, longest))
        axes.set_ylim(low, high)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        sizes = range(1, len(curve.low) + 1)
        # An infinite limit is the edge of the picture.
        lows, highs = ([min(max(value * unit.factor, low), high) for value in part] for part in (curve.low, curve.high))
        axes.fill_between(sizes, lows, highs, color=BETTER, alpha=0.22, linewidth=0)
        if curve.median:
            median = [value * unit.factor for value in curve.median]
            axes.plot(sizes, median, color=BETTER, linewidth=1.6)
        axes.text(0.0, 1.04, curve.arm, transform=axes.transAxes, fontsize=9, color=INK, va="bottom", parse_math=False)
    handles: list[Line2D | Patch] = [Patch(facecolor=BETTER, alpha=0.22, label=f"{curves[0].confidence * 100:g} % band, all k at once")]
    if any(curve.median for curve in curves):
        handles.insert(0, Line2D([], [], color=BETTER, linewidth=1.6, label="median"))
    _legend(figure, handles, 1.0 - 0.02 / height)
    figure.text(0.5, 0.1 / height, f"random trials, k; upright: best {name_of(metric)}{unit.score}", fontsize=9.5, color=INK, ha="center")
    return figure


def courses(found: Sequence[Course], named: Sequence[str], metric: str, unit: Unit) -> Figure:
    """Best score so far against trials and against device-seconds; arms that are not ``named`` are thin and grey."""
    rows = math.ceil((len(named) + (len(found) > len(named))) / 2)
    head, foot, panel = 0.2 * rows - 0.05, 0.3, 2.3
    height = head + 2 * panel + foot
    figure = Figure(figsize=(WIDTH, height))
    left, wide = 0.55 / WIDTH, 1.0 - 0.7 / WIDTH
    scores = [value * unit.factor for course in found for value in course.best if value is not None]
    margin = 0.06 * (max(scores) - min(scores)) or 0.05 * abs(max(scores)) or 1.0
    spent = [course.device_seconds[-1] for course in found if course.device_seconds]
    handles: dict[str, Line2D] = {}
    for place, label in enumerate(("trials", "device-seconds")):
        axes = figure.add_axes((left, (foot + 0.22 + panel * (1 - place)) / height, wide, (panel - 0.55) / height))
        _frame(axes, is_left=True, is_last=True)
        axes.set_ylim(min(scores) - margin, max(scores) + margin)
        if place and min(spent) > 0.0 and max(spent) / min(spent) > _FAR:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.tick_params(axis="x", which="minor", length=0)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
        for course in sorted(found, key=lambda each: each.arm in named):
            known = [at for at, value in enumerate(course.best) if value is not None]
            across = [(course.device_seconds if place else course.trials)[at] for at in known]
            upright = [(course.best[at] or 0.0) * unit.factor for at in known]
            if course.arm not in named:
                axes.plot(across, upright, color=FAINT, alpha=0.45, linewidth=0.8, drawstyle="steps-post")
                axes.scatter(across[-1:], upright[-1:], color=FAINT, s=9, linewidths=0)
                continue
            colour, dash, mark = SERIES[named.index(course.arm) % len(SERIES)]
            (line,) = axes.plot(
                across, upright, color=colour, linestyle=dash, linewidth=1.6, drawstyle="steps-post", marker=mark, markersize=4
            )
            line.set_label(course.arm)
            handles[course.arm] = line
        if axes.get_xscale() == "linear":
            axes.set_xlim(left=0.0)
        axes.text(1.0, -0.16, label, transform=axes.transAxes, fontsize=9.5, color=INK, ha="right", va="top")
    lines = [handles[arm] for arm in named if arm in handles]
    if len(found) > len(named):
        lines.append(Line2D([], [], color=FAINT, alpha=0.45, linewidth=0.8, marker="o", markersize=3, label="others"))
    _legend(figure, lines, 1.0 - 0.02 / height, columns=2)
    figure.text(0.02, 0.06 / height, f"upright: best {name_of(metric)} so far{unit.score}", fontsize=9, color=FAINT, ha="left")
    return figure


def _span(curves: Sequence[TuningCurve], unit: Unit) -> tuple[float, float]:
    """What medians and the limits at half of the trials span, and as much again halfway beyond.

    Limits at few trials, and where nothing limits a band, would press the rest flat.
    """
    known = [value for curve in curves for value in curve.median]
    known += [limits[len(limits) // 2] for curve in curves for limits in (curve.low, curve.high) if _is_inside(limits)]
    low, high = min(known) * unit.factor, max(known) * unit.factor
    margin = (high - low) or 0.05 * abs(high) or 1.0
    return low - 0.15 * margin, high + 0.5 * margin


def _is_inside(limits: Sequence[float]) -> bool:
    """Whether limits are scores that were seen, and not the end of what is possible, with so many trials."""
    return math.isfinite(limits[len(limits) // 2]) and limits[len(limits) // 2] not in (0.0, 1.0)


def _frame(axes: Axes, *, is_left: bool, is_last: bool) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    axes.tick_params(colors=FAINT, labelsize=9, length=2, labelleft=is_left, left=is_left, labelbottom=is_last)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)


def _legend(figure: Figure, handles: Sequence[Line2D | Patch], top: float, columns: int = 2) -> None:
    legend = figure.legend(
        handles=list(handles), loc="upper left", bbox_to_anchor=(0.0, top), ncols=columns, fontsize=9, frameon=False, borderpad=0.0
    )
    for text in legend.get_texts():
        text.set_color(INK)
        # A dollar sign in a label is a dollar sign.
        text.set_parse_math(False)
