"""Blocks that were added to a fixed design: what the comparisons come to with them, apart from what is claimed."""

from __future__ import annotations

from orchestrator.analysis.effects import Comparison
from orchestrator.analysis.frames import Frames
from orchestrator.analysis.wording import p_value
from orchestrator.sections.forms import Section, Table


def extended(frames: Frames) -> Section | None:
    """Every comparison over the fixed design and over all blocks; None where no blocks were added."""
    if not frames.extended:
        return None
    added = [
        f"{each['name']}: blocks {each['before']} to {each['blocks'] - 1}, added to the {each['before']} before them."
        for each in frames.facts.extensions
    ]
    rows = [
        (fixed.arm, fixed.base, *_numbers(frames, fixed), *_numbers(frames, whole))
        for fixed, whole in zip(frames.comparisons, frames.extended, strict=True)
    ]
    columns = ("arm", "compared with", "fixed", "difference (interval)", "p", "with all", "difference (interval)", "p")
    notes = (
        f"Claims and p-values elsewhere are of the {frames.facts.fixed_blocks} blocks that were fixed before the first of them was run.",
        "Scores, ranks and learning curves are of all blocks.",
        "Whether blocks are added may depend on what the first ones showed. So a p over all blocks, uncorrected here, is no test at its level.",
    )
    return Section("Blocks added later", points=tuple(added), tables=(Table(columns, tuple(rows), names=2),), notes=notes)


def _numbers(frames: Frames, each: Comparison) -> tuple[str, str, str]:
    unit = frames.unit
    return (
        f"{each.n} of {each.planned}",
        f"{unit.number(each.difference, signed=True)} ({unit.interval(each.t_low, each.t_high)})",
        p_value(each.p),
    )
