"""Who is in A, V, U and the test rows: by what a row holds, so that neither the order on disk nor a copy of a row can leak.

A row is known by its content id, the hash of what it holds. A training row that is also a test row is left out, and of equal
training rows one remains, so that no row of A or U has its copy in V or in the test split; how many were left out is counted.
Stratified draws run over rows in the order of their ids: the same rows in another order on disk, or as other files of the same
pictures, give the same parts. "The first N" is by its meaning the order on disk, and only of A: V and U are drawn as ever.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.stratified import drawn, shares

FIRST, STRATIFIED = "first", "stratified"
Ids = NDArray[np.bytes_]
"""(N,) of 32 hex digits."""
_SORTED = 20
"""From so many rows of A per class on, a class without any means that rows on disk are sorted by class."""


@dataclass(frozen=True)
class Part:
    """The rows of a split as far as drawing goes."""

    ids: Ids
    labels: NDArray[np.int64]
    """(N,)."""


@dataclass(frozen=True)
class Sizes:
    """How much of a split goes where. A number below 1 is a share of the split, 1 is all there is, from 2 on it counts rows."""

    labelled: float
    validation: float
    test: float
    draw: str

    def check(self, owner: str, train: int, test: int, classes: int) -> tuple[int, int, int]:
        """Rows of A (all that V leaves, if all are asked for), of V and of the test split.

        Raises:
            ValueError: they do not fit splits of ``train`` and ``test`` rows, or the classes of which A is to have each.
        """
        validation = _count(owner, "validation", self.validation, train)
        labelled = train - validation if self.labelled == 1 else _count(owner, "labelled", self.labelled, train)
        if labelled < 1 or labelled + validation > train:
            raise ValueError(
                f"{owner} needs labelled + validation to be at most the {train} rows of its training split, "
                f"but got labelled={self.labelled:g}, validation={self.validation:g}."
            )
        tested = _count(owner, "test", self.test, test)
        if tested > test:
            raise ValueError(f"{owner} needs test to be at most the {test} rows of its test split, but got test={self.test:g}.")
        if self.draw == STRATIFIED and labelled < classes:
            raise ValueError(
                f"{owner} needs labelled to be at least a row of each of its {classes} classes with draw={STRATIFIED}, but got "
                f"labelled={self.labelled:g}, which is {labelled}."
            )
        return labelled, validation, tested

    def check_labels(self, owner: str, labels: NDArray[np.int64], test: int, classes: int) -> None:
        """Raise ValueError where parts cannot be drawn from training rows with such labels, (N,), in their order on disk."""
        counts = check_complete(owner, labels, classes)
        labelled, validation, _ = self.check(owner, len(labels), test, classes)
        if self.labelled == 1:
            _check_left(owner, counts, validation)
        elif self.draw == FIRST:
            _check_mixed(owner, labels[:labelled], classes)


@dataclass(frozen=True)
class Drawn:
    """Row numbers of one block, and how many training rows are in no part."""

    labelled: NDArray[np.int64]
    holdout: NDArray[np.int64]
    unlabelled: NDArray[np.int64]
    more: NDArray[np.int64]
    """Of the split without labels."""
    test: NDArray[np.int64]
    also_test: int
    """Training rows that were left out because the test split has them."""
    copies: int
    """Training rows that were left out because another one is the same."""


def partition(owner: str, train: Part, test: Part, sizes: Sizes, classes: int, split: int, more: Part | None = None) -> Drawn:
    """The parts that the seed ``split`` draws; test rows are the same for every seed. ``more``: rows without labels, which join U.

    Raises:
        ValueError: a class without a training row, or sizes that do not fit.
    """
    if len(test.ids) == 0:
        raise ValueError(f"{owner} needs test rows, but has none.")
    rows, also_test, copies = _single(train, test)
    counts = check_complete(owner, train.labels[rows], classes)
    labelled, validation, tested = sizes.check(owner, len(train.ids), len(test.ids), classes)
    left = len(rows) - validation
    if sizes.labelled == 1:
        labelled = left
    if labelled > left or labelled < 1:
        raise ValueError(
            f"{owner} needs labelled + validation to be at most {len(rows)}, the rows of its training split without {also_test} that "
            f"are test rows too and {copies} copies, but got labelled={sizes.labelled:g}, validation={sizes.validation:g}."
        )
    by_id = rows[np.argsort(train.ids[rows], kind="stable")]
    if sizes.labelled == 1:
        _check_left(owner, counts, validation)
        holdout, chosen = drawn(train.labels, by_id, validation, classes, f"validation {split}")
        others = chosen[:0]
    else:
        if sizes.draw == FIRST:
            chosen, rest = rows[:labelled], by_id[~np.isin(by_id, rows[:labelled])]
            _check_mixed(owner, train.labels[chosen], classes)
        else:
            chosen, rest = drawn(train.labels, by_id, labelled, classes, f"labelled {split}")
        holdout, others = drawn(train.labels, rest, validation, classes, f"validation {split}")
    tests = np.arange(len(test.ids))
    if tested < len(tests):
        tests, _ = drawn(test.labels, np.argsort(test.ids, kind="stable"), tested, classes, "test")
    extra = np.arange(0)
    if more is not None:
        extra = _single(more, Part(np.concatenate([train.ids, test.ids]), np.arange(0)))[0]
    return Drawn(chosen, holdout, others, extra, tests, also_test, copies)


def check_complete(owner: str, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(classes,) rows of each class, or ValueError where one has none."""
    counts = np.bincount(labels, minlength=classes)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        raise ValueError(
            f"{owner} needs training rows of all {classes} classes, but has none of {len(empty)}, such as class {empty[0]}: "
            "complete the data, or give its classes the numbers from 0 on."
        )
    return counts


def _single(part: Part, test: Part) -> tuple[NDArray[np.int64], int, int]:
    """Rows that are no test rows, one of each content, in order; how many are test rows, and how many copies there were."""
    order = np.lexsort((part.labels, part.ids))  # of copies with different labels the lowest stays, wherever it stands
    ids = part.ids[order]
    is_copy = np.zeros(len(order), bool)
    is_copy[order[1:]] = ids[1:] == ids[:-1]
    is_test = np.isin(part.ids, test.ids)
    return np.flatnonzero(~is_copy & ~is_test), int(is_test.sum()), int((is_copy & ~is_test).sum())


def _count(owner: str, name: str, value: float, whole: int) -> int:
    if value <= 1:
        return max(1, round(value * whole))
    if value != int(value):
        raise ValueError(f"{owner} needs {name} to be a share up to 1 or a whole number of rows, but got {name}={value:g}.")
    return int(value)


def _check_left(owner: str, counts: NDArray[np.int64], validation: int) -> None:
    """V is drawn first where A is all that it leaves, which may be nothing of a small class."""
    bare = np.flatnonzero(counts <= np.array(shares(counts.tolist(), validation)))
    if len(bare):
        raise ValueError(
            f"{owner} needs rows of every class besides the validation={validation} that calibrate and select, but these are all of "
            f"{len(bare)} classes, such as class {bare[0]} with {counts[bare[0]]}. Make validation smaller, or complete the data."
        )


def _check_mixed(owner: str, labels: NDArray[np.int64], classes: int) -> None:
    counts = np.bincount(labels, minlength=classes)
    if counts.min() == 0 and len(labels) >= _SORTED * classes:
        raise ValueError(
            f"{owner} needs draw={STRATIFIED} with these data, but got draw={FIRST}: its first {len(labels)} rows have none of "
            f"{int((counts == 0).sum())} classes, such as class {int(np.argmin(counts))}, since rows are sorted by class."
        )
