"""The section on the ablation path: in which order parts were flipped, what chose them, and what the arms along it score."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from orchestrator.analysis.effects import Comparison
from orchestrator.analysis.frames import Frames
from orchestrator.analysis.path import Along, Stop
from orchestrator.analysis.wording import NOTHING, number, p_value
from orchestrator.figures import path as figure
from orchestrator.sections.forms import Picture, Section, Table


def ablation_path(frames: Frames, found: Along) -> Section:
    """Stop by stop, with the difference to the one before and to the start, and what could have been flipped instead."""
    unit, metric = frames.unit, frames.facts.metric
    rows, choices = [], []
    for before, stop in zip((None, *found.stops), found.stops, strict=False):
        step = None if before is None else _step(frames, stop.arm, before.arm)
        rows.append(
            (
                f"+ {stop.part}" if stop.part else "start",
                stop.arm,
                frames.unit.number(stop.mean),
                str(stop.n) if stop.part else NOTHING,
                NOTHING if step is None else unit.number(step.difference, signed=True),
                NOTHING if step is None else frames.unit.interval(step.t_low, step.t_high),
                NOTHING if step is None else p_value(step.p_holm),
                unit.number(stop.gain, signed=True),
                frames.unit.interval(stop.low, stop.high),
            )
        )
        if stop.part and stop.chosen_by is not None:
            others = ", ".join(f"{part} {number(score, 4)}" for part, score in stop.others) or "nothing else was left"
            choices.append((f"+ {stop.part}", number(stop.chosen_by, 4), others))
    within = f", {unit.difference.strip()}" if unit.points else ""
    level = f"{found.stops[0].confidence * 100:g} %"
    columns = (
        "flipped", "arm", f"mean{unit.score}", "blocks", f"to the arm before{within}", f"{level} interval (t)", "Holm p", f"to the start{within}",
        f"{level} interval (t)",
    )  # fmt: skip
    tables = [Table(columns, tuple(rows), names=2)]
    if choices:
        tables.append(Table(("flipped", f"{metric['select']} that chose it", "and of what else could be flipped"), tuple(choices), names=3))
    picture = Picture("path", _caption(found), partial(figure.path, found, unit, metric["report"]))
    return Section("Ablation path", paragraphs=_told(frames, found), pictures=(picture,), tables=tuple(tables), notes=_notes(found))


def _step(frames: Frames, arm: str, before: str) -> Comparison | None:
    """The comparison of an arm with the one before it. Another design may have asked for it the other way round."""
    for each in frames.comparisons:
        if (each.arm, each.base) == (arm, before):
            return each
        if (each.arm, each.base) == (before, arm):
            difference, low, high = (None if value is None else -value for value in (each.difference, each.t_high, each.t_low))
            return replace(each, difference=difference, t_low=low, t_high=high)
    return None


def _told(frames: Frames, found: Along) -> tuple[str, ...]:
    start = f"the values of {found.start} as declared" if found.start else f"{frames.facts.base} as declared"
    blocks = f"{found.blocks} block{'' if found.blocks == 1 else 's'}"
    chose = frames.facts.metric["select"]
    means = (
        f"From {start} to the tuned {frames.facts.base}: at each step every part left was flipped alone and trained on {blocks} of the "
        f"path's own, {found.trainings} flips in all, and the one with the best mean {chose} was kept. Those scores have chosen, so they are "
        "too good. The scores reported here are of the arms along the path, trained again on the blocks of all arms."
    )
    shown = [stop.part for stop in _pairs(frames, found)]
    if shown:
        return means, f"After correction a difference to the arm before was shown for: {', '.join(shown)}."
    return means, "After correction no single step was shown to make a difference."


def _pairs(frames: Frames, found: Along) -> list[Stop]:
    steps = ((stop, _step(frames, stop.arm, before.arm)) for before, stop in zip(found.stops, found.stops[1:], strict=False))
    return [stop for stop, step in steps if step is not None and step.is_shown]


def _notes(found: Along) -> tuple[str, ...]:
    said = [
        "The path is greedy: what two parts do only together counts for the one that was flipped later. Another start gives another path."
    ]
    if len({stop.arm for stop in found.stops}) < len(found.stops):
        said.append("A flip that makes no other training has the arm before it.")
    if found.idle:
        said.append(f"As they start in the tuned base, so not flipped: {', '.join(found.idle)}.")
    if found.stuck:
        said.append(f"Flipped at once at the end, since no training of a flip came to its end: {', '.join(found.stuck)}.")
    return tuple(said)


def _caption(found: Along) -> str:
    return f"From the start, part by part, to the tuned base: {', '.join(stop.part for stop in found.stops if stop.part) or 'nothing to flip'}."
