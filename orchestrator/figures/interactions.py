"""Figures of factorial designs: every contrast with its interval, and what one factor does at each level of another."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.analysis.factorial import Corner, Effect, Factor, Factorial
from orchestrator.analysis.wording import Unit, name_of
from orchestrator.figures.drawing import BETTER, FAINT, GRID, INK, OPEN, WIDTH, WORSE

ROW = 0.62
"""Inches of one contrast."""
PANEL = 2.45
"""Inches of one row of interaction plots."""
MOST = 6
"""Interaction plots: of more, the largest are drawn."""


def contrasts(found: Factorial, unit: Unit, metric: str, goal: str) -> Figure:
    """Each contrast with its interval, above a dot per block: main effects, then interactions. A filled mark was shown."""
    rows = len(found.effects)
    height = ROW * rows + 0.95
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.035, 0.78 / height, 0.93, ROW * rows / height))
    axes.axvline(0.0, color=INK, linewidth=1.0, zorder=1)
    for row, effect in enumerate(found.effects):
        _row(axes, effect, unit, goal, rows - 1 - row)
    axes.set_ylim(-0.5, rows - 0.5)
    limits = [limit * unit.factor for each in found.effects for limit in (*each.contrasts, each.t_low, each.t_high) if limit is not None]
    low, high = min([0.0, *limits]), max([0.0, *limits])
    margin = 0.06 * (high - low) or 1.0
    axes.set_xlim(low - margin, high + margin)
    axes.set_yticks([])
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    _bare(axes, ("left", "right", "top"))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    measured = f"contrast in {name_of(metric)}, high minus low{f', {unit.difference.strip()}' if unit.points else ''}"
    figure.text(0.5, 0.36 / height, measured, fontsize=9.5, color=INK, ha="center", va="center", parse_math=False)
    left, right = ("worse", "better") if goal == "maximise" else ("better", "worse")
    figure.text(0.02, 0.12 / height, f"← high is {left}", fontsize=9, color=FAINT, ha="left", va="center")
    figure.text(0.98, 0.12 / height, f"high is {right} →", fontsize=9, color=FAINT, ha="right", va="center")
    figure.text(0.5, 0.12 / height, "● shown\u2003○ not shown", fontsize=9, color=FAINT, ha="center", va="center")
    return figure


def _row(axes: Axes, each: Effect, unit: Unit, goal: str, y: int) -> None:
    axes.axhline(y + 0.5, color=GRID, linewidth=0.6)
    _write(axes, 0.0, y + 0.24, each.name, 10)
    if each.effect is None:
        _write(axes, 1.0, y + 0.24, "no whole block", 9)
        return
    is_worse = (each.effect < 0) == (goal == "maximise")
    colour = OPEN if not each.is_shown else WORSE if is_worse else BETTER
    interval = ""
    if each.t_low is not None and each.t_high is not None:
        interval = f"\u2003[{unit.number(each.t_low)}, {unit.number(each.t_high)}]"
        axes.plot([each.t_low * unit.factor, each.t_high * unit.factor], [y - 0.08] * 2, color=colour, linewidth=2.2, solid_capstyle="butt")
    blocks = [contrast * unit.factor for contrast in each.contrasts]
    axes.scatter(blocks, [y - 0.3] * len(blocks), s=13, color=FAINT, alpha=0.4, linewidths=0, zorder=2)
    face = colour if each.is_shown else "white"
    axes.scatter([each.effect * unit.factor], [y - 0.08], s=46, facecolor=face, edgecolor=colour, linewidths=1.6, zorder=3)
    _write(axes, 1.0, y + 0.24, f"{unit.number(each.effect, signed=True)}{interval}", 9)


def _write(axes: Axes, across: float, y: float, words: str, size: int) -> None:
    """Words at a share of the width, over a white ground that keeps lines from crossing them."""
    side = "left" if across == 0.0 else "right"
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    axes.text(
        across,
        y,
        words,
        transform=axes.get_yaxis_transform(),
        fontsize=size,
        color=INK,
        va="center",
        ha=side,
        bbox=ground,
        parse_math=False,
    )


def pairs(found: Factorial) -> tuple[tuple[Effect, Corner], ...]:
    """Tested interactions with the means that they are made of; of more than MOST the largest, in the order of the design."""
    corners = {corner.factors: corner for corner in found.corners}
    drawn = [
        (effect, corners[effect.factors[0], effect.factors[1]])
        for effect in found.effects
        if len(effect.factors) == 2 and (effect.factors[0], effect.factors[1]) in corners
    ]
    largest = sorted(drawn, key=lambda pair: -abs(pair[0].effect or 0.0))[:MOST]
    return tuple(pair for pair in drawn if pair in largest)


def interactions(found: Factorial, unit: Unit, metric: str) -> Figure:
    """A panel per tested interaction: mean score at both levels of one factor, a line for each level of the other.

    Parallel lines are no interaction. The first level has a dashed line and hollow marks.
    """
    drawn = pairs(found)
    factors = {factor.name: factor for factor in found.factors}
    across = min(2, len(drawn))
    down = math.ceil(len(drawn) / across)
    height = PANEL * down
    figure = Figure(figsize=(WIDTH, height))
    means = [mean * unit.factor for _, corner in drawn for mean in corner.means if mean is not None]
    margin = 0.12 * (max(means) - min(means)) or 1.0
    left, gap = 0.62 / WIDTH, 0.2 / WIDTH
    wide = (1.0 - left - 0.1 / WIDTH - gap * (across - 1)) / across
    for place, (effect, corner) in enumerate(drawn):
        row, column = divmod(place, across)
        bottom = (0.45 + PANEL * (down - 1 - row)) / height
        axes = figure.add_axes((left + column * (wide + gap), bottom, wide, (PANEL - 1.15) / height))
        axes.set_ylim(min(means) - margin, max(means) + margin)
        _panel(axes, effect.name, corner, factors, unit, is_left=column == 0)
    label = f"{name_of(metric)}{unit.score}"
    figure.text(0.13 / WIDTH, 0.5, label, fontsize=9, color=INK, ha="center", va="center", rotation=90, parse_math=False)
    return figure


def _panel(axes: Axes, name: str, corner: Corner, factors: dict[str, Factor], unit: Unit, *, is_left: bool) -> None:
    first, second = (factors[name] for name in corner.factors)
    scaled = [math.nan if mean is None else mean * unit.factor for mean in corner.means]
    lines: Sequence[tuple[list[float], str, str, str]] = (
        ([scaled[0], scaled[2]], f"{second.name}={second.low}", "--", "white"),
        ([scaled[1], scaled[3]], f"{second.name}={second.high}", "-", BETTER),
    )
    for values, label, style, face in lines:
        axes.plot(
            [0, 1], values, color=BETTER, linestyle=style, linewidth=1.6, marker="o", markersize=5.5, markerfacecolor=face, label=label
        )
    axes.set_xlim(-0.25, 1.25)
    axes.set_xticks([0, 1], [first.low, first.high], parse_math=False)
    axes.set_xlabel(first.name, fontsize=9, color=INK, labelpad=1, parse_math=False)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    axes.tick_params(labelleft=is_left)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    _bare(axes, ("right", "top"))
    axes.text(0.0, 1.34, name, transform=axes.transAxes, fontsize=9.5, color=INK, va="bottom", parse_math=False)
    axes.legend(
        fontsize=9,
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(-0.04, 0.98),
        ncols=1,
        handlelength=2.2,
        borderpad=0.1,
        labelspacing=0.15,
    )


def _bare(axes: Axes, hidden: Sequence[str]) -> None:
    axes.tick_params(colors=FAINT, labelsize=9, length=3)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side not in hidden)
        spine.set_color(GRID)
