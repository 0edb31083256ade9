"""Store: artefacts (teacher weights, checkpoints) by name under one root, on a local disk or any fsspec filesystem."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from trainables import remote

_LARGE = 600_000_000
"""Bytes that an artefact of unknown size may have, for the time that reading it may take."""


class StoreError(OSError):
    """The storage cannot be reached, or refuses. It says nothing about the training that needed it."""


class Store:
    """Bytes by name. A name is a relative path such as ``teachers/0123.pt``.

    Every method raises StoreError if the storage cannot be reached, and ValueError if a name would leave the root: its
    parts must be there and must not start with a dot.
    """

    def __init__(self, root: str) -> None:
        """``root``: a local path or an fsspec URL (memory://, gs://, s3://). ValueError if nothing here can open it."""
        self.root = root
        try:
            self._files, self._top = remote.opened(root)
        except ValueError as error:
            shown = remote.without_login(root)
            raise ValueError(f"Store needs a local path or a URL that fsspec can open, but got root={shown!r}: {error}") from error
        self._is_local = isinstance(self._files, LocalFileSystem)

    def read(self, name: str) -> bytes | None:
        """The bytes of a name, or None if there is no such name."""
        path = self._path(name)
        with self._said("Reading", name):
            try:
                return bytes(self._answer(lambda: self._files.cat_file(path, **remote.within(self._files, _LARGE))))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Put bytes under a name, replacing what was there: a reader sees the old or the new ones, never a part."""
        path = self._path(name)
        with self._said("Writing", name):
            if self._is_local:
                _write_local(path, data)
            else:
                self._answer(lambda: self._files.pipe_file(path, data, **remote.within(self._files, len(data))))

    def exists(self, name: str) -> bool:
        """Whether there is something under the name."""
        path = self._path(name)
        with self._said("Looking for", name):
            self._files.invalidate_cache()  # another machine may have written since the last listing
            try:
                # Not isfile: to it, a store that does not answer holds nothing.
                return bool(self._answer(lambda: self._files.info(path, **remote.within(self._files)))["type"] == "file")
            except FileNotFoundError:
                return False

    def remove(self, name: str) -> None:
        """Forget a name; nothing happens if there is no such name."""
        path = self._path(name)
        with self._said("Removing", name), contextlib.suppress(FileNotFoundError):
            self._answer(lambda: self._files.rm_file(path, **remote.within(self._files)))

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """All names that start with the prefix, sorted."""
        top = self._top.rstrip("/") + "/"
        with self._said("Listing", prefix):
            self._files.invalidate_cache()
            try:
                paths = self._answer(lambda: self._files.find(top + prefix.rpartition("/")[0], **remote.within(self._files)))
            except FileNotFoundError:
                return ()
        found = (path.removeprefix(top) for path in paths)
        return tuple(sorted(name for name in found if name.startswith(prefix) and _is_name(name)))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Bytes of all names that start with the prefix, by name, sorted."""
        top = self._top.rstrip("/") + "/"
        with self._said("Listing", prefix):
            self._files.invalidate_cache()
            try:
                found = self._files.find(top + prefix.rpartition("/")[0], detail=True, **remote.within(self._files))
            except FileNotFoundError:
                return {}
        sizes = {path.removeprefix(top): int(told.get("size") or 0) for path, told in found.items()}
        return {name: sizes[name] for name in sorted(sizes) if name.startswith(prefix) and _is_name(name)}

    def _answer(self, call: Callable[[], Any]) -> Any:
        """What the files say, after a while where they are far away: a training that stands here has work to lose."""
        return call() if self._is_local else remote.awaited(call)

    @contextlib.contextmanager
    def _said(self, doing: str, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as fault:  # every fsspec backend has exceptions of its own
            need, told = "access and an answer", remote.told(fault)
            if self._is_local:
                need, told = "permission and space", f"{type(fault).__name__}: {fault}"
            raise StoreError(f"{doing} {name} below {self.root} needs {need}, but got {told}.") from fault

    def _path(self, name: str) -> str:
        if not _is_name(name):
            raise ValueError(f"Store needs names like teachers/0123.pt that stay below its root, but got name={name!r}.")
        return f"{self._top.rstrip('/')}/{name}"


def _is_name(name: str) -> bool:
    # Parts that start with a dot are ours: they are files half written.
    return all(part and not part.startswith(".") for part in name.split("/")) and not set(name) & set("\\\0:")


def _write_local(path: str, data: bytes) -> None:
    folder, leaf = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    # Not tempfile: its files are closed to everyone else, and os.replace keeps that.
    partial = os.path.join(folder, f".{leaf}.{uuid.uuid4().hex}")
    try:
        with open(partial, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise
    # The new name itself survives a power cut only once its folder is on disk.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
