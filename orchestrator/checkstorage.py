"""Checks of storage: everything that a study asks of it is done once, in a folder that is removed again, and its clock is compared.

What is written lies where results would: in the study's folder if there is one, else in the one for all studies. Folders
that had to be made for it are removed too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fsspec.asyn import AsyncFileSystem

from orchestrator.bucket import RemoteFolder
from orchestrator.doctor import Findings
from orchestrator.errors import StorageError, StudyLocked
from orchestrator.journal import Journal
from orchestrator.premises import Premises, at
from orchestrator.storage import LocalFolder, StudyLock, folder_at, local_path
from trainables import remote

_BYTES = 2**20
"""Of what is written: enough to meet a full disk or a quota."""
_FREE_BYTES = 10**9
_APART_S = 30.0
"""How far clocks may be apart before times in the table, and who holds a lock in a bucket, are doubtful."""
_PROBE = ".kdsweep-doctor"
_NAME, _LINES = "probe", b'{"event":"probe"}\n'


@dataclass(frozen=True)
class _Seen:
    """What came of a probe."""

    faults: tuple[str, ...]
    done: str
    """The line where there are none."""
    ahead_s: float
    """How far this machine's clock is ahead of the one that dates what is stored."""
    where: str
    free_bytes: int | None = None


def check_storage(findings: Findings, premises: Premises) -> None:
    """Write, read, list, lock or write on condition, and remove, where results go; compare clocks with what was written."""
    place = at("storage")
    try:
        folder = folder_at(premises.folder or premises.root)
        seen = _check_bucket(premises) if isinstance(folder, RemoteFolder) else _check_disk(premises, folder)
    except StorageError as fault:
        findings.error(place, "run.storage", str(fault))
        return
    except OSError as fault:
        told = f"{type(fault).__name__}: {fault}"
        findings.error(place, "run.storage", f"needs a folder that can be written, but got {told}. Check the path and its permissions.")
        return
    for message in seen.faults:
        findings.error(place, "run.storage", message)
    if seen.free_bytes is not None and seen.free_bytes < _FREE_BYTES:
        got = f"{seen.free_bytes / 1e6:.0f} MB at {seen.where}"
        findings.warn(place, "run.storage", f"needs 1 GB free, but got {got}. Make room: a full disk ends a launch.")
    elif not seen.faults:
        findings.ok(place, "run.storage", seen.done)
    _compare_clocks(findings, premises, seen.ahead_s)


def check_results(findings: Findings, premises: Premises) -> None:
    """What a study has so far can be read, and none of it lies in the future."""
    if premises.folder is None:
        return
    place = at("results")
    try:
        events = Journal(premises.folder).read()
    except StorageError as fault:
        findings.error(place, "", str(fault))
        return
    if not events:
        findings.ok(place, "", f"none yet in {remote.without_login(premises.folder)}.")
        return
    ahead = max((_time_of(event.get("time")) for event in events), default=0.0) - premises.clock().timestamp()
    if ahead > _APART_S:
        findings.warn(
            place,
            "",
            f"needs a clock that goes on, but got events {ahead:.0f} s in the future. Was this machine's clock set back? Times in "
            "the table will be wrong, nothing else.",
        )
    else:
        findings.ok(place, "", f"{len(events)} events can be read in {remote.without_login(premises.folder)}.")


def _check_disk(premises: Premises, place: LocalFolder) -> _Seen:
    root = local_path(premises.root)
    folder = place.path if root is None or place.path.exists() else root
    faults = []
    with _probe_folder(folder) as path:
        probe = LocalFolder(path)
        probe.replace(_NAME, os.urandom(_BYTES))
        begun = time.perf_counter()
        probe.append("lines", _LINES)
        synced_s = time.perf_counter() - begun
        probe.append("lines", _LINES)
        written = os.urandom(_BYTES)
        probe.replace(_NAME, written)
        own_s = premises.clock().timestamp()
        if probe.read(_NAME) != written or probe.read("lines") != _LINES * 2:
            faults.append(f"needs to read what was written, but got something else from {folder}.")
        if (listed := sorted(os.listdir(path))) != ["lines", _NAME]:
            faults.append(f"needs to list what was written, but got {listed} in {folder}.")
        if not _excludes(path):
            faults.append(
                f"needs a file system with flock, but got one at {folder} that gives a lock to two at a time: two drivers would mix their "
                "results. Use a local disk or an object store."
            )
        free = shutil.disk_usage(path).free
        stored_s = (path / _NAME).stat().st_mtime
    done = f"written, synced, read, listed, locked and removed in {folder}; a synced line takes {1000 * synced_s:.1f} ms"
    return _Seen(tuple(faults), f"{done}; {free / 1e9:.1f} GB are free.", own_s - stored_s, f"{folder}", free)


