"""Where a study stands, told from its journal: every cell, lanes, failures, cost, time left; and the picture and the watching of it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator import orders
from orchestrator.board import board, headline
from orchestrator.driver import Launch, drive, folder_of
from orchestrator.errors import StorageError
from orchestrator.events import Event, row_event
from orchestrator.journal import Journal, StudyLock
from orchestrator.reading import read_study, study_of
from orchestrator.standing import BEGUN, MISSING, OPEN, Place, Standing, folder_named, standing_of
from orchestrator.storage import holder_of
from orchestrator.study import Run
from orchestrator.watching import looks, show, stream
from tests.synthetic import Synthetic
from trainables.status import PREEMPTED, RUNNING
from trainables.trial import Row


@pytest.fixture
def folder(tiny_study_text: str, tmp_path: Path) -> Path:
    study = study_of(tiny_study_text, options={"storage": str(tmp_path)})
    drive(study, Launch(in_process=True, make_runner=lambda _: Synthetic()), Console(quiet=True))
    return tmp_path / "tiny"


def test_a_finished_study_by_stage_and_arm(folder: Path) -> None:
    standing = standing_of(str(folder))
    assert (standing.end, standing.driver) == ("complete", None)
    counts = {"ok": 0, "stopped": 0, "failed": 0, "under way": 0}
    assert standing.cells == {
        ("teacher", "teacher"): {**counts, "ok": 3},
        ("search", "slam"): {**counts, "ok": 2, "stopped": 2},
        ("search", "vanilla"): {**counts, "ok": 2, "stopped": 2},
        **{("confirm", arm): {**counts, "ok": 2} for arm in ("slam", "slam, lower_bound=0", "vanilla")},
    }
    choices = {e["arm"]: e["score"] for e in Journal(folder).read() if e["event"] == "choice"}
    assert standing.best == pytest.approx(choices)


def begins_last(lines: list[str], count: int) -> int:
    """Index of the line that begins the last so many legs."""
    return [index for index, line in enumerate(lines) if json.loads(line)["event"] == "leg"][-count]


def test_a_killed_study_is_not_taken_for_a_running_one(folder: Path) -> None:
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text("".join(lines[: begins_last(lines, 3)]))
    standing = standing_of(str(folder))
    assert (standing.end, standing.driver) == (None, None)
    assert sum(counts["under way"] for counts in standing.cells.values()) == 3
    with StudyLock(folder):
        assert f"process {os.getpid()}" in str(standing_of(str(folder)).driver)
    assert holder_of(folder) is None


def test_a_cell_is_running_as_long_as_a_driver_holds_it(folder: Path) -> None:
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    legs = [index for index, line in enumerate(lines) if json.loads(line)["event"] == "leg"]
    (folder / "journal.jsonl").write_text("".join(lines[: legs[-2] + 1]))
    handed = json.loads(lines[legs[-2]])
    assert standing_of(str(folder)).held == ()
    assert all(place.status != RUNNING for place in standing_of(str(folder)).places), "nobody is at work"
    with StudyLock(folder):
        standing = standing_of(str(folder))
        (held,) = standing.held
        assert (held.cell, held.until, held.lane, held.at) == (handed["cell"], 1.0, "driver", handed["time"])
        assert [place.cell for place in standing.places if place.status == RUNNING] == [held.cell]
        assert standing.count(OPEN) == 1
        assert "1 running · 1 open" in headline(standing)
        now = datetime.fromisoformat(held.at) + timedelta(seconds=65)
        picture = board(standing, 80, now=now).plain
        assert f"lane driver  confirm {held.arm} block {held.block}, to 100%, for 1:05" in picture
        assert "> running" in picture
        Journal(folder).append([json.loads(lines[legs[-2] + 1])])
        assert standing_of(str(folder)).held == (), "its row is there"


def test_a_cell_that_was_preempted_is_under_way_and_has_cost_time(folder: Path) -> None:
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text("".join(lines[: begins_last(lines, 3)]))
    before = standing_of(str(folder))
    events = Journal(folder).read()
    ended = {event["cell"] for event in events if event["event"] == "row"}
    waiting = next(event["cell"] for event in events if event["event"] == "cell" and event["cell"] not in ended)
    row = Row(waiting, PREEMPTED, 0.4, 40, {"validation.accuracy": 1.0}, seconds=2.0, device_seconds=8.0)
    Journal(folder).append([row_event(waiting, 1, row)])
    standing = standing_of(str(folder))
    assert standing.cells == before.cells
    assert standing.best == before.best
    assert standing.device_seconds == pytest.approx(before.device_seconds + 8.0)


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds no results"):
        standing_of(str(tmp_path))
    assert holder_of(tmp_path / "nowhere") is None


# A study by hand: two arms, tuned by 4 proposals on 2 blocks, in generations of 2; confirmed on 3 blocks of which the second cell of
# one arm, and the whole last block of it, never entered the plan.

START = datetime(2026, 3, 1, 10, tzinfo=UTC)
TEXT = "study: hand\nsearch: {trials: 4, generation: 2, blocks: 2}\nconfirm: {base: a, blocks: 3}\n"


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat(timespec="microseconds")


_NOWHERE: Event = {"versions": {}, "code_commit": None, "lock_hash": None, "space_fingerprint": "", "parameters": [], "metrics": []}
_SEEDS = {"split": 1, "teacher": 2, "init": 3, "order": 4}


def launched(seconds: float, **other: Any) -> Event:
    metric = {"select": "validation.accuracy", "report": "test.accuracy", "goal": "maximise"}
    event = {"event": "study", "time": at(seconds), "study": "hand", "text": TEXT, "base": "a", "metric": metric, "mode": "generations"}
    return event | {"blocks": 3, "lanes": 2, "seed": 0, "fingerprint": "f", **_NOWHERE} | other


def planned(seconds: float, cell: str, stage: str, arm: str, block: int, attempt: int = 1, **other: Any) -> Event:
    event = {"event": "cell", "time": at(seconds), "cell": cell, "attempt": attempt, "stage": stage, "arm": arm, "method": arm}
    return (
        event
        | {"block": block, "generation": None, "number": None, "needs": [], "config": {}, "seeds": _SEEDS, "proposed_by": "design"}
        | other
    )


def came(seconds: float, cell: str, status: str, progress: float, took: float, pid: str = "7", **other: Any) -> Event:
    event = {"event": "row", "time": at(seconds), "cell": cell, "attempt": 1, "status": status, "progress": progress, "steps": 1}
    event |= {"metrics": {"validation.accuracy": progress}, "reports": [], "seconds": took, "device_seconds": 4 * took, "message": ""}
    return event | {"trace": "", "where": {"host": "box", "pid": pid, "device": "cpu", "workers": "1"}} | other


def order(seconds: float, kind: str) -> Event:
    return {"event": "order", "time": at(seconds), "order": kind, "token": "0" * 32, "by": "me@here", "cells": []}


def ended(seconds: float, status: str) -> Event:
    return {"event": "end", "time": at(seconds), "status": status, "counts": {}}


def proposal(cell: str, arm: str, number: int, block: int) -> Event:
    return planned(1, cell, "search", arm, block, generation=number // 2, number=number)


BY_HAND: tuple[Event, ...] = (
    launched(0),
    planned(1, "t0", "teacher", "teacher", 0, method=None),
    came(11, "t0", "ok", 1.0, 8.0),
    *(proposal(f"a{n}{b}", "a", n, b) for n in range(2) for b in range(2)),
    came(20, "a00", "running", 0.5, 4.0),
    came(24, "a00", "ok", 1.0, 4.0),
    came(25, "a01", "ok", 1.0, 8.0, "8"),
    came(26, "a10", "running", 0.5, 4.0),
    came(27, "a11", "diverged", 0.25, 2.0, "8", message="loss is nan\nat step 3"),
    came(28, "a10", "stopped", 0.5, 0.0, where={}),
)


def two(*, design: bool = True) -> list[Event]:
    """What follows: stage two."""
    arms = [{"arm": arm, "kinds": ["base"], "cell": "x"} for arm in ("a", "a, mixing=normalised")]
    fixed = {
        "event": "design",
        "time": at(30),
        "hash": "cafe" * 16,
        "base": "a",
        "blocks": 2,
        "arms": arms,
        "comparisons": [],
        "skipped": [],
    }
    more = {"event": "extension", "time": at(30), "name": "extension 1", "before": 2, "blocks": 3, "hash": "beef", "design": "cafe"}
    cells = [("a", 0), ("a, mixing=normalised", 0), ("a", 1), ("a", 2)]
    return [
        *([fixed, more] if design else []),
        *(planned(31, f"c{place}", "confirm", arm, block) for place, (arm, block) in enumerate(cells)),
        came(35, "c0", "ok", 1.0, 8.0),
        planned(36, "c1", "confirm", "a, mixing=normalised", 0, attempt=2),
        came(40, "c1", "preempted", 0.35, 3.0, "9", attempt=2),
        came(41, "c2", "out_of_memory", 0.0, 1.0, message="no room"),
    ]


def by_hand(folder: Path, *events: Event) -> Standing:
    Journal(folder).append([*BY_HAND, *events])
    return standing_of(str(folder))


def test_every_cell_stands_where_its_rows_say(tmp_path: Path) -> None:
    standing = by_hand(tmp_path / "hand", *two())
    found = {(p.stage, p.arm, p.block, p.number): (p.status, p.progress, p.attempt) for p in standing.places}
    assert found == {
        ("teacher", "teacher", 0, None): ("ok", 1.0, 1),
        ("search", "a", 0, 0): ("ok", 1.0, 1),
        ("search", "a", 1, 0): ("ok", 1.0, 1),
        ("search", "a", 0, 1): ("stopped", 0.5, 1),
        ("search", "a", 1, 1): ("diverged", 0.25, 1),
        ("confirm", "a", 0, None): ("ok", 1.0, 1),
        ("confirm", "a, mixing=normalised", 0, None): (BEGUN, 0.35, 2),
        ("confirm", "a", 1, None): ("out_of_memory", 0.0, 1),
        ("confirm", "a", 2, None): (OPEN, 0.0, 1),
        ("confirm", "a, mixing=normalised", 1, None): (MISSING, 0.0, 0),
        ("confirm", "a, mixing=normalised", 2, None): (MISSING, 0.0, 0),
    }
    # A cell that was taken again is one cell; what is not planned is none.
    assert standing.cells["confirm", "a, mixing=normalised"] == {"ok": 0, "stopped": 0, "failed": 0, "under way": 1}
    assert standing.cells["confirm", "a"] == {"ok": 1, "stopped": 0, "failed": 1, "under way": 1}
    assert headline(standing) == "cells 7/9 of the plan done · 2 failed · 1 begun · 1 open · 1 taken again"
    assert standing.best == {"a": 1.0}
    assert (standing.again, standing.launches, standing.lanes, standing.mode) == (1, 1, 2, "generations")
    assert standing.design is not None
    assert standing.design["extensions"] == [{"name": "extension 1", "before": 2, "blocks": 3}]


def test_time_left_is_the_pace_so_far_times_what_is_left_at_most(tmp_path: Path) -> None:
    standing = by_hand(tmp_path / "hand", *two())
    # 0.65 of c1 (it is saved at 0.35), 1 of c3, 2 missing; searches have 2 of 4 proposals to make, on 2 blocks each.
    assert standing.trainings_left == pytest.approx(0.65 + 1 + 2 + 2 * 2)
    # Seconds: 8, 4 + 4, 8, 4, 2, 8, 3, 1; trainings at rungs and ends: 1, 1, 1, 0.5, 0.25, 1, 0, 0. Two lanes.
    assert standing.left_s == pytest.approx(7.65 * (42.0 / 4.75) / 2)
    assert standing.device_seconds == pytest.approx(4 * 42.0)
    assert standing.by_stage == pytest.approx({"teacher": 32.0, "search": 4 * 22.0, "confirm": 4 * 12.0})
    assert standing.blocks_to_come == 0
    chosen = {"event": "choice", "time": at(50), "arm": "a", "number": 0, "score": 1.0, "config": {}, "skipped": []}
    # A search that has chosen proposes no more, though it has not made all its proposals: its space was used up.
    assert by_hand(tmp_path / "used-up", *two(), chosen).trainings_left == pytest.approx(3.65)


def test_what_an_attempt_goes_on_from_was_trained_once(tmp_path: Path) -> None:
    again = planned(35, "c9", "confirm", "a", 9, attempt=2)
    half = [planned(31, "c9", "confirm", "a", 9), came(34, "c9", "running", 0.5, 4.0), again, came(50, "c9", "ok", 1.0, 6.0, attempt=2)]
    Journal(tmp_path / "hand").append([*BY_HAND[:1], *half, planned(60, "c10", "confirm", "a", 10)])
    # One training in 10 s, and one to come on two lanes.
    assert standing_of(str(tmp_path / "hand")).left_s == pytest.approx(5.0)


def test_before_anything_came_back_nothing_tells_the_time_left(tmp_path: Path) -> None:
    Journal(tmp_path / "hand").append(BY_HAND[:2])
    standing = standing_of(str(tmp_path / "hand"))
    assert (standing.left_s, standing.trainings_left, standing.blocks_to_come) == (None, 1.0, 3)
    drawn = " ".join(board(standing).plain.split())
    assert "nothing tells yet how long a training is; stage two (3 blocks) comes on top, its arms are not fixed yet" in drawn


def test_lanes_are_what_brought_rows_in_the_last_launch(tmp_path: Path) -> None:
    standing = by_hand(tmp_path / "hand", *two())
    assert [(lane.host, lane.pid, lane.legs, lane.cell, lane.status, lane.at) for lane in standing.seen] == [
        ("box", "7", 6, "c2", "out_of_memory", at(41)),
        ("box", "8", 2, "a11", "diverged", at(27)),
        ("box", "9", 1, "c1", "preempted", at(40)),
    ]
    later = by_hand(tmp_path / "again", *two(), ended(50, "interrupted"), launched(60, lanes=3), came(70, "c3", "ok", 1.0, 2.0, "77"))
    assert [(lane.pid, lane.cell) for lane in later.seen] == [("77", "c3")]
    assert (later.launches, later.lanes, later.end) == (2, 3, None)


def test_failures_are_told_with_lost_lanes_among_them_and_counted_by_message(tmp_path: Path) -> None:
    events = [*two(), came(42, "c3", "out_of_memory", 0.0, 1.0, message="no room\nnone at all")]
    standing = by_hand(tmp_path / "hand", *events)
    told = [(f.cell, f.attempt, f.status, f.message, f.taken_again) for f in standing.failures]
    assert told == [
        ("a11", 1, "diverged", "loss is nan", False),
        ("c1", 1, "lost", "The lane that held this cell died.", True),
        ("c2", 1, "out_of_memory", "no room", False),
        ("c3", 1, "out_of_memory", "no room", False),
    ]
    assert standing.messages()[0] == ("out_of_memory", "no room", 2)
    assert len(standing.messages()) == 3


@pytest.mark.parametrize(
    ("told", "follows"),
    [
        ((), None),
        (("pause",), "pause"),
        (("pause", "resume"), None),
        (("pause", "resume", "pause"), "pause"),
        (("pause", "stop"), "stop"),
        (("stop", "resume"), "stop"),
        (("cancel", "pause"), "cancel"),
        (("retry",), None),
    ],
)
def test_what_the_driver_was_told_holds_while_it_is_at_work(tmp_path: Path, told: tuple[str, ...], follows: str | None) -> None:
    folder = tmp_path / "hand"
    with StudyLock(folder):
        standing = by_hand(folder, *(order(30 + place, kind) for place, kind in enumerate(told)))
        assert standing.asked == follows
        assert (standing.asked_by, bool(standing.asked_at)) == (("me@here", True) if follows else ("", False))
    # It is gone, and so is what it was told.
    assert standing_of(str(folder)).asked is None


def test_an_order_that_nobody_took_in_is_seen(tmp_path: Path) -> None:
    by_hand(tmp_path / "hand")
    orders.give(tmp_path / "hand", orders.PAUSE, clock=lambda: START)
    standing = standing_of(str(tmp_path / "hand"))
    assert standing.waiting == (START.isoformat(),)
    assert "1 order not taken in yet, the first given at 2026-03-01 10:00:00 UTC" in board(standing, 120).plain


PICTURE = """\
hand: killed; `kdsweep run` goes on from 2026-03-01 10:00:41 UTC
cells 7/9 of the plan done · 2 failed · 1 begun · 1 open · 1 taken again
time left: at most 0:34 on 2 lanes that never wait (7.7 trainings by the pace so
  far)
