"""The journal: an append-only list of events, one JSON object a line, from which everything else is made.

An event counts once its newline is on the disk. So what a writer that died left behind its last newline is no event:
readers pass over it and the next append cuts it off. Where power failed, whole lines at the end may be no events either,
for pages of a file reach the disk in any order. Readers pass over these, too, and say so; the next append moves them to
``journal.damaged``, and tells that in an event of its own. A fault anywhere else is corruption, and is said, not skipped.

Numbers that JSON has no word for become objects, ``{"nonfinite": "nan"}`` (or ``"inf"``, ``"-inf"``), wherever they
stand; ``Journal.read`` gives the floats back. Every line is strict JSON and plain ASCII.

Who writes or reads facts imports from here: the events, the record that they make and the lock come along.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.bucket import RemoteFolder
from orchestrator.errors import StorageError
from orchestrator.events import (
    SCHEMA_VERSION,
    Clock,
    Event,
    cell_event,
    choice_event,
    end_event,
    finite,
    row_event,
    stamp,
    study_event,
    utc_now,
)
from orchestrator.record import Attempt, Record, record_of
from orchestrator.shapes import complaint
from orchestrator.storage import LocalFolder, StudyLock, folder_at, waiting

__all__ = [
    "SCHEMA_VERSION",
    "Attempt",
    "Clock",
    "Event",
    "Journal",
    "Record",
    "StudyLock",
    "cell_event",
    "choice_event",
    "end_event",
    "record_of",
    "row_event",
    "study_event",
    "utc_now",
]

_FILE = "journal.jsonl"
_DAMAGED = "journal.damaged"
_TABLE = "trials.parquet"
_SEGMENTS = "journal"
_SEGMENT = re.compile(r"([0-9]{8,})\.jsonl")
_log = logging.getLogger("orchestrator.journal")


@dataclass(frozen=True)
class _Sound:
    """How far a local journal is sound."""

    length: int
    """Bytes, up to the end of the last line that is."""
    damaged: int = 0
    """Lines behind it that are no events."""
    first: int = 0
    """Number of the first of these."""


class _Misshapen(StorageError):
    """A line is an event, but not what an event of its kind is: no crash writes such a thing."""


class Journal:
    """The journal of the study at ``folder`` (the folder itself, a local path or an fsspec URL).

    Locally it is the file ``journal.jsonl``. In an object store, which cannot append, it is one immutable object per
    batch, ``journal/00000001.jsonl`` and on. One writer at a time: see ``StudyLock``.
    """

    def __init__(self, folder: str | Path) -> None:
        if str(folder).endswith(".jsonl"):
            raise StorageError(f"A Journal needs the folder of a study, but got folder={str(folder)!r}. Leave out the file name.")
        self._folder = waiting(folder_at(folder))
        self._known: list[tuple[Event, ...]] = []
        """Events by segment, as far as they were read: a segment never changes."""
        self._next: int | None = None
        """Number of the next segment, once known."""
        self._sound: _Sound | None = None
        """Of the local file, once known."""
        self._has_said = False

    def append(self, events: Sequence[Event]) -> None:
        """Add events in their order; they are durable when this returns. A batch costs one write and one fsync, or one PUT.

        If the machine dies meanwhile, the events that count afterwards are the first ones of the batch (or all, or none).

        Raises:
            StorageError: they cannot be written; then none of them counts, and nothing that was there is lost. (Where an
                object store did not answer, they may turn up all the same.) Or another driver wrote, or somebody took
                the journal away. Or, as ``read``, it is corrupt.
        """
        if not events:
            return
        lines = b"".join(_line(event) for event in events)
        if isinstance(self._folder, LocalFolder):
            self._append(self._folder, lines)
            return
        if self._next is None:
            self._next = len(_segments(self._folder)) + 1
        name = f"{_SEGMENTS}/{self._next:08d}.jsonl"
        if not self._folder.create(name, lines):
            raise StorageError(
                f"Writing {self._folder.label(name)} needs to be the only writer, but got an object that another one put there. "
                "Stop the other driver of this study, then run it again: finished cells are not repeated."
            )
        self._next += 1

    def _append(self, folder: LocalFolder, lines: bytes) -> None:
        if self._sound is None:
            self.read()
        sound = self._sound or _Sound(0)
        if sound.damaged:
            folder.set_aside(_FILE, sound.length, _DAMAGED)
            self._sound = _Sound(sound.length)
            told = {"event": "damage", "time": stamp(utc_now), "line": sound.first, "lines": sound.damaged, "kept": _DAMAGED}
            lines = _line(told) + lines
        self._sound = _Sound(folder.append(_FILE, lines, sound.length))

    def read(self) -> tuple[Event, ...]:
        """Every event that counts, in order; none where there is no journal yet. Nothing is changed.

        Raises:
            StorageError: a line is no event, and events follow on it or none stands before it; a segment is missing; or there
                is no event at all, but a table that was made of some.
        """
        events = self._read_file(self._folder) if isinstance(self._folder, LocalFolder) else self._read_segments(self._folder)
        if not events and self._folder.read(_TABLE) is not None:
            raise StorageError(
                f"A study needs its journal, but got {self._folder.label(_TABLE)} beside no event: the journal was lost, or emptied. "
                "Restore it from a copy. To give up what is finished and begin anew, remove that table."
            )
        return events

    def _read_file(self, folder: LocalFolder) -> tuple[Event, ...]:
        whole, newline, _torn = (folder.read(_FILE) or b"").rpartition(b"\n")
        events, self._sound = _sound(whole + newline, folder.label(_FILE))
        if self._sound.damaged and not self._has_said:
            self._has_said = True
            _log.warning(
                "%s has no events behind line %d (lines that are none: %d), as where power failed. What these may have said is done again; "
                "the next `kdsweep run` moves them to %s.",
                *(folder.label(_FILE), self._sound.first - 1, self._sound.damaged, folder.label(_DAMAGED)),
            )
        return events

    def _read_segments(self, folder: RemoteFolder) -> tuple[Event, ...]:
        names = _segments(folder)
        new = names[len(self._known) :]
        for name, data in zip(new, folder.read_all(new) if new else (), strict=True):
            self._known.append(tuple(_parsed(data, folder.label(name))))
        if self._next is None:
            # Whoever decides by what was read must not write behind what was not.
            self._next = len(names) + 1
        return tuple(event for segment in self._known for event in segment)


def _segments(folder: RemoteFolder) -> list[str]:
    """Names of the segments, in order."""
    matches = [match for name in folder.names(_SEGMENTS) if (match := _SEGMENT.fullmatch(name))]
    numbers = sorted(int(match[1]) for match in matches)
    for expected, number in enumerate(numbers, start=1):
        if number != expected:
            raise StorageError(
                f"A journal needs all its segments, but got {folder.label(_SEGMENTS)} without {expected:08d}.jsonl. "
                "Restore that object; an empty one means that the events in it are given up and what they say is done again."
            )
    return [f"{_SEGMENTS}/{number:08d}.jsonl" for number in numbers]


def _line(event: Event) -> bytes:
    try:
        text = json.dumps(event, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(finite(event), allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def _given_back(found: dict[str, Any]) -> Any:
    if len(found) == 1 and found.get("nonfinite") in ("nan", "inf", "-inf"):
        return float(found["nonfinite"])
    return found


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _sound(data: bytes, label: str) -> tuple[tuple[Event, ...], _Sound]:
    """Events of whole lines, as far as all of them are sound, and how far that is.

    Raises:
        StorageError: a line that is no event has one behind it, or none before it.
    """
    events: list[Event] = []
    length = damaged = first = 0
    fault: StorageError | None = None
    end = 0
    for number, line in enumerate(data.split(b"\n"), start=1):
        end += len(line) + 1
        if not line.strip():
            continue
        try:
            event = _event(line, f"{label} needs one event a line, but got line {number}")
        except _Misshapen:
            raise
        except StorageError as found:
            fault, first, damaged = fault or found, first or number, damaged + 1
            continue
        if fault is not None:
            raise fault
        events.append(event)
        length = end
    if fault is not None and not events:
        raise fault
    # Blank lines behind the last event do no harm, and stay.
    return tuple(events), _Sound(length, damaged, first) if damaged else _Sound(len(data))


def _parsed(data: bytes, label: str) -> Iterable[Event]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            yield _event(line, f"{label} needs one event a line, but got line {number}")


def _event(line: bytes, need: str) -> Event:
    try:
        hook = _given_back if b'"nonfinite"' in line else None
        event = json.loads(line.decode(), object_hook=hook, parse_constant=_refused)
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise ValueError("no object with a kind of event")
        if b"\\ud" in line.lower():
            json.dumps(event, ensure_ascii=False).encode()  # half a character: no table holds it, and no page shows it
    except (ValueError, RecursionError) as fault:
        raise StorageError(
            f"{need}={line[:60]!r} ({fault}). Restore the journal from a copy, or delete that line: what it said is then done again."
        ) from fault
    why = complaint(event)
    if why is not None:
        raise _Misshapen(
            f"{need}, a {event['event']} event in which {why}. Was it written by another version of kdsweep, or edited? "
            "Restore the journal from a copy, or delete that line: what it said is then done again."
        )
    return event
