"""Chains of students and teachers of one's own: what a study trains, in which order, and what is left of it when it breaks."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import chains, plan, table
from orchestrator.analysis.facts import StudyFacts
from orchestrator.analysis.frames import frames_of
from orchestrator.costs import costs, shares
from orchestrator.driver import Launch, drive
from orchestrator.errors import StorageError
from orchestrator.events import Event, study_event
from orchestrator.journal import Journal
from orchestrator.outline import compile_signatures, outline, outline_lines
from orchestrator.reading import read_study, study_of
from orchestrator.record import Record, record_of
from orchestrator.standing import standing_of
from orchestrator.study import Study
from orchestrator.sweep import Sweep
from orchestrator.table import same, trials_frame
from orchestrator.variants import variants
from tests.synthetic import Synthetic, score
from trainables.methods.selfdistillation import SelfDistillation
from trainables.status import OK
from trainables.trial import Leg, Row, Trial

STUDIES = Path(__file__).parents[1] / "search_spaces/studies"
ARMS = "{one: {method: selfdistillation}, two: {method: selfdistillation, steps: 2}, three: {method: selfdistillation, steps: 3}}"
CHAINS = ("search=null", f"arms={ARMS}", "confirm={base: one, against: [two, three], blocks: 2}")
RATES = "{all: {recipe.learning_rate: [0.05, 0.1, 0.2, 0.4]}}"
SEARCHED = (
    f"arms={ARMS}", f"search.space={RATES}", "search.trials=4", "search.generation=2", "search.rungs=[0.25, 0.5]", "search.blocks=2",
    "confirm={base: three, against: [one, two], leave_one_out: [method.truth_share], blocks: 2}",
)  # fmt: skip


@dataclasses.dataclass
class Watching(Synthetic):
    """Fails the test where a leg starts before what it needs, or where that was not kept; knows the accuracy of every teacher."""

    kept: set[str] = dataclasses.field(default_factory=set)
    legs: list[Leg] = dataclasses.field(default_factory=list)

    def run(self, leg: Leg, halt: Callable[[], bool] = lambda: False) -> Row:
        assert {trial.id for trial in leg.trial.needed} <= self.kept
        self.legs.append(leg)
        row = super().run(leg, halt)
        if row.status == OK and (leg.keeps or leg.trial.method is None):
            self.kept.add(leg.trial.id)
        if "test.accuracy" in row.metrics:
            teacher = leg.trial.teacher_trial
            assert teacher is not None
            row = dataclasses.replace(row, metrics={**row.metrics, "test.teacher_accuracy": accuracy_of(teacher)})
        return row


def accuracy_of(trial: Trial) -> float:
    return int(trial.id[:4], 16) / 0xFFFF


def launch(study: Study) -> Event:
    return study_event(
        study=study.name, fingerprint=study.fingerprint, text=study.text, seed=0, question="",
        metric={"select": "validation.accuracy", "report": "test.accuracy", "goal": "maximise"},
        base=study.confirm.base if study.confirm else None, versions={}, code_commit=None, lock_hash=None, space_fingerprint="",
        parameters=study.parameters, metrics=["validation.accuracy", "test.accuracy", "test.teacher_accuracy"],
    )  # fmt: skip


def finished(
    study: Study, lanes: int = 1, seed: int = 0, host: Watching | None = None, record: Record | None = None, most: int = 10**6,
    asynchronous: bool = False,
) -> tuple[Sweep, list[Event], Watching]:  # fmt: skip
    """Run with so many legs in flight, finished in a random order, at most so many of them."""
    rng, host = random.Random(seed), host or Watching()
    sweep = Sweep(study, record or record_of([]), asynchronous=asynchronous)
    events, flying = [launch(study), *sweep.drain()], []
    for _ in range(most):
        while len(flying) < lanes and (leg := sweep.take()) is not None:
            flying.append(leg)
        events += sweep.drain()
        if not flying:
            break
        events += sweep.give(host.run(flying.pop(rng.randrange(len(flying)))))
    return sweep, events, host


def frame_of(events: list[Event]) -> table.pa.Table:
    return trials_frame(record_of(events))


def facts_of(record: Record) -> StudyFacts:
    return StudyFacts(tuple(record.launches), tuple(attempt.plan for attempt in record.cells.values()), record.choices, "complete")


# What an arm's chain is


def test_an_arm_of_three_steps_is_the_last_of_three_students(tiny_study_text: str) -> None:
    moving = "{method: selfdistillation, truth_share: 0.8, share_over_steps: {kind: linear, end: 0.5}, steps: 3}"
    study = study_of(tiny_study_text, ["search=null", f"arms={{moving: {moving}}}", "confirm={base: moving, blocks: 2}"])
    trial = study.arms["moving"].trial(study, study.block("confirm", 0), opens_test=True)
    methods = (*trial.chain, trial.method)
    assert all(isinstance(method, SelfDistillation) for method in methods)
    # The factor goes from 1 to .5: .8, .8 x .75, .8 x .5.
    assert [method.truth_share for method in methods if method] == pytest.approx([0.8, 0.6, 0.4])
    assert [len(needed.chain) for needed in chains.before(trial).values()] == [0, 0, 1]
    assert trial.config()["chain.steps"] == 2


def test_an_arm_may_have_a_teacher_of_its_own(tiny_study_text: str) -> None:
    arms = "{a: {method: lskd}, b: {method: lskd, teacher: {recipe: {smoothing: 0.1}}}, c: {method: lskd, teacher: {model: {width: 4}}}}"
    study = study_of(tiny_study_text, ["search=null", f"arms={arms}", "confirm={base: a, against: [b, c], blocks: 2}"])
    found = {name: arm.taught_by(study) for name, arm in study.arms.items()}
    assert found["a"] == study.teacher
    assert found["b"] == dataclasses.replace(study.teacher, recipe=dataclasses.replace(study.teacher.recipe, smoothing=0.1))
    assert (found["c"].recipe, found["c"].model) == (study.teacher.recipe, dataclasses.replace(study.teacher.model, width=4))  # type: ignore[type-var] # families are dataclasses
    assert study.confirm is not None
    cells = plan.confirm_cells(study, study.confirm, study.arms)
    teachers = [cell.needs[0] for cell in cells if cell.block == 0]
    assert len({cell.id for cell in teachers}) == 3
    assert len({cell.trial.block for cell in teachers}) == 1
    assert outline(study).teachers == 3 * 2
    # Smoothing is a float; another width is another graph.
    assert compile_signatures(study) == 2 + 2


def test_variants_keep_steps_and_teacher_and_equal_trainings_are_one(tiny_study_text: str) -> None:
    arms = "{c: {method: selfdistillation, steps: 2, teacher: {recipe: {epochs: 3}}}}"
    leave = "confirm={base: c, leave_one_out: [method.truth_share], blocks: 2}"
    study = study_of(tiny_study_text, ["search=null", f"arms={arms}", leave])
    assert study.confirm is not None
    found = variants(study, study.confirm, study.arms).arms
    assert list(found) == ["c", "c, truth_share=0"]
    assert [(arm.steps, arm.taught_by(study).recipe.epochs) for arm in found.values()] == [(2, 3)] * 2
    assert [method.truth_share for method in found["c, truth_share=0"].methods] == [0.0, 0.0]  # type: ignore[attr-defined] # a SelfDistillation
    # Over a single step nothing can be scheduled: without it the student is the same.
    alone = "{method: selfdistillation, share_over_steps: {kind: linear}}"
    single = study_of(tiny_study_text, ["search=null", f"arms={{c: {alone}}}", leave.replace("truth_share", "share_over_steps")])
    assert single.confirm is not None
    assert variants(single, single.confirm, single.arms).skipped == (
        ("c, share_over_steps=constant", "it would be the same training as c"),
    )
    # Same method, other teacher or longer chain: another arm.
    twins = "{a: {method: lskd}, b: {method: lskd, teacher: {recipe: {epochs: 3}}}, c: {method: lskd, steps: 2}}"
    study = study_of(tiny_study_text, ["search=null", f"arms={twins}", "confirm={base: a, against: [b, c], blocks: 2}"])
    assert study.confirm is not None
    assert list(variants(study, study.confirm, study.arms).arms) == ["a", "b", "c"]


# Counts


def test_chains_with_the_same_start_share_it(tiny_study_text: str) -> None:
    study = study_of(tiny_study_text, CHAINS)
    found = outline(study)
    # Three students a block, not six: those of the longest chain, each the own cell of an arm.
    assert (found.teachers, found.students, found.confirm_cells, found.cells) == (2, 0, 6, 8)
    longest = study_of(tiny_study_text, [*CHAINS[:2], "confirm={base: one, against: [three], blocks: 2}"])
    assert (outline(longest).students, outline(longest).cells) == (2, 2 + 2 + 4)
    assert "  chains    2 students at most that others learn from, or look at, beside the arms' own cells" in outline_lines(
        longest, outline(longest), costs(longest, record_of([])), 0
    )


def test_an_estimated_share_needs_a_student_taught_by_the_teacher_alone_at_every_step(tiny_study_text: str) -> None:
    arms = "{e: {method: selfdistillation, truth_rule: estimated, steps: 3}}"
    study = study_of(tiny_study_text, ["search=null", f"arms={arms}", "confirm={base: e, blocks: 2}"])
    # Of a block: two students of the chain, and three that learn from the teacher alone. Two graphs of students, and a teacher's.
    assert (outline(study).students, outline(study).teachers, compile_signatures(study)) == (5 * 2, 2, 3)
    _, events, host = finished(study)
    assert len({leg.trial.id for leg in host.legs}) == outline(study).cells == 2 + 2 + 10
    assert len(frame_of(events)) == 14


@pytest.mark.parametrize("overrides", [CHAINS, SEARCHED], ids=["confirmed as declared", "searched"])
def test_what_is_to_come_is_counted_and_trained(tiny_study_text: str, overrides: tuple[str, ...]) -> None:
    study = study_of(tiny_study_text, overrides)
    expected = sum(Sweep(study, record_of([])).counts().values())
    sweep, events, _ = finished(study)
    assert sweep.is_done
    found = frame_of(events).to_pandas()
    if study.search is None:
        assert len(found) == expected == outline(study).cells
        assert set(found.stage[found.method.notna()]) == {"confirm"}
    else:
        # Both share what they can: of four rates on two blocks each student of a chain is one training, whoever needs it.
        assert len(found) <= expected <= outline(study).cells
        # Of 4 x 2 cells each, two's need one more, three's two; of a block, two's one, three's and its variant's two each.
        assert outline(study).students == 4 * 2 * (1 + 2) + 2 * (1 + 2 + 2)
        assert len(found[found.stage == "search"]) == 3 * 4 * 2
        students = [share.whole for share in shares(study, record_of([])) if share.stage == "teacher" and share.method]
        assert sum(students) == outline(study).students
    assert sum(share.missing for share in shares(study, record_of(events))) == pytest.approx(0.0)


# Order, sharing, failures


def test_nothing_starts_before_what_it_needs_and_everything_is_trained_once(tiny_study_text: str) -> None:
    for overrides in (CHAINS, SEARCHED):
        study = study_of(tiny_study_text, overrides)
        for lanes in (1, 3):
            _, _, host = finished(study, lanes, seed=lanes)  # Watching looks
            assert max(Counter((leg.trial.id, leg.until) for leg in host.legs).values()) == 1


def test_students_that_teach_are_kept_and_only_they(tiny_study_text: str) -> None:
    study = study_of(tiny_study_text, CHAINS)
    sweep, events, host = finished(study)
    kept = {standing.cell.arm for standing in sweep.cells.values() if standing.keeps}
    assert kept == {"teacher", "one", "two"}
    assert {leg.keeps for leg in host.legs if len(leg.trial.chain) == 2} == {False}
    needs = {event["cell"]: event["needs"] for event in events if event["event"] == "cell"}
    for cell, standing in sweep.cells.items():
        assert needs[cell] == [trial.id for trial in standing.cell.trial.needed]


def test_students_that_a_proposal_needs_run_to_the_end_where_it_is_stopped(tiny_study_text: str) -> None:
    study = study_of(tiny_study_text, [*SEARCHED[:-1], "arms={three: {method: selfdistillation, steps: 3}}", "confirm=null"])
    _, events, _ = finished(study)
    found = frame_of(events).to_pandas()
    stopped = found[found.status == "stopped"]
    assert len(stopped) > 0
    assert set(stopped.stage) == {"search"}
    students = found[(found.stage == "teacher") & found.method.notna()]
    assert len(students) == 4 * 2 * 2
    assert set(zip(students.status, students.progress, students.arm, strict=True)) == {("ok", 1.0, "three")}
    assert students.number.isna().all()


def of_first_step(trial: Trial) -> bool:
    return trial.method is not None and not trial.chain


def test_a_failed_student_fails_all_behind_it_by_name(tiny_study_text: str) -> None:
    study = study_of(tiny_study_text, CHAINS)
    sweep, events, _ = finished(study, host=Watching(fails=of_first_step))
    assert sweep.is_done
    messages = {event["cell"]: event["message"] for event in events if event["event"] == "row" and event["status"] == "failed"}
    for cell, standing in sweep.cells.items():
        if standing.needs and standing.cell.arm != "one":
            assert messages[cell] == f"Its teacher {standing.needs[0].cell.id} failed."
    assert Counter(standing.status for standing in sweep.cells.values()) == {"ok": 2, "failed": 6}


def test_a_failed_network_that_a_method_looks_at_fails_it_by_name(tiny_study_text: str) -> None:
    arms = "{e: {method: selfdistillation, truth_rule: estimated}}"
    study = study_of(tiny_study_text, ["search=null", f"arms={arms}", "confirm={base: e, blocks: 2}"])
    sweep, events, _ = finished(study, host=Watching(fails=lambda trial: trial.config().get("method.truth_rule") == "fixed"))
    messages = {event["cell"]: event["message"] for event in events if event["event"] == "row" and event["status"] == "failed"}
    own = [standing for standing in sweep.cells.values() if standing.cell.stage == "confirm"]
    assert [messages[s.cell.id] for s in own] == [f"Cell {s.needs[1].cell.id} failed, at whose network its method looks." for s in own]


# The same table


@pytest.mark.parametrize("overrides", [CHAINS, SEARCHED], ids=["confirmed as declared", "searched"])
@pytest.mark.parametrize(("lanes", "seed"), [(2, 1), (5, 2), (3, 3)])
def test_lanes_and_order_of_arrival_change_nothing(tiny_study_text: str, overrides: tuple[str, ...], lanes: int, seed: int) -> None:
    study = study_of(tiny_study_text, overrides)
    _, one, _ = finished(study)
    _, many, _ = finished(study, lanes, seed)
    assert same(frame_of(one), frame_of(many)) == []


@pytest.mark.parametrize("stop", [0, 1, 4, 9, 15, 22, 30, 41, 55])
def test_stopped_anywhere_and_begun_again_it_ends_in_the_same_table(tiny_study_text: str, stop: int) -> None:
    study = study_of(tiny_study_text, SEARCHED)
    _, whole, _ = finished(study)
    host = Watching()
    _, before, _ = finished(study, 2, stop, host, most=stop)
    sweep, after, _ = finished(study, 2, stop + 1, host, record_of(before))
    assert sweep.is_done
    assert same(frame_of(whole), frame_of(before + after)) == []


def test_an_arms_own_cell_that_others_need_keeps_its_place_in_the_search(tiny_study_text: str) -> None:
    # A single rate: the proposal of one is the first student of two's and three's, and that of two the second of three's. Those
    # who need it come first.
    arms = "arms={three: {method: selfdistillation, steps: 3}, two: {method: selfdistillation, steps: 2}, one: {method: selfdistillation}}"
    study = study_of(tiny_study_text, [arms, "search.space={all: {recipe.learning_rate: [0.1]}}", *SEARCHED[2:]])
    for lanes in (1, 4):
        sweep, events, _ = finished(study, lanes, seed=lanes)
        found = frame_of(events).to_pandas()
        searched = found[found.stage == "search"]
        assert sorted(zip(searched.arm, searched.number, searched.block, strict=True)) == sorted(
            (arm, 0, block) for arm in ("one", "two", "three") for block in (0, 1)
        )
        assert not ((found.stage == "teacher") & found.method.notna() & (found["metric.test.accuracy"].isna())).any()
        assert all(standing.status == OK for standing in sweep.cells.values())


class Crossing(Watching):
    """At the end of tuning those are best that were worst at the rungs."""

    def run(self, leg: Leg, halt: Callable[[], bool] = lambda: False) -> Row:
        row = super().run(leg, halt)
        is_turned = leg.until == 1.0 and not leg.trial.opens_test
        return dataclasses.replace(row, metrics={"validation.accuracy": 1.0 - score(leg.trial, 1.0)}) if is_turned else row


@pytest.mark.parametrize(("lanes", "seed"), [(1, 1), (4, 2)])
def test_what_is_chosen_was_not_stopped_though_others_needed_it_to_the_end(tiny_study_text: str, lanes: int, seed: int) -> None:
    study = study_of(tiny_study_text, SEARCHED)
    sweep, events, _ = finished(study, lanes, seed, Crossing())
    for choice in (event for event in events if event["event"] == "choice"):
        tuning = sweep._tunings[choice["arm"]]
        assert not tuning.candidates[choice["number"]].stopped
        assert all(max(c.scores) == c.goal for c in tuning.candidates)


@pytest.mark.parametrize("stop", [7, 25, 60])
def test_async_goes_on_with_the_same_proposals_where_steps_change_the_method(tiny_study_text: str, stop: int) -> None:
    space = "{c: {method.share_over_steps.kind: [linear, cosine], method.truth_share: {uniform: [0.2, 0.9]}}}"
    arms = "{c: {method: selfdistillation, steps: 2, share_over_steps: linear}}"
    study = study_of(tiny_study_text, [f"arms={arms}", f"search.space={space}", "search.trials=8", "confirm=null"])
    host = Watching()
    first, before, _ = finished(study, 2, 3, host, most=stop, asynchronous=True)
    sweep, after, _ = finished(study, 2, 4, host, record_of(before), asynchronous=True)
    assert sweep.is_done
    assert set(first.cells) <= set(sweep.cells)
    found = frame_of(before + after).to_pandas()
    assert len(found[found.stage == "search"]) == 8


# What reads it


def test_a_report_shows_the_blocks_teacher_and_not_a_student_that_teaches(tiny_study_text: str) -> None:
    study = study_of(tiny_study_text, [*CHAINS[:2], "confirm={base: three, against: [two], blocks: 2}"])
    sweep, events, _ = finished(study)
    record = record_of(events)
    frames = frames_of(facts_of(record), table.trials_frame(record).to_pandas())
    teachers = {s.cell.block: s.cell.trial for s in sweep.cells.values() if s.cell.method is None}
    assert dict(zip(frames.teachers.block, frames.teachers.accuracy, strict=True)) == pytest.approx(
        {block: accuracy_of(trial) for block, trial in teachers.items()}
    )
    assert not frames.several_teachers
    assert set(frames.scores.columns) == {"three", "two"}
    assert frames.counts.set_index("stage").planned.to_dict() == {"teacher": 2 + 2, "confirm": 4}


def test_a_report_shows_the_teacher_of_the_base_where_arms_have_several(tiny_study_text: str) -> None:
    arms = "{a: {method: lskd}, b: {method: lskd, teacher: {recipe: {smoothing: 0.1}}}}"
    for base, other in (("a", "b"), ("b", "a")):
        study = study_of(tiny_study_text, ["search=null", f"arms={arms}", f"confirm={{base: {base}, against: [{other}], blocks: 2}}"])
        _, events, _ = finished(study)
        record = record_of(events)
        frames = frames_of(facts_of(record), table.trials_frame(record).to_pandas())
        made_by = [study.arms[base].trial(study, study.block("confirm", block), True).teacher_trial for block in range(2)]
        assert list(frames.teachers.accuracy) == pytest.approx([accuracy_of(trial) for trial in made_by if trial])
        assert frames.several_teachers


def test_a_test_score_of_a_student_that_only_tuning_needs_is_not_reported(tiny_study_text: str) -> None:
    # Nobody's proposals are what three's need.
    study = study_of(
        tiny_study_text, [*SEARCHED[:-1], "arms={three: {method: selfdistillation, steps: 3}}", "confirm={base: three, blocks: 2}"]
    )
    _, events, _ = finished(study)
    record = record_of(events)
    trials = table.trials_frame(record).to_pandas()
    frames_of(facts_of(record), trials)
    tuning = trials.index[(trials.stage == "teacher") & trials.method.notna() & trials["metric.test.accuracy"].isna()]
    assert len(tuning) > 0
    trials.loc[tuning[0], "metric.test.accuracy"] = 0.5
    with pytest.raises(StorageError, match="only the confirm stage opened"):
        frames_of(facts_of(record), trials)


# For real


REAL = (
    "search=null", "student.recipe.epochs=1",
    "arms={one: {method: selfdistillation}, three: {method: selfdistillation, truth_rule: estimated, steps: 3}}",
    "confirm={base: one, against: [three], blocks: 1}",
)  # fmt: skip


def test_a_real_chain_killed_in_the_middle_ends_in_the_same_table(tiny_study_text: str, tmp_path: Path) -> None:
    quiet, launch = Console(quiet=True), Launch(in_process=True)
    whole, parts = (study_of(tiny_study_text, REAL, options={"storage": str(tmp_path / name)}) for name in ("whole", "parts"))
    outcome = drive(whole, launch, quiet)
    assert outcome.counts["ok"] == outline(whole).cells == 1 + 2 + 5
    code = f"""
