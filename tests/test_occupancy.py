"""How lanes were used: shares by hand, replays by hand and against the sweep itself, and what the report says of them."""

from __future__ import annotations

import dataclasses
import heapq
import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator import report
from orchestrator.analysis.occupancy import Occupancy, Replay, Spell, occupancy
from orchestrator.events import SEARCH, Event
from orchestrator.reading import study_of
from orchestrator.record import record_of
from orchestrator.sections.lanes import lanes
from orchestrator.study import Study
from orchestrator.sweep import Sweep
from tests.synthetic import Synthetic
from tests.test_report import kept, whole
from trainables.trial import Leg

START = datetime(2026, 3, 1, 10, tzinfo=UTC)


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat(timespec="microseconds")


def launched(seconds: float = 0.0, lanes: int | None = 2, mode: str = "generations") -> Event:
    known = {} if lanes is None else {"lanes": lanes}
    return {"event": "study", "time": at(seconds), "study": "hand", "mode": mode, **known}


def cell(name: str, stage: str = "search", generation: int | None = 0, needs: Sequence[str] = (), arm: str = "a", **other: Any) -> Event:
    event = {"event": "cell", "time": at(0), "cell": name, "attempt": 1, "stage": stage, "arm": arm, "method": "kd", "block": 0}
    return event | {"generation": generation, "number": 0, "needs": list(needs), "config": {}} | other


def network(name: str) -> Event:
    return cell(name, "teacher", None, method=None)


def row(end: float, name: str, seconds: float, status: str = "ok", progress: float = 1.0) -> Event:
    event = {"event": "row", "time": at(end), "cell": name, "attempt": 1, "status": status, "progress": progress, "steps": 1}
    return event | {"metrics": {}, "reports": [], "seconds": seconds, "device_seconds": seconds}


def told(*events: Event) -> Occupancy:
    found = occupancy(report.facts_of(events, record_of(events)))
    assert found is not None
    return found


def replayed(*events: Event) -> Replay:
    found = told(*events).replay
    assert found is not None
    return found


def test_the_time_of_lanes_is_training_start_up_and_what_is_left() -> None:
    found = told(
        launched(), cell("x", generation=0), cell("y"), cell("z"),
        row(12, "x", 8.0), row(14, "y", 8.0), row(20, "z", 6.0), row(26, "z", 0.0, "stopped"),
        {"event": "end", "time": at(90), "status": "interrupted", "counts": {}},
        launched(100, lanes=3), row(130, "z", 21.0, "failed", 0.0),
    )  # fmt: skip
    # Two lanes for 20 s, the first leg began at 4 s; three for 30 s, from 9 s on. What a row without training says is no end.
    assert found.spells == (
        Spell(1, at(0), 2, lane_seconds=40.0, training=22.0, start_up=8.0, idle=10.0),
        Spell(2, at(100), 3, lane_seconds=90.0, training=21.0, start_up=27.0, idle=42.0),
    )
    assert [found.total(name) for name in ("lane_seconds", "training", "start_up", "idle")] == [130.0, 43.0, 35.0, 52.0]
    # Most lane-time was that of three lanes.
    assert found.replay is not None
    assert found.replay.lanes == 3


def test_launches_that_do_not_say_their_lanes_or_whose_clock_ran_back_are_passed_over_with_a_word() -> None:
    found = told(
        launched(lanes=None), cell("x"), row(10, "x", 5.0),
        launched(20), row(15, "x", 5.0),
        launched(30), row(32, "x", 5.0),
        launched(40),
        launched(50), row(60, "x", 5.0),
    )  # fmt: skip
    assert [each.launch for each in found.spells] == [5]
    assert found.passed_over == (
        (1, "its journal does not say how many lanes it had"),
        (2, "its legs took longer than its clock ran"),
        (3, "its legs took longer than its clock ran"),
    )
    none = told(launched(lanes=None), cell("x"), row(10, "x", 5.0))
    assert (none.spells, none.replay) == ((), None)
    events = (launched(), cell("x"))
    assert occupancy(report.facts_of(events, record_of(events))) is None


