"""Two Ray Train workers over gloo share a batch: loss, gradients and memories of one worker, for every method, and for batch norm."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import train
from ray.train.torch import TorchConfig, TorchTrainer

from orchestrator.cluster import connected
from tests.small_pictures import READ, Photos
from tests.small_trials import Everything, Pictures, Relational, Toy, student_trial
from tests.test_conformance import COVERING, redrawn
from trainables.batches import resident
from trainables.device import Cpu
from trainables.distiller import Distiller
from trainables.loop import Training
from trainables.methods.kd import KD
from trainables.models.mlp import MLP
from trainables.models.resnet import ResNet
from trainables.models.wrn import WRN
from trainables.recipe import Recipe
from trainables.teachers import FrozenTeacher
from trainables.trial import Teacher, Trial

# Ray Data's own context warns about itself when Train asks for it.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")

# Three steps of 17 rows, of which the last is filled up: an odd number on two workers is filled up, too.
RECIPE = Recipe(epochs=1, batch=17, learning_rate=0.05, momentum=0.5)
METHODS: dict[str, Distiller[Any]] = {
    **{name: redrawn(method, seed=3) for name, method in COVERING.items()},
    "relational, of these tests": Relational(),
    "everything, of these tests": Everything(),
    "toy, of these tests": Toy(noise=Toy().noise.frozen(1.0)),  # its noise differs between workers: without
}
PHOTOS = Photos(augmentation="crop_flip")
RESNET = Teacher(ResNet(depth=8), RECIPE)
TRIALS = {
    **{
        name: dataclasses.replace(student_trial(method, RECIPE, Pictures()), model=MLP(width=16, depth=2))
        for name, method in METHODS.items()
    },
    "resnet8": dataclasses.replace(student_trial(KD(), RECIPE, PHOTOS), model=ResNet(depth=8), teacher=RESNET),
    "wrn-10-1": dataclasses.replace(
        student_trial(KD(), RECIPE, dataclasses.replace(PHOTOS, lies=READ)), model=WRN(depth=10, width=1), teacher=RESNET
    ),
}


def trained(trial: Trial) -> dict[str, Any]:
    """What a short training leaves: the last step's gradients, mean terms, weights and memories."""
    device = Cpu()
    device.settle()
    data = resident(trial.data.load(trial.block.split, trial.opens_test), device)
    torch.manual_seed(0)
    teacher = FrozenTeacher(trial.teacher.model.build(data.shape, data.classes), device)
    others = {name: FrozenTeacher(trial.teacher.model.build(data.shape, data.classes), device) for name in trial.others}
    training = Training(trial, data, teacher, device, others)
    reports = training.advance(1.0)
    learned = (*training.student.parameters(), *training.state.parameters())
    return {
        "gradients": [torch.zeros(0) if p.grad is None else p.grad for p in learned],
        "terms": {name: value for name, value in reports[-1].metrics.items() if name.startswith("train.")},
        "weights": {**training.student.state_dict(), **training.state.state_dict()},
    }


def _work(config: dict[str, str]) -> None:
    found = {name: trained(trial) for name, trial in TRIALS.items()}
    torch.save(found, f"{config['folder']}/{train.get_context().get_world_rank()}.pt")


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("workers")
    with connected(3):
        TorchTrainer(
            _work,
            train_loop_config={"folder": str(folder)},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=train.ScalingConfig(num_workers=2),
            run_config=train.RunConfig(storage_path=str(folder)),
        ).fit()
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", TRIALS)
def test_two_workers_train_as_one(name: str, workers: list[dict[str, Any]]) -> None:
    alone = trained(TRIALS[name])
    assert any(float(gradient.abs().sum()) > 0 for gradient in alone["gradients"] if gradient.numel())
    for found in (worker[name] for worker in workers):
        torch.testing.assert_close(found["gradients"], alone["gradients"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found["weights"], alone["weights"], rtol=1e-5, atol=1e-5)
        assert found["terms"] == pytest.approx(alone["terms"], rel=1e-5, abs=1e-5)
