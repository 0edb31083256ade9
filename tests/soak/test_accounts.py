"""The accounts of a soak, on journals and notes of a few lines whose sums are made by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.soak.accounts import account
from tests.soak.sizing import Size, seconds_an_epoch, size_of

Events = list[dict[str, Any]]


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def cell(name: str, method: str | None = "slam", epochs: int = 10) -> dict[str, Any]:
    content = {"stage": "search", "arm": "slam", "number": 0, "block": 0, "method": method, "config": {"recipe.epochs": epochs}}
    return {"event": "cell", "time": at(0), "cell": name, "attempt": 1, **content}


def row(name: str, time: float, progress: float = 1.0, status: str = "ok", seconds: float = 1.0) -> dict[str, Any]:
    rest = {"steps": 1, "metrics": {}, "reports": [], "seconds": seconds, "device_seconds": seconds, "where": {}}
    return {"event": "row", "time": at(time), "cell": name, "attempt": 1, "status": status, "progress": progress, **rest}


def begin(name: str, time: float, until: float = 1.0, pid: int = 7) -> dict[str, Any]:
    return {"event": "begin", "time": time, "pid": pid, "cell": name, "until": until}


def over(name: str, time: float, seconds: float, until: float = 1.0, status: str = "ok", pid: int = 7) -> dict[str, Any]:
    return {"event": "end", "time": time, "pid": pid, "cell": name, "until": until, "status": status, "seconds": seconds}


CALM: Events = [{"event": "study"}, cell("a"), cell("b"), row("a", 1), row("b", 2)]


def test_a_study_that_nothing_happened_to_lost_nothing_and_did_nothing_twice() -> None:
    notes = [[{"event": "up", "time": 0, "pid": 7}, begin("a", 0), over("a", 1, 1.0), begin("b", 1.5), over("b", 2, 0.5)]]
    found = account(CALM, CALM, notes, {7: 9.0})
    assert (found.cells, found.lost, found.twice, found.launches) == (2, (), (), 1)
    assert (found.legs, found.cut_off, found.repeated) == (2, 0, 0)
    assert (found.trained_s, found.redone_s, found.redone) == (1.5, 0.0, 0.0)


def test_cells_that_are_not_finished_and_cells_too_many_are_lost() -> None:
    disturbed = [cell("a"), cell("b"), cell("c"), row("a", 1), row("b", 2, 0.5, "running"), row("c", 3)]
    assert account(CALM, disturbed, [], {}).lost == ("b", "c")


def test_a_leg_that_was_cut_off_counts_until_its_process_died() -> None:
    notes = [[begin("a", 10)], [begin("a", 20, pid=8), over("a", 23, 3.0, pid=8), begin("b", 30, pid=8), over("b", 31, 1.0, pid=8)]]
    disturbed = [cell("a"), cell("b"), row("a", 23.1), row("b", 31.1)]
    found = account(CALM, disturbed, notes, {7: 12.0, 8: 40.0})
    assert (found.legs, found.cut_off, found.repeated, found.twice) == (3, 1, 0, ())
    # Two seconds until the death of process 7, of 2 + 3 + 1.
    assert (found.trained_s, found.redone_s) == (6.0, 2.0)
    assert found.redone == 100 / 3


def test_a_process_that_nobody_saw_die_was_at_its_leg_for_no_time_that_is_known() -> None:
    found = account(CALM, CALM, [[begin("a", 10)]], {})
    assert (found.cut_off, found.redone_s) == (1, 0.0)


def test_a_leg_whose_row_got_lost_counts_from_the_second_time_it_ends() -> None:
    # It ended at 12, its driver died with the row, and a new launch trained it again: for 5 seconds, for it began from the start.
    notes = [[begin("a", 10), over("a", 12, 2.0)], [begin("a", 20, pid=8), over("a", 25, 5.0, pid=8)]]
    found = account(CALM, [cell("a"), cell("b"), row("a", 25.1), row("b", 26)], notes, {})
    assert (found.repeated, found.twice) == (1, ())
    assert (found.trained_s, found.redone_s) == (7.0, 5.0)


def test_a_preempted_leg_and_a_failed_one_are_no_work_done_again() -> None:
    notes = [
        [begin("a", 10), over("a", 12, 2.0, status="preempted"), begin("a", 20), over("a", 21, 1.0)],
        [begin("b", 30), over("b", 31, 1.0, status="failed"), begin("b", 40), over("b", 41, 1.0)],
    ]
    found = account(CALM, [cell("a"), cell("b"), row("a", 21.1), row("b", 41.1)], notes, {})
    assert (found.legs, found.cut_off, found.repeated, found.redone_s) == (4, 0, 0, 0.0)


def test_a_leg_that_is_begun_though_its_row_is_known_is_trained_twice() -> None:
    disturbed = [cell("a"), cell("b"), row("a", 5, 0.5, "running"), row("a", 9), row("b", 3)]
    again = account(CALM, disturbed, [[begin("a", 6, 0.5)]], {})
    assert again.twice == ("a",)
    # The next leg is none that is known; nor is one that was begun before its row came.
    assert account(CALM, disturbed, [[begin("a", 6, 1.0)], [begin("b", 2)]], {}).twice == ()
    # A rung before the one that is known is.
    assert account(CALM, disturbed, [[begin("a", 10, 0.25)]], {}).twice == ("a",)


def test_two_rows_for_one_rung_are_a_cell_trained_twice() -> None:
    rungs = [row("a", 5, 0.5, "running"), row("a", 6, 0.5, "running"), row("a", 7), row("b", 3)]
    assert account(CALM, [cell("a"), cell("b"), *rungs], [], {}).twice == ("a",)
    # A leg that was preempted twice stands at no rung.
    early = [row("a", 5, 0.3, "preempted"), row("a", 6, 0.3, "preempted"), row("a", 7), row("b", 3)]
    assert account(CALM, [cell("a"), cell("b"), *early], [], {}).twice == ()


def test_seconds_of_an_epoch_are_those_of_students_alone() -> None:
    events = [
        cell("t", None, 1000),
        cell("a", epochs=10),
        cell("b", epochs=20),
        row("t", 1, seconds=50.0),
        row("a", 2, 0.5, "running", 2.0),
        row("a", 3, seconds=3.0),
        row("b", 4, 0.25, "running", 1.0),
    ]
    # 10 epochs of a and 5 of b in six seconds.
    assert seconds_an_epoch(events) == 6.0 / 15


def test_a_study_is_as_long_as_asked() -> None:
    # 2 arms x 8 trials x 2 blocks at half their length, and 7 arms x 4 blocks: 44 whole trainings. 44 x 40 x 0.1 s.
    assert size_of(176.0, 0.1) == Size(8, 4, 40)
    # Longer ones have more cells, of the same length.
    assert size_of(528.0, 0.1) == Size(24, 12, 40)
    assert size_of(10.0, 0.1).epochs == 8
    assert Size(8, 4, 40).overrides == ("search.trials=8", "confirm.blocks=4", "student.recipe.epochs=40")
