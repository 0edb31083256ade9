"""A folder of an object store, behind an fsspec URL."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import StorageError
from trainables import remote

_SEGMENT_BYTES = 10_000
"""Of a segment of the journal, for the time that reading many of them may take; most are smaller."""
_CONFLICTS = (errno.EINVAL, errno.EBUSY)
"""How s3fs tells of 412 and 409 where the store does not say which condition failed, among other things."""


@dataclass(frozen=True)
class RemoteFolder:
    """A folder of an object store: gs://, s3://, memory:// and whatever else fsspec reaches. Every write is one PUT."""

    url: str
    waits: bool = False
    """Whether writes wait for a store that is away: for a driver, which has work to lose."""

    def label(self, name: str) -> str:
        """The name as messages give it."""
        return f"{self.url}/{name}"

    def names(self, folder: str) -> tuple[str, ...]:
        """Names of the objects right in a folder, sorted; none where it does not exist.

        Raises:
            StorageError: it cannot be listed.
        """
        files, root = self._open(folder)
        try:
            # gs:// and s3:// remember listings, and another process may have written since.
            files.invalidate_cache(root)
            found = files.ls(root, detail=False, **remote.within(files))
        except FileNotFoundError:
            return ()
        except Exception as fault:  # every fsspec backend has exceptions of its own
            raise _unread(self.label(folder), fault) from fault
        return tuple(sorted(str(path).rstrip("/").rpartition("/")[2] for path in found))

    def read(self, name: str) -> bytes | None:
        """The whole object; None where there is none.

        Raises:
            StorageError: it cannot be read.
        """
        files, path = self._open(name)
        try:
            return bytes(files.cat_file(path, **remote.within(files)))
        except FileNotFoundError:
            return None
        except Exception as fault:  # every fsspec backend has exceptions of its own
            raise _unread(self.label(name), fault) from fault

    def read_all(self, names: Sequence[str]) -> list[bytes]:
        """The whole of several objects, fetched side by side where the store can do that.

        Raises:
            StorageError: one of them cannot be read.
        """
        files, root = self._open("")
        paths = [f"{root.rstrip('/')}/{name}" for name in names]
        try:
            some = remote.within(files, _SEGMENT_BYTES * len(paths))
            found = files.cat_ranges(paths, [None] * len(paths), [None] * len(paths), on_error="raise", **some)
        except Exception as fault:  # every fsspec backend has exceptions of its own
            raise _unread(self.url, fault) from fault
        return [bytes(data) for data in found]

    def replace(self, name: str, data: bytes) -> None:
        """Put an object, over the old one if there is one.

        Raises:
            StorageError: the store refuses, or does not answer.
        """
        files, path = self._open(name)
        try:
            self._sent(lambda: files.pipe_file(path, data, **remote.within(files, len(data))))
        except Exception as fault:  # every fsspec backend has exceptions of its own
            raise _unput(self.label(name), fault) from fault

    def create(self, name: str, data: bytes) -> bool:
        """Put an object where there is none; whether it is there now. False: another one is.

        Raises:
            StorageError: the store refuses, or does not answer; then nobody knows whether the object will be there.
        """
        files, path = self._open(name)
        try:
            self._sent(lambda: files.pipe_file(path, data, mode="create", **remote.within(files, len(data))))
        except Exception as fault:  # every fsspec backend has exceptions of its own
            is_conflict = isinstance(fault, FileExistsError) or (isinstance(fault, OSError) and fault.errno in _CONFLICTS)
            found = self.read(name) if is_conflict else None
            if found is None:
                raise _unput(self.label(name), fault) from fault
            # A PUT that went through though its answer was lost is repeated by the backend: then the object is ours.
            return found == data
        return True

    def remove(self, name: str) -> None:
        """Remove an object; nothing happens where there is none.

        Raises:
            StorageError: the store refuses, or does not answer.
        """
        files, path = self._open(name)
        try:
            files.rm_file(path, **remote.within(files))
        except FileNotFoundError:
            return
        except Exception as fault:  # every fsspec backend has exceptions of its own
            raise _unput(self.label(name), fault) from fault

    def _sent(self, put: Callable[[], object]) -> None:
        if self.waits:
            remote.awaited(put)
        else:
            put()

    def _open(self, name: str) -> tuple[Any, str]:
        try:
            return remote.opened(self.label(name) if name else self.url)
        except ValueError as fault:
            url = remote.without_login(self.url)
            raise StorageError(f"Storage needs a local path or a URL that fsspec can open, but got storage={url!r}: {fault}.") from fault


def _unread(what: str, fault: Exception) -> StorageError:
    return StorageError(f"Reading {what} needs access and an answer, but got {remote.told(fault)}. Check bucket, credentials and network.")


def _unput(what: str, fault: Exception) -> StorageError:
    return StorageError(
        f"Writing {what} needs a bucket, access to it and an answer, but got {remote.told(fault)}. "
        "What was there is kept. Check bucket, credentials and network, then run the study again: finished cells are not repeated."
    )
