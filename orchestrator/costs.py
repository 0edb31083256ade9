"""Costs: what the trainings of a study take, and what is left of them, judged by those that are finished. Pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from orchestrator import chains, plan, variants
from orchestrator import path as ablation
from orchestrator.events import CONFIRM, PATH, SEARCH, TEACHER
from orchestrator.record import Record
from orchestrator.study import Confirm, Path, Search, Study
from trainables.folder import name_of
from trainables.status import OK, STOPPED

_DECLARE = "declare run.training_seconds"


@dataclass(frozen=True)
class Share:
    """Whole trainings of one stage and method, as many as the cells amount to with early stopping. Students that others need are
    in the stage of teachers."""

    stage: str
    method: str | None
    """None for teachers."""
    whole: float
    """At most: until stage two opens, it has the variants that it may skip."""
    missing: float
    """Those that no cell has trained yet."""


@dataclass(frozen=True)
class Costs:
    """What a study takes; None where nothing tells how long a training is."""

    lanes: int
    devices: int
    """That a lane holds: chips, or processes where it is no part of a slice."""
    seconds: float | None
    """Of the whole study, one training after another on one lane."""
    seconds_missing: float | None
    """The same, of what is still to be trained."""
    source: str
    """How this is known."""

    @property
    def device_seconds(self) -> float | None:
        return None if self.seconds is None else self.seconds * self.devices

    @property
    def device_seconds_missing(self) -> float | None:
        return None if self.seconds_missing is None else self.seconds_missing * self.devices

    @property
    def wall_seconds(self) -> float | None:
        """Of the whole study, if no lane ever waits."""
        return None if self.seconds is None else self.seconds / self.lanes

    @property
    def wall_seconds_missing(self) -> float | None:
        return None if self.seconds_missing is None else self.seconds_missing / self.lanes


def costs(study: Study, record: Record) -> Costs:
    """The costs of a study, of which the record may hold a part.

    A training takes what the median cell of its stage and method took for each whole training; where none of them is
    finished, what the median student of the study did; else what the study declares.
    """
    paces = _paces(record)
    students = [pace for (_, method), found in paces.items() if method is not None for pace in found]
    declared = study.run.training_seconds
    seconds, missing, is_known, is_declared = 0.0, 0.0, True, False
    for share in shares(study, record):
        measured = paces.get((share.stage, share.method)) or students
        pace = median(measured) if measured else declared
        is_known, is_declared = is_known and pace is not None, is_declared or not measured
        seconds += share.whole * (pace or 0.0)
        missing += share.missing * (pace or 0.0)
    run = study.run
    return Costs(
        lanes=run.lanes,
        devices=run.placement.chips or max(run.workers, 1),
        seconds=seconds if is_known else None,
        seconds_missing=missing if is_known else None,
        source=_source(sum(map(len, paces.values())), is_known, is_declared),
    )


def _source(cells: int, is_known: bool, is_declared: bool) -> str:
    if not is_known:
        return f"unknown: {'no student' if cells else 'nothing'} has finished yet; {_DECLARE}"
    if not cells:
        return "declared"
    return (
        f"estimated from {cells} finished cell{'' if cells == 1 else 's'}{', and declared where none is like them' if is_declared else ''}"
    )


def _paces(record: Record) -> dict[tuple[str, str | None], list[float]]:
    """By stage and method, the seconds that a whole training would have taken, of every cell that came to its end or was stopped."""
    seconds: dict[str, float] = {}
    for attempt in record.attempts:
        # A later attempt goes on where the lane of an earlier one died.
        seconds[attempt.cell] = seconds.get(attempt.cell, 0.0) + attempt.total("seconds")
    found: dict[tuple[str, str | None], list[float]] = {}
    for cell, last in record.cells.items():
        if last.status in (OK, STOPPED) and last.progress > 0 and seconds[cell] > 0:
            found.setdefault((last.plan["stage"], last.plan["method"]), []).append(seconds[cell] / last.progress)
    return found


@dataclass(frozen=True)
class _Stand:
    """How far a cell is."""

    method: str | None
    progress: float
    is_finished: bool

    @property
    def done(self) -> float:
        """Of a training. What failed is not trained again."""
        return 1.0 if self.is_finished else self.progress


def shares(study: Study, record: Record) -> tuple[Share, ...]:
    """All trainings of a study, and how many of them are missing."""
    return tuple(_shares(study, record))


def _shares(study: Study, record: Record) -> Iterator[Share]:
    search, confirm = study.search, study.confirm
    known: dict[tuple[str, str], list[_Stand]] = {}
    for cell, last in record.cells.items():
        # Rungs of earlier attempts count: the next one goes on from there.
        progress = max((row["progress"] for row in record.rows_of(cell)), default=0.0)
        stand = _Stand(last.plan["method"], progress, last.is_finished)
        known.setdefault((last.plan["stage"], last.plan["arm"]), []).append(stand)
    networks = [stand for (stage, _), cells in known.items() if stage == TEACHER for stand in cells if stand.method is None]
    teachers = chains.teachers(study)
    yield Share(TEACHER, None, teachers, _left(teachers, networks))
    is_open = any(stage == CONFIRM for stage, _ in known)
    needed = {arm: [cell for cell in cells if cell.method is not None] for (stage, arm), cells in known.items() if stage == TEACHER}
    if is_open:
        yield from _shares_of_students([cell for cells in needed.values() for cell in cells])
    elif confirm is not None and (count := chains.students_of_confirm(study, confirm) * confirm.blocks):
        yield Share(TEACHER, name_of(study.arms[confirm.base].method), count, count)
    if search is not None:
        chosen = {choice["arm"] for choice in record.choices}
        before = chains.students_of_search(study)
        for name in search.spaces:
            cells = known.get((SEARCH, name), [])
            whole = plan.trainings(search) * search.blocks
            is_over = name in chosen or sum(cell.is_finished for cell in cells) == search.trials * search.blocks
            method = name_of(study.arms[name].method)
            yield Share(SEARCH, method, whole, 0.0 if is_over else _left_of_search(whole, cells, search))
            students = needed.get(name, [])
            count = len(students) if is_over else before[name]
            if count and not is_open:
                yield Share(TEACHER, method, count, _left(count, students))
    if confirm is not None and confirm.path is not None:
        yield from _path_shares(
            study, confirm, confirm.path, [cell for (stage, _), cells in known.items() if stage == PATH for cell in cells], is_open
        )
    if confirm is not None:
        yield from _confirm_shares(study, confirm, [cells for (stage, _), cells in known.items() if stage == CONFIRM])


def _shares_of_students(cells: Sequence[_Stand]) -> Iterator[Share]:
    for method in dict.fromkeys(cell.method for cell in cells):
        of_it = [cell for cell in cells if cell.method == method]
        yield Share(TEACHER, method, len(of_it), _left(len(of_it), of_it))


def _path_shares(study: Study, confirm: Confirm, path: Path, cells: Sequence[_Stand], is_over: bool) -> Iterator[Share]:
    """Flips that come to a configuration which was tried before are no trainings of their own, which is known behind them."""
    method = name_of(study.arms[confirm.base].method)
    whole = len(cells) if is_over else ablation.bound(path) * path.blocks
    yield Share(PATH, method, whole, _left(whole, cells))
    if not is_over and (students := chains.students_of_path(study, confirm)):
        yield Share(TEACHER, method, students, students)


def _confirm_shares(study: Study, confirm: Confirm, known: Sequence[Sequence[_Stand]]) -> Iterator[Share]:
    """Arm by arm; variants of the base count with it until stage two opens, when all of its cells enter the plan at once."""
    for cells in known:
        yield Share(CONFIRM, cells[0].method, len(cells), _left(len(cells), cells))
    if not known:
        arms = Counter(name_of(variants.declared(study, each).method) for each in variants.distinct(study, confirm))
        for method, count in arms.items():
            yield Share(CONFIRM, method, count * confirm.blocks, count * confirm.blocks)


def _left(whole: int, cells: Sequence[_Stand]) -> float:
    return max(0.0, whole - math.fsum(cell.done for cell in cells))


def _left_of_search(whole: float, cells: Sequence[_Stand], search: Search) -> float:
    """A cell that is finished has used up its way to the first rung at least, even if it failed before."""
    first = min((*search.rungs, 1.0))
    return max(0.0, whole - math.fsum(max(cell.progress, first) if cell.is_finished else cell.progress for cell in cells))
