from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from trainables.data.digits import Digits
from trainables.stratified import shares


def _rows(*parts):
    return Counter(row.numpy().tobytes() for part in parts for row in part)


def test_shapes_and_scale():
    splits = Digits(labelled=40, validation=100, test=300).load(0, opens_test=True)
    assert splits.inputs.shape == (1797 - 400, 1, 8, 8)
    assert splits.inputs.dtype == torch.float32
    assert splits.labels.shape == (1397,)
    assert splits.labels.dtype == torch.int64
    assert splits.holdout_inputs.shape == (100, 1, 8, 8)
    assert splits.test_inputs.shape == (300, 1, 8, 8)
    assert splits.classes == 10
    assert float(splits.inputs.min()) == 0.0
    assert float(splits.inputs.max()) == 1.0


def test_every_row_is_in_exactly_one_part_with_its_own_label():
    splits = Digits(labelled=40, validation=100, test=300).load(3, opens_test=True)
    bunch = load_digits()
    images = torch.from_numpy((bunch.images / 16).astype(np.float32))[:, None]
    assert _rows(splits.inputs, splits.holdout_inputs, splits.test_inputs) == _rows(images)
    truth = {row.numpy().tobytes(): int(digit) for row, digit in zip(images, bunch.target, strict=True)}
    known = [
        (splits.inputs[:40], splits.labels[:40]),
        (splits.holdout_inputs, splits.holdout_labels),
        (splits.test_inputs, splits.test_labels),
    ]
    for inputs, labels in known:
        assert [truth[row.numpy().tobytes()] for row in inputs] == labels.tolist()


def test_the_truth_of_unlabelled_rows_is_not_loaded():
    splits = Digits(labelled=40).load(0, opens_test=False)
    assert (splits.labels[:40] >= 0).all()
    assert (splits.labels[40:] == -1).all()


def test_the_test_rows_are_the_same_in_every_split_and_the_others_are_not():
    first, second = (Digits().load(seed, opens_test=True) for seed in (0, 1))
    assert torch.equal(first.test_inputs, second.test_inputs)
    assert torch.equal(first.test_labels, second.test_labels)
    assert _rows(first.inputs[:60]) != _rows(second.inputs[:60])
    assert _rows(first.holdout_inputs) != _rows(second.holdout_inputs)


def test_a_seed_draws_the_same_split_again():
    first, second = (Digits().load(5, opens_test=False) for _ in range(2))
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.holdout_labels, second.holdout_labels)


def test_a_sealed_split_has_no_test_rows():
    splits = Digits().load(0, opens_test=False)
    assert splits.test_inputs is None
    assert splits.test_labels is None


@pytest.mark.parametrize("labelled", [10, 11, 37, 60])
def test_from_ten_labelled_rows_on_every_class_is_there_and_shares_are_even(labelled):
    for seed in range(5):
        counts = Digits(labelled=labelled).load(seed, opens_test=False).labels[:labelled].bincount(minlength=10)
        assert counts.min() >= 1
        assert counts.max() - counts.min() <= 2


def test_the_parts_are_mixed_by_class():
    splits = Digits().load(0, opens_test=False)
    for labels in (splits.labels[:60], splits.holdout_labels):
        assert labels.tolist() != sorted(labels.tolist())


def test_shares_by_largest_remainder():
    # 5 * (5, 3, 2) / 10 = 2.5, 1.5, 1.0: the first of two equal remainders gets the row that is left.
    assert shares([5, 3, 2], 5) == [3, 1, 1]
    # 3 * (97, 2, 1) / 100 = 2.91, 0.06, 0.03: three rows are enough for three classes.
    assert shares([97, 2, 1], 3) == [1, 1, 1]
    assert shares([97, 2, 1], 2) == [2, 0, 0]
    # A class of which nothing is left gets nothing, and what is asked for comes out whole.
    assert shares([97, 0, 1], 2) == [1, 0, 1]
    assert shares([0, 0], 0) == [0, 0]


def test_sizes_that_do_not_fit():
    with pytest.raises(
        ValueError, match=r"Digits needs labelled \+ validation \+ test to be at most 1797, but got labelled=1000, .*test=500"
    ):
        Digits(labelled=1000, validation=300, test=500)
    with pytest.raises(ValueError, match="labelled=0"):
        Digits(labelled=0)
    assert len(Digits(labelled=997, validation=300, test=500).load(0, opens_test=False).inputs) == 997
