"""Digits: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn, so that a study runs without a download.

Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49 (its test part). Pixels are scaled from 0..16 to [0, 1].
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from search_spaces import IntUniform, tunable
from trainables.form import Form
from trainables.source import Extent, Source, Splits
from trainables.stratified import drawn

ROWS, CLASSES, SIDE = 1797, 10, 8


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

    @property
    def extent(self) -> Extent:
        return Extent(self.labelled, ROWS - self.validation - self.test)

    @property
    def form(self) -> Form:
        return Form((1, SIDE, SIDE), CLASSES)

    def load(self, split: int, opens_test: bool) -> Splits:
        images, digits = _raw()
        test, rest = drawn(digits, np.arange(ROWS), self.test, CLASSES, "test")
        labelled, rest = drawn(digits, rest, self.labelled, CLASSES, f"labelled {split}")
        holdout, unlabelled = drawn(digits, rest, self.validation, CLASSES, f"validation {split}")
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
