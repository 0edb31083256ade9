"""Early stopping, followed by hand."""

from __future__ import annotations

import math

import pytest

from orchestrator.rungs import promotable, survivors


def test_the_better_half_goes_on_rounded_up() -> None:
    assert survivors({0: 0.1, 1: 0.5, 2: 0.3, 3: 0.4, 4: 0.2}, 0.5, 1.0) == {1, 3, 2}


def test_less_is_better_where_the_goal_is_to_minimise() -> None:
    assert survivors({0: 0.1, 1: 0.5, 2: 0.3, 3: 0.4}, 0.5, -1.0) == {0, 2}


def test_equal_scores_are_settled_by_the_lower_number() -> None:
    assert survivors({3: 0.5, 1: 0.5, 2: 0.5, 0: 0.4}, 0.5, 1.0) == {1, 2}


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_a_failed_member_never_survives_but_counts(bad: float | None) -> None:
    assert survivors({0: bad, 1: 0.1, 2: 0.2, 3: bad}, 0.5, 1.0) == {1, 2}
    assert survivors({0: bad, 1: bad, 2: bad, 3: 0.0}, 0.5, 1.0) == {3}


def test_share_of_three_quarters_of_four_is_three() -> None:
    # 0.75 * 4 is exact, 0.1 * 30 is 3.0000000000000004: neither may let one more through.
    assert len(survivors(dict.fromkeys(range(4), 0.5), 0.75, 1.0)) == 3
    assert len(survivors(dict.fromkeys(range(30), 0.5), 0.1, 1.0)) == 3


def test_asha_promotes_the_best_in_the_top_share_once() -> None:
    scores = {0: 0.1, 1: 0.9, 2: 0.5, 3: 0.7}
    assert promotable(scores, frozenset(), 0.5, 1.0) == 1
    assert promotable(scores, frozenset({1}), 0.5, 1.0) == 3
    assert promotable(scores, frozenset({1, 3}), 0.5, 1.0) is None


def test_asha_lets_the_first_arrival_go_on() -> None:
    assert promotable({7: 0.2}, frozenset(), 0.5, 1.0) == 7
    assert promotable({}, frozenset(), 0.5, 1.0) is None
    assert promotable({7: None}, frozenset(), 0.5, 1.0) is None
