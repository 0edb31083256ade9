"""Schedules against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from search_spaces import Schedule, flat


def levels(schedule, *progress):
    return [schedule.at(p) for p in progress]


def test_constant():
    assert levels(Schedule(start=0.3), 0.0, 0.5, 1.0) == [0.3, 0.3, 0.3]


def test_linear():
    assert levels(Schedule("linear", 1.0, 0.2), 0.0, 0.25, 0.5, 1.0) == pytest.approx([1.0, 0.8, 0.6, 0.2])
    assert levels(Schedule("linear", 0.0, 1.0), 0.0, 0.3, 1.0) == pytest.approx([0.0, 0.3, 1.0])


def test_cosine():
    """(1 + cos(pi q))/2 is 1, (1 + 1/sqrt 2)/2, 1/2, 1/4, 0 at q = 0, 1/4, 1/2, 2/3, 1."""
    expected = [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, 0.25, 0.0]
    assert levels(Schedule("cosine"), 0.0, 0.25, 0.5, 2 / 3, 1.0) == pytest.approx(expected, abs=1e-15)
    assert levels(Schedule("cosine", 0.2, 1.0), 0.0, 0.5, 1.0) == pytest.approx([0.2, 0.6, 1.0])


def test_exponential():
    assert levels(Schedule("exponential", 1.0, 0.01), 0.0, 0.25, 0.5, 1.0) == pytest.approx([1.0, 10**-0.5, 0.1, 0.01])


def test_step():
    schedule = Schedule("step", 1.0, 0.0, first=0.5, every=0.25, factor=0.1)
    assert levels(schedule, 0.0, 0.49, 0.5, 0.74, 0.75, 0.99, 1.0) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001])
    # The distance to the end shrinks, not the level.
    assert levels(Schedule("step", 1.0, 0.5, factor=0.5), 0.0, 0.5, 0.75) == pytest.approx([1.0, 0.75, 0.625])


def test_milestones_are_reached_exactly():
    """60, 120 and 160 of 200 epochs are not evenly spread; 0.4, 0.6, 0.8 are, though 0.4 + 0.2 + 0.2 is not 0.8 in binary."""
    schedule = Schedule("step", factor=0.2, first=0.4, every=0.2)
    for milestone, level in ((0.4, 0.2), (0.6, 0.04), (0.8, 0.008)):
        assert schedule.at(milestone) == pytest.approx(level, rel=1e-12)
        assert schedule.at(milestone - 1e-6) == pytest.approx(5 * level, rel=1e-12)
    for step in (80, 120, 160):  # as a training loop computes progress
        assert schedule.at(step / 200) < 0.5 * schedule.at((step - 1) / 200)


def test_milestones_of_240_epochs():
    """150, 180 and 210 of 240: the schedule of Tian et al. and Peng et al., first = 0.625 and every = 0.125."""
    schedule = Schedule("step", factor=0.1, first=0.625, every=0.125)
    found = [schedule.at(epoch / 240) for epoch in (0, 149, 150, 179, 180, 209, 210, 239)]
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_warm_up():
    """Even from 0 to start; what follows moves over what is left of the training."""
    schedule = Schedule("linear", 0.8, 0.0, warmup=0.2)
    assert levels(schedule, 0.0, 0.05, 0.1, 0.2, 0.6, 1.0) == pytest.approx([0.0, 0.2, 0.4, 0.8, 0.4, 0.0])
    assert levels(Schedule("cosine", warmup=0.5), 0.25, 0.5, 0.75, 1.0) == pytest.approx([0.5, 1.0, 0.5, 0.0])
    assert levels(Schedule(start=0.5, warmup=0.25), 0.125, 0.25, 1.0) == pytest.approx([0.25, 0.5, 0.5])
    # Steps stay where they are in the whole training.
    stepped = Schedule("step", first=0.5, every=0.5, factor=0.1, warmup=0.3)
    assert levels(stepped, 0.15, 0.3, 0.49, 0.5) == pytest.approx([0.5, 1.0, 1.0, 0.1])


def test_warm_up_over_the_whole_training():
    assert levels(Schedule("linear", warmup=1.0), 0.0, 0.5, 1.0) == pytest.approx([0.0, 0.5, 0.0])


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "exponential", "step"])
def test_frozen_stays_at_its_level(kind):
    schedule = Schedule(kind, 0.9, 0.2, warmup=0.1)
    for progress in (0.0, 0.05, 0.3, 0.7, 1.0):
        frozen = schedule.frozen(progress)
        assert frozen.now == schedule.at(progress)
        assert levels(frozen, 0.0, 0.01, 0.5, 1.0) == [schedule.at(progress)] * 4


def test_a_moving_schedule_has_no_level_of_its_own():
    for moving in (Schedule("linear"), Schedule(warmup=0.1)):
        with pytest.raises(ValueError, match="needs to be frozen before its level is read"):
            _ = moving.now


def test_lifted_takes_any_level_unchecked():
    level = object()
    lifted = Schedule("cosine").lifted(level)
    assert lifted.now is level
    other = Schedule().lifted(0.25)
    assert (lifted.now, other.now) == (level, 0.25)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"kind": "sine"}, "needs kind to be one of constant, linear, cosine, exponential, step"),
    ({"kind": "exponential"}, "exponential Schedule needs start and end above 0, but got start=1.0, end=0.0"),
    ({"start": -0.1}, "needs start to be a number"),
    ({"warmup": 1.5}, r"needs warmup to be a number in \[0, 1\]"),
    ({"every": 0.0}, "needs every to be a number"),
])  # fmt: skip
def test_schedules_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**arguments)


def test_only_what_moves_has_an_end():
    assert flat(Schedule()) == {"kind": "constant", "start": 1.0, "warmup": 0.0}
    assert set(flat(Schedule("linear"))) == {"kind", "start", "end", "warmup"}
    assert set(flat(Schedule("step"))) == {"kind", "start", "end", "first", "every", "factor", "warmup"}
