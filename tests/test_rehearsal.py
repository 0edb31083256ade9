"""Rehearsals: what a miniature of a training tells, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace

import pytest
import torch

from search_spaces import Schedule
from tests.small_pictures import Photos
from tests.small_trials import TEACHER, Blobs, Plain, Toy, student_trial
from trainables.data.digits import Digits
from trainables.methods.kd import KD
from trainables.methods.lskd import LSKD
from trainables.methods.selfdistillation import SelfDistillation
from trainables.methods.slam import SLaM
from trainables.models.mlp import MLP
from trainables.models.resnet import ResNet
from trainables.models.wrn import WRN
from trainables.recipe import Recipe
from trainables.rehearsal import SHORT, SURE, WIDE, Conditions, Rehearsal, Stage
from trainables.source import Splits
from trainables.trial import Block, Teacher, Trial

RECIPE = Recipe(learning_rate=0.1, batch=16, epochs=5)


def of(trial: Trial) -> Rehearsal:
    found = Stage().rehearse(trial)
    assert found.problem == ""
    return found


def varied(first: Rehearsal, second: Rehearsal) -> set[str]:
    return {f.name for f in dataclasses.fields(first) if repr(getattr(first, f.name)) != repr(getattr(second, f.name))}


def test_what_it_tells_of_the_first_step() -> None:
    found = of(student_trial(KD(soft_weight=0.9, truth_weight=0.1)))
    assert 20 <= found.rehearsed <= 28
    assert found.loss == pytest.approx(0.9 * found.terms["soft"] + 0.1 * found.terms["truth"], rel=1e-6)
    assert found.gradient > 0
    # MLP 2 -> 6 -> 3
    assert found.parameters == {"student": 2 * 6 + 6 + 6 * 3 + 3, "method": 0}
    # 50 rows in batches of 16, 5 epochs
    assert (found.steps, found.batch) == (20, 16)
    assert found.losses[-1][0] == 1.0


def test_the_first_step_is_that_before_anything_was_learned() -> None:
    slow, fast = (of(student_trial(KD(), replace(RECIPE, learning_rate=rate))) for rate in (0.01, 0.5))
    assert (slow.loss, slow.terms, slow.gradient) == (fast.loss, fast.terms, fast.gradient)
    assert slow.outcome != fast.outcome


def test_the_gradient_is_that_of_the_first_step_alone() -> None:
    found = of(student_trial(KD(soft_weight=0.0, truth_weight=0.0), replace(RECIPE, weight_decay=0.1)))
    assert found.gradient == 0.0


def test_the_same_trial_is_rehearsed_to_the_same_bits_on_another_stage_and_whatever_was_drawn_before() -> None:
    first = of(student_trial(Toy()))
    torch.manual_seed(7)
    state = torch.get_rng_state()
    second = of(student_trial(Toy()))
    assert varied(first, second) == set()
    assert torch.equal(torch.get_rng_state(), state)


def test_seeds_are_those_of_the_trial() -> None:
    first, second = (of(student_trial(Toy(), block=block)) for block in (Block(0, 0, 0, 0), Block(0, 0, 1, 0)))
    assert {"losses", "outcome", "gradient"} <= varied(first, second)


def test_a_field_without_effect_changes_nothing_that_came_out() -> None:
    first, second = (of(student_trial(KD(soft_weight=0.0, truth_weight=1.0, temperature=t))) for t in (2.0, 4.0))
    # The term reads differently, but counts for nothing.
    assert varied(first, second) == {"terms"}


@pytest.mark.parametrize(
    ("first", "second"),
    [(KD(temperature=2.0), KD(temperature=4.0)), (KD(unlabelled="skip"), KD(unlabelled="pseudo")), (Plain(), KD())],
    ids=["number", "static choice", "method"],
)
def test_what_has_an_effect_changes_what_comes_out(first: object, second: object) -> None:
    assert "outcome" in varied(of(student_trial(first)), of(student_trial(second)))


@pytest.mark.parametrize(
    "change", [{"learning_rate": 0.11}, {"momentum": 0.0}, {"weight_decay": 0.0}, {"optimiser": "adam"}, {"precision": "bfloat16"}], ids=str
)
def test_the_recipe_is_rehearsed(change: dict[str, object]) -> None:
    first, second = of(student_trial(Plain(), RECIPE)), of(student_trial(Plain(), replace(RECIPE, **change)))
    assert "outcome" in varied(first, second)


@pytest.mark.parametrize(
    ("change", "told"), [({"epochs": 6}, {"steps", "rates"}), ({"batch": 50}, {"steps", "batch", "rates"})], ids=["epochs", "batch"]
)
def test_what_is_shortened_of_the_recipe_is_told_as_it_is_in_full(change: dict[str, int], told: set[str]) -> None:
    assert told <= varied(of(student_trial(Plain(), RECIPE)), of(student_trial(Plain(), replace(RECIPE, **change))))


def test_a_batch_beyond_all_rows_is_no_other_batch() -> None:
    first, second = (of(student_trial(Plain(), replace(RECIPE, batch=batch))) for batch in (64, 96))
    assert varied(first, second) == set()


def test_a_schedule_that_differs_late_is_seen_late() -> None:
    early = Schedule(kind="step", start=1.0, end=0.0, first=0.8, every=1.0)
    first, second = (of(student_trial(Plain(), replace(RECIPE, schedule=schedule))) for schedule in (Schedule(), early))
    assert {"rates", "outcome"} <= varied(first, second)
    apart = [mine[0] for mine, other in zip(first.losses, second.losses, strict=True) if mine != other]
    assert min(apart) > 0.8


def test_a_schedule_of_the_method_tells_its_levels_in_full_and_as_rehearsed() -> None:
    short = [SLaM(accuracy_ramp=Schedule(kind="linear", start=0.0, end=1.0, warmup=w)) for w in (0.0, 0.01)]
    recipe = replace(RECIPE, epochs=50)  # 200 steps, of which the first two lie within the warm-up; a rehearsal's first does not
    first, second = (of(student_trial(method, recipe)) for method in short)
    assert "levels" in varied(first, second)
    # linear with a warm-up moves elsewhere, too, so let it be constant behind it
    still = [SLaM(accuracy_ramp=Schedule(start=0.5, warmup=w)) for w in (0.0, 0.01)]
    first, second = (of(student_trial(method, recipe)) for method in still)
    assert varied(first, second) == {"levels"}


def test_a_recipe_of_the_teacher_is_seen_in_the_student() -> None:
    trial = student_trial(Plain())
    slower = replace(trial, teacher=replace(TEACHER, recipe=replace(TEACHER.recipe, learning_rate=0.01)))
    longer = replace(trial, teacher=replace(TEACHER, recipe=replace(TEACHER.recipe, epochs=50)))
    soft = replace(trial, teacher=replace(TEACHER, recipe=replace(TEACHER.recipe, smoothing=0.2)))
    found = {name: of(replace(each, method=LSKD())) for name, each in (("", trial), ("slower", slower), ("longer", longer), ("soft", soft))}
    for name in ("slower", "longer", "soft"):
        assert "outcome" in varied(found[""], found[name]), name


def test_a_teacher_without_a_say_changes_nothing() -> None:
    trial = student_trial(KD(soft_weight=0.0, truth_weight=1.0))
    other = Teacher(TEACHER.model, replace(TEACHER.recipe, learning_rate=0.01, epochs=9))
    assert varied(of(trial), of(replace(trial, teacher=other))) == {"terms"}


def test_another_length_of_a_chain_is_seen() -> None:
    method = SelfDistillation()
    one = replace(student_trial(method), method=method.at_step(1, 1))
    two = replace(one, method=method.at_step(2, 2), chain=(method.at_step(1, 2),))
    assert "outcome" in varied(of(one), of(two))


@pytest.mark.parametrize("data", [Blobs(labelled=14), Blobs(rows=60), Blobs(noise=0.6)], ids=str)
def test_other_training_rows_are_told(data: Blobs) -> None:
    assert "rows" in varied(of(student_trial(Plain())), of(student_trial(Plain(), data=data)))


def test_rows_beyond_the_few_are_told_too() -> None:
    class Tail(Blobs):
        def load(self, split: int, opens_test: bool) -> Splits:
            found = super().load(split, opens_test)
            return replace(found, inputs=torch.cat([found.inputs[:-1], found.inputs[-1:] + 1]))

    data = Blobs(rows=100, labelled=12)
    first, second = of(student_trial(Plain(), data=data)), of(student_trial(Plain(), data=Tail(rows=100, labelled=12)))
    assert "rows" in varied(first, second)


@dataclass(frozen=True)
class Sealed(Digits):
    """Opens no test split."""

    def load(self, split: int, opens_test: bool) -> Splits:
        assert not opens_test, "the test split was opened"
        return super().load(split, opens_test)


@pytest.mark.parametrize("conditions", [SHORT, SURE, WIDE], ids=lambda each: each.name)
def test_the_test_split_stays_sealed(conditions: object) -> None:
    trial = replace(student_trial(Plain(), data=Sealed(labelled=20)), opens_test=True)
    assert Stage().rehearse(trial, conditions).problem == ""


def test_a_longer_rehearsal_has_more_steps_and_rows() -> None:
    trial = student_trial(KD(), data=Digits(labelled=40))
    short, wide = (Stage().rehearse(trial, conditions) for conditions in (SHORT, WIDE))
    assert 20 <= short.rehearsed <= 28
    assert 90 <= wide.rehearsed <= 102
    assert (short.rows, short.steps) == (wide.rows, wide.steps)


def test_a_training_that_cannot_be_is_told_as_a_problem() -> None:
    found = Stage().rehearse(student_trial(Plain(breaks="error")))
    assert "something else" in found.problem
    assert found.outcome == ""
    assert found.steps == 20


def test_what_the_first_step_told_stays_known_where_a_later_one_goes_wrong() -> None:
    found = Stage().rehearse(student_trial(KD(), replace(RECIPE, learning_rate=1e20)))
    assert found.problem.startswith("Diverged")
    assert found.loss == of(student_trial(KD())).loss
    assert found.gradient > 0
    assert found.outcome == ""


# -- large networks


LARGE = replace(student_trial(KD(), replace(RECIPE, learning_rate=0.01)), data=Photos(), model=ResNet(depth=8))
"""25 million operations a row at 32x32, 1.5 at the pictures' 8x8."""


