"""Where a study stands, from its journal and its lock alone: what ``kdsweep status`` shows. Imports neither torch nor Ray.

A cell without an end is *running* where a driver is at work that has handed it to a lane and has no row of that leg yet; else
*begun* where it has a row, from a rung or from a leg that a preemption ended, and *open* where it has none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator import located, orders
from orchestrator.analysis.facts import StudyFacts
from orchestrator.errors import StorageError
from orchestrator.events import CONFIRM, SEARCH, Event
from orchestrator.journal import Journal
from orchestrator.progress import Pace
from orchestrator.record import Attempt, Record, record_of
from orchestrator.storage import holder_of
from trainables.status import FAILED, LOST, OK, RUNNING, STOPPED

BEGUN, OPEN, MISSING = "begun", "open", "missing"
"""Of a cell without an end that no lane holds: with a row, without one, and asked for by the design but not in the plan yet."""
STATUSES = (OK, STOPPED, FAILED, "under way")
_STORAGE = "kdsweep-results"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""What studies are surely allowed to be called."""


@dataclass(frozen=True)
class Place:
    """A cell, and where it stands."""

    cell: str
    """Content id; empty where the cell is not in the plan yet and its id is not known."""
    stage: str
    arm: str
    block: int
    generation: int | None
    number: int | None
    attempt: int
    status: str
    """ok, stopped, a failure, running, begun, open or missing."""
    progress: float
    """Of its last rung, or end, or of the leg that a preemption ended."""


@dataclass(frozen=True)
class Seen:
    """A lane, as the rows of the last launch tell it: a process somewhere, and what it brought last."""

    host: str
    pid: str
    device: str
    legs: int
    cell: str
    stage: str
    arm: str
    block: int
    status: str
    progress: float
    at: str
    """When that came; since then it holds something else, or nothing."""


@dataclass(frozen=True)
class Held:
    """A cell in flight: what a lane was handed."""

    cell: str
    stage: str
    arm: str
    block: int
    until: float
    """Progress at which the leg ends."""
    lane: str
    at: str
    """Since when."""


@dataclass(frozen=True)
class Failure:
    """An attempt that did not end well. Status lost: its lane died, and the cell was taken again."""

    cell: str
    stage: str
    arm: str
    block: int
    attempt: int
    status: str
    message: str
    """First line."""
    at: str
    taken_again: bool


