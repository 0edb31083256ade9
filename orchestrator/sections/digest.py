"""What a report says in short: every comparison in its own sentence while they are few, else arms by what was shown of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.analysis.effects import Comparison
from orchestrator.analysis.frames import Frames
from orchestrator.analysis.reach import blocks_needed, smallest_p
from orchestrator.analysis.wording import Unit, equals, name_of
from orchestrator.sections.forms import Section

FEW = 8
"""Comparisons that are told one by one at the top."""


def in_short(frames: Frames) -> Section:
    """The claims, or, of more than a reader takes in, arms grouped by what was shown."""
    if len(frames.claims) <= FEW:
        return Section("In short", points=frames.claims, kind="claims")
    bases = dict.fromkeys(each.base for each in frames.comparisons)
    points = [point for base in bases for point in _against(base, [each for each in frames.comparisons if each.base == base], frames.unit)]
    return Section("In short", points=(*points, "Each comparison has a sentence of its own further down."), kind="claims")


def in_full(frames: Frames) -> Section | None:
    """Every comparison in a sentence, where the top of the report groups them."""
    return None if len(frames.claims) <= FEW else Section("Every comparison in a sentence", points=frames.claims)


def _against(base: str, found: Sequence[Comparison], unit: Unit) -> Iterator[str]:
    """Four points at most: better, worse, not shown, not to be said."""
    first = found[0]
    metric, points = name_of(first.metric), unit.difference
    before = "Interim: " if any(each.is_interim for each in found) else ""
    shown = sorted((each for each in found if each.is_shown), key=lambda each: -abs(each.difference or 0.0))
    corrected = f"shown after correction for {first.family} comparisons" if first.family > 1 else "shown"
    for said, part in (("better", [c for c in shown if not c.is_worse]), ("worse", [c for c in shown if c.is_worse])):
        arms = "; ".join(_item(each, unit) for each in part)
        if part:
            yield f"{before}{_arms(len(part), len(found))} {said} than {base} in {metric}, {corrected}: {arms}."
        else:
            yield _capital(f"{before}no arm was shown to be {said} than {base}.")
    tested = [each for each in found if not each.is_shown and each.n > 1]
    if tested:
        yield _capital(before + _open(base, tested, len(found), unit, points))
    mute = [each.arm for each in found if each.n < 2]
    if mute:
        yield _capital(f"{before}with fewer than two paired blocks nothing can be said of {'; '.join(mute)}.")


def _open(base: str, tested: Sequence[Comparison], of: int, unit: Unit, points: str) -> str:
    differences = [each.difference for each in tested if each.difference is not None]
    limits = [(limit, each) for each in tested for limit in (each.t_low, each.t_high) if limit is not None]
    low, high = (unit.number(value, signed=True) for value in (min(differences), max(differences)))
    range_ = f"between {low} and {high}" if len(differences) > 1 else f"at {low}"
    said = (
        f"for {len(tested)} of {of} arms no difference to {base} was shown, which is not equality: {'; '.join(each.arm for each in tested)}"
    )
    said += f". Their mean differences lie {range_}{points}, over {_n(tested)} blocks"
    if limits:
        far, widest = max(limits, key=lambda pair: abs(pair[0]))
        said += f"; no 95 % interval reaches further from zero than {unit.number(abs(far))}{points} ({widest.arm})"
    most = max(tested, key=lambda each: each.n)
    if smallest_p(most.n) * most.family >= most.alpha:
        said += f"; with {most.n} blocks none could be shown: {most.family} comparisons need {blocks_needed(most.family, most.alpha)}"
    return said + "."


def _item(each: Comparison, unit: Unit) -> str:
    interval = "" if each.t_low is None or each.t_high is None else f"95 % interval {unit.interval(each.t_low, each.t_high)}, "
    difference = f"{unit.number(each.difference, signed=True)}{unit.difference}"
    return f"{each.arm} ({difference}, {interval}n = {each.n}, Holm p {equals(each.p_holm)})"


def _arms(count: int, of: int) -> str:
    return f"{count} of {of} arms {'is' if count == 1 else 'are'}"


def _n(found: Sequence[Comparison]) -> str:
    least, most = min(each.n for each in found), max(each.n for each in found)
    return str(most) if least == most else f"{least} to {most}"


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]
