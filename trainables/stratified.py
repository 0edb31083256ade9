"""Stratified draws: some rows of a data set, each class by its share, from a seed that is a word."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def drawn(
    labels: NDArray[np.int64], rows: NDArray[np.int64], count: int, classes: int, seed: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``count`` of the rows, each class by its share, and the others; both in a drawn order.

    ``labels`` are those of the whole set, by row number. What is drawn depends on the order of ``rows``.
    """
    # RandomState, not Generator: NumPy promises that its stream never changes.
    rng = np.random.RandomState(np.frombuffer(hashlib.sha256(seed.encode()).digest(), np.uint32))
    shuffled = rng.permutation(rows)
    of_class = [shuffled[labels[shuffled] == label] for label in range(classes)]
    by_class = shares([len(members) for members in of_class], count)
    chosen = np.concatenate([members[:share] for members, share in zip(of_class, by_class, strict=True)])
    others = np.concatenate([members[share:] for members, share in zip(of_class, by_class, strict=True)])
    return rng.permutation(chosen), rng.permutation(others)


def shares(sizes: list[int], count: int) -> list[int]:
    """``count`` divided in proportion to the sizes by largest remainder; at least one for whatever has a size, where ``count`` allows it."""
    whole = max(sum(sizes), 1)
    found = [count * size // whole for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(count * sizes[i] % whole), i))
    for i in by_remainder[: count - sum(found)]:
        found[i] += 1
    there = [i for i, size in enumerate(sizes) if size > 0]
    while count >= len(there) and (without := [i for i in there if found[i] == 0]):
        found[found.index(max(found))] -= 1
        found[without[0]] += 1
    return found
