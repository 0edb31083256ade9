"""Cleaning: what of a study's files nothing needs any more, and why. Never the journal, the tables or the report.

Only what is known to be of no use is listed. Weights, and outputs of teachers, go once a study is complete and no failed cell, if it is
taken again, could need them; checkpoints once their cell has ended; files half written once their writer is gone.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator import mirror, orders
from orchestrator.errors import Refused, StorageError
from orchestrator.events import PATH, SEARCH, Event
from orchestrator.record import Record, record_of
from orchestrator.retrying import is_failed, retrying
from orchestrator.storage import StudyLock, folder_at, holder_of, local_path
from orchestrator.telling import known
from trainables.status import FAILURES
from trainables.store import Store, StoreError

CHECKPOINT, WEIGHTS, OUTPUTS, HALF_WRITTEN, ORDER, MIRRORED, SCRATCH = (
    "checkpoint", "weights", "outputs", "half written", "order", "mirrored", "scratch",
)  # fmt: skip

_ARTEFACTS = {CHECKPOINT: "checkpoints/", WEIGHTS: "teachers/", OUTPUTS: "outputs/"}
_OF_CELL = re.compile(r"(?P<cell>[0-9a-f]{16})\.pt")
_OF_OUTPUTS = re.compile(r"(?P<cell>[0-9a-f]{16})-[a-z0-9]+-[a-z0-9]+-[a-z0-9]+\.pt")
_OF_WRITER = re.compile(r"\..+\.(?P<pid>[0-9]+)\.tmp|\.mirror\.json\.tmp")
_OF_STORE = re.compile(r"\..+\.pt\.[0-9a-f]{32}")
_OF_RUN = re.compile(r"offline-run-[0-9_]+-(?P<run>[0-9a-f]{20})")
_OF_RAY = re.compile(r"kdsweep-(tune|lane)-\w+")
_HOUR_S, _DAY_S = 3600.0, 86400.0


@dataclass(frozen=True)
class Item:
    """Something that can be removed."""

    kind: str
    name: str
    """As it is shown: where it is."""
    size: int
    """Bytes."""
    why: str
    remove: Callable[[], None] = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {"kind": self.kind, "name": self.name, "bytes": self.size, "why": self.why}


def clean(folder: str, *, is_real: bool, temporary: Path | None = None, processes: Path = Path("/proc")) -> list[Item]:
    """What can be removed; where ``is_real``, it was.

    Args:
        folder: of a study.
        is_real: whether anything is touched.
        temporary: where Ray's scratch folders are looked for; None for the system's place.
        processes: where the system tells of processes.

    Raises:
        Refused: a driver is at work. StorageError: there is no study, or its folder cannot be used.
    """
    driver = holder_of(folder)
    if driver is not None:
        raise Refused(
            f"`kdsweep clean` needs a study that nobody works on, but got {driver} at work on {folder}. Wait, or `kdsweep stop` it."
        )
    scratch = Path(tempfile.gettempdir()) if temporary is None else temporary
    known(folder)  # before a lock is put into a folder that is no study's
    try:
        if not is_real:
            return _found(folder, scratch, processes)
        with StudyLock(folder):
            found = _found(folder, scratch, processes)
            for item in found:
                item.remove()
    except OSError as fault:  # StoreError among them
        told = fault if isinstance(fault, StoreError) else f"Cleaning {folder} needs permission, but got {type(fault).__name__}: {fault}."
        raise StorageError(f"{told} What was listed before it is removed. See to it, then clean again.") from fault
    return found


def lines(found: Sequence[Item], *, is_real: bool) -> list[str]:
    """For the terminal."""
    if not found:
        return ["Nothing to clean: whatever is there is needed."]
    shown = [f"  {_bytes(item.size):>9}  {item.kind:<12}  {item.name}: {item.why}" for item in found]
    total = f"{len(found)} item{'s' if len(found) > 1 else ''}, {_bytes(sum(item.size for item in found))}"
    return [*shown, f"Removed: {total}." if is_real else f"Can be removed: {total}. Nothing was touched; --yes removes it."]


def _found(folder: str, scratch: Path, processes: Path) -> list[Item]:
    events = known(folder)
    record = record_of(events)
    items = [*_artefacts(folder, record, is_complete=_is_complete(events)), *_orders(folder)]
    local = local_path(folder)
    if local is not None:
        items += _half_written(local)
    if holder_of(mirror.directory_of(folder)) is None:
        items += _mirrored(mirror.directory_of(folder), record)
    return [*items, *_scratch(scratch, processes)]


def _is_complete(events: Sequence[Event]) -> bool:
    """Whether the last launch came to the end of the study."""
    last = next(event for event in reversed(events) if event["event"] in ("study", "end"))
    return bool(last["event"] == "end" and last["status"] == "complete")


def _artefacts(folder: str, record: Record, *, is_complete: bool) -> Iterator[Item]:
    local = local_path(folder)
    store = Store(f"{folder}/artifacts" if local is None else str(local.absolute() / "artifacts"))
    needed = _needed(record) if is_complete else None
    for kind, prefix in _ARTEFACTS.items():
        for name, size in store.sizes(prefix).items():
            match = (_OF_OUTPUTS if kind == OUTPUTS else _OF_CELL).fullmatch(name.removeprefix(prefix))
            cell = match["cell"] if match is not None else ""
            attempt = record.cells.get(cell)
            if attempt is None:
                continue  # whatever it is, it is none of this study's
            why = ""
            if kind == CHECKPOINT and attempt.is_finished and attempt.status not in FAILURES:
                why = f"its cell has ended ({attempt.status})"
            elif kind in (WEIGHTS, OUTPUTS) and needed is not None and cell not in needed:
                why = "the study is complete, and no cell is left that could learn from it"
            if why:
                yield Item(kind, f"artifacts/{name}", size, why, partial(store.remove, name))


def _needed(record: Record) -> set[str] | None:
    """Cells whose networks others may still learn from; None where any of them may be."""
    if any(not attempt.is_finished for attempt in record.cells.values()):
        return None
    if record.study is not None and record.study.get("base") is not None and record.design is None:
        return None  # stage two did not open, and may yet, with what was trained for it
    if any(event["stage"] in (SEARCH, PATH) for event in retrying(record).events):
        return None  # proposals that are not known yet may follow
    return {cell for attempt in record.cells.values() if is_failed(attempt) for cell in attempt.plan.get("needs", ())}


def _orders(folder: str) -> Iterator[Item]:
    place = folder_at(folder)
    for name, given in orders.waiting(folder):
        why = f"no driver is at work that could take it in; it was given {given:%Y-%m-%d %H:%M} UTC"
        yield Item(ORDER, name, len(place.read(name) or b""), why, partial(place.remove, name))


def _half_written(folder: Path) -> Iterator[Item]:
    """Files that writers who are gone left behind."""
    for inner in ("", "figures", "orders", "wandb", "artifacts/teachers", "artifacts/checkpoints", "artifacts/outputs"):
        form = _OF_STORE if inner.startswith("artifacts") else _OF_WRITER
        for entry in _entries(folder / inner):
            match = form.fullmatch(entry.name)
            if match is None or not entry.is_file(follow_symlinks=False):
                continue
            told = entry.stat(follow_symlinks=False)
            pid = match.groupdict().get("pid")
            if time.time() - told.st_mtime > _HOUR_S and (pid is None or not _lives(int(pid))):
                why = "its writer is gone, and left it more than an hour ago"
                yield Item(HALF_WRITTEN, f"{inner}/{entry.name}".lstrip("/"), told.st_size, why, partial(_unlink, Path(entry.path)))


def _mirrored(directory: Path, record: Record) -> Iterator[Item]:
    """Offline runs of W&B that a server has as well, by the mirror's own account."""
    uploaded: dict[str, str] = {}
    attempts = {mirror.key_of(attempt): attempt for attempt in record.finished}
    for target, state in mirror.load(directory).items():
        cells = state.get("cells") if isinstance(state, Mapping) else None
        if not target.startswith(f"{mirror.ONLINE}/") or not isinstance(cells, Mapping):
            continue
        for key, entry in cells.items():
            if key in attempts and isinstance(entry, Mapping) and mirror.is_mirrored(attempts[key], cells):
                uploaded[str(entry.get("run"))] = target.removeprefix(f"{mirror.ONLINE}/")
    for entry in _entries(directory):
        match = _OF_RUN.fullmatch(entry.name)
        if match is not None and match["run"] in uploaded and entry.is_dir(follow_symlinks=False):
            path = Path(entry.path)
            yield Item(MIRRORED, f"wandb/{entry.name}", _size(path), f"{uploaded[match['run']]} has it all", partial(shutil.rmtree, path))


