"""What is made once per node and shared by its lanes: folders of files below KDSWEEP_CACHE, or ~/.cache/kdsweep.

An entry's name says what is in it. It appears whole or not at all, is made by one process while others wait, and is checked
once by every process that opens it; what is found damaged is made again. Entries can be deleted at any time.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import json
import logging
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_log = logging.getLogger(__name__)
_LIST = "whole.json"
_CHUNK = 1 << 22


def root() -> Path:
    """The folder of all entries."""
    return Path(os.environ.get("KDSWEEP_CACHE") or Path.home() / ".cache" / "kdsweep").expanduser()


def standing(name: str) -> Path | None:
    """The folder of an entry that stands, by the sizes of its files alone; None where it would have to be made."""
    folder = root() / name
    try:
        sizes = {file: size for file, (size, _) in json.loads((folder / _LIST).read_text()).items()}
        return folder if all((folder / file).stat().st_size == size for file, size in sizes.items()) else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def kept(name: str, size: int, make: Callable[[Path], None]) -> Path:
    """The folder of an entry, which ``make`` fills unless it stands already. ``size``: bytes that it takes, for the check beforehand.

    Raises:
        OSError: the disk has no room, or the folder cannot be written; nothing of the entry is left behind.
    """
    folder = root() / name
    if _stands(folder):
        return folder
    try:
        root().mkdir(parents=True, exist_ok=True)
        with _alone(root() / f"{name}.lock"):
            if _stands(folder):
                return folder
            for old in (folder, *root().glob(f"{name}.part-*")):
                if old.exists():
                    _log.warning("%s is not whole, and is made again.", old)
                    shutil.rmtree(old)
            free = shutil.disk_usage(root()).free
            if free < size:
                raise OSError(errno.ENOSPC, f"{size / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free")
            _make(folder, make)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
            raise OSError(
                error.errno,
                f"The cache needs {size / 1e6:,.0f} MB in {root()} for {name}, but got: {error.strerror}. Make room, or set KDSWEEP_CACHE "
                "to a folder with more of it.",
            ) from error
        raise
    return folder


def array(file: Path) -> NDArray[np.generic]:
    """The array of a .npy file, mapped: its pages are shared by all processes that read it. What one writes to it, it alone sees."""
    # Copy-on-write, since torch warns of arrays that are read-only.
    found: NDArray[np.generic] = np.load(file, mmap_mode="c", allow_pickle=False)
    return found


def tensor(file: Path) -> Tensor:
    """The same as a tensor."""
    return torch.from_numpy(array(file))


def write_array(file: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic], parts: Iterator[NDArray[np.generic]]) -> None:
    """A .npy file of rows that come in parts: a full disk is an OSError here, where writing to a mapped file would end the process."""
    with file.open("wb") as out:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        for part in parts:
            out.write(np.ascontiguousarray(part).data)


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    part = folder.with_name(f"{folder.name}.part-{uuid.uuid4().hex[:8]}")
    part.mkdir()
    try:
        make(part)
        files = {str(file.relative_to(part)): [file.stat().st_size, _crc(file)] for file in sorted(part.rglob("*")) if file.is_file()}
        with (part / _LIST).open("w") as out:
            json.dump(files, out)
            out.flush()
            os.fsync(out.fileno())
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _stands(folder: Path) -> bool:
    try:
        _check(folder, (folder / _LIST).stat().st_mtime_ns)
    except (OSError, ValueError, TypeError, AttributeError):
        return False
    return True


@functools.lru_cache(maxsize=256)  # what raises is not remembered
def _check(folder: Path, _written: int) -> None:
    for name, (size, crc) in json.loads((folder / _LIST).read_text()).items():
        if (folder / name).stat().st_size != size or _crc(folder / name) != crc:
            raise ValueError(f"{folder / name} is not what was written.")


def _crc(file: Path) -> int:
    found = 0
    with file.open("rb") as data:
        while chunk := data.read(_CHUNK):
            found = zlib.crc32(chunk, found)
    return found


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    with file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back by the system if the process dies
        yield
