"""Outputs of teachers in the store: written by the first that has them, read by all others, and never trusted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from tests.small_pictures import Photos
from tests.small_trials import Plain, Toy, student_trial
from trainables import teachers
from trainables.device import Cpu
from trainables.models.mlp import MLP
from trainables.models.resnet import ResNet
from trainables.runner import Runner
from trainables.store import Store
from trainables.teachers import FrozenTeacher, name_of_outputs, name_of_weights
from trainables.trial import Leg, Row, Trial

DEVICE = Cpu()


@pytest.fixture
def asked(monkeypatch) -> Iterator[list[tuple[int, str]]]:
    """(rows, view) of every pass that a teacher makes over a part."""
    found: list[tuple[int, str]] = []
    over = teachers.outputs_over

    def counting(network, inputs, device, features, precision, view):
        found.append((len(inputs), view))
        return over(network, inputs, device, features, precision, view)

    monkeypatch.setattr(teachers, "outputs_over", counting)
    return found


@pytest.fixture
def root(tmp_path, monkeypatch) -> str:
    """A store with a trained teacher, whose outputs are worth a file."""
    trial = student_trial(data=Photos())
    assert Runner(str(tmp_path), "cpu").run(Leg(trial.teacher_trial, 1.0)).status == "ok"
    monkeypatch.setattr(teachers, "STORED_WORK", 1)
    return str(tmp_path)


def ran(root: str, trial: Trial) -> Row:
    row = Runner(root, "cpu").run(Leg(trial, 1.0))
    assert row.status == "ok", row.trace
    return dataclasses.replace(row, seconds=0.0, device_seconds=0.0, where={})


def test_they_are_computed_once_for_all_arms_lanes_and_launches(root, asked, monkeypatch):
    trial = student_trial(Plain(), data=Photos(), opens_test=True)
    teacher = trial.teacher_trial.id
    monkeypatch.setattr(teachers, "STORED_WORK", 10**9)
    expected, other = ran(root, trial), ran(root, student_trial(Plain(imitate_weight=0.5), data=Photos()))
    assert Store(root).names() == (name_of_weights(teacher),), "too little work for a file"
    monkeypatch.setattr(teachers, "STORED_WORK", 1)
    asked.clear()
    assert ran(root, trial) == expected
    assert sorted(asked) == [(15, "plain"), (20, "plain"), (50, "plain")]
    kept = {name_of_outputs(teacher, part, "plain", "float32") for part in ("train", "holdout", "test")}
    assert set(Store(root).names("outputs/")) == kept
    asked.clear()
    assert ran(root, trial) == expected
    assert ran(root, student_trial(Plain(imitate_weight=0.5), data=Photos())) == other
    assert asked == []


def test_whoever_trained_a_teacher_shares_its_outputs_too(tmp_path, asked, monkeypatch):
    monkeypatch.setattr(teachers, "STORED_WORK", 1)
    trial, runner = student_trial(Plain(), data=Photos()), Runner(str(tmp_path), "cpu")
    assert [runner.run(Leg(each, 1.0)).status for each in (trial.teacher_trial, trial)] == ["ok", "ok"]
    assert len(asked) == 2
    assert runner.run(Leg(trial, 1.0)).metrics == ran(str(tmp_path), trial).metrics
    assert len(asked) == 2


def test_maps_are_added_where_a_method_wants_them(root, asked):
    plain, toy = (student_trial(method, data=Photos()) for method in (Plain(), Toy()))
    ran(root, plain)
    asked.clear()
    expected = ran(root, toy)
    assert sorted(asked) == [(20, "plain"), (50, "plain")], "the files had logits alone"
    asked.clear()
    assert ran(root, toy) == expected
    ran(root, plain)
    assert asked == []


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _of_other_weights(data: bytes) -> bytes:
    return DEVICE.to_bytes({**DEVICE.from_bytes(data), "weights": "0" * 64})


def _of_other_rows(data: bytes) -> bytes:
    found = DEVICE.from_bytes(data)
    return DEVICE.to_bytes({**found, "logits": found["logits"][:-1]})


@pytest.mark.parametrize(
    "damaged",
    [lambda _: b"", lambda _: b"nonsense", _cut, _of_other_weights, _of_other_rows, lambda _: DEVICE.to_bytes({"logits": 3})],
    ids=["empty", "nonsense", "cut", "other weights", "other rows", "something else"],
)
def test_a_damaged_file_costs_time_alone(root, asked, damaged):
    trial, store = student_trial(Plain(), data=Photos()), Store(root)
    expected = ran(root, trial)
    name = name_of_outputs(trial.teacher_trial.id, "train", "plain", "float32")
    whole = store.read(name)
    store.write(name, damaged(whole))
    asked.clear()
    assert ran(root, trial) == expected
    assert asked == [(50, "plain")]
    assert DEVICE.from_bytes(store.read(name)).keys() == {"weights", "logits", "features"}
    assert torch.equal(DEVICE.from_bytes(store.read(name))["logits"], DEVICE.from_bytes(whole)["logits"])


def test_of_one_program_in_several_processes_all_read_or_none(root, asked):
    """A process that read while another computes would leave it waiting."""

    store, network = Store(root), MLP(width=8, depth=1).build((3, 8, 8), 3)
    agreed: list[int] = []

    def gathered(value: int) -> tuple[int, ...]:
        agreed.append(value)
        return (value, 0)

    device = Cpu()
    inputs = torch.rand(20, 3, 8, 8)
    first = FrozenTeacher(network, device, shelf=(store, "0" * 16)).over("train", inputs)
    device.gathered = gathered
    again = FrozenTeacher(network, device, shelf=(store, "0" * 16)).over("train", inputs)
    assert agreed == [1]
    assert asked == [(20, "plain")] * 2
    assert torch.equal(first.logits, again.logits)


def test_weights_with_counters_have_a_digest_of_their_own():
    # Batch norm counts its batches in a tensor without axes.
    digests = set()
    for count in (0, 1):
        network = ResNet(depth=8).build((3, 16, 16), 10)
        network.load_state_dict({name: torch.full_like(value, count) for name, value in network.state_dict().items()})
        digests.add(FrozenTeacher(network, DEVICE)._digest)
    assert len(digests) == 2
