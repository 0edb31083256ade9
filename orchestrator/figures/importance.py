"""The figure of importance: what every parameter shows, in units of what noise would."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from orchestrator.analysis.importance import ArmImportance, Importance
from orchestrator.figures.drawing import BETTER, FAINT, INK, OPEN, WIDTH, number_line

ROW, _HEAD = 0.4, 0.34
"""Inches of one parameter, and of the name of an arm."""
REACH = 4.0
"""Limits of noise that the axis shows at least two and at most so many of, unless a value itself lies beyond."""


def importance(found: Sequence[ArmImportance]) -> Figure:
    """Values and intervals in limits: a parameter right of the line at 1 exceeds what noise gives."""
    rows = sum(len(each.parameters) for each in found)
    body = ROW * rows + _HEAD * len(found)
    height = body + 0.8
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.03, 0.66 / height, 0.94, body / height))
    axes.set_ylim(0.0, body)
    parameters = [parameter for each in found for parameter in each.parameters]
    widest = max(parameter.high / parameter.limit for parameter in parameters)
    reach = max(2.0, 1.1 * max(max(_marks(parameter)) for parameter in parameters), min(REACH, 1.05 * widest))
    axes.set_xlim(0.0, reach)
    axes.axvline(1.0, color=INK, linewidth=1.0, zorder=1)
    top = body
    for each in found:
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        axes.text(0.0, top - 0.2, each.arm, fontsize=10, color=INK, va="center", weight="bold", parse_math=False, bbox=ground)
        top -= _HEAD
        for parameter in each.parameters:
            y = top - ROW * 0.72
            colour = BETTER if parameter.is_important else OPEN
            axes.text(0.0, top - ROW * 0.28, parameter.name, fontsize=9, color=INK, va="center", parse_math=False, bbox=ground)
            low, high = parameter.low / parameter.limit, min(parameter.high / parameter.limit, reach)
            axes.plot([low, high], [y, y], color=colour, linewidth=2.0, solid_capstyle="butt", zorder=2)
            for value, mark in zip(_marks(parameter), "oD", strict=False):
                face = colour if value > 1.0 else "white"
                axes.scatter([value], [y], s=34, marker=mark, facecolor=face, edgecolor=colour, linewidths=1.5, zorder=3, clip_on=False)
            top -= ROW
    number_line(axes)
    figure.text(0.5, 0.3 / height, "importance in limits of noise (line at 1)", fontsize=9.5, color=INK, ha="center", va="center")
    words = "○ PED-ANOVA with its interval ◇ fANOVA filled: beyond the limit"
    figure.text(0.5, 0.1 / height, words, fontsize=9, color=FAINT, ha="center", va="center")
    return figure


def _marks(parameter: Importance) -> tuple[float, ...]:
    """What PED-ANOVA and, where it applies, fANOVA show, in limits of noise."""
    ped = parameter.value / parameter.limit
    return (ped,) if parameter.forest is None or parameter.forest_limit is None else (ped, parameter.forest / parameter.forest_limit)
