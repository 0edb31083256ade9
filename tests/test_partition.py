"""Who is in A, V, U and the test rows."""

from __future__ import annotations

import numpy as np
import pytest

from trainables.partition import Part, Sizes, partition

CLASSES = 4


def part(contents, labels=None):
    contents = list(contents)
    labels = [content % CLASSES for content in contents] if labels is None else labels
    return Part(np.array([b"%032x" % content for content in contents], "S32"), np.array(labels, np.int64))


def drawn(train, test, labelled=8, validation=4, test_size=1.0, draw="stratified", split=0, more=None):
    return partition("Set", train, test, Sizes(labelled, validation, test_size, draw), CLASSES, split, more)


def contents(of, rows):
    return sorted(int(content, 16) for content in of.ids[rows])


TRAIN, TEST = part(range(40)), part(range(100, 120))


@pytest.mark.parametrize("draw", ["first", "stratified"])
@pytest.mark.parametrize("labelled", [4, 8, 0.5, 1])
def test_every_row_has_one_part(draw, labelled):
    for split in range(3):
        found = drawn(TRAIN, TEST, labelled=labelled, draw=draw, split=split)
        rows = np.concatenate([found.labelled, found.holdout, found.unlabelled])
        assert sorted(rows) == list(range(40))
        assert len(found.labelled) == {4: 4, 8: 8, 0.5: 20, 1: 36}[labelled]
        assert len(found.holdout) == 4
        assert np.bincount(TRAIN.labels[found.holdout]).tolist() == [1, 1, 1, 1]
        assert found.test.tolist() == list(range(20))
        assert (found.also_test, found.copies) == (0, 0)


def test_stratified_parts_have_classes_by_their_share():
    train = part(range(40), labels=[0] * 20 + [1] * 10 + [2] * 6 + [3] * 4)
    found = drawn(train, TEST, labelled=20, validation=10)
    assert np.bincount(train.labels[found.labelled]).tolist() == [10, 5, 3, 2]
    # 10 of 10, 5, 3, 2: 5, 2.5, 1.5, 1; the first of two equal remainders gets the row that is left.
    assert np.bincount(train.labels[found.holdout]).tolist() == [5, 3, 1, 1]


@pytest.mark.parametrize("draw", ["first", "stratified"])
def test_the_order_on_disk_does_not_matter_but_for_the_first_rows(draw):
    order = np.random.RandomState(0).permutation(40)
    shuffled = Part(TRAIN.ids[order], TRAIN.labels[order])
    given, found = (drawn(of, TEST, draw=draw, split=7) for of in (TRAIN, shuffled))
    if draw == "first":
        assert contents(shuffled, found.labelled) == sorted(order[:8].tolist())
        return
    for name in ("labelled", "holdout", "unlabelled"):
        assert [*TRAIN.ids[getattr(given, name)]] == [*shuffled.ids[getattr(found, name)]]


def test_v_depends_on_the_seed_and_first_rows_do_not():
    seen = [drawn(TRAIN, TEST, draw="first", split=split) for split in range(4)]
    assert all(found.labelled.tolist() == list(range(8)) for found in seen)
    for found in (seen, [drawn(TRAIN, TEST, labelled=1, split=split) for split in range(4)]):
        assert len({tuple(sorted(one.holdout)) for one in found}) == 4


def test_copies_and_test_rows_are_in_no_part():
    train = part([0, 1, 2, 3, 4, 5, 1, 6, 7, 2, 2, 103, 8, 9, 10, 11, 103], labels=[0, 1, 2, 3, 0, 1, 0, 2, 3, 2, 3, 3, 0, 1, 2, 3, 1])
    found = drawn(train, TEST, labelled=1, validation=4)
    rows = np.concatenate([found.labelled, found.holdout, found.unlabelled])
    assert contents(train, rows) == list(range(12))
    # 103 stands in two rows and is a test row; of 1 one copy is left out, of 2 two.
    assert (found.also_test, found.copies) == (2, 3)
    assert 6 in rows  # of the two rows of content 1 that with the lower label
    assert 1 not in rows


def test_first_rows_skip_what_is_left_out():
    train = part([100, 0, 0, 1, 2, 3, 4, 5, 6, 7])
    assert drawn(train, TEST, labelled=4, validation=4, draw="first").labelled.tolist() == [1, 3, 4, 5]


def test_rows_without_labels_join_once():
    more = part([3, 50, 51, 50, 119, 52], labels=[-1] * 6)
    found = drawn(TRAIN, TEST, more=more)
    assert contents(more, found.more) == [50, 51, 52]


