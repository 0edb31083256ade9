"""What a disturbed study did, counted: cells lost, cells trained twice, work done again. Functions of its journal and of its workers' notes."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from orchestrator.events import Event
from orchestrator.record import record_of
from trainables.status import OK, RUNNING

Note = Mapping[str, Any]


@dataclass(frozen=True)
class Account:
    """Of one study."""

    cells: int
    """That the undisturbed study finished."""
    lost: tuple[str, ...]
    """Cells of those that the disturbed study has not finished, and cells that it alone has."""
    twice: tuple[str, ...]
    """Cells with a leg that was begun after its row stood in the journal, or with two rows for the same rung."""
    launches: int
    legs: int
    """That workers began."""
    cut_off: int
    """Legs that were begun and brought no row, since their process died."""
    repeated: int
    """Legs that ended well more than once: the row of the first one never got to the journal."""
    trained_s: float
    """Device-seconds of all legs that were begun."""
    redone_s: float
    """Device-seconds of legs that were cut off, and of those that were repeated, but for the first time that they ended."""

    @property
    def redone(self) -> float:
        """Work that was done again, in percent of all device-seconds."""
        return 100.0 * self.redone_s / self.trained_s if self.trained_s else 0.0

    @property
    def is_clean(self) -> bool:
        """Nothing lost, and nothing done twice."""
        return not self.lost and not self.twice


@dataclass(frozen=True)
class _Leg:
    cell: str
    until: float
    begin: float
    status: str | None
    """None where the worker never said that it ended."""
    seconds: float


def account(
    undisturbed: Sequence[Event], disturbed: Sequence[Event], notes: Sequence[Sequence[Note]], died: Mapping[int, float]
) -> Account:
    """Count, from the events of both journals.

    ``notes`` are those of one process each, in their order; ``died`` tells when a process was last seen alive, by pid.
    """
    wanted, found = ({attempt.cell for attempt in record_of(events).finished} for events in (undisturbed, disturbed))
    legs = [leg for process in notes for leg in _legs(process, died)]
    rows = [event for event in disturbed if event["event"] == "row" and event["status"] in (RUNNING, OK)]
    ended: defaultdict[tuple[str, float], list[_Leg]] = defaultdict(list)
    for leg in sorted((leg for leg in legs if leg.status in (RUNNING, OK)), key=lambda leg: leg.begin):
        ended[leg.cell, leg.until].append(leg)
    cut = [leg for leg in legs if leg.status is None]
    again = [leg for same in ended.values() for leg in same[1:]]
    return Account(
        cells=len(wanted),
        lost=tuple(sorted(wanted ^ found)),
        twice=tuple(sorted(_doubled(rows) | _begun_after_all(legs, rows))),
        launches=sum(event["event"] == "study" for event in disturbed),
        legs=len(legs),
        cut_off=len(cut),
        repeated=len(again),
        trained_s=math.fsum(leg.seconds for leg in legs),
        redone_s=math.fsum(leg.seconds for leg in (*cut, *again)),
    )


def _doubled(rows: Iterable[Event]) -> set[str]:
    """Cells with more than one row for the same rung, or for the end."""
    counts = Counter((row["cell"], row["progress"]) for row in rows)
    return {cell for (cell, _), count in counts.items() if count > 1}


def _legs(notes: Sequence[Note], died: Mapping[int, float]) -> list[_Leg]:
    found: list[_Leg] = []
    for note in notes:
        if note["event"] == "begin":
            # Unless the worker says more: until it died.
            lived = max(0.0, died.get(note["pid"], note["time"]) - note["time"])
            found.append(_Leg(note["cell"], note["until"], note["time"], None, lived))
        elif note["event"] == "end":
            found[-1] = replace(found[-1], status=note["status"], seconds=note["seconds"])
    return found


def _begun_after_all(legs: Iterable[_Leg], rows: Iterable[Event]) -> set[str]:
    """Cells with a leg that was begun though the journal had its row, or one of further progress."""
    known: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        known[row["cell"]].append((datetime.fromisoformat(row["time"]).timestamp(), row["progress"]))
    return {leg.cell for leg in legs if any(time < leg.begin and progress >= leg.until for time, progress in known[leg.cell])}
