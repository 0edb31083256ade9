from __future__ import annotations

import dataclasses
import os
import socket

import pytest
import torch

from tests.small_trials import TEACHER, Plain, Toy, student_trial
from trainables.data.digits import Digits
from trainables.device import Cpu
from trainables.distiller import Distiller, Needs
from trainables.folder import load, names
from trainables.models.mlp import MLP
from trainables.recipe import Recipe
from trainables.runner import Runner, name_of_checkpoint, run_trial
from trainables.store import Store
from trainables.teachers import name_of_weights, network_of
from trainables.trial import Block, Leg, Teacher, Trial


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "artifacts")


@pytest.fixture
def taught(root):
    """A store that holds the teacher of ``student_trial()``."""
    row = Runner(root, "cpu").run(Leg(student_trial().teacher_trial, 1.0))
    assert row.status == "ok", row.trace
    return root


def _facts(row):
    """What must not depend on where and when."""
    return dataclasses.replace(row, seconds=0.0, device_seconds=0.0, where={})


def test_a_teacher_is_kept(root):
    trial = student_trial().teacher_trial
    row = Runner(root, "cpu").run(Leg(trial, 1.0))
    assert (row.trial, row.status, row.progress, row.steps, row.message, row.trace) == (trial.id, "ok", 1.0, 10, "", "")
    assert row.metrics == row.reports[-1].metrics
    assert Store(root).names() == (name_of_weights(trial.id),)


def test_where_and_how_long(taught):
    row = Runner(taught, "cpu").run(Leg(student_trial(), 1.0))
    assert row.where == {"host": socket.gethostname(), "pid": str(os.getpid()), "device": "cpu", "workers": "1"}
    assert 0 < row.seconds == row.device_seconds < 60


def test_legs_on_one_runner_on_new_ones_and_in_one_piece_agree(taught):
    trial = student_trial(opens_test=True)
    whole = Runner(taught, "cpu").run(Leg(trial, 1.0))
    assert whole.status == "ok", whole.trace
    warm = Runner(taught, "cpu")
    untils = (0.33, 0.6, 1.0)
    one = [_facts(warm.run(Leg(trial, until))) for until in untils]
    new = [_facts(Runner(taught, "cpu").run(Leg(trial, until))) for until in untils]
    assert one == new
    assert [(row.status, row.progress, row.steps) for row in one] == [("running", 0.33, 7), ("running", 0.6, 12), ("ok", 1.0, 20)]
    assert [[report.step for report in row.reports] for row in one] == [[2, 4, 6, 7], [8, 10, 12], [14, 16, 18, 20]]
    assert one[-1].metrics == whole.metrics
    assert "test.accuracy" in whole.metrics


@pytest.mark.parametrize("is_warm", [True, False])
def test_a_halted_leg_is_gone_on_with(taught, is_warm):
    trial = student_trial(opens_test=True)
    expected = [_facts(Runner(taught, "cpu").run(Leg(trial, until))) for until in (0.4, 1.0)]
    runner, asked = Runner(taught, "cpu"), iter(range(100))
    row = runner.run(Leg(trial, 0.4), lambda: next(asked) == 3)
    assert (row.status, row.steps, row.metrics, row.reports, row.trace) == ("preempted", 3, {}, (), "")
    assert 0 < row.progress < 0.4
    assert row.seconds > 0
    assert Store(taught).exists(name_of_checkpoint(trial.id))
    other = runner if is_warm else Runner(taught, "cpu")
    assert [_facts(other.run(Leg(trial, until))) for until in (0.4, 1.0)] == expected


def test_a_checkpoint_lives_until_the_end(taught):
    trial, runner, store = student_trial(), Runner(taught, "cpu"), Store(taught)
    runner.run(Leg(trial, 0.5))
    assert store.exists(name_of_checkpoint(trial.id))
    runner.run(Leg(trial, 1.0))
    assert not store.exists(name_of_checkpoint(trial.id))


def test_the_last_trial_goes_on_without_its_checkpoint(taught):
    trial, runner = student_trial(), Runner(taught, "cpu")
    runner.run(Leg(trial, 0.5))
    Store(taught).remove(name_of_checkpoint(trial.id))
    assert [report.step for report in runner.run(Leg(trial, 1.0)).reports] == [12, 14, 16, 18, 20]


def test_a_lost_checkpoint_costs_time_alone(taught):
    trial = student_trial()
    whole = Runner(taught, "cpu").run(Leg(trial, 1.0))
    Runner(taught, "cpu").run(Leg(trial, 0.5))
    Store(taught).remove(name_of_checkpoint(trial.id))
    assert _facts(Runner(taught, "cpu").run(Leg(trial, 1.0))) == _facts(whole)