@dataclass(frozen=True)
class Standing:
    """Cells one by one and by (stage, arm), what lanes brought, what it cost and takes, and how the last launch ended."""

    folder: str
    study: str
    cells: dict[tuple[str, str], dict[str, int]]
    """By (stage, arm): how many are ok, stopped, failed and under way."""
    best: dict[str, float]
    """Best selecting metric at the end of training, by searched arm."""
    device_seconds: float
    last: str
    """Time of the last event."""
    end: str | None
    """complete or interrupted; None while a launch runs, or after it was killed."""
    driver: str | None
    """Who works on it now, if anyone. In a bucket, a driver that was killed counts for another minute and a half."""
    places: tuple[Place, ...] = ()
    """Every cell, in the order of the plan; then those of the design that are not in it."""
    mode: str = ""
    launches: int = 0
    launched: str = ""
    """When the last launch began."""
    lanes: int | None = None
    """Of the last launch; None where it did not say."""
    seen: tuple[Seen, ...] = ()
    held: tuple[Held, ...] = ()
    """Cells in flight, those handed out first at the top."""
    again: int = 0
    """Cells that were taken more than once."""
    failures: tuple[Failure, ...] = ()
    """In the order in which they came."""
    by_stage: Mapping[str, float] | None = None
    """Device-seconds."""
    trainings_left: float = 0.0
    """Whole trainings, at most: of cells in the plan, and of proposals that searches have still to make."""
    left_s: float | None = None
    """What these take on the lanes of the last launch, if none waits, by the pace so far; None while nothing tells it."""
    blocks_to_come: int = 0
    """Of stage two, where it is asked for and its arms are not fixed yet: not in what is left."""
    asked: str | None = None
    """What the driver was told last and still follows: pause, stop or cancel."""
    asked_by: str = ""
    asked_at: str = ""
    waiting: tuple[str, ...] = ()
    """When orders were given that no driver has taken in."""
    design: Mapping[str, Any] | None = None
    """blocks, arms, hash and extensions of the fixed design; None where stage two is not open."""

    def count(self, *statuses: str) -> int:
        """How many cells of the plan have one of these statuses."""
        return sum(place.status in statuses for place in self.places)

    def messages(self) -> list[tuple[str, str, int]]:
        """(status, message, how often) of all failures, the most frequent first."""
        return [(status, said, n) for (status, said), n in Counter((f.status, f.message) for f in self.failures).most_common()]

    def to_json(self) -> dict[str, Any]:
        """All of it, as data."""
        return {
            "folder": self.folder,
            "study": self.study,
            "mode": self.mode,
            "launches": self.launches,
            "launched": self.launched,
            "driver": self.driver,
            "ended": self.end,
            "last_event": self.last,
            "asked": None if self.asked is None else {"order": self.asked, "by": self.asked_by, "at": self.asked_at},
            "orders_waiting": list(self.waiting),
            "cells": [{"stage": stage, "arm": arm, **counts} for (stage, arm), counts in self.cells.items()],
            "places": [asdict(place) for place in self.places],
            "best": self.best,
            "design": self.design,
            "blocks_to_come": self.blocks_to_come,
            "lanes": self.lanes,
            "lanes_seen": [asdict(lane) for lane in self.seen],
            "in_flight": [asdict(held) for held in self.held],
            "taken_again": self.again,
            "failures": [asdict(failure) for failure in self.failures],
            "messages": [{"status": status, "message": said, "count": n} for status, said, n in self.messages()],
            "device_seconds": self.device_seconds,
            "device_seconds_by_stage": dict(self.by_stage or {}),
            "trainings_left_at_most": self.trainings_left,
            "seconds_left_at_most": self.left_s,
        }


def standing_of(folder: str, journal: Journal | None = None) -> Standing:
    """Read the journal of a folder of results. Who looks again and again gives the same ``journal``, which knows what it has read.

    Raises:
        StorageError: there is none, or it cannot be read.
    """
    events = (journal or Journal(folder)).read()
    record = record_of(events)
    if record.study is None:
        raise StorageError(f"{folder} holds no results of a study: there is no journal in it. `kdsweep run STUDY` makes one.")
    since = max(i for i, event in enumerate(events) if event["event"] == "study")
    ends = [event["status"] for event in events[since:] if event["event"] == "end"]
    facts = StudyFacts(tuple(record.launches), tuple(a.plan for a in record.cells.values()), record.choices, design=record.design)
    driver = holder_of(folder)
    held = () if driver is None else _held(events[since:], record)
    flying = {each.cell for each in held}
    places = (*(_place(attempt, attempt.cell in flying) for attempt in record.cells.values()), *_not_planned(facts, record))
    cells: dict[tuple[str, str], dict[str, int]] = {}
    for place in places:
        if place.status != MISSING:
            cells.setdefault((place.stage, place.arm), dict.fromkeys(STATUSES, 0))[_kind(place.status)] += 1
    lanes = record.launches[-1].get("lanes")
    left = _trainings_left(facts, places)
    by_stage: dict[str, float] = {}
    for attempt in record.attempts:
        by_stage[attempt.plan["stage"]] = by_stage.get(attempt.plan["stage"], 0.0) + attempt.total("device_seconds")
    order = None if driver is None else _order(events[since:])
    return Standing(
        folder=folder,
        study=record.study["study"],
        cells=cells,
        best=_best(record, record.study),
        device_seconds=sum(by_stage.values()),
        last=events[-1]["time"],
        end=ends[-1] if ends else None,
        driver=driver,
        places=places,
        mode=str(record.study.get("mode") or ""),
        launches=len(record.launches),
        launched=record.launches[-1]["time"],
        lanes=None if lanes is None else int(lanes),
        seen=_seen(events[since:], record),
        held=held,
        again=sum(attempt.attempt > 1 for attempt in record.cells.values()),
        failures=_failures(record),
        by_stage=by_stage,
        trainings_left=left,
        left_s=_pace(record, lanes or 1).left(left),
        blocks_to_come=_blocks_to_come(facts, record),
        asked=None if order is None else str(order["order"]),
        asked_by="" if order is None else str(order.get("by", "")),
        asked_at="" if order is None else str(order.get("time", "")),
        waiting=tuple(given.isoformat() for _, given in orders.waiting(folder)),
        design=_design(record),
    )


