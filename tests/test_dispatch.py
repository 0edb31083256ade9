"""Which lane is given which leg, and what follows when one dies: followed by hand, without Ray."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.command import Command
from orchestrator.dispatch import Dispatch
from orchestrator.events import Event
from orchestrator.reading import study_of
from orchestrator.record import Record
from orchestrator.sweep import Sweep
from tests.synthetic import Synthetic
from trainables.status import FAILED, OUT_OF_MEMORY, PREEMPTED, TIMED_OUT
from trainables.trial import Leg, Row

HERE, THERE = ("here",), ("there",)


class Hall:
    """A dispatch with everything around it in plain sight."""

    def __init__(self, text: str, lanes: int = 2, **run: object) -> None:
        study = study_of(text, [f"run.{key}={value}" for key, value in run.items()])
        self.now = 0.0
        self.events: list[Event] = []
        self.held: dict[str, Leg | None] = {}
        """What each lane was handed last."""
        self.sweep = Sweep(study, Record())
        self.said: list[str] = []
        self.command = Command()
        self.ended: list[str] = []
        """Lanes that were ended by force."""
        self.dispatch = Dispatch(
            self.sweep,
            self.events.extend,
            self._hand,
            lanes,
            patience_s=60.0,
            shortage=lambda: "All is full.",
            say=self.said.append,
            command=self.command,
            end=self.ended.append,
            slack_s=120.0,
            clock=lambda: self.now,
        )
        self.events.extend(self.sweep.drain())

    def _hand(self, lane: str, leg: Leg | None) -> None:
        self.held[lane] = leg

    def leg(self, lane: str) -> Leg:
        found = self.held[lane]
        assert found is not None
        return found

    def does(self, lane: str, nodes: tuple[str, ...] = HERE) -> str:
        """The lane trains what it holds; the cell."""
        leg = self.leg(lane)
        self.dispatch.row(lane, Synthetic().run(leg), nodes)
        return leg.trial.id

    def does_until(self, lane: str, stage: str, until: float) -> Leg:
        """The lane trains until it holds a leg to there, of that stage, which it is left with."""
        while self.sweep.cells[self.leg(lane).trial.id].cell.stage != stage or self.leg(lane).until != until:
            self.does(lane)
        return self.leg(lane)

    def rows(self, cell: str) -> list[tuple[str, int]]:
        return [(e["status"], e["attempt"]) for e in self.events if e["event"] == "row" and e["cell"] == cell]


@pytest.fixture
def hall(tiny_study_text: str) -> Callable[..., Hall]:
    return lambda *args, **kwargs: Hall(tiny_study_text, *args, **kwargs)


def test_every_lane_that_is_up_is_fed_until_nothing_is_left(hall: Callable[..., Hall]) -> None:
    found = hall()
    found.dispatch.up("a", HERE)
    found.dispatch.up("b", HERE)
    assert found.leg("a").trial.id != found.leg("b").trial.id
    done = 0
    while not found.dispatch.is_over:
        for lane in ("a", "b"):
            if found.dispatch.is_over:
                break
            before = found.held[lane]
            if before is not None and (before.trial.id, before.until) not in {(e.get("cell"), e.get("progress")) for e in found.events}:
                found.does(lane)
                done += 1
    assert found.sweep.counts() == {"ok": 3 + 4 + 6, "stopped": 4, "failed": 0, "running": 0, "waiting": 0}
    assert done == 3 + 8 + 4 + 6


def test_a_lane_is_given_what_is_like_what_it_did_before(hall: Callable[..., Hall], monkeypatch: pytest.MonkeyPatch) -> None:
    found = hall()
    asked: list[str | None] = []
    take = found.sweep.take
    monkeypatch.setattr(found.sweep, "take", lambda after=None: asked.append(after) or take(after))
    found.dispatch.up("a", HERE)
    first = found.does("a")
    assert asked[:2] == [None, first]


def test_a_preempted_leg_goes_on_elsewhere_as_the_same_attempt(hall: Callable[..., Hall]) -> None:
    found = hall()
    found.dispatch.up("a", HERE)
    leg = found.leg("a")
    found.dispatch.row("a", Row(leg.trial.id, PREEMPTED, 0.3, 30, {}), HERE)
    assert found.held["a"] is None, "it was sent home"
    found.dispatch.left("a")
    found.dispatch.up("b", THERE)
    assert found.leg("b") == leg
    found.does("b")
    assert found.rows(leg.trial.id) == [("preempted", 1), ("ok", 1)]


def test_idle_lanes_leave_a_machine_that_goes_away_and_busy_ones_bring_their_row_first(hall: Callable[..., Hall]) -> None:
    found = hall(lanes=3)
    for lane, nodes in (("a", HERE), ("b", THERE), ("c", HERE), ("d", HERE)):
        found.dispatch.up(lane, nodes)
    assert "d" not in found.held, "three teachers, and nothing else to begin with"
    cell = found.leg("a").trial.id
    found.dispatch.look(frozenset(THERE))
    assert found.held["d"] is None
    assert found.leg("a").trial.id == cell
    found.does("a")
    assert found.held["a"] == found.leg("a"), "nothing new"
    assert found.leg("a").trial.id == cell
    found.dispatch.look(frozenset(THERE))
    assert found.held["a"] is None
    found.does("b", THERE)
    assert found.leg("b").trial.id != cell


def test_a_death_counts_and_a_machine_that_went_away_does_not(hall: Callable[..., Hall]) -> None:
    found = hall(lanes=1, retries=0)
    for number in range(9):
        found.dispatch.up(str(number), HERE)
        cell = found.leg(str(number)).trial.id
        found.dispatch.look(frozenset(THERE))
        found.dispatch.died(str(number), "The node is dead")
        assert found.rows(cell)[-1] == ("preempted", 1)
        assert not found.dispatch.is_over
        found.dispatch.look(frozenset(HERE))
    found.dispatch.up("a", HERE)
    cell = found.leg("a").trial.id
    found.dispatch.died("a", "Trace:\nKeyError: 1")
    assert found.rows(cell)[-1] == ("failed", 1)
    (row,) = [e for e in found.events if e["event"] == "row" and e["status"] == "failed" and e["cell"] == cell]
    assert row["message"] == "The lane that held this cell died: KeyError: 1"


def test_a_death_in_a_slice_counts_for_nothing_if_any_of_its_machines_went_away(hall: Callable[..., Hall]) -> None:
    found = hall(retries=0)
    found.dispatch.up("a", HERE + THERE)
    cell = found.leg("a").trial.id
    found.dispatch.look(frozenset(THERE))
    found.dispatch.died("a", "gloo: connection closed by peer")
    assert found.rows(cell) == [("preempted", 1)]


def test_many_deaths_in_a_row_end_the_study_and_a_row_between_them_does_not(hall: Callable[..., Hall]) -> None:
    found = hall(lanes=1, retries=100)

    def dies(lane: str) -> None:
        found.dispatch.died(lane, f"trace\nValueError: {lane}")

    for lane in ("a", "b", "c", "d", "e"):
        assert found.dispatch.failure is None
        found.dispatch.up(lane, HERE)
        if lane == "c":
            found.does(lane)
        dies(lane)
    assert str(found.dispatch.failure) == "3 lanes in a row died before they finished anything. The last one: ValueError: e"


def test_a_lane_that_was_never_up_counts_as_a_death(hall: Callable[..., Hall]) -> None:
    found = hall(lanes=1)
    for number in range(3):
        found.dispatch.died(str(number), "RuntimeError: no device")
    assert found.dispatch.is_over


@pytest.mark.parametrize("goes", [True, False])
def test_a_lane_that_does_not_answer_is_judged_when_it_is_known_why(goes: bool, hall: Callable[..., Hall]) -> None:
    found = hall(lanes=1, retries=0)
    found.dispatch.up("a", HERE)
    found.dispatch.look(frozenset(HERE + THERE))
    cell = found.leg("a").trial.id
    found.dispatch.died("a", "The actor is unavailable", vanished=True)
    assert found.rows(cell) == []
    found.now = 20.0
    for lane in ("b", "c", "d"):
        found.dispatch.up(lane, THERE)
    assert found.leg("b").trial.id != cell, "it may still be trained"
    assert "d" not in found.held, "three teachers, and nothing else to begin with"
    found.dispatch.look(frozenset(THERE if goes else HERE + THERE))
    assert found.rows(cell) == ([("preempted", 1)] if goes else [])
    assert ("d" in found.held) == goes
    found.now = 100.0
    found.dispatch.look(frozenset(THERE if goes else HERE + THERE))
    assert found.rows(cell) == [("preempted" if goes else "failed", 1)]
    if goes:
        assert found.leg("d").trial.id == cell


def test_patience_is_for_a_study_without_lanes(hall: Callable[..., Hall]) -> None:
    found = hall()

    def look(now: float) -> None:
        found.now = now
        found.dispatch.look(frozenset(HERE))

    for now in (0.0, 29.0):
        look(now)
    assert found.said == []
    for now in (31.0, 40.0, 59.0):
        look(now)
    assert found.said == ["No lane has found room yet. All is full. Waiting for up to 60 seconds."]
    found.dispatch.up("a", HERE)
    for now in (100.0, 200.0):
        look(now)
    assert found.dispatch.failure is None
    found.dispatch.died("a", "gone")
    look(259.0)
    assert found.dispatch.failure is None, "its patience begins anew"
    assert len(found.said) == 2
    look(261.0)
    assert str(found.dispatch.failure) == "No lane found room within 60 seconds. All is full."


def test_paused_lanes_are_given_nothing_until_they_are_to_go_on(hall: Callable[..., Hall]) -> None:
    found = hall()
    found.dispatch.up("a", HERE)
    found.command.obey("pause")
    done = found.does("a")
    assert found.leg("a").trial.id == done, "nothing new"
    found.dispatch.up("b", HERE)
    assert "b" not in found.held
    assert not found.dispatch.is_over
    found.command.obey("resume")
    found.dispatch.look(frozenset(HERE))
    assert found.leg("a").trial.id != done
    assert found.leg("b")


def test_a_launch_that_finishes_ends_with_the_cells_that_were_in_flight(hall: Callable[..., Hall]) -> None:
    found = hall(lanes=1)
    found.dispatch.up("a", HERE)
    whole = found.does_until("a", "search", 0.5)
    found.command.obey("stop")
    found.dispatch.up("b", HERE)
    assert "b" not in found.held
    assert not found.dispatch.is_over
    found.does("a")
    assert found.dispatch.is_over, "it waits at its rung for the others of its generation"
    assert found.rows(whole.trial.id) == [("running", 1)]


def test_a_cell_in_flight_that_nobody_compares_runs_to_its_end(tiny_study_text: str) -> None:
    found = Hall(tiny_study_text.replace("generation: 2", "generation: 1"), lanes=1)
    found.dispatch.up("a", HERE)
    whole = found.does_until("a", "search", 0.5)
    found.command.obey("stop")
    found.does("a")
    assert (found.leg("a").trial.id, found.leg("a").until) == (whole.trial.id, 1.0), "alone in its generation, it goes on"
    found.does("a")
    assert found.dispatch.is_over
    assert found.rows(whole.trial.id) == [("running", 1), ("ok", 1)]


def test_a_cancelled_launch_is_over_and_takes_in_what_lanes_still_bring(hall: Callable[..., Hall]) -> None:
    found = hall()
    found.dispatch.up("a", HERE)
    leg = found.leg("a")
    found.command.obey("cancel")
    assert found.dispatch.is_closing
    found.dispatch.row("a", Row(leg.trial.id, PREEMPTED, 0.3, 30, {}), HERE)
    assert found.dispatch.is_over
    assert found.rows(leg.trial.id) == [("preempted", 1)]


def test_failed_cells_are_taken_again_where_that_is_ordered(tiny_study_text: str) -> None:
    found = Hall(tiny_study_text.replace("search:", "search: null\nx_search:").partition("x_search:")[0] + CONFIRM, lanes=1)
    found.dispatch.up("a", HERE)
    teacher = found.leg("a").trial.id
    found.dispatch.row("a", Row(teacher, FAILED, 0.0, 0, {}, message="ValueError: no"), HERE)
    orphans = {e["cell"] for e in found.events if e["event"] == "row" and e["message"] == f"Its teacher {teacher} failed."}
    assert len(orphans) == 2
    found.command.obey("retry", (teacher, *orphans))
    while not found.dispatch.is_over:
        found.does("a")
        found.dispatch.look(frozenset(HERE))
    assert found.rows(teacher) == [("failed", 1), ("ok", 2)]
    assert all(found.rows(cell) == [("failed", 1), ("ok", 2)] for cell in orphans)
    assert found.sweep.counts()["failed"] == 0


CONFIRM = """
confirm:
  base: slam
  against: [vanilla]
  blocks: 2
