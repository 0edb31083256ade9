"""Pictures of a data set: decoded the same way whoever asks, as Rows over files that all lanes of a node share.

A picture becomes RGB, whatever it was (greyscale, palette, CMYK), and is not turned by what its EXIF says. Of one whose size
is not fixed the shorter side is resized to margin times the size (bilinear, over the whole area that a pixel comes from), the
longer one in proportion, rounded down, and the square in the middle is cut out: what torchvision's Resize and CenterCrop do.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainables.rows import Rows

_CHUNK = 512
_ID_BYTES = 16


@dataclass(frozen=True)
class Shape:
    """What a picture of a set comes out as: (3, side, side)."""

    side: int
    fixed: bool
    """Whether pictures have that side already; another one is an error."""
    margin: float = 1.0
    """The shorter side before the square is cut out, over ``side``."""

    @property
    def bytes(self) -> int:
        """Of one picture."""
        return 3 * self.side**2


def picture(stored: Mapping[str, Any], shape: Shape) -> NDArray[np.uint8]:
    """(3, side, side), of a row as Arrow has it: the bytes of a file, or where it is.

    Raises:
        ValueError: it cannot be decoded, or is not of the side that it needs.
    """
    try:
        with Image.open(io.BytesIO(_bytes(stored))) as opened:
            found = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"it cannot be decoded ({error})") from error
    if shape.fixed:
        if found.size != (shape.side, shape.side):
            raise ValueError(f"it needs {shape.side}x{shape.side} pixels, but has {found.width}x{found.height}")
    else:
        found = _cut(found, shape)
    return np.ascontiguousarray(np.asarray(found, np.uint8).transpose(2, 0, 1))


def content_id(data: bytes) -> bytes:
    """32 hex digits of what a row holds."""
    return hashlib.blake2b(data, digest_size=_ID_BYTES).hexdigest().encode()


def decoded(data: Any, column: str, shape: Shape, what: str) -> Iterator[NDArray[np.uint8]]:
    """All pictures of a split, (B, 3, side, side) at a time, by as many threads as there are processors.

    Raises:
        ValueError: one of them cannot be read; the message names its row and file.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="kdsweep-decode") as pool:
        for start in range(0, len(data), _CHUNK):
            stored = data[start : start + _CHUNK][column]
            tasks = [pool.submit(picture, row, shape) for row in stored]
            found = np.empty((len(stored), 3, shape.side, shape.side), np.uint8)
            for index, task in enumerate(tasks):
                try:
                    found[index] = task.result()
                except ValueError as error:
                    for other in tasks:
                        other.cancel()
                    where = _named(stored[index], start + index)
                    raise ValueError(f"{what} needs pictures that can be read, but got {where}: {error}. Replace or remove it.") from error
            yield found


def ids_of_files(data: Any, column: str) -> list[bytes]:
    """A content id per row, of the stored bytes: where decoding everything would take too long."""
    return [content_id(_bytes(row)) for start in range(0, len(data), _CHUNK) for row in data[start : start + _CHUNK][column]]


@final
class Mapped(Rows):
    """Decoded pictures in a file that is mapped: its pages are in memory once, however many lanes read them."""

    def __init__(self, pictures: Tensor) -> None:
        """``pictures``: (N, C, H, W) uint8."""
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._pictures.shape[1:])

    @property
    def is_mapped(self) -> bool:
        return True

    def fetch(self, rows: Tensor) -> Tensor:
        return self._pictures.index_select(0, rows)


@final
class Encoded(Rows):
    """Pictures as files in memory-mapped Arrow, decoded when they are asked for."""

    def __init__(self, data: Any, column: str, shape: Shape) -> None:
        """``data``: a ``datasets.Dataset`` whose column holds files that are not decoded."""
        self._data, self._column, self._shape = data, column, shape

    def __len__(self) -> int:
        return len(self._data)

    @property
    def shape(self) -> tuple[int, ...]:
        return (3, self._shape.side, self._shape.side)

    def fetch(self, rows: Tensor) -> Tensor:
        stored = self._data[rows.tolist()][self._column]
        found = np.empty((len(stored), *self.shape), np.uint8)
        for index, row in enumerate(stored):
            found[index] = picture(row, self._shape)
        return torch.from_numpy(found)

    def name(self, row: int) -> str:
        return _named(self._data[row][self._column], row)


@final
class Joined(Rows):
    """Rows of several, one after the other."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        """``parts``: at least one, all of one shape."""
        self._parts = tuple(parts)
        self._starts = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        return self._parts[0].shape

    @property
    def is_mapped(self) -> bool:
        return all(part.is_mapped for part in self._parts)

    def fetch(self, rows: Tensor) -> Tensor:
        found = torch.empty(len(rows), *self.shape, dtype=torch.uint8)
        owner = torch.bucketize(rows, self._starts[1:], right=True)
        for index, part in enumerate(self._parts):
            mine = (owner == index).nonzero().squeeze(1)
            if len(mine):
                found[mine] = part.fetch(rows[mine] - self._starts[index])
        return found

    def name(self, row: int) -> str:
        index = int(torch.bucketize(torch.tensor(row), self._starts[1:], right=True))
        return self._parts[index].name(row - int(self._starts[index]))


def _bytes(stored: Mapping[str, Any] | None) -> bytes:
    if stored is None:
        raise ValueError("there is none")
    data: bytes | None = stored["bytes"]
    if data is not None:
        return data
    with open(stored["path"], "rb") as file:
        return file.read()


def _named(stored: Mapping[str, Any] | None, row: int) -> str:
    path = stored["path"] if stored else None
    return f"row {row} ({path})" if path else f"row {row}"


def _cut(image: Image.Image, shape: Shape) -> Image.Image:
    shorter = max(shape.side, round(shape.side * shape.margin))
    size = tuple(shorter * length // min(image.size) for length in image.size)
    if size != image.size:
        image = image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    left, top = (round((length - shape.side) / 2) for length in size)
    return image.crop((left, top, left + shape.side, top + shape.side))
