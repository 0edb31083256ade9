"""Digits: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn, so that a study runs without a download.

Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49 (its test part). Pixels are scaled from 0..16 to [0, 1].
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from search_spaces import IntUniform, tunable
from trainables.source import Source, Splits

ROWS, CLASSES = 1797, 10


@dataclass(frozen=True)
class Digits(Source):
    """What is in neither of the three parts is the unlabelled part U."""

    labelled: int = tunable(60, IntUniform(10, 500), "rows of A, which train the teacher; from 10 on it has every class", low=1)
    validation: int = tunable(250, IntUniform(50, 500), "rows of V, which calibrate and select", low=1)
    test: int = tunable(500, IntUniform(100, 1000), "rows that only the report opens, the same in every block", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labelled + self.validation + self.test > ROWS:
            raise ValueError(
                f"Digits needs labelled + validation + test to be at most {ROWS}, "
                f"but got labelled={self.labelled}, validation={self.validation}, test={self.test}."
            )

    def load(self, split: int, opens_test: bool) -> Splits:
        images, digits = _raw()
        test, rest = _drawn(digits, np.arange(ROWS), self.test, "test")
        labelled, rest = _drawn(digits, rest, self.labelled, f"labelled {split}")
        holdout, unlabelled = _drawn(digits, rest, self.validation, f"validation {split}")
        train = np.concatenate([labelled, unlabelled])
        labels = np.concatenate([digits[labelled], np.full(len(unlabelled), -1, np.int64)])
        return Splits(
            inputs=torch.from_numpy(images[train]),
            labels=torch.from_numpy(labels),
            labelled=self.labelled,
            holdout_inputs=torch.from_numpy(images[holdout]),
            holdout_labels=torch.from_numpy(digits[holdout]),
            test_inputs=torch.from_numpy(images[test]) if opens_test else None,
            test_labels=torch.from_numpy(digits[test]) if opens_test else None,
            classes=CLASSES,
        )


@functools.cache
def _raw() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images (1797, 1, 8, 8) in [0, 1] and digits (1797,)."""
    from sklearn.datasets import load_digits  # half a second of imports that listing the sources need not pay

    bunch = load_digits()
    return (bunch.images[:, None] / 16).astype(np.float32), bunch.target.astype(np.int64)


def _drawn(digits: NDArray[np.int64], rows: NDArray[np.int64], count: int, seed: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``count`` of the rows, each class by its share, and the others; both in a drawn order."""
    # RandomState, not Generator: NumPy promises that its stream never changes.
    rng = np.random.RandomState(np.frombuffer(hashlib.sha256(seed.encode()).digest(), np.uint32))
    shuffled = rng.permutation(rows)
    of_class = [shuffled[digits[shuffled] == digit] for digit in range(CLASSES)]
    shares = _shares([len(members) for members in of_class], count)
    chosen = np.concatenate([members[:share] for members, share in zip(of_class, shares, strict=True)])
    others = np.concatenate([members[share:] for members, share in zip(of_class, shares, strict=True)])
    return rng.permutation(chosen), rng.permutation(others)


def _shares(sizes: list[int], count: int) -> list[int]:
    """``count`` divided in proportion to the sizes by largest remainder, at least one each where ``count`` allows it."""
    whole = sum(sizes)
    shares = [count * size // whole for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(count * sizes[i] % whole), i))
    for i in by_remainder[: count - sum(shares)]:
        shares[i] += 1
    while count >= len(sizes) and 0 in shares:
        shares[shares.index(max(shares))] -= 1
        shares[shares.index(0)] += 1
    return shares