import os, sys
from rich.console import Console
from orchestrator.driver import Launch, drive
from orchestrator.reading import study_of
from trainables.runner import Runner
class Dying:
    def __init__(self): self.inner, self.left = Runner({str(tmp_path / "parts/tiny/artifacts")!r}, "cpu"), 4
    def run(self, leg, halt):
        if self.left == 0: os.kill(os.getpid(), 9)
        self.left -= 1
        return self.inner.run(leg)
study = study_of(sys.stdin.read(), {list(REAL)!r}, options={{"storage": {str(tmp_path / "parts")!r}}})
drive(study, Launch(in_process=True, make_runner=lambda _: Dying()), Console(quiet=True))
"""
    died = subprocess.run([sys.executable, "-c", code], input=tiny_study_text, text=True, capture_output=True, check=False)
    assert died.returncode == -9, died.stderr
    assert len(record_of(Journal(tmp_path / "parts/tiny").read()).finished) == 4
    assert drive(parts, launch, quiet).trained == outcome.trained - 4
    assert same(table.read_trials(tmp_path / "whole/tiny"), table.read_trials(tmp_path / "parts/tiny")) == []
    assert table.read_reports(tmp_path / "whole/tiny").equals(table.read_reports(tmp_path / "parts/tiny"))
    found = table.read_trials(tmp_path / "parts/tiny").to_pandas()
    assert sorted(found["hp.chain.steps"].dropna()) == [0, 0, 0, 1, 1, 2, 2]
    assert standing_of(str(tmp_path / "parts/tiny")).cells["teacher", "three"]["ok"] == 5


@pytest.mark.parametrize(("name", "cells"), [("self_distillation_digits", 8 * (1 + 6 + 3 + 7)), ("label_smoothing_digits", 9 * (2 + 8))])
def test_the_studies_of_the_package_train_so_many_cells(name: str, cells: int) -> None:
    study = read_study(STUDIES / f"{name}.yaml")
    assert outline(study).cells == cells
    _, events, _ = finished(study, 2)
    assert len(frame_of(events)) == cells
