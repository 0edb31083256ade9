"""Rows: pictures that do not fit in memory, read when they are needed, a few batches ahead of the training.

Any row can be had by its number, so the order in which a training sees its rows stays a function of the seed, whatever the
number of workers and wherever a leg was halted. A streaming shuffle (Ray Data's, a WebDataset's) keeps a window of rows
instead: what comes next depends on how many readers there are, and a resumed training sees another order. Each worker reads
the rows of its own share of a batch alone.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from math import prod
from typing import final

import torch
from torch import Tensor

RESIDENT_GIB = "KDSWEEP_RESIDENT_GIB"
"""Environment variable: up to how many GiB, as they are stored, the pictures of one block are held on the device (a process keeps four
blocks). Sets of Rows above it are read along the way, smaller ones once; but on a processor those that lie in a mapped file are
never copied. 0 reads all of them along the way."""
_DEFAULT_GIB = 4.0
_THREADS = 8
_WAITING_BYTES = 2**28
"""Pictures that were read and not yet used; at least two batches."""


class Unreadable(ValueError):
    """A picture could not be read. The message names it."""


class Rows(ABC):
    """(N, C, H, W) uint8 pictures by row number."""

    @abstractmethod
    def __len__(self) -> int:
        """N."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(C, H, W): all pictures have one size."""

    @abstractmethod
    def fetch(self, rows: Tensor) -> Tensor:
        """(B,) int64 row numbers on the host -> (B, C, H, W) uint8 on the host. Several threads call it at once, in any order."""

    @property
    def is_mapped(self) -> bool:
        """Whether they lie decoded in a mapped file: fetching is copying then, from memory that all processes of a node share."""
        return False

    def name(self, row: int) -> str:
        """What a reader would look for when this row cannot be read: the name of its file, or where in which file it is."""
        return f"row {row}"


@final
class Chosen(Rows):
    """Some rows of others, in an order of their own."""

    def __init__(self, rows: Rows, numbers: Tensor) -> None:
        """``numbers``: (N,) int64, the row of ``rows`` that each row shows."""
        self._rows, self._numbers = rows, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._rows.shape

    @property
    def is_mapped(self) -> bool:
        return self._rows.is_mapped

    def fetch(self, rows: Tensor) -> Tensor:
        return self._rows.fetch(self._numbers[rows])

    def name(self, row: int) -> str:
        return self._rows.name(int(self._numbers[row]))


def resident_bytes() -> int:
    """How many bytes the pictures of a block may have to be held on the device. ValueError if the environment says something else than a number."""
    given = os.environ.get(RESIDENT_GIB, "")
    try:
        bound = float(given) if given else _DEFAULT_GIB
    except ValueError:
        bound = -1.0
    if not 0.0 <= bound < float("inf"):
        raise ValueError(f"{RESIDENT_GIB} needs a number of GiB from 0 on, but got {RESIDENT_GIB}={given!r}.")
    return int(bound * 2**30)


def all_of(source: Rows) -> Tensor:
    """Every row, read once: (N, C, H, W) uint8. Raises Unreadable."""
    found = torch.empty(len(source), *source.shape, dtype=torch.uint8)
    length = max(1, min(1024, _WAITING_BYTES // 8 // max(1, prod(source.shape))))
    start = 0
    for part in ahead(source, torch.split(torch.arange(len(source)), length)):
        found[start : start + len(part)] = part
        start += len(part)
    return found


def ahead(source: Rows, numbers: Iterable[Tensor]) -> Iterator[Tensor]:
    """The pictures of batch after batch, in their order, read by threads while those before are in use.

    ``numbers``: (B,) int64 each, on the host. Raises Unreadable when the batch is due that cannot be read, not before.
    """
    if source.is_mapped:
        yield from (_read(source, rows) for rows in numbers)
        return
    threads = min(_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="kdsweep-rows")
    waiting: deque[Future[Tensor]] = deque()
    todo = iter(numbers)
    try:
        for rows in islice(todo, 1):
            waiting.append(pool.submit(_read, source, rows))
            depth = max(2, min(threads + 1, _WAITING_BYTES // max(1, len(rows) * prod(source.shape))))
            waiting.extend(pool.submit(_read, source, more) for more in islice(todo, depth - 1))
        while waiting:
            found = waiting.popleft().result()
            waiting.extend(pool.submit(_read, source, more) for more in islice(todo, 1))
            yield found
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _read(source: Rows, rows: Tensor) -> Tensor:
    # What fills up a batch repeats a row: it is read once.
    distinct, place = torch.unique(rows, return_inverse=True)
    if len(distinct) < len(rows):
        return _read(source, distinct)[place]
    try:
        found = source.fetch(rows)
    except Exception as error:  # decoders raise whatever they like
        for row in rows.tolist():
            try:
                source.fetch(torch.tensor([row]))
            except Exception as fault:
                raise _unreadable(source, row, fault) from fault
        # Each of them can be read now, alone: whatever it was, it is not told of one picture.
        raise _unreadable(source, int(rows[0]), error) from error
    if found.dtype != torch.uint8 or found.shape != (len(rows), *source.shape):
        raise Unreadable(
            f"{type(source).__name__} needs fetch to return uint8 {(len(rows), *source.shape)}, but got {found.dtype} {tuple(found.shape)}."
        )
    return found


def _unreadable(source: Rows, row: int, fault: Exception) -> Unreadable:
    return Unreadable(
        f"A row needs a picture that can be read, but got {type(fault).__name__} for {source.name(row)}: {fault}. Replace or remove it."
    )
