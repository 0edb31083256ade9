"""Store: artefacts (teacher weights, checkpoints) by name under one root, on a local disk or any fsspec filesystem."""

from __future__ import annotations

import contextlib
import os
import uuid

import fsspec
from fsspec.implementations.local import LocalFileSystem


class Store:
    """Bytes by name. A name is a relative path such as ``teachers/0123.pt``.

    Every method raises OSError if the storage cannot be reached, and ValueError if a name would leave the root: its
    parts must be there and must not start with a dot.
    """

    def __init__(self, root: str) -> None:
        """``root``: a local path or an fsspec URL (memory://, gs://, s3://). ValueError if nothing here can open it."""
        self.root = root
        try:
            self._files, self._top = fsspec.core.url_to_fs(root)
        except (ValueError, ImportError) as error:
            raise ValueError(f"Store needs a local path or a URL that fsspec can open, but got root={root!r}: {error}") from error
        self._is_local = isinstance(self._files, LocalFileSystem)

    def read(self, name: str) -> bytes | None:
        """The bytes of a name, or None if there is no such name."""
        path = self._path(name)
        try:
            return bytes(self._files.cat_file(path))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Put bytes under a name, replacing what was there: a reader sees the old or the new ones, never a part."""
        path = self._path(name)
        if self._is_local:
            _write_local(path, data)
        else:
            self._files.pipe_file(path, data)

    def exists(self, name: str) -> bool:
        """Whether there is something under the name."""
        path = self._path(name)
        self._files.invalidate_cache()  # another machine may have written since the last listing
        return bool(self._files.isfile(path))

    def remove(self, name: str) -> None:
        """Forget a name; nothing happens if there is no such name."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """All names that start with the prefix, sorted."""
        self._files.invalidate_cache()
        top = self._top.rstrip("/") + "/"
        found = (path.removeprefix(top) for path in self._files.find(self._top))
        return tuple(sorted(name for name in found if name.startswith(prefix) and _is_name(name)))

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
