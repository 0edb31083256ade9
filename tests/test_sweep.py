"""The sweep, driven by hand with synthetic trainings: stages, generations, rungs, restarts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from orchestrator import plan
from orchestrator.events import Event, study_event
from orchestrator.plan import Cell, signature
from orchestrator.reading import study_of
from orchestrator.record import Record, record_of
from orchestrator.study import Study
from orchestrator.sweep import Sweep
from orchestrator.table import same, trials_frame
from tests.synthetic import Synthetic
from trainables.status import OK, PREEMPTED, STOPPED
from trainables.trial import Leg, Report, Row, Trial

Host = Callable[[Leg], object]


@pytest.fixture
def study(tiny_study_text: str) -> Study:
    return study_of(tiny_study_text, ["search.trials=8", "search.generation=4", "search.rungs=[0.25, 0.5]", "confirm.blocks=3"])


def launch(study: Study) -> Event:
    return study_event(
        study=study.name, fingerprint=study.fingerprint, text="", seed=0, question="", metric={"select": "", "report": "", "goal": ""},
        base="slam", versions={}, code_commit=None, lock_hash=None, space_fingerprint="", parameters=study.parameters,
        metrics=["validation.accuracy", "test.accuracy"],
    )  # fmt: skip


def finished(
    study: Study, *, lanes: int = 1, seed: int = 0, record: Record | None = None, most: int = 10**6,
    host: Synthetic | Preempting | None = None,
    asynchronous: bool = False,
) -> tuple[Sweep, list[Event]]:  # fmt: skip
    """Run with so many legs in flight, finished in a random order, at most so many of them."""
    rng = random.Random(seed)
    host = host or Synthetic()
    events: list[Event] = [launch(study)]
    sweep = Sweep(study, record or record_of([]), asynchronous=asynchronous)
    events += sweep.drain()
    flying: list[Leg] = []
    for _ in range(most):
        while len(flying) < lanes and (leg := sweep.take()) is not None:
            flying.append(leg)
        events += sweep.drain()
        if not flying:
            break
        events += sweep.give(host.run(flying.pop(rng.randrange(len(flying)))))
    return sweep, events


def table_of(events: list[Event]) -> object:
    return trials_frame(record_of(events))


def test_counts_of_a_whole_study(study: Study) -> None:
    sweep, events = finished(study)
    assert sweep.is_done
    frame = trials_frame(record_of(events)).to_pandas()
    by_stage = frame.groupby("stage").size().to_dict()
    # 1 + 3 teachers; 2 arms x 8 trials x 1 block; 3 arms x 3 blocks.
    assert by_stage == {"teacher": 4, "search": 16, "confirm": 9}
    searched = frame[frame.stage == "search"]
    # Of a generation of 4, two stop at the first rung, one at the second, one reaches the end; twice per arm, two arms.
    assert searched.progress.value_counts().to_dict() == {0.25: 8, 0.5: 4, 1.0: 4}
    assert set(searched.status[searched.progress < 1.0]) == {"stopped"}


def test_cells_that_are_to_come_are_counted_from_the_start(study: Study) -> None:
    sweep = Sweep(study, record_of([]))
    # The four teachers, sixteen cells of the search, and stage two as if nothing were skipped: three arms, three blocks.
    assert sweep.counts() == {"ok": 0, "stopped": 0, "failed": 0, "running": 0, "waiting": 4 + 16 + 9}
    assert sweep.remaining() == 4 + 16 + 9


def test_halving_stops_the_worse_half_of_the_generation(study: Study) -> None:
    _, events = finished(study)
    rows = trials_frame(record_of(events)).to_pandas().query("stage == 'search'")
    for _, group in rows.groupby(["arm", "generation"]):
        order = group.assign(miss=(group["hp.recipe.learning_rate"] - 0.1).abs()).sort_values("miss")
        assert list(order.progress) == [1.0, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(("lanes", "seed"), [(2, 1), (3, 2), (7, 3)])
def test_lanes_and_order_of_arrival_change_nothing(study: Study, lanes: int, seed: int) -> None:
    _, one = finished(study)
    _, many = finished(study, lanes=lanes, seed=seed)
    assert same(table_of(one), table_of(many)) == []


def test_another_seed_gives_another_table(study: Study, tiny_study_text: str) -> None:
    _, events = finished(study)
    _, others = finished(study_of(tiny_study_text, ["seed=1", "search.trials=8", "search.generation=4", "confirm.blocks=3"]))
    assert same(table_of(events), table_of(others)) != []


@pytest.mark.parametrize("stop", [0, 1, 3, 10, 17, 25, 33])
def test_stopped_anywhere_and_begun_again_it_ends_in_the_same_table(study: Study, stop: int) -> None:
    _, whole = finished(study)
    _, before = finished(study, lanes=2, seed=stop, most=stop)
    sweep, after = finished(study, lanes=2, seed=stop + 1, record=record_of(before))
    assert sweep.is_done
    assert same(table_of(whole), table_of(before + after)) == []
    finished_before = {a.cell for a in record_of(before).finished}
    trained_again = {e["cell"] for e in after if e["event"] == "row" and e["seconds"] > 0} & finished_before
    assert trained_again == set()


def test_a_finished_study_has_nothing_to_do(study: Study) -> None:
    _, events = finished(study)
    again = Sweep(study, record_of(events))
    assert again.is_done
    assert again.take() is None
    assert again.drain() == []
    assert again.problems == ()


def test_a_student_waits_for_its_teacher(study: Study) -> None:
    sweep = Sweep(study, record_of([]))
    first = sweep.take()
    assert first is not None
    assert first.trial.method is None
    taken = list(iter(sweep.take, None))
    # The other legs that may run now are the teachers of stage two: no student's teacher is finished.
    assert [leg.trial.method for leg in taken] == [None, None, None]
    sweep.give(Synthetic().run(first))
    student = sweep.take()
    assert student is not None
    assert student.trial.teacher_trial == first.trial


def test_a_failed_teacher_fails_its_students_by_name(study: Study) -> None:
    host = Synthetic(fails=lambda trial: trial.method is None)
    sweep, events = finished(study, host=host)
    assert sweep.is_done
    assert sweep.problems == (
        "No training of slam reached the end of its search, so there is nothing to confirm.",
        "No training of vanilla reached the end of its search, so there is nothing to confirm.",
    )
    students = [e for e in events if e["event"] == "row" and "teacher" in e["message"]]
    assert len(students) == 16
    assert {e["status"] for e in students} == {"failed"}


def test_a_failed_proposal_does_not_survive_and_is_not_hidden(study: Study) -> None:
    def fails(trial: Trial) -> bool:
        return trial.method is not None and not trial.opens_test and float(trial.config()["recipe.learning_rate"]) > 0.05

    sweep, events = finished(study, host=Synthetic(fails=fails))
    frame = trials_frame(record_of(events)).to_pandas()
    failed = frame[frame.status == "failed"]
    assert sweep.is_done
    assert len(failed) > 0
    assert (failed["hp.recipe.learning_rate"] > 0.05).all()
    assert len(frame[frame.stage == "search"]) == 16
    assert (frame[frame.stage == "confirm"]["hp.recipe.learning_rate"] <= 0.05).all()


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_failure_on_one_block_ends_the_other_blocks_at_their_rung(lanes: int, tiny_study_text: str) -> None:
    study = study_of(tiny_study_text, ["search.trials=8", "search.generation=4", "search.blocks=2", "search.rungs=[0.25, 0.5]"])
    second = study.block("search", 1)

    def fails(trial: Trial) -> bool:
        return trial.method is not None and trial.block == second and float(trial.config()["recipe.learning_rate"]) > 0.05

    sweep, events = finished(study, host=Synthetic(fails=fails), lanes=lanes, seed=lanes)
    assert sweep.is_done
    frame = trials_frame(record_of(events)).to_pandas().query("stage == 'search'")
    failed = frame[frame.status == "failed"]
    assert len(failed) > 0
    assert set(failed.block) == {1}
    siblings = frame.merge(failed[["arm", "number"]], on=["arm", "number"]).query("block == 0")
    assert set(siblings.status) == {"stopped"}
    assert set(siblings.progress) == {0.25}
    if lanes > 1:
        assert same(table_of(finished(study, host=Synthetic(fails=fails))[1]), table_of(events)) == []


def test_the_score_is_the_mean_over_the_tuning_blocks(tiny_study_text: str) -> None:
    study = study_of(tiny_study_text, ["search.blocks=3", "search.rungs=[]", "search.trials=2"])
    _, events = finished(study)
    frame = trials_frame(record_of(events)).to_pandas().query("stage == 'search' and arm == 'slam'")
    means = frame.groupby("number")["metric.validation.accuracy"].mean()
    choice = next(e for e in events if e["event"] == "choice" and e["arm"] == "slam")
    assert choice["number"] == means.idxmax()
    assert choice["score"] == pytest.approx(means.max(), rel=1e-12)


def test_confirm_trains_the_chosen_configuration_on_blocks_that_tuning_never_saw(study: Study) -> None:
    _, events = finished(study)
    cells = [e for e in events if e["event"] == "cell"]
    tuned = {tuple(e["seeds"].values()) for e in cells if e["stage"] == "search"}
    confirmed = {tuple(e["seeds"].values()) for e in cells if e["stage"] == "confirm"}
    assert {s for seeds in tuned for s in seeds}.isdisjoint({s for seeds in confirmed for s in seeds})
    choice = next(e for e in events if e["event"] == "choice" and e["arm"] == "slam")
    base = next(e for e in cells if e["stage"] == "confirm" and e["arm"] == "slam")
    assert choice["config"].items() <= base["config"].items()
    variant = next(e for e in cells if e["arm"] == "slam, lower_bound=0")
    assert variant["config"] == {**base["config"], "method.lower_bound": 0.0}


def test_only_confirm_cells_open_the_test_split(study: Study) -> None:
    sweep, _ = finished(study)
    for standing in sweep.cells.values():
        assert standing.cell.trial.opens_test == (standing.cell.stage == "confirm")


def test_a_lost_cell_is_taken_again_as_often_as_declared(tiny_study_text: str) -> None:
    study = study_of(tiny_study_text, ["run.retries=2"])
    sweep = Sweep(study, record_of([]))
    sweep.drain()
    for attempt in (2, 3):
        leg = sweep.take()
        assert leg is not None
        (event,) = sweep.lost(leg.trial.id, "gone")
        assert (event["event"], event["attempt"]) == ("cell", attempt)
    last = sweep.take()
    assert last is not None
    failed = [e for e in sweep.lost(last.trial.id, "gone") if e["event"] == "row" and e["cell"] == last.trial.id]
    assert [(e["status"], e["message"], e["attempt"]) for e in failed] == [("failed", "gone", 3)]


# Preemption


@dataclass
class Preempting:
    """Some legs end early, between rungs, the same leg up to ``most`` times."""

    most: int = 2
    share: float = 0.4
    seed: int = 0
    host: Synthetic = field(default_factory=Synthetic)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.times: Counter[tuple[str, float]] = Counter()

    def run(self, leg: Leg) -> Row:
        key = (leg.trial.id, leg.until)
        if self.times[key] < self.most and self.rng.random() < self.share:
            self.times[key] += 1
            # Where it stood happens to be the progress of a rung that it was not asked for, and its numbers are the best of all.
            metrics = {"validation.accuracy": 9.0, "test.accuracy": 9.0}
            reports = (Report(1, 0.1, metrics),)
            return Row(leg.trial.id, PREEMPTED, self.rng.choice([0.1, 0.25, 0.4, 0.5, 0.9]), 77, metrics, reports, seconds=0.05)
        return self.host.run(leg)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_legs_that_were_preempted_are_taken_again_and_change_nothing(study: Study, seed: int, asynchronous: bool) -> None:
    _, unbroken = finished(study, asynchronous=asynchronous)
    host = Preempting(seed=seed)
    sweep, events = finished(study, lanes=1 if asynchronous else 3, seed=seed, host=host, asynchronous=asynchronous)
    assert sweep.is_done
    assert sum(host.times.values()) > 10
    assert same(table_of(unbroken), table_of(events)) == []
    early = [event for event in events if event["event"] == "row" and event["status"] == "preempted"]
    assert len(early) == sum(host.times.values())
    assert {event["attempt"] for event in events if event["event"] in ("row", "cell")} == {1}
    spent = sum(trials_frame(record_of(events))["seconds"].to_pylist())
    assert spent == pytest.approx(sum(event["seconds"] for event in events if event["event"] == "row"))


def test_a_preempted_cell_is_ready_again_with_the_same_leg(study: Study) -> None:
    sweep = Sweep(study, record_of([]))
    sweep.drain()
    first = sweep.take()
    assert first is not None
    (event,) = sweep.give(Row(first.trial.id, PREEMPTED, 0.6, 60, {}, seconds=1.0))
    assert (event["event"], event["status"], event["attempt"], event["progress"]) == ("row", "preempted", 1, 0.6)
    standing = sweep.cells[first.trial.id]
    assert (standing.status, standing.progress, standing.attempt, standing.levels) == (None, 0.0, 1, {})
    counts = sweep.counts()
    assert counts["running"] == 0
    assert sweep.take() == first
    # Preemption is no failure: the retries are all still there.
    assert [e["attempt"] for e in sweep.lost(first.trial.id, "gone")] == [2]


@pytest.mark.parametrize("stop", [2, 5, 9, 14, 21, 30])
def test_a_restart_goes_on_from_a_journal_that_ends_with_preempted_legs(study: Study, stop: int) -> None:
    _, unbroken = finished(study)
    sweep, before = finished(study, lanes=2, seed=stop, most=stop)
    before += sweep.drain()
    flying = [cell for cell, standing in sweep.cells.items() if standing.in_flight]
    assert flying
    for cell in flying:
        before += sweep.give(Row(cell, PREEMPTED, 0.77, 77, {"validation.accuracy": 9.0}, seconds=1.0))
    record = record_of(before)
    assert all(not record.cells[cell].is_finished for cell in flying)
    again, after = finished(study, lanes=2, seed=stop, record=record)
    assert again.is_done
    assert same(table_of(unbroken), table_of(before + after)) == []


# Lanes that have compiled something


@pytest.fixture
def mixed(tiny_study_text: str) -> Study:
    """Two arms with two signatures each, on two blocks."""
    overrides = ["search.trials=12", "search.generation=12", "search.blocks=2", "search.rungs=[0.25]", "search.sampler=random"]
    return study_of(tiny_study_text, [*overrides, "search.space.all.method.targets=[soft, hard]"])


def taught(study: Study) -> Sweep:
    """A sweep whose teachers are all there."""
    sweep = Sweep(study, record_of([]))
    for cell, standing in list(sweep.cells.items()):
        if not standing.needs:
            standing.in_flight = True
            sweep.give(Row(cell, OK, 1.0, 10, {}))
    return sweep


def held(sweep: Sweep, arm: str, targets: str) -> list[str]:
    return [i for i, s in sweep.cells.items() if s.cell.arm == arm and s.cell.trial.config().get("method.targets") == targets]


def test_a_lane_is_given_the_first_leg_that_needs_no_other_graph(mixed: Study) -> None:
    sweep = taught(mixed)
    groups = {(arm, targets): held(sweep, arm, targets) for arm in ("slam", "vanilla") for targets in ("soft", "hard")}
    assert all(len(cells) >= 4 for cells in groups.values())
    for cells in groups.values():
        # As if the lane had held the last of them: the first is what it gets, then the second.
        for expected in cells[:2]:
            leg = sweep.take(after=cells[-1])
            assert leg is not None
            assert leg.trial.id == expected


def test_without_a_like_leg_the_order_of_the_plan_decides(mixed: Study) -> None:
    teacher = next(cell for cell, standing in taught(mixed).cells.items() if not standing.needs)
    for after in (None, teacher, "no cell of this study"):
        sweep = taught(mixed)
        students = [cell for cell, standing in sweep.cells.items() if standing.needs]
        legs = [sweep.take(after) for _ in range(3)]
        assert [leg.trial.id for leg in legs if leg] == students[:3]


def test_no_student_overtakes_a_teacher(mixed: Study) -> None:
    sweep = Sweep(mixed, record_of([]))
    first = sweep.take()
    assert first is not None
    sweep.give(Synthetic().run(first))
    order = [cell for cell, standing in sweep.cells.items() if not standing.needs or standing.needs[0].cell.id == first.trial.id]
    # Plan: a teacher (done), its first student, the teacher of the other block, more students of the first.
    assert [not sweep.cells[cell].needs for cell in order[:4]] == [True, False, True, False]
    like = held(sweep, "vanilla", "hard")[-1]
    assert not any(sweep.cells[order[1]].cell.signature == sweep.cells[cell].cell.signature for cell in (like, order[0]))
    taken = [sweep.take(after=like) for _ in range(3)]
    # Only once that teacher has its lane, the first leg that is like the one before; stage two's teachers come behind all of them.
    first_like = next(cell for cell in held(sweep, "vanilla", "hard") if cell in order)
    assert [leg.trial.id for leg in taken if leg] == [*order[1:3], first_like]


def by_lanes(study: Study, lanes: int, affine: bool) -> tuple[list[Event], list[list[Cell]], dict[str, int]]:
    """Events, the cells that each lane held, and the round in which each teacher was handed out, where all legs take equally long."""
    sweep = Sweep(study, record_of([]))
    events = [launch(study), *sweep.drain()]
    held: list[list[Cell]] = [[] for _ in range(lanes)]
    teachers: dict[str, int] = {}
    number = 0
    while not sweep.is_done:
        legs = []
        for lane in held:
            leg = sweep.take(lane[-1].id if affine and lane else None)
            if leg is not None:
                legs.append(leg)
                lane.append(sweep.cells[leg.trial.id].cell)
                if leg.trial.method is None:
                    teachers[leg.trial.id] = number
        for leg in legs:
            events += sweep.give(Synthetic().run(leg))
        number += 1
    return events, held, teachers


@pytest.mark.parametrize("lanes", [1, 2, 4, 5])
def test_lanes_meet_fewer_graphs_and_the_table_and_the_turns_of_teachers_stay(mixed: Study, lanes: int) -> None:
    plain, plainly, turns = by_lanes(mixed, lanes, affine=False)
    events, held, earlier = by_lanes(mixed, lanes, affine=True)
    assert same(table_of(plain), table_of(events)) == []
    assert all(earlier[teacher] <= turn for teacher, turn in turns.items())

    def changes(cells: list[list[Cell]]) -> int:
        return sum(one.signature != next_.signature for lane in cells for one, next_ in pairwise(lane))

    assert changes(held) < changes(plainly)


@pytest.mark.parametrize(("lanes", "seed"), [(2, 1), (5, 2)])
def test_whatever_lanes_held_before_the_table_is_the_same(mixed: Study, lanes: int, seed: int) -> None:
    _, one = finished(mixed)
    rng = random.Random(seed)
    sweep = Sweep(mixed, record_of([]))
    events, flying = [launch(mixed), *sweep.drain()], []
    while not sweep.is_done:
        while len(flying) < lanes and (leg := sweep.take(rng.choice([None, *sweep.cells]))) is not None:
            flying.append(leg)
        events += sweep.drain()
        events += sweep.give(Synthetic().run(flying.pop(rng.randrange(len(flying)))))
    assert same(table_of(one), table_of(events)) == []


def test_a_signature_is_computed_once_a_cell(mixed: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[str] = Counter()

    def counted(trial: Trial) -> str:
        asked[trial.id] += 1
        return signature(trial)

    monkeypatch.setattr(plan, "signature", counted)
    sweep = taught(mixed)
    like = held(sweep, "vanilla", "hard")[-1]
    while sweep.take(after=like) is not None:
        pass
    assert set(asked.values()) == {1}


def test_async_promotes_on_arrival_and_finishes(study: Study) -> None:
    sweep, events = finished(study, lanes=3, seed=5, asynchronous=True)
    assert sweep.is_done
    frame = trials_frame(record_of(events)).to_pandas()
    searched = frame[frame.stage == "search"]
    assert searched.groupby("arm").size().to_dict() == {"slam": 8, "vanilla": 8}
    assert set(searched.status) <= {"ok", "stopped"}
    assert (searched.groupby("arm").progress.max() == 1.0).all()
    assert (searched.proposed_by == "tpe").any()
    assert len(frame[frame.stage == "confirm"]) == 9


def test_async_goes_on_after_an_interruption(study: Study) -> None:
    _, before = finished(study, lanes=2, seed=4, most=14, asynchronous=True)
    sweep, after = finished(study, lanes=2, seed=5, record=record_of(before), asynchronous=True)
    assert sweep.is_done
    frame = trials_frame(record_of(before + after)).to_pandas()
    assert frame[frame.stage == "search"].groupby("arm").size().to_dict() == {"slam": 8, "vanilla": 8}


def test_async_does_not_propose_ahead_of_a_teacher(study: Study) -> None:
    sweep = Sweep(study, record_of([]), asynchronous=True)
    legs = list(iter(sweep.take, None))
    # The three teachers of stage two, and the one that the first proposal of each arm shares.
    assert [leg.trial.method for leg in legs] == [None] * 4
    assert sum(standing.cell.stage == "search" for standing in sweep.cells.values()) == 2
    for leg in legs:
        sweep.give(Synthetic().run(leg))
    # Now every lane gets a proposal of its own.
    assert [leg.trial.method is not None for leg in (sweep.take(), sweep.take(), sweep.take()) if leg] == [True] * 3


@pytest.mark.parametrize("stage", ["search", "confirm"])
def test_a_study_whose_teachers_all_fail_comes_to_an_end(stage: str, tiny_study_text: str) -> None:
    study = study_of(tiny_study_text, ["run.retries=0"])
    bad = {study.block(stage, index).teacher for index in range(2)}
    sweep, events = finished(study, host=Synthetic(fails=lambda trial: trial.method is None and trial.block.teacher in bad))
    assert sweep.is_done
    assert Sweep(study, record_of(events)).is_done


@pytest.mark.parametrize("stop", range(1, 12))
def test_a_failure_that_is_retried_is_retried_wherever_the_journal_ends(stop: int, tiny_study_text: str) -> None:
    study = study_of(tiny_study_text, ["run.retries=1", "run.retry_on=[failed]"])

    def once() -> Synthetic:
        tried: set[str] = set()
        return Synthetic(fails=lambda trial: trial.id not in tried and not tried.add(trial.id))

    whole, events = finished(study, host=once())
    assert whole.counts()["failed"] == 0
    failed = [index for index, event in enumerate(events) if event["event"] == "row" and event["status"] == "failed"]
    cut = events[: failed[stop] + 1]
    assert events[failed[stop] + 1]["attempt"] == 2, "cut between the row that failed and the attempt that follows"
    again, rest = finished(study, record=record_of(cut))
    assert again.counts()["failed"] == 0
    (attempt,) = (e["attempt"] for e in rest if e["event"] == "row" and e["cell"] == cut[-1]["cell"] and e["status"] in (OK, STOPPED))
    assert attempt == 2
