"""What a study comes to on whole slices: hours and money by hand, and no number where nothing was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.bill import Price, bill_lines, bills, obstacle
from orchestrator.costs import costs
from orchestrator.reading import read_study
from orchestrator.record import Record, record_of
from orchestrator.study import Study
from orchestrator.workload import Workload

WORK = Workload(7.92e17)
TIME = "2026-03-01T10:00:00.000000+00:00"


def study(**options: Any) -> Study:
    """SLaM on CIFAR-10: eight teachers and six arms on eight blocks."""
    path = Path(__file__).parents[1] / "search_spaces/studies/slam_cifar10.yaml"
    return read_study(path, (), options)


def finished_on(device: str) -> Record:
    """A record with one teacher that took 1,800 seconds on a device."""
    cell = {"event": "cell", "time": TIME, "cell": "a", "attempt": 1, "stage": "teacher", "arm": "teacher", "method": None, "block": 0}
    cell |= {"seeds": {}, "generation": None, "number": None, "proposed_by": "design", "needs": [], "config": {}}
    row = {"event": "row", "time": TIME, "cell": "a", "attempt": 1, "status": "ok", "progress": 1.0, "steps": 1, "metrics": {}}
    row |= {"reports": [], "seconds": 1800.0, "device_seconds": 1800.0, "message": "", "trace": "", "where": {"device": device}}
    return record_of([cell, row])


def test_hours_and_money_by_hand() -> None:
    found = study(training_seconds=3600)
    small, large = bills(found, costs(found, record_of([])), record_of([]), WORK, price=2.0)
    # 56 trainings of an hour, each on one chip.
    assert (small.slice, small.chips, small.least, small.most) == ("v4-8", 4, Price(14.0, 56.0, 112.0), small.least)
    assert (large.slice, large.chips, large.least, large.most) == ("v4-32", 16, Price(3.5, 56.0, 112.0), large.least)


def test_a_lane_of_several_chips_costs_all_of_them() -> None:
    found = study(training_seconds=3600, lane="host", topology="2x2x1")
    small, _ = bills(found, costs(found, record_of([])), record_of([]), WORK, price=None)
    assert small.least == Price(56.0, 224.0, None)


def test_without_a_measurement_operations_are_held_against_the_peak() -> None:
    found = study()
    small, large = bills(found, costs(found, record_of([])), record_of([]), WORK, price=2.0)
    # 275e12 a second, of which 40 % are 110e12 and 4 % are 11e12.
    assert small.least.chip_hours == pytest.approx(2.0)
    assert small.most.chip_hours == pytest.approx(20.0)
    assert (small.least.hours, small.most.money) == (pytest.approx(0.5), pytest.approx(40.0))
    assert large.most.hours == pytest.approx(1.25)
    one, _, source, advice = bill_lines(found, costs(found, record_of([])), record_of([]), WORK, 2.0)
    assert one == "  on a v4-8 (4 chips): 0.5 to 5.0 hours to come, 2.0 to 20.0 chip-hours, 4 to 40 at 2 a chip-hour"
    assert "an estimate, from 7.9e+17 operations" in source
    assert "no measured throughput yet" in source
    assert "run.training_seconds" in advice


def test_nothing_known_is_no_number() -> None:
    found, unknown = study(), Workload(None, "kdsweep[models] is not installed")
    assert bills(found, costs(found, record_of([])), record_of([]), unknown, 2.0) == ()
    (line,) = bill_lines(found, costs(found, record_of([])), record_of([]), unknown, 2.0)
    assert line.startswith("  on v4-8 or v4-32: no measured throughput yet, and no operations counted (kdsweep[models] is not")


def test_a_moment_is_told_as_one() -> None:
    found = study()
    one, *_ = bill_lines(found, costs(found, record_of([])), record_of([]), Workload(1e9), 2.0)
    assert one == "  on a v4-8 (4 chips): less than 0.1 hours to come, less than 0.1 chip-hours, less than 1 at 2 a chip-hour"


@pytest.mark.parametrize(("device", "told"), [("cpu", "what has finished ran on cpu"), ("cuda:0", "ran on cuda"), ("xla:0", None)])
def test_seconds_of_another_device_say_nothing_of_a_chip(device: str, told: str | None) -> None:
    found, record = study(training_seconds=3600), finished_on(device)
    why = obstacle(costs(found, record), record)
    assert (why is None) if told is None else (why is not None and told in why)
    assert [each.is_counted for each in bills(found, costs(found, record), record, WORK, None)] == [told is not None] * 2


def test_the_lines_say_of_what_they_are_an_estimate() -> None:
    found = study(training_seconds=3600)
    without, _, source = bill_lines(found, costs(found, record_of([])), record_of([]), WORK, None)
    assert without == "  on a v4-8 (4 chips): 14.0 hours to come, 56.0 chip-hours, no money without --price, of a chip-hour"
    assert source == "    an estimate, from training times declared"
    with_price, *_ = bill_lines(found, costs(found, record_of([])), record_of([]), WORK, 3.22)
    assert "180 at 3.22 a chip-hour" in with_price
