"""Where results live: a local folder, or a folder of an object store behind an fsspec URL, and the lock on it.

The two differ in what they can promise. A local file can be appended to, and ``os.replace`` swaps a whole file; an object
store can do neither, but one PUT is atomic, and a PUT can be made to fail where the object exists. It can also be far away,
or gone for a while: every call on it ends in time, and lasts out what takes seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import fsspec

from orchestrator import lease
from orchestrator.bucket import RemoteFolder
from orchestrator.errors import StorageError, StudyLocked
from orchestrator.events import Clock, stamp, utc_now

_BLOCK = 4096
_LOCK = lease.NAME


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine's file system. It is made when something is first written.

    It may be a link, or lie behind one. Files in it are never written through one: whoever may write here could have placed it.
    """

    path: Path

    def label(self, name: str) -> str:
        """The name as messages give it."""
        return str(self.path / name)

    def names(self, folder: str) -> tuple[str, ...]:
        """Names of the files right in a folder, sorted; none where it does not exist. What is no file of its own is left out.

        Raises:
            StorageError: it cannot be listed.
        """
        try:
            with os.scandir(self.path / folder) as entries:
                return tuple(sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False)))
        except FileNotFoundError:
            return ()
        except OSError as fault:
            raise _unreadable(self.label(folder), fault) from fault

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where there is none.

        Raises:
            StorageError: no permission, ...
        """
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as fault:
            raise _unwritable(self.label(name), fault) from fault

    def read(self, name: str) -> bytes | None:
        """The whole file; None where there is none.

        Raises:
            StorageError: it cannot be read.
        """
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as fault:
            raise _unreadable(self.label(name), fault) from fault

    def append(self, name: str, lines: bytes, known: int | None = None) -> int:
        """Add whole lines with one write, on the disk before this returns; how many bytes the file then has.

        What a writer that died left without a newline is cut off first; where ``known`` is given, so many bytes have to be left then. If the write
        fails, the file is cut back to what it was. One writer at a time: see ``StudyLock``.

        Raises:
            StorageError: disk full, no permission, ...; nothing that was there is lost. Or the file is not what it was.
        """
        try:
            if not known:
                self.path.mkdir(parents=True, exist_ok=True)
            is_new = not (self.path / name).exists()
            if is_new and known:
                raise _changed(self.label(name), "no such file")
            descriptor = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
            try:
                length = _cut_torn_tail(descriptor)
                if known not in (None, length):
                    raise _changed(self.label(name), f"{length} bytes instead of {known}")
                try:
                    _write(descriptor, lines)
                except OSError:
                    # Half a line on a full disk would be taken for a torn tail anyway; whole lines that the caller
                    # is told were not written would not.
                    with contextlib.suppress(OSError):
                        os.ftruncate(descriptor, length)
                    raise
            finally:
                os.close(descriptor)
            if is_new:
                self._sync()
        except OSError as fault:
            raise _unwritable(self.label(name), fault) from fault
        return length + len(lines)

    def set_aside(self, name: str, keep: int, into: str) -> None:
        """Cut a file behind ``keep`` bytes. What was there is added to the file ``into``, and on the disk before it is cut.

        Raises:
            StorageError: disk full, no permission, ...; then nothing is cut.
        """
        try:
            with open(self.path / name, "r+b", opener=_itself) as file, open(self.path / into, "ab", opener=_itself) as kept:
                file.seek(keep)
                _write(kept.fileno(), file.read())
                self._sync()
                file.truncate(keep)
                os.fsync(file.fileno())
        except OSError as fault:
            raise _unwritable(self.label(into), fault) from fault

    def replace(self, name: str, data: bytes) -> None:
        """Put a whole file in the place of the old one: readers, and whoever comes after a crash, see the one or the other.

        What writers that died left half done is swept away.

        Raises:
            StorageError: disk full, no permission, ...; the old file stands.
        """
        half_done = self.path / f".{name}.{os.getpid()}.tmp"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for left in self.path.glob(f".{glob.escape(name)}.*.tmp"):
                left.unlink(missing_ok=True)
            descriptor = os.open(half_done, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                _write(descriptor, data)
            finally:
                os.close(descriptor)
            os.replace(half_done, self.path / name)
            self._sync()
        except OSError as fault:
            with contextlib.suppress(OSError):
                half_done.unlink(missing_ok=True)
            raise _unwritable(self.label(name), fault) from fault

    def _sync(self) -> None:
        """Make a new directory entry survive a power failure, as fsync of the file alone does not."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


Folder = LocalFolder | RemoteFolder


def folder_at(place: str | Path) -> Folder:
    """The folder at a local path, a file:// URL or another fsspec URL. Nothing is touched."""
    path = local_path(place)
    return RemoteFolder(str(place).rstrip("/")) if path is None else LocalFolder(path)