def test_fewer_test_rows_are_the_same_in_every_block_wherever_they_stand():
    order = np.random.RandomState(1).permutation(20)
    other = Part(TEST.ids[order], TEST.labels[order])
    seen = [contents(of, drawn(TRAIN, of, test_size=8, split=split).test) for of in (TEST, other) for split in (0, 1)]
    assert all(found == seen[0] for found in seen)
    assert len(seen[0]) == 8
    assert np.bincount(np.array(seen[0]) % CLASSES).tolist() == [2, 2, 2, 2]


def test_sizes():
    assert Sizes(0.1, 0.01, 1.0, "first").check("Set", 50_000, 10_000, 4) == (5000, 500, 10_000)
    assert Sizes(1.0, 500, 0.5, "first").check("Set", 50_000, 10_000, 4) == (49_500, 500, 5000)
    assert Sizes(7500, 0.000001, 2, "first").check("Set", 50_000, 10_000, 4) == (7500, 1, 2)
    with pytest.raises(ValueError, match=r"Set needs labelled \+ validation to be at most the 10 rows"):
        Sizes(8, 3, 1, "first").check("Set", 10, 10, 4)
    with pytest.raises(ValueError, match=r"labelled=1, validation=1\."):
        Sizes(1, 1, 1, "first").check("Set", 10, 10, 4)


def test_a_stratified_part_has_a_row_of_each_class_or_is_refused():
    assert Sizes(4, 2, 1, "stratified").check("Set", 40, 10, 4) == (4, 2, 10)
    with pytest.raises(
        ValueError, match=r"Set needs labelled to be at least a row of each of its 4 classes .* got labelled=3, which is 3\."
    ):
        Sizes(3, 2, 1, "stratified").check("Set", 40, 10, 4)
    assert Sizes(3, 2, 1, "first").check("Set", 40, 10, 4) == (3, 2, 10)


def test_what_labels_alone_foretell_is_what_drawing_says():
    small = np.array([0, 1, 2, *[3] * 9])
    for told in (
        lambda sizes, labels: sizes.check_labels("Set", labels, 8, CLASSES),
        lambda sizes, labels: partition("Set", part(range(len(labels)), labels=labels), TEST, sizes, CLASSES, 0),
    ):
        with pytest.raises(
            ValueError, match=r"needs rows of every class besides the validation=4 .* of 3 classes, such as class 0 with 1\."
        ):
            told(Sizes(1, 4, 1, "first"), small)
        with pytest.raises(ValueError, match="has none of 1, such as class 3"):
            told(Sizes(1, 4, 1, "first"), small[:3])
        with pytest.raises(ValueError, match="needs draw=stratified with these data"):
            told(Sizes(80, 4, 1, "first"), np.repeat(np.arange(CLASSES), 80))
        told(Sizes(4, 4, 1, "stratified"), small)
        told(Sizes(1, 4, 1, "first"), np.repeat(np.arange(CLASSES), 2))


def test_copies_may_leave_too_few():
    train = part([0, 1, 2, 3, *range(4), *range(4)])
    with pytest.raises(ValueError, match="to be at most 4, the rows of its training split without 0 that are test rows too and 8 copies"):
        drawn(train, TEST, labelled=4, validation=4)


def test_a_class_without_rows():
    with pytest.raises(ValueError, match="Set needs training rows of all 4 classes, but has none of 2, such as class 2"):
        drawn(part(range(8), labels=[0, 1] * 4), TEST)
    with pytest.raises(ValueError, match="Set needs test rows"):
        drawn(TRAIN, part([]))


def test_a_class_whose_only_row_is_a_test_row_is_gone():
    train = part([0, 1, 2, 4, 5, 6, 8, 9, 103])
    with pytest.raises(ValueError, match="Set needs training rows of all 4 classes"):
        drawn(train, TEST, labelled=4, validation=2)


def test_sorted_rows_have_no_first_ones():
    labels = np.repeat(np.arange(CLASSES), 60)
    train = part(range(240), labels=labels)
    with pytest.raises(
        ValueError, match="needs draw=stratified with these data, but got draw=first: its first 100 rows have none of 2 classes"
    ):
        drawn(train, part(range(1000, 1010)), labelled=100, draw="first")
    assert len(drawn(train, part(range(1000, 1010)), labelled=20, draw="first").labelled) == 20  # few rows lack a class by chance, too
