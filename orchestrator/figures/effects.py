"""The figure of effects: what every arm does to the score, beside the base."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.analysis.effects import Comparison
from orchestrator.analysis.wording import Unit, name_of
from orchestrator.figures.drawing import BETTER, FAINT, GRID, INK, OPEN, WIDTH, WORSE, number_line

ROW = 0.62
"""Inches of one arm, its name above its interval."""
MANY = 10
"""Comparisons: with more of them each is one line of LINE inches, the best on top, as long as names are short."""
LINE = 0.31
_NAME = 24
"""Characters of a name that fit beside an interval."""
_SIDES = (0.27, 0.27)
"""Shares of the width that names and numbers have there."""


def effects(comparisons: Sequence[Comparison], unit: Unit) -> Figure:
    """Mean difference of each arm to the one compared with, and its interval, above a dot per block; the line at zero is no difference.

    A filled mark stands for a difference that was shown after correction, a hollow one for none.
    """
    is_one_base = len({each.base for each in comparisons}) == 1
    labels = {id(each): each.arm if is_one_base else f"{each.arm} against {each.base}" for each in comparisons}
    is_dense = is_sorted(comparisons)
    shown = sorted(comparisons, key=_from_best) if is_dense else list(comparisons)
    rows, line = len(shown), LINE if is_dense else ROW
    left, right = _SIDES if is_dense else (0.02, 0.02)
    height = line * rows + 0.95
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((left, 0.78 / height, 1.0 - left - right, line * rows / height))
    axes.axvline(0.0, color=INK, linewidth=1.0, zorder=1)
    for row, each in enumerate(shown):
        y = rows - 1 - row
        if is_dense:
            _name_beside(axes, each, unit, y, labels[id(each)])
            _mark(axes, each, unit, y + 0.1, y - 0.26, 9)
        else:
            _name_above(axes, each, unit, y, labels[id(each)])
            _mark(axes, each, unit, y - 0.08, y - 0.3, 13)
    axes.set_ylim(-0.5, rows - 0.5)
    reach = [limit * unit.factor for each in comparisons for limit in _limits(each)]
    low, high = min([0.0, *reach]), max([0.0, *reach])
    margin = 0.06 * (high - low) or 1.0
    axes.set_xlim(low - margin, high + margin)
    number_line(axes)
    if comparisons:
        _caption(figure, comparisons[0], unit, height, comparisons[0].base if is_one_base else "the arm compared with")
    return figure


def is_sorted(comparisons: Sequence[Comparison]) -> bool:
    """Whether the figure has them from the best down, not in the order of the plan."""
    is_one_base = len({each.base for each in comparisons}) == 1
    return len(comparisons) > MANY and all(
        len(each.arm if is_one_base else f"{each.arm} against {each.base}") <= _NAME for each in comparisons
    )


def _from_best(each: Comparison) -> float:
    sign = -1.0 if each.goal == "maximise" else 1.0
    return math.inf if each.difference is None else sign * each.difference


def _name_above(axes: Axes, each: Comparison, unit: Unit, y: int, label: str) -> None:
    axes.axhline(y + 0.5, color=GRID, linewidth=0.6)
    _write(axes, 0.0, y + 0.24, label, 10)
    _write(axes, 1.0, y + 0.24, _numbers(each, unit, "\u2003"), 9)


def _name_beside(axes: Axes, each: Comparison, unit: Unit, y: int, label: str) -> None:
    place = axes.get_yaxis_transform()
    if y % 2:
        axes.axhspan(y - 0.5, y + 0.5, color=GRID, alpha=0.25, linewidth=0, zorder=0)
    sides: tuple[tuple[float, str, Literal["left", "right"]], ...] = (
        (-0.03, label, "right"),
        (1.0 + _SIDES[1] / (1.0 - sum(_SIDES)) - 0.02, _numbers(each, unit, " "), "right"),
    )
    for across, words, side in sides:
        axes.text(across, y, words, transform=place, fontsize=9, color=INK, va="center", ha=side, parse_math=False)


def _numbers(each: Comparison, unit: Unit, space: str) -> str:
    if each.difference is None:
        return "no pair of scores"
    interval = "" if each.t_low is None or each.t_high is None else f"{space}[{unit.number(each.t_low)}, {unit.number(each.t_high)}]"
    return f"{unit.number(each.difference, signed=True)}{interval}"


def _mark(axes: Axes, each: Comparison, unit: Unit, y: float, below: float, dot: float) -> None:
    """The mean and its interval at ``y``, the blocks ``below``."""
    if each.difference is None:
        return
    colour = OPEN if not each.is_shown else WORSE if each.is_worse else BETTER
    if each.t_low is not None and each.t_high is not None:
        axes.plot([each.t_low * unit.factor, each.t_high * unit.factor], [y] * 2, color=colour, linewidth=2.2, solid_capstyle="butt")
    blocks = [difference * unit.factor for difference in each.differences]
    axes.scatter(blocks, [below] * len(blocks), s=dot, color=FAINT, alpha=0.4, linewidths=0, zorder=2)
    face = colour if each.is_shown else "white"
    axes.scatter([each.difference * unit.factor], [y], s=46 if dot > 10 else 32, facecolor=face, edgecolor=colour, linewidths=1.6, zorder=3)


def _write(axes: Axes, across: float, y: float, words: str, size: int) -> None:
    """Words at a share of the width, over a white ground that keeps lines from crossing them."""
    side = "left" if across == 0.0 else "right"
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    # parse_math is off: a dollar sign in a label is a dollar sign.
    place = axes.get_yaxis_transform()
    axes.text(across, y, words, transform=place, fontsize=size, color=INK, va="center", ha=side, bbox=ground, parse_math=False)


def _limits(each: Comparison) -> list[float]:
    return [*each.differences, *(limit for limit in (each.t_low, each.t_high) if limit is not None)]


def _caption(figure: Figure, each: Comparison, unit: Unit, height: float, base: str) -> None:
    measured = f"difference in {name_of(each.metric)} to {base}{f', {unit.difference.strip()}' if unit.points else ''}"
    figure.text(0.5, 0.36 / height, measured, fontsize=9.5, color=INK, ha="center", va="center", parse_math=False)
    left, right = ("worse", "better") if each.goal == "maximise" else ("better", "worse")
    figure.text(0.02, 0.12 / height, f"← {left}", fontsize=9, color=FAINT, ha="left", va="center")
    figure.text(0.98, 0.12 / height, f"{right} →", fontsize=9, color=FAINT, ha="right", va="center")
    figure.text(0.5, 0.12 / height, "● shown after correction\u2003○ not shown", fontsize=9, color=FAINT, ha="center", va="center")