def _readable(content):
    return Cpu().to_bytes(content)


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"PK and nothing else", _readable([]), _readable({"until": 0.5}), "half"])
def test_a_damaged_checkpoint_costs_time_alone(taught, damage):
    trial = student_trial()
    whole = Runner(taught, "cpu").run(Leg(trial, 1.0))
    if damage == "half":
        Runner(taught, "cpu").run(Leg(trial, 0.5))
        saved = Cpu().from_bytes(Store(taught).read(name_of_checkpoint(trial.id)))
        damage = _readable({**saved, "sums": None})
    Store(taught).write(name_of_checkpoint(trial.id), damage)
    assert _facts(Runner(taught, "cpu").run(Leg(trial, 1.0))) == _facts(whole)


@pytest.mark.parametrize("is_warm", [True, False])
def test_a_leg_whose_row_was_lost_gives_it_again(taught, is_warm):
    trial, runner = student_trial(), Runner(taught, "cpu")
    runner.run(Leg(trial, 0.3))
    row = runner.run(Leg(trial, 0.5))
    again = (runner if is_warm else Runner(taught, "cpu")).run(Leg(trial, 0.5))
    assert _facts(again) == _facts(row)
    assert [report.step for report in row.reports] == [8, 10]


@pytest.mark.parametrize("is_warm", [True, False])
def test_a_trial_that_stands_further_starts_anew(taught, is_warm):
    trial, runner = student_trial(), Runner(taught, "cpu")
    first = runner.run(Leg(trial, 0.3))
    runner.run(Leg(trial, 0.7))
    again = (runner if is_warm else Runner(taught, "cpu")).run(Leg(trial, 0.3))
    assert _facts(again) == _facts(first)


def test_trials_take_turns(taught):
    runner = Runner(taught, "cpu")
    trials = [student_trial(), student_trial(Plain()), student_trial(Plain(imitate_weight=0.5))]
    alone = [_facts(Runner(taught, "cpu").run(Leg(trial, 1.0))).metrics for trial in trials]
    for until in (0.25, 0.5, 1.0):
        rows = [runner.run(Leg(trial, until)) for trial in trials]
    assert [row.metrics for row in rows] == alone


def test_sealed_and_opened_trials_of_a_block_take_turns(taught):
    runner = Runner(taught, "cpu")
    for opens_test in (False, True, False):
        row = runner.run(Leg(student_trial(opens_test=opens_test), 1.0))
        assert row.status == "ok", row.trace
        assert ("test.accuracy" in row.metrics) is opens_test


def test_more_blocks_than_are_kept_warm(root):
    runner = Runner(root, "cpu")
    for seed in range(7):
        trial = student_trial(Plain(), block=Block(seed, seed, seed, seed))
        assert runner.run(Leg(trial.teacher_trial, 1.0)).status == "ok"
        assert runner.run(Leg(trial, 1.0)).status == "ok"
    assert len(Store(root).names("teachers/")) == 7
    assert runner.run(Leg(student_trial(Plain(), block=Block(0, 0, 0, 0)), 1.0)).status == "ok"


def test_a_missing_teacher_is_a_row(root):
    trial = student_trial()
    row = Runner(root, "cpu").run(Leg(trial, 0.5))
    assert (row.trial, row.status, row.progress, row.steps, row.metrics, row.reports) == (trial.id, "failed", 0.0, 0, {}, ())
    assert row.message.startswith(f"FileNotFoundError: A teacher needs to be in the store, but got no teachers/{trial.teacher_trial.id}.pt")
    assert row.trace.startswith("Traceback")


def test_what_a_method_raises_is_a_row(taught):
    row = Runner(taught, "cpu").run(Leg(student_trial(Plain(breaks="error")), 1.0))
    assert (row.status, row.message) == ("failed", "RuntimeError: something else")
    assert "in terms" in row.trace


def test_out_of_memory_has_its_status(taught):
    runner = Runner(taught, "cpu")
    row = runner.run(Leg(student_trial(Plain(breaks="memory")), 1.0))
    assert (row.status, row.message) == ("out_of_memory", "MemoryError: no room")
    assert runner.run(Leg(student_trial(), 1.0)).status == "ok"


def test_a_leg_that_takes_too_long_has_its_status_and_the_next_attempt_starts_at_the_rung(taught):
    trial = student_trial()
    expected = [_facts(Runner(taught, "cpu").run(Leg(trial, until))) for until in (0.4, 1.0)]
    runner = Runner(taught, "cpu")
    assert runner.run(Leg(trial, 0.4, seconds=60.0)).status == "running"
    row = runner.run(Leg(trial, 1.0, seconds=0.0))
    assert (row.status, row.steps, row.trace) == ("timed_out", 8, "")
    assert row.message == "Stopped at step 8 of 20. Its cell has had all the seconds that run.cell_seconds allows."
    assert _facts(runner.run(Leg(trial, 1.0, seconds=60.0))) == expected[1]