@pytest.fixture
def _wide_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.rehearsal._LARGE", 1e6)


@pytest.mark.usefixtures("_wide_pictures")
@pytest.mark.parametrize("conditions", [SHORT, SURE, WIDE], ids=lambda each: each.name)
def test_a_small_network_stands_in_for_a_large_one(conditions: Conditions, monkeypatch: pytest.MonkeyPatch) -> None:
    stood = Stage().rehearse(LARGE, conditions)
    assert (stood.problem, stood.stood_in) == ("", True)
    # The parameters that are told are those of the network itself.
    assert stood.parameters == {"student": sum(p.numel() for p in LARGE.model.build((3, 8, 8), 3).parameters())}
    # What the training in full is does not depend on who stands in.
    monkeypatch.setattr("trainables.rehearsal._LARGE", math.inf)
    own = Stage().rehearse(LARGE, SHORT)
    assert not own.stood_in
    assert (own.rows, own.steps, own.batch, own.rates) == (stood.rows, stood.steps, stood.batch, stood.rates)


@pytest.mark.usefixtures("_wide_pictures")
def test_large_networks_that_differ_in_what_no_stand_in_shows_are_different() -> None:
    plain, dropping = (Stage().rehearse(replace(LARGE, model=WRN(depth=10, width=1, dropout=share))) for share in (0.0, 0.1))
    assert plain.outcome != dropping.outcome
    assert (first := Stage().rehearse(LARGE)).outcome == Stage().rehearse(LARGE).outcome
    assert first.outcome != Stage().rehearse(replace(LARGE, model=ResNet(depth=8, width=4))).outcome