def _scratch(temporary: Path, processes: Path) -> Iterator[Item]:
    """Folders that lanes and drivers that were killed left behind. Wherever one lives, Ray's own daemon does, too."""
    if not (processes / "self").exists() or _has_ray(processes):
        return
    for entry in _entries(temporary):
        if _OF_RAY.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            path, told = Path(entry.path), entry.stat(follow_symlinks=False)
            if told.st_uid == os.getuid() and time.time() - _latest(path) > _DAY_S:
                yield Item(SCRATCH, entry.path, _size(path), "no Ray runs here, and it is older than a day", partial(shutil.rmtree, path))


def _has_ray(processes: Path) -> bool:
    """Whether a Ray of this user runs on this machine, or it cannot be told."""
    for entry in _entries(processes):
        if entry.name.isdigit():
            try:
                is_ours = entry.stat().st_uid == os.getuid()
                if is_ours and Path(entry.path, "comm").read_text().strip() in ("raylet", "gcs_server"):
                    return True
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
            except OSError:
                return True
    return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _inside(path: Path) -> Iterator[os.stat_result]:
    yield path.lstat()
    for inner, folders, files in os.walk(path):
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):
                yield Path(inner, name).lstat()


def _size(path: Path) -> int:
    return sum(told.st_size for told in _inside(path))


def _latest(path: Path) -> float:
    return max(told.st_mtime for told in _inside(path))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