def test_divergence_has_its_status_and_keeps_what_was_finite(taught):
    # Every step turns the weights round and doubles them: float32 lasts for some 60 steps of two layers.
    recipe = Recipe(learning_rate=1.0, momentum=0.0, weight_decay=3.0, batch=16, epochs=20)
    row = Runner(taught, "cpu").run(Leg(student_trial(Plain(), recipe), 1.0))
    assert row.status == "diverged"
    assert "of 80" in row.message
    assert 0 < row.progress < 1
    assert row.reports
    assert row.metrics == row.reports[-1].metrics
    assert row.trace == ""


def test_an_interrupt_passes_and_leaves_nothing_half_done(taught):
    trial, runner = student_trial(), Runner(taught, "cpu")
    first = runner.run(Leg(trial, 0.5))
    with pytest.raises(KeyboardInterrupt):
        runner.run(Leg(student_trial(Plain(breaks="interrupt")), 1.0))
    assert _facts(runner.run(Leg(trial, 0.5))) == _facts(first)


def test_a_failed_trial_is_not_gone_on_with(taught, monkeypatch):
    trial, runner = student_trial(), Runner(taught, "cpu")
    whole = _facts(Runner(taught, "cpu").run(Leg(trial, 1.0)))
    runner.run(Leg(trial, 0.3))
    observe, calls = Toy.observe, []

    def fails_once(self, state, *rest):
        calls.append(1)
        if len(calls) == 3:
            state.memory += 1.0
            raise OSError("gone")
        observe(self, state, *rest)

    monkeypatch.setattr(Toy, "observe", fails_once)
    row = runner.run(Leg(trial, 1.0))
    assert (row.status, row.steps) == ("failed", 8)
    assert runner.run(Leg(trial, 1.0)).metrics == whole.metrics


def test_a_store_that_breaks_is_a_row(taught, monkeypatch):
    def breaks(self, name, data):
        raise OSError("bucket gone")

    monkeypatch.setattr(Store, "write", breaks)
    row = Runner(taught, "cpu").run(Leg(student_trial(), 0.5))
    assert (row.status, row.message) == ("failed", "OSError: bucket gone")


def test_workers_without_a_process_group(taught):
    row = Runner(taught, "cpu", workers=2).run(Leg(student_trial(), 1.0))
    assert (row.status, row.where["workers"]) == ("failed", "2")
    assert "workers=2, size=1" in row.message


def test_a_runner_needs_its_device_and_store(root):
    with pytest.raises(ValueError, match="torch_xla"):
        Runner(root, "xla")
    with pytest.raises(ValueError, match="nosuch"):
        Runner("nosuch://x", "cpu")


def test_a_whole_trial_makes_its_teacher_first(root):
    trial, seen = student_trial(), []
    row = run_trial(trial, root, lambda progress, metrics: seen.append((progress, metrics)) is None, device="cpu")
    assert (row.trial, row.status, row.steps) == (trial.id, "ok", 20)
    assert [progress for progress, _ in seen] == pytest.approx([k / 10 for k in range(1, 11)])
    assert seen[-1][1] == row.metrics
    assert [report.step for report in row.reports] == list(range(2, 21, 2))
    assert Store(root).names() == (name_of_weights(trial.teacher_trial.id),)
    again = run_trial(trial, root, lambda *_: True, rungs=(0.33,), device="cpu")
    assert again.metrics == row.metrics
    assert [report.step for report in again.reports] == [2, 4, 6, 7, *range(8, 21, 2)]


def test_a_whole_trial_stops_when_told(root):
    row = run_trial(student_trial(), root, lambda progress, _: progress < 0.5, rungs=(0.25, 0.5, 0.75), device="cpu")
    assert (row.status, row.progress, row.steps) == ("stopped", 0.5, 10)
    assert run_trial(student_trial(), root, lambda *_: False, rungs=(), device="cpu").progress == 0.1


def test_a_whole_trial_says_that_its_teacher_failed(root):
    trial = dataclasses.replace(student_trial(), teacher=Teacher(TEACHER.model, Recipe(optimiser="sgd", learning_rate=1e30)))
    row = run_trial(trial, root, lambda *_: True, device="cpu")
    assert (row.trial, row.status, row.progress, row.reports) == (trial.id, "diverged", 0.0, ())
    assert row.message.startswith(f"Its teacher {trial.teacher_trial.id}: ")