# One arm in generations of two, one rung; all need the teacher t.
BY_HAND = (
    launched(), network("t"), cell("a0", needs=["t"]), cell("a1", needs=["t"]), cell("b0", generation=1, needs=["t"]),
    cell("b1", generation=1, needs=["t"]),
)  # fmt: skip
ROWS = (
    row(2, "t", 2.0), row(4, "a1", 2.0, "running", 0.5), row(6, "a0", 4.0, "running", 0.5), row(6, "a1", 0.0, "stopped", 0.5),
    row(11, "a0", 5.0), row(14, "b0", 3.0, "running", 0.5), row(14, "b1", 3.0, "running", 0.5), row(18, "b1", 4.0),
)  # fmt: skip


def test_a_generation_that_waits_for_its_slowest_cell() -> None:
    # Two lanes. With waiting: t to 2; a0 to 6, a1 to 4; a0 again to 11; b0 and b1 to 14; b1 again to 18. From 4 to 11 one lane is idle
    # while b0 and b1 wait for their generation alone. From 0 to 2 all wait for the teacher, from 14 to 18 nothing is left.
    # Without: a0 2 to 6, a1 2 to 4, b0 4 to 7, a0 6 to 11, b1 7 to 10 and 10 to 14.
    assert replayed(*BY_HAND, *ROWS) == Replay(lanes=2, legs=7, work=23.0, waiting=18.0, free=14.0, least=11.5, held=7.0)
    assert replayed(*BY_HAND, *ROWS).held_share == pytest.approx(7.0 / 36.0)
    # With 8 lanes the longest chain is all there is: t, and twice a0.
    eight = replayed(launched(lanes=8), *BY_HAND[1:], *ROWS)
    assert (eight.waiting, eight.free, eight.least) == (18.0, 11.0, 11.0)
    # No more lanes are idle for a leg than legs wait: from 2 to 4 b0 and b1 on 6 idle lanes, then they alone on 7, to 11.
    assert eight.held == 2 * 9.0


def test_other_teachers_fill_the_wait() -> None:
    # u runs from 0 to 5 on the second lane: a0 2 to 6, a1 5 to 7, a0 again 7 to 12, b0 and b1 to 15, b1 again to 19.
    found = replayed(*BY_HAND[:4], network("u"), *BY_HAND[4:], *ROWS, row(20, "u", 5.0))
    assert (found.waiting, found.held, found.work) == (19.0, 6.0, 28.0)


def test_stage_two_is_no_part_of_it_and_a_student_that_proposals_need_comes_with_them() -> None:
    confirm = cell("c", "confirm", None)
    student = cell("s", "teacher", None, needs=["t"])
    events = [
        *BY_HAND[:4],
        student,
        cell("b0", generation=1, needs=["t", "s"]),
        BY_HAND[5],
        confirm,
        *ROWS,
        row(30, "s", 1.0),
        row(40, "c", 9.0),
    ]
    found = replayed(*events)
    # As by hand until 11; then s to 12 and b1 to 14; b0 12 to 15, and b1 again only then, 15 to 19.
    assert (found.legs, found.work, found.waiting) == (8, 24.0, 19.0)
    # Without waiting: t to 2; a0 2 to 6, a1 2 to 4, s 4 to 5, b0 5 to 8, a0 6 to 11, b1 8 to 11 and 11 to 15.
    assert found.free == 15.0


def test_legs_that_ended_early_go_on_at_the_same_rung() -> None:
    events = [
        *BY_HAND[:4],
        row(2, "t", 2.0),
        row(3, "a0", 1.0, "preempted", 0.2),
        row(8, "a0", 4.0, "running", 0.5),
        row(9, "a1", 2.0, "running", 0.5),
    ]
    found = replayed(*events, row(12, "a0", 1.0), row(15, "a1", 3.0))
    # t to 2; a0 to 3 and on to 7, a1 to 4, where it waits for a0: both go on at 7, to 8 and 10.
    assert (found.waiting, found.held, found.free) == (10.0, 3.0, 8.0)


def test_nothing_is_replayed_where_nothing_waits_for_a_generation() -> None:
    assert told(launched(mode="async"), *BY_HAND[1:], *ROWS).replay is None
    assert told(launched(), network("t"), cell("c", "confirm", None), row(5, "t", 2.0), row(9, "c", 2.0)).replay is None


@pytest.fixture
def study(tiny_study_text: str) -> Study:
    return study_of(
        tiny_study_text, ["search.trials=12", "search.generation=4", "search.rungs=[0.25, 0.5]", "search.blocks=2", "confirm.blocks=3"]
    )