def waiting(place: Folder) -> Folder:
    """The same folder, whose writes wait for a store that is away for a minute."""
    return replace(place, waits=True) if isinstance(place, RemoteFolder) else place


def local_path(place: str | Path) -> Path | None:
    """The path of a local folder or file:// URL, as written (a ``%20`` stays one); None where only fsspec gets to it."""
    if isinstance(place, Path):
        return place
    protocol, path = fsspec.core.split_protocol(place)
    if protocol is None:
        return Path(place).expanduser()
    return Path(path) if protocol in ("file", "local") else None


class StudyLock:
    """Exclusive use of a study's folder, for as long as the ``with`` block lasts.

    Locally it is an advisory flock on the file ``.lock``, which says host, pid and since when. The system gives it up
    with the process, however that dies, so there are no stale locks; a process forked meanwhile that outlives us keeps it.
    On network file systems it holds as far as these carry flock between hosts (NFS does since Linux 2.6.12).

    An object store has no locks: there it is a lease, an object that is renewed while the block lasts. A driver that was
    killed keeps the next one waiting for up to 20 s. Should two drivers get past it all the same, one of them fails as soon
    as it writes a journal segment that the other has written already.
    """

    def __init__(self, folder: str | Path, clock: Clock = utc_now) -> None:
        self._place = folder_at(folder)
        self._clock = clock
        self._descriptor: int | None = None
        self._lease: lease.Lease | None = None

    def __enter__(self) -> StudyLock:
        """Take the lock.

        Raises:
            StudyLocked: someone has it; the message names them.
            StorageError: the folder cannot be written, or its file system has no locks.
        """
        if isinstance(self._place, RemoteFolder):
            found = lease.Lease(self._place, self._clock)
            found.take()
            self._lease = found
            return self
        path = self._place.path
        try:
            path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as fault:
            raise _unwritable(str(path / _LOCK), fault) from fault
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": stamp(self._clock)}
            os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)
        except BlockingIOError as fault:
            told = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            raise StudyLocked(
                f"A study needs one driver at a time, but got {path} in use by {lease.holder(told)}. "
                "Wait for it, or stop it: what is finished is kept, and a new launch goes on from there."
            ) from fault
        except OSError as fault:
            os.close(descriptor)
            raise StorageError(
                f"Locking needs a file system with flock and space, but got {type(fault).__name__} for {path / _LOCK}: {fault}. "
                "Make room, or put the results on a local disk or an object store."
            ) from fault
        self._descriptor = descriptor
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._descriptor is not None:
            # The file stays: were it deleted, two drivers could hold locks on two files of the same name.
            os.close(self._descriptor)
            self._descriptor = None
        if self._lease is not None:
            self._lease.give_back()
            self._lease = None


def holder_of(folder: str | Path, clock: Clock = utc_now) -> str | None:
    """Who holds the lock of a study's folder; None where nobody does. Of a remote one, who renewed it within 90 s.

    Raises:
        StorageError: a remote folder cannot be read.
    """
    place = folder_at(folder)
    if isinstance(place, RemoteFolder):
        return lease.living_holder(place, clock)
    try:
        descriptor = os.open(place.path / _LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        # Shared, and given up at once: two who look do not disturb each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return lease.holder(os.pread(descriptor, 4096, 0))
    except OSError:
        return None
    else:
        return None
    finally:
        os.close(descriptor)


def _unreadable(what: str, fault: Exception) -> StorageError:
    """What to raise where something that is there cannot be read."""
    return StorageError(f"Reading needs access to {what}, but got {type(fault).__name__}: {fault}. Check the path and its permissions.")


def _unwritable(what: str, fault: Exception) -> StorageError:
    return StorageError(
        f"Writing needs permission and space for {what}, but got {type(fault).__name__}: {fault}. "
        "What was there is kept; make room, then run the study again: finished cells are not repeated."
    )


def _changed(what: str, found: str) -> StorageError:
    """What to raise where somebody else moved, cut or wrote a file that has one writer."""
    return StorageError(
        f"Writing {what} needs the file as this driver left it, but got {found}. Nothing was written. "
        "Put it back as it was, and let no other driver write there; then run the study again: finished cells are not repeated."
    )


def _itself(path: str, flags: int) -> int:
    """Opens a file, but not one that a link in its place leads to."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o644)


def _write(descriptor: int, data: bytes) -> None:
    """Write all of it and wait for the disk."""
    view = memoryview(data)
    while view:
        # More than one round only where the system takes part of it: a disk that fills up, or more than 2 GiB.
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def _cut_torn_tail(descriptor: int) -> int:
    """Cut the file behind its last newline; the length that is left."""
    size = end = os.fstat(descriptor).st_size
    keep = 0
    while end > 0:
        start = max(0, end - _BLOCK)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            keep = start + newline + 1
            break
        end = start
    if keep < size:
        os.ftruncate(descriptor, keep)
    return keep
