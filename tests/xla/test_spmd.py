"""SPMD over four virtual devices of torch_xla's CPU runtime: what one device computes, for every method."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small_trials import Pictures, Relational, student_trial
from tests.test_conformance import NAMES, STATIC, redrawn
from trainables.device import Device
from trainables.models.mlp import MLP
from trainables.recipe import Recipe
from trainables.runner import Runner
from trainables.trial import Leg
from trainables.xla import Xla

DEVICES = 4
_LIMIT_S = 1500.0
"""Nearly all of it goes into compiling some hundred graphs."""
METHODS = {**{name: redrawn(STATIC[name], seed=3) for name in NAMES}, "relational, of these tests": Relational()}
RECIPE = Recipe(epochs=2, batch=18, learning_rate=0.05)
"""Eighteen rows: four devices get five each, two of them filled up."""


def _found(device: Device) -> dict[str, Any]:
    from tests.xla.test_xla import training

    device.settle()
    runs = {}
    for name, method in METHODS.items():
        trial = dataclasses.replace(student_trial(method, RECIPE, Pictures()), model=MLP(width=16, depth=2))
        live = training(trial, device)
        reports = live.advance(1.0)
        runs[name] = {
            "metrics": [dict(report.metrics) for report in reports],
            "weights": device.from_bytes(device.to_bytes({**live.student.state_dict(), **live.state.state_dict()})),
        }
    return {
        "where": [device.rank, device.size, device.processes, device.count, device.pieces, device.is_first],
        "gathered": device.gathered(3),
        "runs": runs,
    }


def _work(devices: int, folder: str) -> None:
    os.environ |= {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": str(devices)}
    torch.set_num_threads(1)
    device = Xla()
    found = _found(device)
    if devices > 1:
        rows = device.spread(torch.arange(8.0).to(device.torch_device))
        import torch_xla

        torch_xla.sync()
        found["sharding"] = torch_xla._XLAC._get_xla_sharding_spec(rows)
        found["everywhere"] = device.everywhere(rows).tolist()
        found["bools"] = device.everywhere(device.spread((torch.arange(8) > 4).to(device.torch_device))).cpu()
        trial = student_trial(STATIC["slam"], RECIPE)
        legs = (Leg(trial.teacher_trial, 1.0), Leg(trial, 0.4), Leg(trial, 1.0))
        # New for each leg, so that the second half comes from a checkpoint.
        rows_found = [Runner(f"{folder}/store", "xla", 1).run(leg) for leg in legs]
        found["legs"] = [(row.status, row.message, round(row.device_seconds / row.seconds)) for row in rows_found]
    torch.save(found, f"{folder}/{devices}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What one device and four found. SPMD is for a whole process, so each has one of its own."""
    folder = tmp_path_factory.mktemp("spmd")
    context = multiprocessing.get_context("spawn")
    processes = {devices: context.Process(target=_work, args=(devices, str(folder)), daemon=True) for devices in (1, DEVICES)}
    for process in processes.values():
        process.start()
    for process in processes.values():
        process.join(_LIMIT_S)
        assert process.exitcode == 0
    return {devices: torch.load(Path(folder) / f"{devices}.pt", weights_only=True) for devices in processes}


def test_four_devices_are_one_worker(found):
    assert found[1]["where"] == [0, 1, 1, 1, 1, True]
    assert found[DEVICES]["where"] == [0, 1, 1, 4, 4, True]
    assert tuple(found[DEVICES]["gathered"]) == (3, 3, 3, 3)


def test_rows_are_spread(found):
    assert found[DEVICES]["sharding"] == "{devices=[4]0,1,2,3}"
    assert found[DEVICES]["everywhere"] == list(range(8))
    torch.testing.assert_close(found[DEVICES]["bools"], torch.arange(8) > 4)


@pytest.mark.parametrize("name", METHODS)
def test_four_devices_train_as_one(name, found):
    one, four = (found[devices]["runs"][name] for devices in (1, DEVICES))
    for metrics, metrics_four in zip(one["metrics"], four["metrics"], strict=True):
        assert metrics_four == pytest.approx(metrics, rel=1e-4, abs=1e-4)
    assert one["weights"].keys() == four["weights"].keys()
    for key, value in one["weights"].items():
        torch.testing.assert_close(four["weights"][key], value, rtol=1e-4, atol=1e-5)


def test_legs_on_four_devices(found):
    assert found[DEVICES]["legs"] == [("ok", "", 4), ("running", "", 4), ("ok", "", 4)]
