"""The lock on a study in a bucket: an object ``.lock`` that its holder renews, since an object store has no locks.

Whoever finds it watches whether it changes: if so, its holder lives; if not, the holder died and the object is swept away.
So clocks of different machines need not agree. Two drivers that find a dead one's lock in the same instant may both go on,
and so may one that was suspended for longer than a lease lasts; then the journal decides, which accepts each of its
segments from one of them only.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import datetime

from orchestrator.bucket import RemoteFolder
from orchestrator.errors import StorageError, StudyLocked
from orchestrator.events import Clock, stamp

NAME = ".lock"

_RENEW_S = 5.0
"""Between two renewals; each costs a GET and a PUT."""
_STALE_S = 20.0
"""Without a renewal for so long, the holder is dead."""
_LONG_AGO_S = 90.0
"""Who renewed it so long ago by our clock, or so far in the future, is not called at work. Nothing but words hangs on that."""
_JOIN_S = 5.0
"""How long the end waits for the lock to be removed."""


class Lease:
    """Exclusive use of a remote folder, as good as an object store can promise it."""

    def __init__(self, folder: RemoteFolder, clock: Clock) -> None:
        self._folder, self._clock = folder, clock
        self._token = uuid.uuid4().hex
        self._since = stamp(clock)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._hold, name="study-lease", daemon=True)

    def take(self) -> None:
        """Become the holder. Where the last one died, this takes 20 s.

        Raises:
            StudyLocked: another one is at work. StorageError: the store cannot be used, or knows no conditional writes.
        """
        first, until = b"", 0.0
        while not self._folder.create(NAME, self._told()):
            found = self._folder.read(NAME)
            if found is None:
                continue  # given back in this moment
            if not first:
                # However old it says that it is: a clock that went back an hour may have written that a moment ago.
                first, until = found, time.monotonic() + _STALE_S
            if found != first:
                raise StudyLocked(
                    f"A study needs one driver at a time, but got {self._folder.url} in use by {holder(found)}. "
                    "Wait for it, or stop it: what is finished is kept, and a new launch goes on from there."
                )
            if time.monotonic() >= until:
                self._folder.remove(NAME)
            else:
                time.sleep(_RENEW_S / 4)
        if self._folder.create(NAME, b"kdsweep asks whether this is refused"):
            self._folder.remove(NAME)
            raise StorageError(
                f"Storage needs to refuse a conditional write of an object that exists, but got {self._folder.url}, which replaced it. "
                "Without that two drivers would mix their results: use gs://, s3:// on AWS, or a local folder."
            )
        self._thread.start()

    def give_back(self) -> None:
        """Let the next one in at once. Where the store does not answer, the lease runs out by itself."""
        self._over.set()
        self._thread.join(_JOIN_S)

    def _hold(self) -> None:
        while not self._over.wait(_RENEW_S):
            with contextlib.suppress(StorageError):
                if _token(self._folder.read(NAME)) not in (self._token, None):
                    return  # another one took it for stale: the journal now says who goes on
                self._folder.replace(NAME, self._told())
        with contextlib.suppress(StorageError):
            if _token(self._folder.read(NAME)) == self._token:
                self._folder.remove(NAME)

    def _told(self) -> bytes:
        told = {"host": socket.gethostname(), "pid": os.getpid(), "since": self._since, "renewed": stamp(self._clock), "token": self._token}
        return json.dumps(told).encode() + b"\n"


def living_holder(folder: RemoteFolder, clock: Clock) -> str | None:
    """Who renewed the lock lately; None where nobody did. Clocks that differ by a minute do no harm.

    Raises:
        StorageError: the store cannot be read.
    """
    found = folder.read(NAME)
    if found is None:
        return None
    age = _age_s(found, clock)
    return None if age is not None and abs(age) > _LONG_AGO_S else holder(found)


def holder(told: bytes) -> str:
    """Who holds a lock, by what its file says."""
    found = _fields(told)
    try:
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except KeyError:
        return "a process that has just started"


def _fields(told: bytes | None) -> Mapping[str, object]:
    try:
        found = json.loads(told or b"")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _token(told: bytes | None) -> object:
    return _fields(told).get("token")


def _age_s(told: bytes, clock: Clock) -> float | None:
    try:
        return (clock() - datetime.fromisoformat(str(_fields(told).get("renewed")))).total_seconds()
    except ValueError:
        return None