def swept(study: Study, count: int, seed: int) -> tuple[list[Event], float]:
    """The journal of a study whose legs take random times on so many lanes that hand out at once, and when tuning ended."""
    rng = random.Random(seed)
    sweep, host, now = Sweep(study, record_of([])), Synthetic(), 0.0
    events = [launched(lanes=count), *sweep.drain()]
    running: list[tuple[float, int, float, Leg]] = []
    for number in range(10**6):
        while len(running) < count and (leg := sweep.take()) is not None:
            seconds = rng.lognormvariate(0.0, 0.8)
            heapq.heappush(running, (now + seconds, number + len(events) + len(running), seconds, leg))
        events += sweep.drain()
        if not running:
            break
        now, _, seconds, leg = heapq.heappop(running)
        given = sweep.give(dataclasses.replace(host.run(leg), seconds=seconds))
        events += [event | ({"time": at(now)} if event["event"] == "row" else {}) for event in given]
    tuned = {event["cell"] for event in events if event["event"] == "cell" and (event["stage"] == SEARCH or event["method"] is None)}
    ends = [datetime.fromisoformat(event["time"]) for event in events if event["event"] == "row" and event["cell"] in tuned]
    return events, (max(ends) - START).total_seconds()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", range(3))
def test_the_replay_takes_as_long_as_the_sweep_itself(study: Study, count: int, seed: int) -> None:
    events, took = swept(study, count, seed)
    found = told(*events)
    assert found.replay is not None
    assert found.replay.waiting == pytest.approx(took, abs=1e-4)  # stamps have microseconds
    assert found.replay.least <= min(found.replay.free, found.replay.waiting) + 1e-9
    (spell,) = found.spells
    assert spell.start_up == pytest.approx(0.0, abs=1e-4)
    assert spell.training == pytest.approx(sum(event["seconds"] for event in events if event["event"] == "row"))
    assert 0.0 <= found.replay.held <= count * found.replay.waiting - found.replay.work + 1e-6
    assert (found.replay.held > 0.0) == (count > 1)


# The section


def test_the_section_says_shares_and_what_waiting_cost() -> None:
    section = lanes(told(*BY_HAND, *ROWS))
    assert section.title == "How lanes were used"
    assert section.paragraphs == (
        "Of 36.0 lane-seconds 63.9 % went into training and 0.0 % into starting up; 36.1 % were idle.",
        (
            "Replayed on 2 lanes, tuning takes 18.0 s where each generation waits for its slowest cell, as here; lanes are idle for that "
            "reason alone in 19.4 % of that time. The same legs without that wait take 14.0 s, and in no order less than 11.5 s."
        ),
    )
    assert section.tables[0].rows == (("1", "2026-03-01 10:00", "2", "36.0", "63.9", "0.0", "36.1"),)
    alone = lanes(told(launched(lanes=1), *BY_HAND[1:], *ROWS[:5], row(31, "b1", 7.0)))
    assert alone.paragraphs[1] == (
        "Replayed on 1 lane, tuning takes 20.0 s where each generation waits for its slowest cell, as here, and no lane is ever idle for "
        "that reason alone."
    )


def test_many_launches_are_summed_up_and_those_passed_over_named() -> None:
    events = [cell("x")]
    for place in range(11):
        events += [launched(100.0 * place, lanes=None if place in (3, 5) else 2), row(100.0 * place + 10, "x", 5.0, "preempted", 0.1)]
    section = lanes(told(*events))
    (table,) = section.tables
    assert [each[0] for each in table.rows] == ["2", "3", "5", "7", "8", "9", "10", "11", "all"]
    assert table.rows[-1] == ("all", "", "", "180", "25.0", "50.0", "25.0")
    assert section.notes[0] == "One earlier launch is in the last line alone."
    assert section.notes[-1] == "Not told of launches 4, 6: its journal does not say how many lanes it had."


def test_the_report_has_it_in_every_form(tmp_path: Path) -> None:
    events = [event | ({"lanes": 2} if event["event"] == "study" else {}) for event in whole()]
    for place, event in enumerate(event for event in events if event["event"] == "row"):
        event["time"] = at(10.0 + 2.0 * place)
    events[0]["time"] = at(0)
    frames = report.frames(kept(tmp_path / "new", events))
    assert frames.occupancy is not None
    assert "## How lanes were used" in report.markdown(frames)
    assert json.loads(report.to_json(frames))["lanes"]["spells"][0]["lanes"] == 2
    old = report.frames(kept(tmp_path / "old", whole()))
    assert "Not told of launch 1: its journal does not say how many lanes it had." in report.markdown(old)
