"""Retrying: which failed cells can be taken again, as a pure function of the record; and writing that down.

A failure is a fact, and others were built on some of them: later proposals of a search on its failed cells, later steps of an
ablation path, and the design of stage two on both. Such a cell stays failed, for what was built on it would not be what the
rows say any more. The others get a next attempt, with the same content; the earlier ones stay in the journal and the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator import table
from orchestrator.events import PATH, SEARCH, Clock, Event, stamp, utc_now
from orchestrator.journal import Journal
from orchestrator.record import Attempt, Record, record_of
from orchestrator.storage import StudyLock
from search_spaces import nearest
from trainables.status import FAILURES


@dataclass(frozen=True)
class Retrying:
    """Cells that are taken again, and cells that are not."""

    events: tuple[Event, ...]
    """Cell events of the next attempts, in the order of the plan: a cell stands behind all that it needs."""
    along: Mapping[str, str]
    """Cells that are taken again though nobody asked, with the reason."""
    refused: Mapping[str, str]
    """Cells that are not, with the reason."""

    @property
    def cells(self) -> tuple[str, ...]:
        """Content ids of those that are taken again."""
        return tuple(event["cell"] for event in self.events)


def is_failed(attempt: Attempt) -> bool:
    """Whether an attempt ended in a failure."""
    return attempt.status in FAILURES


def needed(record: Record, attempt: Attempt) -> Iterator[Attempt]:
    """The cells, as far as they are in the plan, that a cell needs."""
    return (record.cells[cell] for cell in attempt.plan.get("needs", ()) if cell in record.cells)


def retrying(record: Record, cells: Sequence[str] | None = None, clock: Clock = utc_now) -> Retrying:
    """The next attempts at some cells; None: at every one that failed.

    A cell that failed because one that it needs had failed was never trained. It comes along with that one, and brings it along.
    """
    asked = [cell for cell, attempt in record.cells.items() if is_failed(attempt)] if cells is None else list(dict.fromkeys(cells))
    refused: dict[str, str] = {}
    taken: dict[str, str | None] = {}
    for cell in asked:
        reason = _reason_against(record, cell)
        if reason is None:
            taken[cell] = None
        else:
            refused[cell] = reason
    followers = _followers(record)
    waiting = list(taken)
    while waiting:
        cell = waiting.pop()
        causes = [(cause.cell, f"{cell} needs it") for cause in needed(record, record.cells[cell]) if is_failed(cause)]
        orphans = [(orphan, f"it needs {cell} and was not trained") for orphan in followers.get(cell, ())]
        for other, why in (*causes, *orphans):
            if other in taken or other in refused:
                continue
            reason = _reason_against(record, other)
            if reason is not None:
                refused[other] = reason
                continue
            taken[other] = why
            waiting.append(other)
    for cell in [cell for cell in taken if _stays_orphan(record, cell, taken)]:
        del taken[cell]
        refused[cell] = "a cell that it needs stays failed."
    events = tuple(_next(record.cells[cell].plan, record.attempt_of(cell) + 1, clock) for cell in record.cells if cell in taken)
    return Retrying(events, {cell: why for cell, why in taken.items() if why is not None}, refused)


def _next(plan: Event, attempt: int, clock: Clock) -> Event:
    return {**plan, "attempt": attempt, "time": stamp(clock)}


def _reason_against(record: Record, cell: str) -> str | None:
    """Why a cell cannot be taken again; None where it can."""
    attempt = record.cells.get(cell)
    if attempt is None:
        return f"there is no such cell in this study.{nearest(cell, record.cells)}"
    if not attempt.is_finished:
        return f"it did not fail: it is in the plan with attempt {attempt.attempt}, and not finished."
    if not is_failed(attempt):
        return f"it did not fail: its status is {attempt.status}."
    plan = attempt.plan
    if plan["stage"] == SEARCH:
        return _built_on_search(record, plan)
    if plan["stage"] == PATH:
        return _built_on_path(record, plan)
    return None


def _built_on_search(record: Record, plan: Event) -> str | None:
    if any(choice["arm"] == plan["arm"] for choice in record.choices):
        return f"the search of {plan['arm']} has ended, and what it chose was chosen with this failure."
    key = "number" if record.study is not None and record.study.get("mode") == "async" else "generation"
    arm = (attempt for attempt in record.attempts if attempt.plan["stage"] == SEARCH and attempt.plan["arm"] == plan["arm"])
    later = _first_later(arm, plan, key)
    if later is None:
        return None
    what = "proposal" if key == "number" else "generation"
    return f"{what} {later.plan[key]} of {plan['arm']} was proposed with this failure, and trained."


def _built_on_path(record: Record, plan: Event) -> str | None:
    if record.design is not None:
        return "the design of stage two is fixed, and the path that led to it was walked with this failure."
    later = _first_later((attempt for attempt in record.attempts if attempt.plan["stage"] == PATH), plan, "generation")
    return None if later is None else "the next step of the path was chosen with this failure, and trained."


def _first_later(attempts: Iterable[Attempt], plan: Event, key: str) -> Attempt | None:
    """The first that comes after a cell and got anywhere. What failed tells a sampler nothing that a failure before did not."""
    here = plan[key]
    for attempt in attempts:
        is_later = here is not None and attempt.plan[key] is not None and attempt.plan[key] > here
        if is_later and any(row["status"] not in FAILURES for row in attempt.rows):
            return attempt
    return None


def _followers(record: Record) -> Mapping[str, list[str]]:
    """Failed cells by each failed cell that they need."""
    found: dict[str, list[str]] = {}
    for cell, attempt in record.cells.items():
        if is_failed(attempt):
            for cause in needed(record, attempt):
                if is_failed(cause):
                    found.setdefault(cause.cell, []).append(cell)
    return found


def _stays_orphan(record: Record, cell: str, taken: Mapping[str, str | None]) -> bool:
    causes = [cause for cause in needed(record, record.cells[cell]) if is_failed(cause)]
    return any(cause.cell not in taken or _stays_orphan(record, cause.cell, taken) for cause in causes)


def of_driver(found: Retrying) -> Retrying:
    """What of it a driver at work takes up. It has gone on from failures of searches and paths in any case."""
    deciding = [event["cell"] for event in found.events if event["stage"] in (SEARCH, PATH)]
    reason = "the driver at work has gone on from this failure: `kdsweep stop` it, then retry, then `kdsweep resume`."
    kept = tuple(event for event in found.events if event["cell"] not in deciding)
    along = {cell: why for cell, why in found.along.items() if cell not in deciding}
    return Retrying(kept, along, {**found.refused, **dict.fromkeys(deciding, reason)})


def write_down(folder: str, cells: Sequence[str] | None = None) -> Retrying:
    """Put the next attempts into the journal of a study that nobody works on; the next launch trains them.

    Raises:
        StudyLocked: a driver is at work. StorageError: the folder cannot be used.
    """
    with StudyLock(folder):
        journal = Journal(folder)
        record = record_of(journal.read())
        found = retrying(record, cells)
        journal.append(found.events)
        for event in found.events:
            record.add(event)
        table.write(record, folder)
    return found