def _held(events: Sequence[Event], record: Record) -> tuple[Held, ...]:
    """Legs of the launch that no row has ended, nor another attempt."""
    found: dict[str, Held] = {}
    for event in events:
        cell = event.get("cell")
        if event["event"] in ("row", "cell"):
            found.pop(str(cell), None)
        elif event["event"] == "leg" and cell in record.cells:
            plan = record.cells[cell].plan
            lane, at = str(event.get("lane", "")), str(event.get("time", ""))
            found[cell] = Held(cell, plan["stage"], plan["arm"], plan["block"], event["until"], lane, at)
    return tuple(found.values())


def _place(attempt: Attempt, is_held: bool) -> Place:
    plan = attempt.plan
    reached = max((row["progress"] for row in (*attempt.rows, *attempt.preempted)), default=0.0)
    begun = RUNNING if is_held else BEGUN if attempt.rows or attempt.preempted else OPEN
    status = attempt.status if attempt.is_finished else begun
    return Place(
        attempt.cell, plan["stage"], plan["arm"], plan["block"], plan["generation"], plan["number"], attempt.attempt, str(status), reached
    )


def _kind(status: str) -> str:
    if status in (RUNNING, BEGUN, OPEN):
        return "under way"
    return status if status in (OK, STOPPED) else FAILED


def _not_planned(facts: StudyFacts, record: Record) -> list[Place]:
    """Arms by blocks of the fixed design that a crash kept out of the plan; the next launch puts them in."""
    if facts.design is None:
        return []
    known = {(cell["arm"], cell["block"]) for cell in facts.cells if cell["stage"] == CONFIRM}
    wanted = [(str(arm["arm"]), block) for arm in facts.design["arms"] for block in range(record.blocks or 0)]
    return [Place("", CONFIRM, arm, block, None, None, 0, MISSING, 0.0) for arm, block in wanted if (arm, block) not in known]


def _blocks_to_come(facts: StudyFacts, record: Record) -> int:
    is_open = record.design is not None or any(cell["stage"] == CONFIRM for cell in facts.cells)
    return 0 if is_open or facts.base is None else record.blocks or 0


def _trainings_left(facts: StudyFacts, places: Sequence[Place]) -> float:
    """At most: early stopping spares some of them."""
    left = sum(1.0 - place.progress for place in places if place.status in (RUNNING, BEGUN, OPEN, MISSING))
    search, chosen = facts.asked.get("search"), {choice["arm"] for choice in facts.choices}
    trials, blocks = (search.get(key) for key in ("trials", "blocks")) if isinstance(search, dict) else (None, None)
    if isinstance(trials, int):
        for arm, cells in facts.planned_search.items():
            to_propose = 0 if arm in chosen else trials - len({cell["number"] for cell in cells})
            left += max(0, to_propose) * (blocks if isinstance(blocks, int) else 1)
    return left


def _pace(record: Record, lanes: int) -> Pace:
    """By all cells so far."""
    pace, trained = Pace(lanes), dict.fromkeys(record.cells, 0.0)
    for attempt in record.attempts:
        # Rungs of earlier attempts count: the next one goes on from there.
        gained = max(0.0, attempt.progress - trained[attempt.cell])
        trained[attempt.cell] += gained
        pace.add(attempt.total("seconds"), gained)
    return pace


