"""The figure of performance profiles: how large a share of a treatment's cells is above every score."""

from __future__ import annotations

import itertools

from matplotlib.figure import Figure

from orchestrator.analysis.profiles import Profiles
from orchestrator.analysis.wording import Unit, name_of
from orchestrator.figures.drawing import FAINT, GRID, INK, WIDTH

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#222222", "#E69F00")
_STYLES = ("-", "--", "-.", ":")


def performance(found: Profiles, unit: Unit, metric: str) -> Figure:
    """A falling step per treatment, told apart by colour and by dashes; the higher and the longer, the better."""
    foot = 0.65 + 0.175 * len(found.profiles)
    height = 2.6 + foot
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.11, foot / height, 0.86, 2.45 / height))
    looks = zip(itertools.cycle(_STYLES), itertools.cycle(_COLOURS), strict=False)  # twelve looks, and neighbours differ in both
    for each, (style, colour) in zip(found.profiles, looks, strict=False):
        at = [value * unit.factor for value in each.at]
        axes.step(
            [at[0], *at],
            [(each.cells - each.failed) / each.cells, *each.above],
            where="post",
            color=colour,
            linestyle=style,
            linewidth=1.8,
            label=each.treatment,
        )
    if len(found.profiles[0].at) > 1 and found.profiles[0].at[0] > found.profiles[0].at[-1]:
        axes.invert_xaxis()
    axes.set_ylim(0.0, 1.03)
    axes.set_yticks([0.0, 0.5, 1.0], ["0", "½", "1"])
    axes.set_xlabel(f"{name_of(metric)}{unit.score}", fontsize=9.5, color=INK, parse_math=False)
    axes.set_ylabel("share of cells better than", fontsize=9, color=INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    axes.tick_params(colors=FAINT, labelsize=9, length=3)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)
    figure.legend(loc="lower left", bbox_to_anchor=(0.1, 0.0), fontsize=9, frameon=False, handlelength=3.0, labelspacing=0.25)
    return figure
