"""The section of published numbers: beside the arms of a study that names their table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.analysis.wording import NOTHING, number
from orchestrator.published import SURE, Held, Number
from orchestrator.sections.forms import Section, Table

_TEACHER = "teacher"
_MARKS = "†‡§¶#"


def beside_published(found: Sequence[Held]) -> Section | None:
    """Ours beside theirs, with what each number is worth; None where the study names no table, or no arm has a number in it."""
    if not found:
        return None
    valued = [each for each in found if each.number.value is not None]
    marks = _marks(valued)
    rows = tuple(_row(each, marks) for each in valued)
    columns = ("arm", "published as", "mean ± sd", "n", "published", "ours − theirs", "by", "how sure")
    table = (Table(columns, rows, names=2),) if rows else ()
    return Section("Beside published numbers", tables=table, notes=tuple(_notes(found, valued, marks)))


def _marks(found: Sequence[Held]) -> dict[str, str]:
    """Mark of each budget that some number has beyond the common one."""
    budgets = list(dict.fromkeys(part for each in found for part in _budgets(each.number)))
    return {budget: _MARKS[place % len(_MARKS)] * (1 + place // len(_MARKS)) for place, budget in enumerate(budgets)}


def _budgets(each: Number) -> list[str]:
    return [part.strip() for part in (each.budget or "").split(";") if part.strip()]


def _row(each: Held, marks: dict[str, str]) -> tuple[str, ...]:
    theirs = each.number
    spread = "" if theirs.spread is None else f" ± {theirs.spread:g}"
    marked = "".join(marks[part] for part in _budgets(theirs))
    mean = number(each.mean, 2) if each.sd is None else f"{number(each.mean, 2)} ± {number(each.sd, 2)}"
    value = number(theirs.value, 2)
    return (
        each.arm or _TEACHER,
        theirs.label,
        mean,
        str(each.n),
        f"{value}{spread}{marked}",
        number(each.difference, 2, signed=True),
        f"{theirs.paper}, {theirs.table}",
        theirs.sure,
    )


def _notes(found: Sequence[Held], valued: Sequence[Held], marks: dict[str, str]) -> Iterator[str]:
    if valued:
        yield (
            "Top-1 accuracy in percent, as docs/published.md has it with sources and notes. Theirs is mostly the best epoch on the test split, "
            "ours the last. The difference is no test: neither their blocks nor, as a rule, their number of trainings are known."
        )
    for budget, mark in marks.items():
        yield f"{mark} {budget}: not under the budget of the others."
    unsure = [sure for sure in SURE if sure != "read" and any(each.number.sure == sure for each in valued)]
    for sure in unsure:
        yield f"{sure}: {SURE[sure]}."
    absent = [each for each in found if each.number.value is None]
    if absent:
        said = dict.fromkeys(
            f"{each.number.label} ({each.number.paper}, {each.number.table}{f': {each.number.note}' if each.number.note else ''})"
            for each in absent
        )
        yield f"No number could be read of {'; '.join(said)}."
    unfinished = [each for each in valued if each.mean is None]
    if unfinished:
        yield f"A mean that is {NOTHING} is of an arm, or a teacher, without a finished cell."
