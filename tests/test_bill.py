"""What a study comes to on whole slices: hours and money by hand, and no number where nothing was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.bill import bill_lines, bills, obstacle
from orchestrator.costs import costs
from orchestrator.reading import read_study
from orchestrator.record import Record, record_of
from orchestrator.study import Study

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
    small, large = bills(found, costs(found, record_of([])), record_of([]), price=2.0)
    # 56 trainings of an hour, each on one chip.
    assert (small.slice, small.chips, small.hours, small.chip_hours, small.money) == ("v4-8", 4, 14.0, 56.0, 112.0)
    assert (large.slice, large.chips, large.hours, large.chip_hours, large.money) == ("v4-32", 16, 3.5, 56.0, 112.0)


def test_a_lane_of_several_chips_costs_all_of_them() -> None:
    found = study(training_seconds=3600, lane="host", topology="2x2x1")
    small, _ = bills(found, costs(found, record_of([])), record_of([]), price=None)
    assert (small.hours, small.chip_hours, small.money) == (56.0, 224.0, None)


def test_nothing_measured_is_no_number() -> None:
    found = study()
    assert bills(found, costs(found, record_of([])), record_of([]), 2.0) == ()
    (line,) = bill_lines(found, costs(found, record_of([])), record_of([]), 2.0)
    assert line.startswith("  on v4-8 or v4-32: no measured throughput yet.")


@pytest.mark.parametrize(("device", "told"), [("cpu", "what has finished ran on cpu"), ("cuda:0", "ran on cuda"), ("xla:0", None)])
def test_seconds_of_another_device_say_nothing_of_a_chip(device: str, told: str | None) -> None:
    found, record = study(training_seconds=3600), finished_on(device)
    why = obstacle(found, costs(found, record), record)
    assert (why is None) if told is None else (why is not None and told in why)
    assert bool(bills(found, costs(found, record), record, None)) == (told is None)


def test_the_lines_say_of_what_they_are_an_estimate() -> None:
    found = study(training_seconds=3600)
    without, _ = bill_lines(found, costs(found, record_of([])), record_of([]), None)
    assert without == (
        "  on a v4-8 (4 chips): 14.0 hours to come, 56.0 chip-hours, no money without --price, of a chip-hour; an estimate, training times declared"
    )
    with_price, _ = bill_lines(found, costs(found, record_of([])), record_of([]), 3.22)
    assert "180 at 3.22 a chip-hour" in with_price