run: {lanes: 1, workers: 0, device: cpu, wandb: "off"}
"""


def test_a_leg_gets_the_seconds_that_are_left_of_its_cell(hall: Callable[..., Hall]) -> None:
    found = hall(lanes=1, cell_seconds=1.0)
    found.dispatch.up("a", HERE)
    assert found.leg("a").seconds == 1.0
    assert found.does_until("a", "search", 0.5).seconds == 1.0
    assert found.does_until("a", "search", 1.0).seconds == pytest.approx(0.9), "a leg takes 0.1 s"


def test_a_lane_that_hangs_is_ended_in_the_end_and_its_cell_has_timed_out(hall: Callable[..., Hall]) -> None:
    found = hall(lanes=1, cell_seconds=10.0, retries=1)
    found.dispatch.up("a", HERE)
    cell = found.leg("a").trial.id
    found.now = 10.0 + 10.0 + 119.0
    found.dispatch.look(frozenset(HERE))
    assert found.ended == []
    found.now += 1.0
    found.dispatch.look(frozenset(HERE))
    found.dispatch.look(frozenset(HERE))
    assert found.ended == ["a"], "once"
    found.dispatch.died("a", "ActorDiedError: killed")
    assert found.rows(cell) == [("timed_out", 1)]
    found.dispatch.up("b", HERE)
    assert found.leg("b").trial.id == cell, "timed_out is taken again"
    assert found.leg("b").seconds == 10.0
    found.dispatch.row("b", Row(cell, TIMED_OUT, 0.7, 70, {}, message="too long"), HERE)
    assert found.rows(cell) == [("timed_out", 1), ("timed_out", 2)]
    assert found.sweep.cells[cell].status == TIMED_OUT


def test_what_a_lane_left_behind_is_taken_in(hall: Callable[..., Hall]) -> None:
    found = hall(lanes=1, retries=0)
    found.dispatch.up("a", HERE)
    leg = found.leg("a")
    found.dispatch.died("a", "ActorDiedError: killed", row=Synthetic().run(leg))
    assert found.rows(leg.trial.id) == [("ok", 1)]
    found.dispatch.up("b", HERE)
    other = found.leg("b").trial.id
    found.dispatch.died("b", "ActorDiedError: killed", row=Synthetic().run(leg))
    assert found.rows(other) == [("failed", 1)], "a row of another cell says nothing about this one"


@pytest.mark.parametrize(
    ("retry_on", "status"), [("[lost]", FAILED), ("[out_of_memory]", OUT_OF_MEMORY), ("[lost, out_of_memory]", FAILED)]
)
def test_what_a_lane_died_of_is_the_status_of_its_cell(retry_on: str, status: str, hall: Callable[..., Hall]) -> None:
    """Each kind of death is retried only where the study says so."""
    found = hall(lanes=1, retries=1, retry_on=retry_on)
    found.dispatch.up("a", HERE)
    cell = found.leg("a").trial.id
    found.dispatch.died("a", "OutOfMemoryError: low on memory", status=status)
    found.dispatch.up("b", HERE)
    assert found.leg("b").trial.id == cell
    found.dispatch.died("b", "OutOfMemoryError: low on memory", status=OUT_OF_MEMORY)
    assert found.rows(cell)[-1] == (OUT_OF_MEMORY, 2)


def test_a_launch_in_which_everything_fails_is_over_and_says_why(hall: Callable[..., Hall]) -> None:
    found = hall(lanes=1, give_up_after=4)
    found.dispatch.up("a", HERE)
    found.does_until("a", "search", 0.5)
    for count in range(4):
        assert not found.dispatch.is_over, count
        found.dispatch.row("a", Row(found.leg("a").trial.id, FAILED, 0.0, 0, {}, message="ValueError: no\nmore"), HERE)
    assert found.dispatch.is_over
    assert found.sweep.hopeless is not None
    assert found.sweep.hopeless.startswith(
        "4 trainings failed, and no student got anywhere, so nothing more was begun: 4 x ValueError: no. "
    )


def test_one_student_that_gets_to_a_rung_is_hope(hall: Callable[..., Hall]) -> None:
    found = hall(lanes=1, give_up_after=2)
    found.dispatch.up("a", HERE)
    found.does_until("a", "search", 0.5)
    found.does("a")
    for _ in range(2):
        found.dispatch.row("a", Row(found.leg("a").trial.id, FAILED, 0.0, 0, {}, message="ValueError: no"), HERE)
    assert found.sweep.hopeless is None


def test_memory_that_runs_out_ends_all_lanes_and_costs_one_cell_an_attempt(hall: Callable[..., Hall]) -> None:
    found = hall(lanes=3, retries=0)
    for lane in ("a", "b", "c"):
        found.dispatch.up(lane, HERE)
    cells = {lane: found.leg(lane).trial.id for lane in ("a", "b")}
    found.dispatch.collapsed("memory ran out\nadvice", lambda lane: lane == "b")
    assert found.rows(cells["a"]) == [("preempted", 1)]
    assert found.rows(cells["b"]) == [("out_of_memory", 1)]
    (told,) = (e["message"] for e in found.events if e.get("cell") == cells["b"] and e["event"] == "row")
    assert told == "The lane that held this cell died: memory ran out"
    found.dispatch.up("d", HERE)
    assert found.leg("d").trial.id == cells["a"]


def test_where_nobody_knows_whose_memory_ran_out_lanes_begin_anew_but_not_for_ever(hall: Callable[..., Hall]) -> None:
    found = hall(lanes=2, retries=0)
    for _ in range(6):
        assert not found.dispatch.is_over
        for lane in ("a", "b"):
            found.dispatch.up(lane, HERE)
        found.dispatch.collapsed("memory ran out", lambda lane: False)
    assert found.dispatch.failure is not None
    assert found.sweep.counts()["failed"] == 0


def test_a_cancelled_launch_waits_a_while_for_what_lanes_save(hall: Callable[..., Hall]) -> None:
    found = hall(lanes=2)
    for lane in ("a", "b"):
        found.dispatch.up(lane, HERE)
    found.command.obey("cancel")
    assert (found.dispatch.is_closing, found.dispatch.is_over) == (True, False)
    found.dispatch.row("a", Row(found.leg("a").trial.id, PREEMPTED, 0.3, 30, {}), HERE)
    assert not found.dispatch.is_over
    found.now += 15.0
    assert found.dispatch.is_over, "whoever does not come is not waited for"
