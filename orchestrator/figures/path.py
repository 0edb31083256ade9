"""The figure of an ablation path: how far every arm along it is from the start."""

from __future__ import annotations

from matplotlib.figure import Figure

from orchestrator.analysis.path import Along
from orchestrator.analysis.wording import Unit
from orchestrator.figures.drawing import FAINT, GRID, INK, WIDTH, number_line

_ROW = 0.55


def path(found: Along, unit: Unit, metric: str) -> Figure:
    """Mean difference to the start after every flip, with its interval, above a dot per block; the line joins the means."""
    rows = len(found.stops)
    height = _ROW * rows + 0.95
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.02, 0.78 / height, 0.96, _ROW * rows / height))
    axes.axvline(0.0, color=INK, linewidth=1.0, zorder=1)
    means = []
    reach = [0.0]
    for row, stop in enumerate(found.stops):
        y = rows - 1 - row
        axes.axhline(y + 0.5, color=GRID, linewidth=0.6)
        name = f"+ {stop.part}" if stop.part else "start"
        place = axes.get_yaxis_transform()
        axes.text(0.0, y + 0.24, name, transform=place, fontsize=10, color=INK, va="center", parse_math=False)
        if stop.gain is None:
            if not stop.part:
                means.append((0.0, y - 0.12))
                axes.scatter([0.0], [y - 0.12], s=30, facecolors=INK, edgecolors=INK, zorder=4)
            continue
        blocks = [difference * unit.factor for difference in stop.differences]
        reach += blocks
        axes.scatter(blocks, [y - 0.32] * len(blocks), s=11, color=FAINT, alpha=0.4, linewidths=0, zorder=2)
        means.append((stop.gain * unit.factor, y - 0.12))
        axes.scatter([stop.gain * unit.factor], [y - 0.12], s=30, facecolors=INK, edgecolors=INK, zorder=4)
        words = f"n = {stop.n}: {unit.number(stop.gain, signed=True)}"
        if stop.low is not None and stop.high is not None:
            limits = [stop.low * unit.factor, stop.high * unit.factor]
            reach += limits
            axes.plot(limits, [y - 0.12] * 2, color=INK, linewidth=2.2, solid_capstyle="butt", zorder=3)
            words += f" [{unit.number(stop.low)}, {unit.number(stop.high)}]"
        axes.text(1.0, y + 0.24, words, transform=place, fontsize=9, color=INK, va="center", ha="right", parse_math=False)
    axes.plot([x for x, _ in means], [y for _, y in means], color=INK, linewidth=1.0, alpha=0.6, zorder=2)
    low, high = min(reach), max(reach)
    margin = 0.06 * (high - low) or 1.0
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(-0.5, rows - 0.5)
    number_line(axes)
    level = f"{found.stops[0].confidence * 100:g} %"
    measured = f"{metric}, difference to the start{f' in {unit.difference.strip()}' if unit.points else ''}"
    for words, down in ((measured, 0.36), (f"mean with {level} interval (t), a dot per block", 0.16)):
        figure.text(0.5, down / height, words, fontsize=9, color=FAINT, ha="center", va="center", parse_math=False)
    return figure
