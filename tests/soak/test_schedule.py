"""The schedule of a soak is a function of its seed, and leaves nothing out."""

from __future__ import annotations

from itertools import islice

import pytest

from tests.soak.schedule import KINDS, Fault, faults, relaunches

ALL = tuple(KINDS)


def first(count: int, seed: int, kinds: tuple[str, ...] = ALL, pace_s: float = 20.0) -> list[Fault]:
    return list(islice(faults(seed, kinds, pace_s), count))


def test_a_seed_says_everything() -> None:
    assert first(100, 3) == first(100, 3)
    assert first(100, 3) != first(100, 4)
    assert list(islice(relaunches(3), 50)) == list(islice(relaunches(3), 50))
    assert list(islice(relaunches(3), 50)) != list(islice(relaunches(4), 50))


@pytest.mark.parametrize("seed", range(5))
def test_every_kind_comes_in_the_first_bag_and_as_often_as_it_weighs(seed: int) -> None:
    bag = [fault.kind for fault in first(22, seed)]
    # 4 + 4 + 5 x 2, and the other five kinds once each.
    assert {kind: bag.count(kind) for kind in ALL} == {
        "driver-kill": 4,
        "driver-interrupt": 2,
        "worker-kill": 4,
        "lane-kill": 1,
        "node-kill": 2,
        "node-drain": 2,
        "worker-freeze": 2,
        "node-freeze": 1,
        "pause": 1,
        "stop": 1,
        "cancel": 1,
        "head": 1,
    }


def test_only_what_is_asked_for_comes() -> None:
    assert {fault.kind for fault in first(40, 0, ("pause", "node-kill"))} == {"pause", "node-kill"}


def test_faults_are_numbered_and_their_numbers_within_limits() -> None:
    found = first(1000, 1, pace_s=20.0)
    assert [fault.number for fault in found] == list(range(1, 1001))
    assert all(4.0 <= fault.gap_s <= 36.0 and 1.0 <= fault.rest_s <= 10.0 for fault in found)
    # The mean of 1,000 uniform numbers on [4, 36] is 20 with a standard error of 0.29.
    assert sum(fault.gap_s for fault in found) / 1000 == pytest.approx(20.0, abs=1.5)
    assert {fault.target(3) for fault in found} == {0, 1, 2}
    assert {fault.at_row for fault in found} == {True, False}
    assert sum(fault.is_early for fault in found) / 1000 == pytest.approx(0.25, abs=0.06)


def test_an_aim_is_always_one_of_those_there_are() -> None:
    assert Fault(1, "node-kill", 1.0, 0.999999, 1.0, False, False).target(2) == 1
    assert Fault(1, "node-kill", 1.0, 0.0, 1.0, False, False).target(2) == 0


def test_launches_have_lanes_of_both_kinds() -> None:
    found = list(islice(relaunches(0), 300))
    assert {start.workers for start in found} == {0, 1}
    assert all(0.0 <= start.delay_s <= 4.0 for start in found)


@pytest.mark.parametrize(("kinds", "told"), [((), "none"), (("driver-kill", "flood"), "flood")])
def test_an_unknown_kind_is_refused(kinds: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValueError, match=f"needs kinds out of driver-kill, .*, but got {told}"):
        next(faults(0, kinds, 20.0))