@pytest.mark.usefixtures("_wide_pictures")
def test_a_small_student_of_a_large_teacher_is_rehearsed_with_stand_ins_too() -> None:
    assert LARGE.teacher is not None
    trial = replace(LARGE, model=MLP(width=6, depth=1), teacher=replace(LARGE.teacher, model=ResNet(depth=8)))
    assert Stage().rehearse(trial, SURE).stood_in
    assert not Stage().rehearse(replace(trial, teacher=LARGE.teacher), SURE).stood_in


def test_small_networks_are_rehearsed_themselves() -> None:
    assert not any(Stage().rehearse(student_trial(KD()), conditions).stood_in for conditions in (SHORT, SURE))


@pytest.mark.usefixtures("_wide_pictures")
def test_a_stand_in_tells_a_part_that_acts_from_one_that_does_not() -> None:
    acts, idle = (
        [Stage().rehearse(replace(LARGE, method=KD(soft_weight=weight, truth_weight=1.0, temperature=t)), SURE) for t in (2.0, 4.0)]
        for weight in (1.0, 0.0)
    )
    assert acts[0].outcome != acts[1].outcome
    assert idle[0].outcome == idle[1].outcome


@dataclass(frozen=True)
class Gone(Blobs):
    """Data that are not on this machine."""

    def load(self, split: int, opens_test: bool) -> Splits:
        ASKED.append(split)
        raise OSError("no such folder")


ASKED: list[int] = []


def test_data_that_are_not_there_are_told_and_asked_for_once() -> None:
    ASKED.clear()
    stage = Stage()
    found = [stage.rehearse(replace(student_trial(KD()), data=Gone()), conditions) for conditions in (SHORT, SURE)]
    assert [each.problem for each in found] == ["OSError: no such folder"] * 2
    assert len(ASKED) == 1


def test_a_training_that_diverges_is_told_as_a_problem() -> None:
    found = Stage().rehearse(student_trial(Plain(), replace(RECIPE, learning_rate=1e30)))
    assert found.problem.startswith("Diverged")
    assert math.isnan(found.loss)
