from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from search_spaces import Schedule
from tests.small_trials import TEACHER, Blobs, Everything, Line, Plain, Toy, student_trial
from trainables.batches import Order, resident
from trainables.device import Cpu, seed_of
from trainables.loop import Diverged, Halted, Training
from trainables.recipe import Recipe
from trainables.teachers import FrozenTeacher
from trainables.trial import Block, Trial

SGD = Recipe(learning_rate=0.1, batch=16, epochs=5, schedule=Schedule(kind="cosine", warmup=0.1))
ADAM = Recipe(optimiser="adam", learning_rate=0.01, batch=16, epochs=5)


def _teacher(seed=1):
    torch.manual_seed(seed)
    return FrozenTeacher(TEACHER.model.build((1, 1, 2), 3), Cpu())


def _training(trial, teacher=None, opened=False):
    return Training(trial, resident(trial.data.load(trial.block.split, opened or trial.opens_test), Cpu()), teacher, Cpu())


def _student(method=None, recipe=SGD, **rest):
    return _training(student_trial(method, recipe, **rest), _teacher())


def _weights(training):
    return [*training.student.state_dict().values(), *training.state.state_dict().values()]


def _equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "recipe", [SGD, ADAM, Recipe(optimiser="adamw", learning_rate=0.01, batch=16, epochs=5)], ids=lambda r: r.optimiser
)
@pytest.mark.parametrize("stops", [(0.35,), (0.1, 0.33, 0.8)])
def test_a_resumed_training_equals_the_unbroken_one_bit_for_bit(recipe, stops):
    whole = _student(recipe=recipe, opens_test=True)
    expected = whole.advance(1.0)
    reports, training = (), _student(recipe=recipe, opens_test=True)
    for stop in stops:
        assert training.step_at(stop) % training.order.steps_per_epoch or stop == 0.8  # in the middle of an epoch
        reports += training.advance(stop)
        saved = Cpu().to_bytes(training.state_dict())
        torch.rand(7)  # the world goes on in between
        training = _student(recipe=recipe, opens_test=True)
        training.load_state_dict(Cpu().from_bytes(saved))
    reports += training.advance(1.0)
    assert _equal(_weights(training), _weights(whole))
    by_step = {report.step: report.metrics for report in reports}
    assert {step: by_step[step] for step in (r.step for r in expected)} == {r.step: r.metrics for r in expected}


@pytest.mark.parametrize("recipe", [SGD, ADAM], ids=lambda r: r.optimiser)
def test_a_training_halted_anywhere_goes_on_bit_for_bit(recipe):
    whole = _student(recipe=recipe, opens_test=True)
    expected = [whole.advance(until) for until in (0.35, 1.0)]
    for step in range(whole.order.steps):
        training, found = _student(recipe=recipe, opens_test=True), []
        for until in (0.35, 1.0):
            if training.steps <= step < training.step_at(until):
                with pytest.raises(Halted, match=f"step {step} of"):
                    training.advance(until, lambda at=training, wanted=step: at.steps == wanted)
                saved = Cpu().to_bytes(training.state_dict())
                training = _student(recipe=recipe, opens_test=True)
                training.load_state_dict(Cpu().from_bytes(saved))
                assert training.steps == step
            found.append(training.advance(until))
        assert found == expected
        assert _equal(_weights(training), _weights(whole))


def test_trainings_that_take_turns_do_not_disturb_each_other():
    alone = _student()
    alone.advance(1.0)
    first, second = _student(), _student(recipe=ADAM, block=Block(1, 1, 1, 1))
    for until in (0.2, 0.45, 0.7, 1.0):
        first.advance(until)
        second.advance(until)
    assert _equal(_weights(first), _weights(alone))


def test_the_generators_of_the_caller_are_left_alone():
    trial, teacher = student_trial(), _teacher()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    _training(trial, teacher).advance(1.0)
    assert torch.equal(torch.rand(2), expected)


def test_every_step_draws_anew_and_the_same_again():
    def draws(order):
        drawn = []

        class Draws(Plain):
            def terms(self, state, batch, student, teacher):
                drawn.append(float(torch.rand(())))
                return super().terms(state, batch, student, teacher)

        _student(Draws(), block=Block(0, 0, 0, order)).advance(1.0)
        return drawn

    first = draws(0)
    assert len(set(first)) == 20
    assert draws(0) == first
    assert not set(draws(1)) & set(first)


