"""Proof of difference: what is refused as a no-op, what is not, and in which words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchestrator.analysis.facts import StudyFacts
from orchestrator.proof import CONDITIONS, Proof, Prover, Recorded, difference, hidden_schedules, settings_apart, told_apart, twin_of
from orchestrator.reading import study_of
from orchestrator.sections.forms import Section
from orchestrator.sections.proofs import proofs
from orchestrator.study import Arm, Study
from search_spaces import Choice, Schedule, Uniform, tunable, without
from trainables.distiller import Batch, Distiller, Facts, Needs, Outputs
from trainables.methods.kd import KD
from trainables.rehearsal import SURE, WIDE, Conditions, Rehearsal, Stage
from trainables.trial import Teacher, Trial

if TYPE_CHECKING:
    from orchestrator.analysis.frames import Frames

PLAIN = Rehearsal(
    rows="r", steps=240, batch=64, rates="s", levels={}, seen={}, rehearsed=24, parameters={"student": 100.0, "method": 0.0},
    terms={"soft": 2.0}, gradient=0.5, losses=((1 / 24, 2.25), (0.5, 1.5), (1.0, 1.0)), outcome="o",
)  # fmt: skip


@pytest.fixture
def study(tiny_study_text: str) -> Study:
    return study_of(tiny_study_text, [])


@pytest.fixture
def arm(study: Study) -> Arm:
    return replace(study.arms["vanilla"], name="kd", method=KD(soft_weight=1.0, truth_weight=0.5))


class Scripted:
    """Rehearsals by what the configuration says; remembers what was asked for."""

    def __init__(self, **of: Rehearsal) -> None:
        self.of = of
        self.asked: list[tuple[Trial, Conditions]] = []

    def __call__(self, trial: Trial, conditions: Conditions) -> Rehearsal:
        self.asked.append((trial, conditions))
        return self.of.get(f"{trial.config()['method.temperature']:g}_{CONDITIONS.index(conditions)}", PLAIN)


# -- two rehearsals


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rows": "x"}, "other training rows; 0 more parameters"),
        ({"steps": 1200}, "1,200 steps against 240; 0 more parameters"),
        ({"batch": 32}, "32 rows a step against 64; 0 more parameters"),
        ({"rates": "x"}, "another learning rate; 0 more parameters"),
        ({"parameters": {"student": 1200.0, "method": 20.0}}, "1,120 more parameters"),
        ({"parameters": {"student": 60.0, "method": 0.0}}, "40 fewer parameters"),
        ({"outcome": "x", "losses": ((1 / 24, 2.31), (0.5, 1.5), (1.0, 1.0))}, "step-0 loss 2.31 against 2.25; 0 more parameters"),
        ({"outcome": "x", "gradient": 0.25}, "the same step-0 loss, its gradient's norm 0.25 against 0.5; 0 more parameters"),
        (
            {"outcome": "x", "losses": ((1 / 24, 2.25), (0.5, 1.75), (1.0, 1.0))},
            "the same step-0 loss and gradient, apart by 50% of the training; 0 more parameters",
        ),
        ({"outcome": "x"}, "the same step-0 loss and gradient, apart in the trained student alone; 0 more parameters"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_counts_as_a_difference_and_how_it_is_told(change: dict[str, object], sentence: str) -> None:
    assert difference(replace(PLAIN, **change), PLAIN) == sentence
    assert difference(PLAIN, replace(PLAIN, **change)) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"losses": ((1 / 24, 9.0), (0.5, 9.0), (1.0, 9.0))},
        {"terms": {"soft": 9.0}},
        {"gradient": 9.0},
        {"levels": {"0.ramp": "x"}},
        {"problem": "ValueError: no", "outcome": "", "losses": (), "parameters": {}},
    ],
    ids=str,
)
def test_what_counts_for_nothing_while_the_student_is_the_same(change: dict[str, object]) -> None:
    assert difference(replace(PLAIN, **change), PLAIN) is None


def test_numbers_are_told_with_as_few_digits_as_tell_them_apart() -> None:
    assert told_apart(2.3051, 1.8) == ("2.31", "1.8")
    assert told_apart(2.30512, 2.30518) == ("2.3051", "2.3052")
    assert told_apart(1.0, 1.0) == ("1", "1")


def test_schedules_that_no_rehearsed_step_tells_apart() -> None:
    first = replace(PLAIN, levels={"0.ramp": "a", "0.warm": "a", "0.same": "a"}, seen={"0.ramp": "a", "0.warm": "a", "0.same": "a"})
    second = replace(PLAIN, levels={"0.ramp": "b", "0.warm": "b", "0.same": "a"}, seen={"0.ramp": "b", "0.warm": "a", "0.same": "a"})
    assert hidden_schedules(first, second) == ["warm"]


# -- the rule


def test_arms_that_differ_at_once_are_rehearsed_once(study: Study, arm: Arm) -> None:
    script = Scripted(**{"2_0": replace(PLAIN, outcome="x")})
    prover = Prover(study, script)
    found = prover.prove(arm.changed({"method.temperature": 2.0}), arm)
    assert found.differs
    assert len(script.asked) == 2
    prover.prove(arm, arm.changed({"method.temperature": 2.0}))
    assert len(script.asked) == 2


@pytest.mark.parametrize("late", [1, 2])
def test_arms_that_are_equal_at_first_are_rehearsed_again_under_other_conditions_and_seeds(study: Study, arm: Arm, late: int) -> None:
    script = Scripted(**{f"2_{late}": replace(PLAIN, outcome="x", gradient=0.25)})
    found = Prover(study, script).prove(arm.changed({"method.temperature": 2.0}), arm)
    assert found.differs
    assert found.reason.startswith(f"{CONDITIONS[late].name}: the same step-0 loss")
    assert [conditions for _, conditions in script.asked] == [each for each in CONDITIONS[: late + 1] for _ in range(2)]
    blocks = [trial.block for trial, _ in script.asked]
    assert len(set(blocks)) == late + 1
    assert set(blocks) == {study.block("search", index) for index in range(late + 1)}
    assert not any(trial.opens_test for trial, _ in script.asked)


def test_only_what_is_equal_under_all_conditions_is_refused(study: Study, arm: Arm) -> None:
    found = Prover(study, Scripted()).prove(arm.changed({"method.temperature": 2.0}), arm)
    assert not found.differs
    assert found.reason == (
        "a no-op: the two trainings are bit for bit the same over 24 rehearsed steps, 24 with a teacher trained further and "
        "24 with more rows. Without effect here: method.temperature 2 for 4"
    )


def test_a_loss_that_only_reads_differently_is_told(study: Study, arm: Arm) -> None:
    script = Scripted(**{"2_0": replace(PLAIN, losses=((1 / 24, 3.5),))})
    found = Prover(study, script).prove(arm.changed({"method.temperature": 2.0}), arm)
    assert not found.differs
    assert "though the step-0 loss reads 3.5 against 2.25" in found.reason


def test_a_first_step_that_differs_counts_where_a_later_one_went_wrong() -> None:
    broken = replace(PLAIN, problem="Diverged: no", outcome="", parameters={})
    assert difference(replace(broken, gradient=0.25), broken) == "the same step-0 loss, its gradient's norm 0.25 against 0.5"
    assert difference(replace(broken, gradient=0.25), PLAIN) is not None
    assert difference(replace(broken, losses=()), PLAIN) is None


def test_who_stood_in_is_told(study: Study, arm: Arm) -> None:
    stood = {f"{t}_{number}": replace(PLAIN, stood_in=True) for t in (2, 4) for number in (0, 1, 2)}
    found = Prover(study, Scripted(**stood)).prove(arm.changed({"method.temperature": 2.0}), arm)
    assert "24 with more rows, with small networks in place of its own. Without effect" in found.reason
    stood["2_1"] = replace(stood["2_1"], outcome="x")
    found = Prover(study, Scripted(**stood)).prove(arm.changed({"method.temperature": 2.0}), arm)
    assert found.reason.startswith("with a teacher trained further, with small networks in place of its own: the same step-0 loss")


def test_of_stand_ins_only_parameters_of_the_student_are_told(study: Study, arm: Arm) -> None:
    stood = {f"{t}_0": replace(PLAIN, stood_in=True, parameters={"student": 5e6}) for t in (2, 4)}
    stood["2_0"] = replace(stood["2_0"], gradient=0.25, outcome="x")
    found = Prover(study, Scripted(**stood)).prove(arm.changed({"method.temperature": 2.0}), arm)
    assert found.reason == "with small networks in place of its own: the same step-0 loss, its gradient's norm 0.25 against 0.5"
    stood["2_0"] = replace(stood["2_0"], parameters={"student": 6e6})
    found = Prover(study, Scripted(**stood)).prove(arm.changed({"method.temperature": 2.0}), arm)
    assert found.reason.endswith("; 1,000,000 more parameters of the student")


def test_what_cannot_be_rehearsed_is_not_refused(study: Study, arm: Arm) -> None:
    script = Scripted(**{"2_1": replace(PLAIN, problem="ValueError: no room", outcome="", losses=(), parameters={})})
    found = Prover(study, script).prove(arm.changed({"method.temperature": 2.0}), arm)
    assert found.differs
    assert found.reason == "not shown, since it could not be rehearsed: ValueError: no room"


def test_a_schedule_that_no_rehearsal_reaches_is_not_refused(study: Study, arm: Arm) -> None:
    ours = replace(PLAIN, levels={"0.ramp": "a"}, seen={"0.ramp": "s"})
    theirs = replace(PLAIN, levels={"0.ramp": "b"}, seen={"0.ramp": "s"})
    script = Scripted(**{f"{t}_{n}": each for t, each in (("2", ours), ("4", theirs)) for n in range(3)})
    found = Prover(study, script).prove(arm.changed({"method.temperature": 2.0}), arm)
    assert found.differs
    assert found.reason.startswith("ramp differs at steps that a rehearsal does not reach")


def test_the_first_of_several_twins_is_named(study: Study, arm: Arm) -> None:
    script = Scripted(**{"8_0": replace(PLAIN, outcome="x")})
    others = {"hot": arm.changed({"method.temperature": 8.0}), "cold": arm.changed({"method.temperature": 1.0}), "base": arm}
    prove = Prover(study, script).prove
    found = twin_of(arm.changed({"method.temperature": 2.0}), others, prove)
    assert found is not None
    assert found[0] == "cold"
    assert not found[1].differs
    assert twin_of(others["hot"], {"base": arm}, prove) is None


def test_a_fixed_design_is_not_proven_again(study: Study, arm: Arm) -> None:
    told = [
        {"arm": "kd, b", "against": "kd", "differs": False, "reason": "a no-op"},
        {"arm": "kd, c", "against": "kd", "differs": True, "reason": "step-0 loss 1 against 2"},
    ]
    prove = Recorded({"event": "design", "proofs": told}).prove
    named = {name: replace(arm, name=name) for name in ("kd", "kd, b", "kd, c")}
    assert prove(named["kd, b"], named["kd"]) == Proof(False, "a no-op")
    assert prove(named["kd, c"], named["kd"]) == Proof(True, "step-0 loss 1 against 2")
    assert prove(named["kd, c"], named["kd, b"]).differs
    assert Recorded({"event": "design"}).prove(named["kd, b"], named["kd"]).differs, "written by a version that proved nothing"


def test_settings_are_told_with_both_values(study: Study, arm: Arm) -> None:
    other = arm.changed({"method.temperature": 2.0, "recipe.optimiser": "adam"})
    first, second = (each.trial(study, study.block("search", 0), opens_test=False) for each in (other, arm))
    # The momentum of SGD has no meaning under adam.
    assert settings_apart(first, second) == [
        "recipe.optimiser adam for sgd",
        "method.temperature 2 for 4",
        "recipe.momentum nothing for 0.9",
    ]


# -- arms rehearsed for real


def test_an_arm_made_a_no_op_on_purpose_is_refused(study: Study, arm: Arm) -> None:
    base = arm.changed({"method.soft_weight": 0.0, "method.temperature": 4.0})
    found = Prover(study).prove(base.changed({"method.temperature": 2.0}), base)
    assert not found.differs
    assert found.reason.endswith("Without effect here: method.temperature 2 for 4")


def test_the_teacher_of_a_student_that_does_not_listen_is_no_difference(study: Study, arm: Arm) -> None:
    base = arm.changed({"method.soft_weight": 0.0})
    other = replace(base, teacher=Teacher(study.teacher.model, replace(study.teacher.recipe, learning_rate=0.1, epochs=7)))
    assert not Prover(study).prove(other, base).differs


@pytest.mark.parametrize("change", [{"learning_rate": 0.1}, {"epochs": 7}, {"smoothing": 0.2}, {"batch": 16}], ids=str)
def test_the_recipe_of_a_teacher_is_a_difference(change: dict[str, object], study: Study, arm: Arm) -> None:
    other = replace(arm, teacher=Teacher(study.teacher.model, replace(study.teacher.recipe, **change)))
    assert Prover(study).prove(other, arm).differs


@pytest.mark.parametrize(
    "point",
    [
        {"method.temperature": 4.01},
        {"method.unlabelled": "pseudo"},
        {"recipe.learning_rate": 0.1001},
        {"recipe.epochs": 3},
        {"recipe.momentum": 0.0},
        {"recipe.schedule.kind": "step", "recipe.schedule.first": 0.75},
        {"model.width": 9},
    ],
    ids=str,
)
def test_arms_that_differ_are_not_refused(point: dict[str, object], study: Study, arm: Arm) -> None:
    assert Prover(study).prove(arm.changed(point), arm).differs


def test_a_schedule_of_the_method_that_moves_late_is_a_difference(study: Study) -> None:
    base = study.arms["slam"].changed({"recipe.epochs": 20})
    late = Schedule(kind="step", start=1.0, end=0.0, first=0.9, every=1.0)
    other = replace(base, method=replace(base.method, accuracy_ramp=late))
    found = Prover(study).prove(other, base)
    assert found.differs
    assert "the same step-0 loss and gradient" in found.reason


@dataclass(frozen=True)
class Sure(Distiller[nn.Module]):
    """Rows of which a teacher is surer than ``bound`` count: a blunt teacher has none."""

    needs = Needs()

    bound: float = tunable(0.9, Uniform(0.0, 1.0), "least probability")
    other: str = tunable("a", Choice(("a", "b")), "of the rows that count: every one, or none")
    sure_weight: float = tunable(1.0, Uniform(0.0, 1.0), "of those rows")
    truth_weight: float = tunable(1.0, Uniform(0.0, 1.0), "of labelled rows")

    def terms(self, state: nn.Module, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        probability, label = teacher.logits.softmax(-1).max(-1)
        counts = torch.where(probability > self.bound, 1.0 if self.other == "a" else 0.0, 0.0)
        cross = F.cross_entropy(student.logits, label, reduction="none")
        truth = F.cross_entropy(student.logits, batch.label, reduction="none")
        return {"sure": batch.mean(counts * cross), "truth": batch.mean(truth * batch.is_labelled)}


def test_a_part_that_acts_only_where_a_real_teacher_is_sure_is_not_refused(study: Study, arm: Arm) -> None:
    study = replace(study, teacher=Teacher(study.teacher.model, replace(study.teacher.recipe, epochs=100)))
    base = replace(arm, method=Sure())
    prover = Prover(study)
    found = prover.prove(replace(arm, method=Sure(other="b")), base)
    assert found.differs
    assert found.reason.startswith(SURE.name), "the first rehearsal was to show nothing"


@dataclass(frozen=True)
class Rare(Distiller[nn.Module]):
    """A part that acts on one row of the training set alone."""

    row: int = tunable(500, Choice((500, 501)), "which")
    rare_weight: float = tunable(1.0, Uniform(0.0, 1.0), "of that row")

    def terms(self, state: nn.Module, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        cross = F.cross_entropy(student.logits, teacher.logits.argmax(-1), reduction="none")
        return {"rare": batch.mean(cross * (1.0 - (batch.row == self.row).float()))}


def test_a_part_that_acts_on_few_rows_is_not_refused(study: Study, arm: Arm) -> None:
    # 50 labelled rows and 64 others are in the first rehearsal; row 500 is in the last one alone.
    found = Prover(study).prove(replace(arm, method=Rare(row=500)), replace(arm, method=Rare(row=501)))
    assert found.differs
    assert found.reason.startswith(WIDE.name)


def test_another_number_of_labelled_rows_is_a_difference_by_itself(study: Study, arm: Arm, tiny_study_text: str) -> None:
    other = study_of(tiny_study_text, ["data.labelled=60"])
    trials = (arm.trial(each, study.block("search", 0), opens_test=False) for each in (other, study))
    told = difference(*(Stage().rehearse(trial) for trial in trials))
    assert told is not None
    assert told.startswith("other training rows")


def test_every_part_of_the_tiny_study_is_told_the_same_twice(study: Study) -> None:
    base = study.arms["slam"]
    variants = [without(base, [name]) for name in ("method.mixing", "method.lower_bound", "method.upper_bound")]
    told = [[Prover(study).prove(each, base) for each in variants] for _ in range(2)]
    assert told[0] == told[1]
    assert all(each.differs for each in told[0])


def test_an_arm_that_cannot_be_trained_is_not_refused(study: Study, arm: Arm) -> None:
    @dataclass(frozen=True)
    class Needy(KD):
        """Does not fit any network."""

        def state(self, facts: Facts) -> nn.Module:
            raise ValueError("needs another network")

    found = Prover(study).prove(replace(arm, method=Needy()), arm)
    assert found.differs
    assert "needs another network" in found.reason


# -- in the report


def design(**changes: object) -> StudyFacts:
    proofs = [
        {"arm": "kd, cold", "against": "kd", "differs": True, "reason": "step-0 loss 2.31 against 2.3; 0 more parameters"},
        {"arm": "kd, warm", "against": "kd", "differs": False, "reason": "a no-op"},
    ]
    event = {"event": "design", "proofs": proofs, "skipped": [["kd, warm", "the same training as kd: a no-op"]], **changes}
    return StudyFacts(launches=({},), cells=(), choices=(), ended=None, design=event)


def section(facts: StudyFacts) -> Section | None:
    return proofs(cast("Frames", SimpleNamespace(facts=facts)))


def test_the_report_tells_how_arms_differ_and_what_was_not_trained() -> None:
    found = section(design())
    assert found is not None
    shown, left_out = found.tables
    assert shown.rows == (("kd, cold", "kd", "step-0 loss 2.31 against 2.3; 0 more parameters"),)
    assert left_out.rows == (("kd, warm", "the same training as kd: a no-op"),)
    assert "is no result" in found.paragraphs[0]


def test_the_report_does_not_speak_of_rehearsals_that_were_not_made() -> None:
    found = section(design(proofs=[]))
    assert found is not None
    assert found.paragraphs == ()
    assert len(found.tables) == 1
    assert section(design(proofs=[], skipped=[])) is None
    assert section(replace(design(), design=None)) is None
