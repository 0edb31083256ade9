"""The record: what a journal says, as a pure view. Table, status, driver and mirror read this, not lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.errors import StorageError
from orchestrator.events import Event, Role, role_of
from trainables.status import PREEMPTED, RUNNING, STOPPED


@dataclass(frozen=True)
class Attempt:
    """One attempt at a cell: how it entered the plan and what came back."""

    cell: str
    attempt: int
    plan: Event
    """The cell event."""
    rows: tuple[Event, ...] = ()
    """Row events that count: of the rungs, by progress, then of the end if it ended. A leg that was repeated is here once."""
    reports: tuple[Mapping[str, Any], ...] = ()
    """step, progress and metrics, by step. A step that was repeated is here once."""
    launch: int = 0
    """Index of the launch under which the last row was written."""
    preempted: tuple[Event, ...] = ()
    """Row events of legs that ended early, in order of arrival. What they cost counts, and nothing else of them: they stand at
    no rung, and the leg that goes on tells again what they measured."""
    lost: tuple[Event, ...] = ()
    """Row events of earlier attempts whose lane died, which are in no table: what they cost counts with the attempt that went on."""

    @property
    def status(self) -> str | None:
        """Of the last row; None before there is one."""
        return self.rows[-1]["status"] if self.rows else None

    @property
    def is_finished(self) -> bool:
        return self.status not in (None, RUNNING)

    @property
    def progress(self) -> float:
        """How far it got, in [0, 1]."""
        return max((row["progress"] for row in self.rows), default=0.0)

    @property
    def steps(self) -> int:
        return max((row["steps"] for row in self.rows), default=0)

    @property
    def metrics(self) -> Mapping[str, float]:
        """Of the last leg. A failed leg has none unless it says so: earlier ones are no substitute."""
        legs = [row for row in self.rows if row["status"] != STOPPED] or self.rows
        return legs[-1]["metrics"] if legs else {}

    @property
    def where(self) -> Mapping[str, str]:
        """host, pid, device and workers of the last leg that says."""
        return next((row["where"] for row in reversed(self.rows) if row.get("where")), {})

    def total(self, name: str) -> float:
        """Sum of ``seconds`` or ``device_seconds`` over the legs, those that ended early among them."""
        return math.fsum(row.get(name, 0.0) for row in (*self.rows, *self.preempted, *self.lost))

    def having(self, row: Event, launch: int) -> Attempt:
        """With one more row. A later row takes the place of one at the same rung; a later end that of an earlier one."""
        if row["status"] == PREEMPTED:
            return replace(self, preempted=(*self.preempted, row))
        rows = {_slot(known): known for known in self.rows} | {_slot(row): row}
        reports = {report["step"]: report for report in (*self.reports, *row.get("reports", ()))}
        return replace(
            self,
            rows=tuple(rows[slot] for slot in sorted(rows)),
            reports=tuple(reports[step] for step in sorted(reports)),
            launch=launch if _slot(row) == max(rows) else self.launch,
        )


def _slot(row: Event) -> float:
    """What ends an attempt comes behind every rung, whatever progress it tells: a lost lane may not know it."""
    return float(row["progress"]) if row["status"] == RUNNING else math.inf


class Record:
    """What a journal says: a pure view, made of events one after another.

    The order in which the rows of different cells arrive changes nothing but the order of ``attempts``.
    """

    def __init__(self) -> None:
        self.launches: list[Event] = []
        """Study events."""
        self.ends: list[Event] = []
        """End events."""
        self.orders: list[Event] = []
        """Order events: what drivers were told from elsewhere, in the order in which they took it in."""
        self.cells: dict[str, Attempt] = {}
        """The latest attempt at each cell, by cell id, in the order in which cells entered the plan."""
        self.design: Event | None = None
        """The design event; None where stage two is not open. The first one stands: what is fixed is fixed."""
        self._extensions: dict[str, Event] = {}
        self._attempts: dict[str, dict[int, Attempt]] = {}
        self._choices: dict[str, Event] = {}
        self._arms: dict[str, None] = {}
        self._early: dict[str, list[tuple[Event, int]]] = {}
        """Rows of cells that have not entered the plan, with their launch."""

    @property
    def study(self) -> Event | None:
        """The first study event, which fixes the schema; None where nothing was launched."""
        return self.launches[0] if self.launches else None

    @property
    def arms(self) -> tuple[str, ...]:
        """Labels in the order in which they entered the plan."""
        return tuple(self._arms)

    @property
    def choices(self) -> tuple[Event, ...]:
        """Choice events, one per arm, the latest."""
        return tuple(self._choices.values())

    @property
    def extensions(self) -> tuple[Event, ...]:
        """Extension events, in their order: blocks that were added to the fixed design."""
        return tuple(self._extensions.values())

    @property
    def blocks(self) -> int | None:
        """Blocks of stage two: of the last extension, else of the design, else of the last launch; None where nothing says so."""
        for event in (*reversed(self.extensions), self.design, *reversed(self.launches)):
            if event is not None and event.get("blocks") is not None:
                return int(event["blocks"])
        return None

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every attempt at every cell."""
        return tuple(attempt for attempts in self._attempts.values() for attempt in attempts.values())

    @property
    def finished(self) -> tuple[Attempt, ...]:
        """Attempts that ended, well or not: the rows of the table. One that went on from a rung of an earlier attempt has its reports, too."""
        return tuple(self._with_what_it_went_on_from(attempt) for attempt in self.attempts if attempt.is_finished)

    def _with_what_it_went_on_from(self, attempt: Attempt) -> Attempt:
        attempts = self._attempts[attempt.cell]
        earlier = [attempts[number] for number in sorted(attempts) if number < attempt.attempt]
        if not earlier:
            return attempt
        first = min((report["step"] for report in attempt.reports), default=math.inf)
        before = {report["step"]: report for each in earlier for report in each.reports if report["step"] < first}
        lost = tuple(row for each in earlier if not each.is_finished for row in (*each.rows, *each.preempted))
        return replace(attempt, reports=(*(before[step] for step in sorted(before)), *attempt.reports), lost=lost)

    def has(self, cell: str) -> bool:
        """Whether the cell is in the plan."""
        return cell in self.cells

    def attempt_of(self, cell: str) -> int:
        """Number of the latest attempt; 0 where the cell is not in the plan."""
        return self.cells[cell].attempt if cell in self.cells else 0

    def rows_of(self, cell: str) -> tuple[Event, ...]:
        """Row events from which the cell goes on: its rungs, by progress, then the end of its latest attempt.

        Rungs of earlier attempts count, for a cell is taken again from its checkpoint.
        """
        if cell not in self.cells:
            return ()
        attempts = [self._attempts[cell][number] for number in sorted(self._attempts[cell])]
        rungs = {_slot(row): row for attempt in attempts for row in attempt.rows if row["status"] == RUNNING}
        end = attempts[-1].rows[-1:] if attempts[-1].is_finished else ()
        return (*(rungs[slot] for slot in sorted(rungs)), *end)

    def add(self, event: Event) -> None:
        """Take in one more event. Kinds and keys that are not known here are passed over.

        Raises:
            StorageError: an event of a known kind lacks what it needs.
        """
        try:
            match event["event"]:
                case "study":
                    self.launches.append(event)
                case "end":
                    self.ends.append(event)
                case "order":
                    self.orders.append(event)
                case "choice":
                    self._choices[event["arm"]] = event
                case "design":
                    self.design = self.design or event
                case "extension":
                    self._extensions.setdefault(event["name"], event)
                case "cell":
                    self._add_cell(event)
                case "row":
                    self._add_row(event, max(0, len(self.launches) - 1))
        except (KeyError, TypeError, ValueError) as fault:
            raise StorageError(
                f"A {event.get('event')} event needs more than it has: {type(fault).__name__} {fault} in {str(event)[:200]}. "
                "Was the journal written by another version of kdsweep, or edited?"
            ) from fault

    def _add_cell(self, event: Event) -> None:
        cell, number = event["cell"], event["attempt"]
        attempts = self._attempts.setdefault(cell, {})
        self._arms.setdefault(event["arm"])
        # A relaunch may say again what stands: the first word counts, so that the table does not depend on relaunches, but for
        # a weightier role of a cell that several arms came to.
        known = attempts.setdefault(number, Attempt(cell, number, event))
        if event is not known.plan and _role(event) < _role(known.plan):
            for earlier, attempt in attempts.items():
                attempts[earlier] = replace(attempt, plan=event | {"attempt": earlier, "time": attempt.plan["time"]})
        self.cells[cell] = attempts[max(attempts)]
        for row, launch in self._early.pop(cell, ()):
            self._add_row(row, launch)

    def _add_row(self, event: Event, launch: int) -> None:
        cell, number = event["cell"], event["attempt"]
        attempts = self._attempts.get(cell)
        if attempts is None:
            self._early.setdefault(cell, []).append((event, launch))
            return
        known = attempts.get(number) or Attempt(cell, number, attempts[min(attempts)].plan)
        attempts[number] = known.having(event, launch)
        self.cells[cell] = attempts[max(attempts)]


def _role(plan: Event) -> Role:
    return role_of(plan.get("stage", ""), plan["arm"], plan.get("number"))


def record_of(events: Iterable[Event]) -> Record:
    """The record that events make."""
    record = Record()
    for event in events:
        record.add(event)
    return record
