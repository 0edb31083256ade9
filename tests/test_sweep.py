"""The sweep, driven by hand with synthetic trainings: stages, generations, rungs, restarts."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from orchestrator.events import Event, study_event
from orchestrator.reading import study_of
from orchestrator.record import Record, record_of
from orchestrator.study import Study
from orchestrator.sweep import Sweep
from orchestrator.table import same, trials_frame
from tests.synthetic import Synthetic
from trainables.trial import Leg, Trial

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
    study: Study, *, lanes: int = 1, seed: int = 0, record: Record | None = None, most: int = 10**6, host: Synthetic | None = None,
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