@pytest.mark.parametrize("name", names("trainables.methods"))
def test_every_method_trains_on_digits_and_resumes(name, tmp_path_factory):
    method = load("trainables.methods", name, Distiller)()
    teacher = Teacher(MLP(width=16, depth=1), Recipe(optimiser="adam", learning_rate=0.01, batch=16, epochs=10))
    recipe = Recipe(batch=128, epochs=4)
    trial = Trial(Digits(), Block(0, 0, 0, 0), MLP(width=16, depth=1), recipe, method, teacher, opens_test=True)
    root = str(tmp_path_factory.mktemp("digits"))
    assert Runner(root, "cpu").run(Leg(trial.teacher_trial, 1.0)).status == "ok"
    whole = Runner(root, "cpu").run(Leg(trial, 1.0))
    assert whole.status == "ok", whole.trace
    Runner(root, "cpu").run(Leg(trial, 0.4))
    assert Runner(root, "cpu").run(Leg(trial, 1.0)).metrics == whole.metrics
    first, last = whole.reports[0].metrics, whole.reports[-1].metrics
    # A loss against what the method itself remembers moves with its target: then it is the student that must have learned.
    assert last["train.loss"] < first["train.loss"] or last["validation.accuracy"] > first["validation.accuracy"] + 0.1


@dataclasses.dataclass(frozen=True)
class Looks(Plain):
    """Learns from its teacher, and looks at two more networks before it starts."""

    needs = Needs(holdout=True)

    def state(self, facts):
        state = torch.nn.Module()
        state.register_buffer("seen", torch.zeros(2))
        return state

    def prepare(self, state, probe):
        for index, name in enumerate(("first", "alone")):
            for _, outputs in probe.other(name, "holdout"):
                state.seen[index] = outputs.logits.sum()

    def others(self):
        return {"first": None, "alone": Plain()}


def test_students_of_a_chain_teach_each_other(root):
    plain, looks = Plain(), Looks()
    third = dataclasses.replace(student_trial(looks, opens_test=True), chain=(plain, plain))
    second = third.teacher_trial
    assert (second.method, second.chain, second.opens_test) == (plain, (plain,), True)
    assert second.teacher_trial.teacher_trial == second.first_teacher == third.others["first"] == student_trial().teacher_trial
    assert third.others["alone"] == dataclasses.replace(third, method=plain)
    assert len({third.id, second.id, second.teacher_trial.id, third.others["alone"].id}) == 4
    assert [trial.id for trial in third.needed] == [second.id, second.first_teacher.id, third.others["alone"].id]
    row = run_trial(third, root, lambda progress, metrics: True, rungs=(0.5,), device="cpu")
    assert row.status == "ok", row.trace
    kept = set(Store(root).names("teachers/"))
    wanted = [third.first_teacher, second.teacher_trial, second, third.others["alone"]]
    assert kept == {name_of_weights(trial.id) for trial in wanted}
    training = Runner(root, "cpu")._fresh(third)
    networks = [network_of(trial, Store(root), Cpu()).network for trial in (third.first_teacher, third.others["alone"])]
    expected = [float(network(training.data.holdout_inputs).logits.sum()) for network in networks]
    assert training.state.seen.tolist() == pytest.approx(expected, rel=1e-5)
    again = Runner(root, "cpu").run(Leg(second, 1.0))
    assert again.metrics["test.teacher_accuracy"] == Runner(root, "cpu").run(Leg(second.teacher_trial, 1.0)).metrics["test.accuracy"]


def test_every_student_of_a_chain_starts_anew(root):
    trial = dataclasses.replace(student_trial(), chain=(Plain(),))
    row = run_trial(trial, root, lambda progress, metrics: True, device="cpu")
    first = Runner(root, "cpu").run(Leg(trial.teacher_trial, 1.0))
    assert row.reports[0].metrics["train.loss"] != first.reports[0].metrics["train.loss"]


def test_a_student_that_nobody_learns_from_is_not_kept(taught):
    trial = student_trial()
    Runner(taught, "cpu").run(Leg(trial, 1.0))
    assert not Store(taught).exists(name_of_weights(trial.id))
    Runner(taught, "cpu").run(Leg(trial, 1.0, keeps=True))
    assert Store(taught).exists(name_of_weights(trial.id))


def test_only_teachers_are_smoothed(root):
    with pytest.raises(ValueError, match=r"recipe needs smoothing=0, but got smoothing=0\.1.*Use teacher\.recipe\.smoothing"):
        student_trial(recipe=Recipe(smoothing=0.1))
    sharp = student_trial().teacher_trial
    smooth = dataclasses.replace(sharp, recipe=dataclasses.replace(sharp.recipe, smoothing=0.2))
    rows = [Runner(root, "cpu").run(Leg(trial, 1.0)) for trial in (sharp, smooth)]
    assert rows[0].metrics["train.loss"] != rows[1].metrics["train.loss"]