def _check_bucket(premises: Premises) -> _Seen:
    shown = remote.without_login(premises.root)
    probe = RemoteFolder(f"{premises.root}/{_PROBE}-{uuid.uuid4().hex}")
    written, other = os.urandom(_BYTES // 16), b"refuse me"
    faults = []
    try:
        begun = time.perf_counter()
        probe.create(_NAME, written)
        took_s = time.perf_counter() - begun
        own_s = premises.clock().timestamp()
        if probe.read(_NAME) != written:
            faults.append(f"needs to read what was written, but got something else from {shown}.")
        if (listed := probe.names("")) != (_NAME,):
            faults.append(f"needs to list what was written, but got {listed} in {shown}.")
        files, path = remote.opened(probe.label(_NAME))
        stored: datetime = files.modified(path)
        if probe.create(_NAME, other):
            faults.append(
                f"needs to refuse a conditional write of an object that exists, but got {shown}, which replaced it: two drivers would mix "
                "their results. Use gs://, s3:// on AWS, or a local folder."
            )
        probe.replace(_NAME, other)
        if probe.read(_NAME) != other:
            faults.append(f"needs to read what was written last, but got what was there before, from {shown}.")
    finally:
        _swept(probe)
    if left := probe.names(""):
        faults.append(f"needs to remove what it wrote, but got {left} left in {probe.url}.")
    done = f"written, read, listed, refused where it exists, replaced and removed in {shown}; a write takes {took_s:.2f} s."
    stored_s = (stored if stored.tzinfo else stored.replace(tzinfo=UTC)).timestamp()
    return _Seen(tuple(faults), done, own_s - stored_s, shown)


def _compare_clocks(findings: Findings, premises: Premises, ahead_s: float) -> None:
    place, installed = at("clock"), datetime.fromtimestamp(Path(__file__).stat().st_mtime, UTC)
    now = premises.clock()
    if (installed - now).total_seconds() > _APART_S:
        findings.warn(place, "", f"needs the time of day, but got {now:%Y-%m-%d %H:%M} UTC, before kdsweep was installed. Set the clock.")
    elif abs(ahead_s) > _APART_S:
        where = "ahead of" if ahead_s > 0 else "behind"
        findings.warn(
            place,
            "",
            f"needs this machine's clock within {_APART_S:g} s of the storage's, but got it {abs(ahead_s):.0f} s {where} it: times in the "
            "table will be wrong. Let the system set its clock (NTP).",
        )
    else:
        findings.ok(place, "", f"{now:%Y-%m-%d %H:%M:%S} UTC, within {_APART_S:g} s of the storage's.")


@contextlib.contextmanager
def _probe_folder(folder: Path) -> Iterator[Path]:
    """A new folder in ``folder``, which is made if need be, and all that was made is gone afterwards."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    probe = folder / f"{_PROBE}-{uuid.uuid4().hex}"
    try:
        probe.mkdir(parents=True)
        yield probe
        shutil.rmtree(probe)
    finally:
        shutil.rmtree(probe, ignore_errors=True)
        with contextlib.suppress(OSError):  # somebody else may use it by now
            for path in made:
                path.rmdir()


def _excludes(path: Path) -> bool:
    with StudyLock(path):
        try:
            with StudyLock(path):
                return False
        except StudyLocked:
            return True


def _swept(probe: RemoteFolder) -> None:
    probe.remove(_NAME)
    files, path = remote.opened(probe.url)
    if not isinstance(files, AsyncFileSystem):  # buckets have no folders, others do
        with contextlib.suppress(OSError):
            files.rmdir(path)


def _time_of(text: object) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0