cost so far 168 device-seconds (teacher 32, search 88, confirm 48)
design fixed: 2 arms x 2 blocks, hash cafecafecafe; extension 1: blocks 2 to 2

teachers and what others learn from
  teacher  #

search: arms by generation
                  g0
  a  best 1.0000  2# 1s 1D

stage two: arms by block
                        0
  a                     #M.
  a, mixing=normalised  3??

# done;  s stopped early;  0-9 begun;  . open: no row yet;  ? in the design, not
  yet in the plan;  D diverged;  M out of memory;  a digit: tenths of the way to
  which it was saved

lanes that brought a row since 2026-03-01 10:00:00 UTC, of 2
  box 7 cpu  6 legs, the last 0:04 ago, confirm a block 1: out_of_memory at 0%
  box 9 cpu  1 leg, the last 0:05 ago, confirm a, mixing=normalised block 0:
    preempted at 35%
  box 8 cpu  2 legs, the last 0:18 ago, search a block 1: diverged at 25%

attempts that failed: 3
  1 x diverged: loss is nan
  1 x lost: The lane that held this cell died.
  1 x out_of_memory: no room
the last of them
  2026-03-01 10:00:41 UTC confirm a block 1 out_of_memory  c2
  2026-03-01 10:00:36 UTC confirm a, mixing=normalised block 0 lost, taken again
    c1
  2026-03-01 10:00:27 UTC search a block 1 diverged  a11"""


def test_the_picture_needs_neither_colour_nor_more_than_80_columns(tmp_path: Path) -> None:
    standing = by_hand(tmp_path / "hand", *two())
    drawn = board(standing, 80, now=START + timedelta(seconds=45))
    assert drawn.plain == PICTURE
    assert {str(span.style) for span in drawn.spans} >= {"green", "bold red", "yellow", "dim"}


PLACE = Place("c", "confirm", "a", 0, None, None, 1, OPEN, 0.0)


def wide(arms: int, blocks: int, done: int) -> Standing:
    """So many arms with long names on so many blocks; the first ``done`` arms are through."""
    cell = Standing("f", "wide", {}, {}, 0.0, at(0), None, "process 1 on box since then", launched=at(0))
    names = [f"slam, method.k_threshold={place:02d}, recipe.schedule=constant" for place in range(arms)]
    return replace(
        cell,
        places=tuple(
            replace(PLACE, arm=name, block=block, status="ok" if place < done else OPEN)
            for place, name in enumerate(names)
            for block in range(blocks)
        ),
    )


@pytest.mark.parametrize("width", [40, 80, 133])
def test_wide_studies_are_folded_and_no_block_is_lost(width: int) -> None:
    standing = wide(3, 101, 1)
    lines = board(standing, width).plain.splitlines()
    assert max(map(len, lines)) <= width
    # The legend has one of each.
    assert sum(line.count("#") for line in lines) == 101 + 1
    drawn = [line for line in lines if line.startswith("  slam, method.k_threshold=00")]
    assert len(drawn) == sum(line.startswith("  slam, method.k_threshold=02") for line in lines) > 1
    assert sum(line.endswith(".") or ". " in line or ".." in line for line in lines) >= 2 * len(drawn)


def test_a_low_terminal_counts_arms_that_are_through(tmp_path: Path) -> None:
    standing = wide(20, 10, 17)
    whole, short = board(standing, 80, 1000).plain, board(standing, 80, 24).plain
    assert whole.count("k_threshold=") == 20
    assert short.count("k_threshold=") == 3
    assert "17 arms are through" in short


def test_asynchronous_searches_are_counted_by_arm(tmp_path: Path) -> None:
    events = [event | ({"mode": "async"} if event["event"] == "study" else {}) for event in BY_HAND]
    Journal(tmp_path / "hand").append(events)
    lines = board(standing_of(str(tmp_path / "hand"))).plain.splitlines()
    assert lines[lines.index("search: arms") + 1] == "  a  best 1.0000  2# 1s 1D"


def test_what_would_move_the_cursor_is_escaped(tmp_path: Path) -> None:
    standing = by_hand(tmp_path / "hand", came(30, "a11", "failed", 0.0, 0.0, message="\x1b[2Jgone"))
    assert "\x1b" not in board(standing).plain
    assert "\\x1b[2Jgone" in board(standing).plain


def test_all_of_it_comes_as_data(tmp_path: Path) -> None:
    standing = by_hand(tmp_path / "hand", *two())
    data = json.loads(json.dumps(standing.to_json()))
    assert [place["status"] for place in data["places"]].count("ok") == 4
    assert data["lanes_seen"][0]["pid"] == "7"
    assert {"status": "lost", "message": "The lane that held this cell died.", "count": 1} in data["messages"]
    assert data["seconds_left_at_most"] == pytest.approx(7.65 * (42.0 / 4.75) / 2)
    assert (data["taken_again"], data["ended"], data["driver"], data["asked"]) == (1, None, None, None)
    assert data["device_seconds_by_stage"]["search"] == pytest.approx(88.0)


# Watching


def watched(answers: list[Standing | StorageError], step_s: float = 2.0) -> Iterator[tuple[Standing, str]]:
    now = iter(range(10**6))

    def look() -> Standing:
        answer = answers.pop(0)
        if isinstance(answer, StorageError):
            raise answer
        return answer

    return looks(look, sleep=lambda _: None, clock=lambda: next(now) * step_s)


def test_a_storage_that_is_away_for_a_moment_is_asked_again() -> None:
    busy, away = wide(1, 2, 0), StorageError("gs://b/x does not answer")
    over = replace(busy, driver=None)
    assert list(watched([busy, away, away, busy, over])) == [
        (busy, ""), (busy, "gs://b/x does not answer"), (busy, "gs://b/x does not answer"), (busy, ""), (over, ""),
    ]  # fmt: skip


def test_a_storage_that_stays_away_is_given_up() -> None:
    busy, away = wide(1, 2, 0), StorageError("gone")
    seen = watched([busy, *[away] * 100], step_s=100.0)
    with pytest.raises(StorageError, match="gone"):
        list(seen)
    with pytest.raises(StorageError, match="gone"):
        list(watched([away]))


def test_a_terminal_is_drawn_in_place_and_keeps_the_last_picture() -> None:
    busy = wide(2, 4, 0)
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=80, height=30, legacy_windows=False)
    show(iter([(busy, ""), (busy, "gs://b does not answer"), (replace(busy, driver=None, end="complete"), "")]), console)
    out = written.getvalue()
    assert out.count("is asked again") == 1
    assert "\x1b[1A\x1b[2K" in out  # the picture before is wiped
    assert "wide: complete" in out.rpartition("\x1b[2K")[2]
    assert out.rstrip().endswith("no row yet\x1b[0m")


def test_elsewhere_a_line_is_written_whenever_something_changed() -> None:
    busy, later = wide(2, 4, 0), wide(2, 4, 1)
    written = io.StringIO()
    show(iter([(busy, ""), (busy, ""), (later, ""), (later, "gone")]), Console(file=written, width=80))
    lines = written.getvalue().splitlines()
    assert lines[:2] == ["wide: cells 0/8 of the plan done · 0 failed · 8 open", "wide: cells 4/8 of the plan done · 0 failed · 4 open"]
    assert lines[2].endswith("seen last. gone")
    said: list[str] = []
    stream(iter([(busy, ""), (later, "gone")]), said.append)
    assert [json.loads(line)["trouble"] for line in said] == [None, "gone"]


def test_control_c_ends_watching_without_a_trace(folder: Path) -> None:
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text("".join(lines[: begins_last(lines, 3)]))
    command = [sys.executable, "-m", "orchestrator", "status", str(folder), "--watch"]
    with StudyLock(folder):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert first.startswith("tiny: cells ")
    assert "stage two: arms by block" in out
    assert (process.returncode, err) == (0, "")


# Quickly, and from the file alone


def test_the_folder_of_a_study_file_is_known_without_what_trains(tiny_study_text: str, tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    for text, storage in (
        (tiny_study_text, None),
        (tiny_study_text, "gs://bucket/results/"),
        (tiny_study_text.replace("run: {", "run: {storage: elsewhere/, "), None),
    ):
        file.write_text(text)
        assert folder_named(str(file), storage) == folder_of(read_study(file, (), {"storage": storage}))
    file.write_text(tiny_study_text.partition("run:")[0])
    assert folder_named(str(file), None) == f"{Run().storage}/tiny"


@pytest.mark.parametrize(
    "text", ["study: [tiny]", "study: ../up", "study: a/b", "question: x", "- study", "study: 3", "study: a\nrun: [", "\xff"]
)
def test_a_file_that_names_no_study_is_left_to_the_whole_reader(text: str, tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_bytes(text.encode("latin-1"))
    assert folder_named(str(file), None) is None
    assert folder_named(str(tmp_path / "none.yaml"), None) is None


def test_status_of_2000_cells_loads_nothing_that_trains_and_is_quick(tmp_path: Path) -> None:
    """Seconds of the processor, for others use it too."""
    config = {f"recipe.field_{place}": 0.1 for place in range(60)}
    cells = [planned(31, f"c{place}", "confirm", f"arm {place % 20}", place // 20, config=config) for place in range(2000)]
    rows = [
        came(32, f"c{place}", "ok", 1.0, 1.0, reports=[{"step": s, "progress": s / 10, "metrics": {"v": 0.5}} for s in range(10)])
        for place in range(2000)
    ]
    Journal(tmp_path / "many").append([*BY_HAND, *cells, *rows])
    before = time.process_time()
    standing = standing_of(str(tmp_path / "many"))
    board(standing)
    assert time.process_time() - before < 3.0  # 0.5 where nobody else is at work
    assert standing.count("ok") == 2003
    code = "import sys; from orchestrator.__main__ import main; sys.argv[1:] = ['status', sys.argv[1]]"
    check = f"{code}\ntry:\n    main()\nfinally:\n    print(sorted({{'torch', 'ray', 'pandas'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check, str(tmp_path / "many")], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.rstrip().endswith("[]")