def test_every_seed_matters_and_init_is_shared_by_methods():
    def after(block, method=None, until=0.05):
        training = _student(method, block=block)
        before = [p.clone() for p in training.student.parameters()]
        training.advance(until)
        return before, _weights(training)

    before, weights = after(Block(0, 0, 0, 0))
    assert not _equal(before, after(Block(0, 0, 1, 0))[0])
    assert _equal(before, after(Block(0, 0, 0, 1))[0])
    assert not _equal(weights, after(Block(0, 0, 0, 1))[1])
    assert _equal(before, after(Block(0, 0, 0, 0), Plain())[0])


def test_steps_of_legs():
    training = _student()  # 20 steps
    assert training.order.steps == 20
    assert [training.step_at(u) for u in (0.01, 0.05, 0.12, 0.125, 0.5, 0.99, 1.0)] == [1, 1, 2, 3, 10, 19, 20]


def test_ten_evaluations_and_the_ends_of_legs():
    training = _student()
    reports = training.advance(0.33) + training.advance(1.0)
    assert [report.step for report in reports] == [2, 4, 6, 7, 8, 10, 12, 14, 16, 18, 20]
    assert [report.progress for report in reports] == [0.1, 0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def test_a_short_training_is_evaluated_at_every_step():
    training = _student(recipe=Recipe(batch=50, epochs=3))
    assert [(r.step, round(r.progress, 3)) for r in training.advance(1.0)] == [(1, 0.333), (2, 0.667), (3, 1.0)]
    single = _student(recipe=Recipe(batch=50, epochs=1), opens_test=True)
    (rung,) = single.advance(0.5)
    assert (rung.step, rung.progress) == (1, 1.0), "the leg ends behind the only step"
    (end,) = single.advance(1.0)
    assert end.metrics["train.loss"] == rung.metrics["train.loss"]
    assert "test.accuracy" in end.metrics
    assert "test.accuracy" not in rung.metrics


def test_legs_change_no_number():
    whole = {report.step: (report.progress, report.metrics) for report in _student().advance(1.0)}
    training = _student()
    parts = [report for until in (0.07, 0.29, 0.5, 0.51, 0.94, 1.0) for report in training.advance(until)]
    found = {report.step: (report.progress, report.metrics) for report in parts}
    assert {step: found[step] for step in whole} == whole


def test_metrics_of_a_student():
    training = _student()
    assert set(training.advance(1.0)[-1].metrics) == {
        "train.loss", "train.soft", "train.truth", "train.hint",
        "validation.accuracy", "validation.nll", "validation.ece", "validation.agreement",
        "parameters.student", "parameters.method",
    }  # fmt: skip


def test_the_sealed_test_split_is_not_there_and_not_reported():
    training = _student()
    assert training.data.test_inputs is None
    assert not [name for report in training.advance(1.0) for name in report.metrics if name.startswith("test.")]


def test_the_test_split_is_opened_at_the_end_alone():
    training = _student(opens_test=True)
    *before, last = training.advance(1.0)
    assert not [name for report in before for name in report.metrics if name.startswith("test.")]
    assert {name for name in last.metrics if name.startswith("test.")} == {
        "test.accuracy", "test.nll", "test.ece", "test.agreement", "test.teacher_accuracy",
    }  # fmt: skip
    splits = Blobs().load(0, opens_test=True)
    with torch.no_grad():
        says = training.student.eval()(splits.test_inputs).logits.argmax(1)
        teacher = _teacher().network(splits.test_inputs).logits.argmax(1)
    assert last.metrics["test.accuracy"] == pytest.approx(float((says == splits.test_labels).double().mean()))
    assert last.metrics["test.agreement"] == pytest.approx(float((says == teacher).double().mean()))
    assert last.metrics["test.teacher_accuracy"] == pytest.approx(float((teacher == splits.test_labels).double().mean()))


def test_a_trial_that_opens_the_test_split_needs_it():
    trial = student_trial(opens_test=True)
    training = Training(trial, resident(trial.data.load(0, opens_test=False), Cpu()), _teacher(), Cpu())
    with pytest.raises(ValueError, match="opens the test split, but its data were loaded without"):
        training.advance(1.0)


def test_validation_is_measured_on_the_held_out_rows():
    training = _student()
    last = training.advance(1.0)[-1].metrics
    splits = Blobs().load(0, opens_test=False)
    with torch.no_grad():
        says = training.student.eval()(splits.holdout_inputs).logits.argmax(1)
        teacher = _teacher().network(splits.holdout_inputs).logits.argmax(1)
    assert last["validation.accuracy"] == pytest.approx(float((says == splits.holdout_labels).double().mean()))
    assert last["validation.agreement"] == pytest.approx(float((says == teacher).double().mean()))


def test_train_loss_is_the_mean_over_steps_since_the_last_evaluation():
    # Nothing moves at a learning rate of 0, so the loss of a step is the mean over its rows of one fixed loss per row.
    recipe = Recipe(learning_rate=0.0, weight_decay=0.0, batch=16, epochs=5)
    trial = Trial(Blobs(), Block(0, 0, 0, 7), Line(), recipe, Plain(imitate_weight=3.0), TEACHER)
    training = _training(trial, _teacher())
    splits = trial.data.load(0, opens_test=False)
    with torch.no_grad():
        logits = training.student(splits.inputs).logits.double().numpy()
        target = _teacher().network(splits.inputs).logits.argmax(1).numpy()
    per_row = np.log(np.exp(logits).sum(1)) - logits[np.arange(50), target]
    steps = []
    for epoch in range(5):
        rows = torch.randperm(50, generator=torch.Generator().manual_seed(seed_of("order", 7, epoch))).numpy()
        steps += [per_row[rows[start : start + 16]].mean() for start in range(0, 50, 16)]
    for index, report in enumerate(training.advance(1.0)):
        expected = np.mean(steps[2 * index : 2 * index + 2])
        assert report.metrics["train.imitate"] == pytest.approx(expected, rel=1e-5)
        assert report.metrics["train.loss"] == pytest.approx(3 * expected, rel=1e-5)


def test_the_learning_rate_follows_its_schedule():
    # One step per epoch over all rows; the second of two steps has progress .75 and a linear level of .25.
    recipe = Recipe(learning_rate=0.4, momentum=0.0, weight_decay=0.0, batch=50, epochs=2, schedule=Schedule(kind="linear"))
    training = _training(Trial(Blobs(), Block(0, 0, 0, 0), Line(), recipe, Plain(), TEACHER), _teacher())
    training.advance(0.5)
    before = [p.detach().clone() for p in training.student.parameters()]
    training.advance(1.0)
    for old, new in zip(before, training.student.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old - 0.4 * 0.25 * new.grad)


def test_progress_of_a_step_is_its_middle():
    Toy.seen.clear()
    _student().advance(1.0)
    assert [float(batch.progress) for batch in Toy.seen] == pytest.approx([(i + 0.5) / 20 for i in range(20)])


def test_the_truth_of_unlabelled_rows_never_reaches_a_method():
    Toy.seen.clear()
    training = _student()
    truth = Blobs().load(0, opens_test=False).labels  # this source gives it away
    training.advance(1.0)
    assert (truth[12:] > 0).any()
    for batch in Toy.seen:
        assert torch.equal(batch.is_labelled, (batch.row < 12).float())
        assert torch.equal(batch.label, torch.where(batch.row < 12, truth[batch.row], 0))
    assert set(torch.cat([batch.row for batch in Toy.seen]).tolist()) == set(range(50))


def test_a_teacher_learns_from_the_labelled_rows_alone():
    def trained(noise):
        training = _training(student_trial(data=Blobs(noise=noise)).teacher_trial)
        return training, training.advance(1.0)

    training, reports = trained(0.5)
    other, _ = trained(5.0)  # other unlabelled rows, the same labelled ones
    assert training.order == Order(12, 8, 5, 0)
    assert _equal(_weights(training), _weights(other))
    assert set(reports[-1].metrics) == {
        "train.loss", "validation.accuracy", "validation.nll", "validation.ece", "parameters.student", "parameters.method",
    }  # fmt: skip
    assert reports[-1].metrics["parameters.method"] == 0
    assert reports[-1].metrics["train.loss"] < reports[0].metrics["train.loss"]


def test_a_teacher_never_changes_while_students_train():
    teacher = _teacher()
    before = [value.clone() for value in teacher.network.state_dict().values()]
    outputs = teacher.over("train", Blobs().load(0, opens_test=False).inputs, ("hidden1",))
    kept = [outputs.logits.clone(), outputs.features["hidden1"].clone()]
    for recipe in (SGD, ADAM):
        _training(student_trial(recipe=recipe), teacher).advance(1.0)
    assert _equal(before, teacher.network.state_dict().values())
    assert _equal(kept, [outputs.logits, outputs.features["hidden1"]])
    assert all(p.grad is None for p in teacher.network.parameters())


def test_state_of_a_method_is_prepared_trained_and_observed():
    training = _student()
    held = _teacher().network(Blobs().load(0, opens_test=False).holdout_inputs).logits.detach()
    torch.testing.assert_close(training.state.mean, held.mean(0))
    before = training.state.project.weight.detach().clone()
    training.advance(1.0)
    assert not torch.equal(training.state.project.weight, before)
    assert (training.state.memory.abs().sum(1) > 0).all()


def test_it_learns():
    reports = _student(Plain(), recipe=Recipe(optimiser="adam", learning_rate=0.05, batch=16, epochs=20)).advance(1.0)
    assert reports[-1].metrics["train.loss"] < 0.8 * reports[0].metrics["train.loss"]
    assert reports[-1].metrics["validation.agreement"] > 0.8


@pytest.mark.parametrize("method", [Toy(), Plain()])
def test_a_training_that_diverges_says_where(method):
    training = _student(method, recipe=Recipe(learning_rate=1e30, batch=16, epochs=5))
    with pytest.raises(Diverged, match=r"finite at step \d+ of 20|is (nan|inf) at step \d+ of 20"):
        training.advance(1.0)
    assert all(math.isfinite(value) for report in training.reports for value in report.metrics.values())


def test_the_leg_that_ended_last_can_be_asked_for_again():
    training = _student()
    training.advance(0.2)
    reports = training.advance(0.5)
    assert training.advance(0.5) == reports
    assert training.steps == 10
    again = _student()
    again.load_state_dict(Cpu().from_bytes(Cpu().to_bytes(training.state_dict())))
    assert again.advance(0.5) == reports


def test_no_way_back():
    training = _student()
    training.advance(0.5)
    with pytest.raises(ValueError, match=r"A Training at progress 0.5 needs until to be at least that, but got until=0.4"):
        training.advance(0.4)


def test_a_state_belongs_to_its_trial():
    training = _student()
    with pytest.raises(ValueError, match=f"Training {training.trial.id} needs a state of its own"):
        training.load_state_dict({**training.state_dict(), "trial": "0123456789abcdef"})


def test_the_slow_copy_follows_the_student():
    training = _student(Everything(ema_decay=0.75))
    slow, step = training._step.slow, training._step
    assert _equal(slow.state_dict().values(), training.student.state_dict().values())
    before = [value.clone() for value in slow.parameters()]
    training.advance(1 / training.order.steps)
    for mean, start, value in zip(slow.parameters(), before, training.student.parameters(), strict=True):
        torch.testing.assert_close(mean, 0.75 * start + 0.25 * value.detach())
    assert all(value.grad is None for value in slow.parameters())
    assert not {id(value) for value in slow.parameters()} & {id(value) for value in step.parameters}


def test_what_is_prepared_each_epoch_is_prepared_at_its_start():
    training = _student(Everything())
    assert float(training.state.prepared) == 0
    training.advance(0.5)
    epochs = -(-training.steps // training.order.steps_per_epoch)
    assert float(training.state.prepared) == epochs
    assert float(training.state.offset.abs().sum()) > 0
    training.advance(1.0)
    assert float(training.state.prepared) == training.order.epochs
    once = _student(Toy())
    assert float(once.state.mean.abs().sum()) > 0


def test_a_method_may_classify_in_its_own_way():
    training = _student(Everything(), opens_test=True)
    (*_, last) = training.advance(1.0)
    features = training.student(training.data.holdout_inputs, ("penultimate",)).features["penultimate"]
    logits = training.state.project(features).detach()
    assert last.metrics["validation.accuracy"] == float((logits.argmax(1) == training.data.holdout_labels).double().mean())
    assert last.metrics["validation.nll"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, training.data.holdout_labels)))


@pytest.mark.parametrize("until", [0.2, 0.45])
def test_views_slow_copies_and_epochs_resume_bit_for_bit(until):
    whole = _student(Everything(), opens_test=True)
    expected = whole.advance(1.0)
    first = _student(Everything(), opens_test=True)
    first.advance(until)
    training = _student(Everything(), opens_test=True)
    training.load_state_dict(Cpu().from_bytes(Cpu().to_bytes(first.state_dict())))
    reports = training.advance(1.0)
    assert _equal(_weights(training), _weights(whole))
    assert _equal(training._step.slow.state_dict().values(), whole._step.slow.state_dict().values())
    assert reports[-1] == expected[-1]