def _seen(events: Sequence[Event], record: Record) -> tuple[Seen, ...]:
    found: dict[tuple[str, str, str], Seen] = {}
    for row in events:
        where = row.get("where") if row["event"] == "row" else None
        if not where or row["cell"] not in record.cells:
            continue
        key = (str(where.get("host", "")), str(where.get("pid", "")), str(where.get("device", "")))
        plan = record.cells[row["cell"]].plan
        legs = found[key].legs + 1 if key in found else 1
        what = (row["cell"], plan["stage"], plan["arm"], plan["block"], row["status"], row["progress"], row["time"])
        found[key] = Seen(*key, legs, *what)
    return tuple(found.values())


def _failures(record: Record) -> tuple[Failure, ...]:
    found = []
    for attempt in record.attempts:
        plan, is_last = attempt.plan, attempt.attempt == record.cells[attempt.cell].attempt
        if attempt.is_finished and attempt.status not in (OK, STOPPED):
            row = attempt.rows[-1]
            status, said, at = str(attempt.status), str(row.get("message", "")).strip().partition("\n")[0], row["time"]
        elif not attempt.is_finished and not is_last:
            status, said, at = LOST, "The lane that held this cell died.", record.cells[attempt.cell].plan["time"]
        else:
            continue
        found.append(Failure(attempt.cell, plan["stage"], plan["arm"], plan["block"], attempt.attempt, status, said, at, not is_last))
    return tuple(sorted(found, key=lambda failure: failure.at))


def _order(events: Sequence[Event]) -> Event | None:
    """What the driver of the launch follows: the last word of pause and resume, unless it is to end."""
    last: Event | None = None
    for event in events:
        if event["event"] == "order":
            kind = event.get("order")
            if kind in (orders.STOP, orders.CANCEL):
                last = event
            elif kind in (orders.PAUSE, orders.RESUME) and (last is None or last["order"] == orders.PAUSE):
                last = event if kind == orders.PAUSE else None
    return last


def _design(record: Record) -> Mapping[str, Any] | None:
    if record.design is None:
        return None
    added = [{"name": event["name"], "before": event["before"], "blocks": event["blocks"]} for event in record.extensions]
    arms = [str(arm["arm"]) for arm in record.design["arms"]]
    return {"blocks": record.design["blocks"], "arms": arms, "hash": record.design["hash"], "extensions": added}


def _best(record: Record, study: Event) -> dict[str, float]:
    sign = 1.0 if study["metric"]["goal"] == "maximise" else -1.0
    scores: dict[tuple[str, int], list[float]] = {}
    for attempt in record.attempts:
        cell = attempt.plan
        if cell["stage"] == SEARCH and attempt.status == OK:
            scores.setdefault((cell["arm"], cell["number"]), []).append(attempt.metrics[study["metric"]["select"]])
    best: dict[str, float] = {}
    for (arm, _), values in scores.items():
        mean = sum(values) / len(values)
        if arm not in best or sign * mean > sign * best[arm]:
            best[arm] = mean
    return best


def folder_named(study: str, storage: str | None) -> str | None:
    """The folder of results of a study file, without loading what trains; None where only the whole reader can say, or refuse."""
    try:
        text = Path(study).read_text(encoding="utf-8-sig") if Path(study).stat().st_size <= located.MAX_CHARACTERS else ""
    except (OSError, UnicodeError):
        return None
    document, faults = located.read(text, study)
    entries = {} if document is None else document.entries
    name, run = entries.get("study"), entries.get("run")
    place = None if run is None else run.entries.get("storage")
    where = storage if storage is not None else _STORAGE if place is None else place.value
    if faults or name is None or not isinstance(name.value, str) or not _NAME.fullmatch(name.value) or not isinstance(where, str):
        return None
    return f"{where.rstrip('/')}/{name.value}"
