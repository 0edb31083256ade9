"""Sections of two studies side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.analysis.effects import Comparison
from orchestrator.analysis.frames import Frames
from orchestrator.analysis.wording import NOTHING, Unit, name_of, p_value, unit_of
from orchestrator.sections.forms import Section, Table

if TYPE_CHECKING:
    from orchestrator.compare import Difference, Shared, Versus

_SHOWN = 12
"""Lines in which the tables of one study differ that are printed."""


def compared(found: Versus) -> tuple[Section, ...]:
    """In reading order: in short, what was asked, how it was run, scores, differences to the base, configurations."""
    return tuple(_sections(found))


def _sections(found: Versus) -> Iterator[Section]:
    yield Section("In short", points=tuple(_in_short(found)))
    yield _listed("What was asked differently", found.asked, "The study files ask for the same, but for their names and how they are run.")
    yield _listed("What differed in how it was run", found.ran, "Nothing that was recorded.")
    if found.shared and found.obstacle is None:
        unit = unit_of(found.a.facts.metric["report"], [side for each in found.shared for side in (each.a, each.b)])
        yield _scores(found, unit)
        if any(each.to_base_a is not None and each.to_base_b is not None for each in found.shared):
            yield _to_base(found, unit)
    differing = [each for each in found.shared if each.configured]
    if differing:
        rows = tuple((each.arm, one.name, _value(one.a), _value(one.b)) for each in differing for one in each.configured)
        notes = ("An arm of one name need not be one thing: these settings of it differ, the tuned ones among them.",)
        yield Section("Arms of one name that differ", tables=(Table(("arm", "setting", "A", "B"), rows, names=4),), notes=notes)


def _in_short(found: Versus) -> Iterator[str]:
    for side, frames in (("A", found.a), ("B", found.b)):
        state = "complete" if frames.is_complete else "unfinished"
        yield f"{side}: {frames.facts.name}, fingerprint {frames.facts.study['fingerprint']}, {state}, {_blocks(len(frames.teachers))}."
    if found.table is not None:
        yield from _one_study(found.table)
    yield f"Arms in both: {_names([each.arm for each in found.shared])}. Only in A: {_names(found.only_a)}. Only in B: {_names(found.only_b)}."
    if found.obstacle is not None:
        yield f"Scores are not compared: {found.obstacle}."
        return
    paired = [each for each in found.shared if each.is_paired]
    if len(paired) == len(found.shared) and paired:
        yield f"{_blocks(found.shared_blocks)} of the two plans have all four seeds in common: differences are paired over them."
    elif paired:
        yield f"Differences are paired where blocks have all four seeds in common, for {_names([each.arm for each in paired])}; else unpaired."
    else:
        why = "their data differ" if found.shared_blocks else "no block of one has the seeds of a block of the other"
        yield f"Differences are unpaired: {why}. The luck of the blocks is in them."
    yield (
        "Two studies are not one design: no comparison between them was planned, and a difference is one between everything that differs "
        "below. It is no claim."
    )


def _one_study(differences: Sequence[str]) -> Iterator[str]:
    if not differences:
        yield "One study, run twice: the tables say the same in everything but times and places."
        return
    first = f", of which these are the first {_SHOWN}" if len(differences) > _SHOWN else ""
    yield f"One study, run twice: its tables differ in {len(differences)} place{'s' * (len(differences) > 1)} beside times{first}."
    yield from (f"{line}." for line in differences[:_SHOWN])


def _listed(title: str, differences: Sequence[Difference], nothing: str) -> Section:
    if not differences:
        return Section(title, paragraphs=(nothing,))
    rows = tuple((each.name, _value(each.a), _value(each.b)) for each in differences)
    return Section(title, tables=(Table(("what", "A", "B"), rows, names=3),))


def _scores(found: Versus, unit: Unit) -> Section:
    metric = name_of(found.a.facts.metric["report"])
    columns = ("arm", "n A", "mean A ± sd", "n B", "mean B ± sd", "B − A", "95 % interval", "over", "p", "Holm p")
    rows = tuple(_row(each, unit) for each in found.shared)
    formed = sum(each.p is not None for each in found.shared)
    notes = [
        "B − A: over pairs with Student's interval and the two-sided sign-flip p; unpaired with Welch's interval and p.",
        f"Intervals are not widened for the number of arms; Holm p is corrected for the {formed} that have a p.",
        *(f"{each.arm}: {_unfinished(each)}." for each in found.shared if _unfinished(each)),
    ]
    return Section(f"Scores: {metric}{unit.score}", tables=(Table(columns, rows),), notes=tuple(notes))


def _row(each: Shared, unit: Unit) -> tuple[str, ...]:
    sides = [text for side in (each.a, each.b) for text in (f"{side.ok} of {side.planned}", _mean(side.mean, side.sd, unit))]
    interval = unit.interval(each.low, each.high)
    over = (
        f"{each.pairs} pair{'' if each.pairs == 1 else 's'}" if each.is_paired else "unpaired" if each.difference is not None else NOTHING
    )
    return (each.arm, *sides, unit.number(each.difference, signed=True), interval, over, p_value(each.p), p_value(each.p_holm))


def _mean(mean: float | None, sd: float | None, unit: Unit) -> str:
    return unit.number(mean) if sd is None else f"{unit.number(mean)} ± {unit.number(sd)}"


def _unfinished(each: Shared) -> str:
    said = [
        f"{side.failed} failed and {side.missing} missing in {name}"
        for name, side in (("A", each.a), ("B", each.b))
        if side.ok < side.planned
    ]
    return ", ".join(said)


def _to_base(found: Versus, unit: Unit) -> Section:
    rows = tuple(
        (each.arm, *_effect(each.to_base_a, unit), *_effect(each.to_base_b, unit))
        for each in found.shared
        if each.to_base_a is not None and each.to_base_b is not None
    )
    columns = ("arm", "in A", "95 % interval", "n", "Holm p", "in B", "95 % interval", "n", "Holm p")
    notes = (
        "Paired within each study, as its own report has them. That one is shown and the other is not is no difference between the two.",
    )
    return Section(f"Differences to {found.a.facts.base} in each study", tables=(Table(columns, rows),), notes=notes)


def _effect(each: Comparison | None, unit: Unit) -> tuple[str, str, str, str]:
    if each is None:
        return (NOTHING, NOTHING, NOTHING, NOTHING)
    interval = unit.interval(each.t_low, each.t_high)
    return unit.number(each.difference, signed=True), interval, f"{each.n} of {each.planned}", p_value(each.p_holm)


def _value(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _names(arms: Sequence[str]) -> str:
    return "; ".join(arms) or "none"


def _blocks(count: int) -> str:
    return "1 block" if count == 1 else f"{count} blocks"


def title_of(a: Frames, b: Frames) -> str:
    """Of the page."""
    return f"{a.facts.name} (A) and {b.facts.name} (B)"
