"""Two and three processes that share a batch train networks with batch norm as one process does."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, multiprocessing, nn

from tests.small_networks import CLASSES, SETTINGS, built, every
from tests.small_pictures import MEMORY, READ, Photos
from tests.small_trials import Pictures
from trainables.batches import resident
from trainables.device import Cpu
from trainables.distiller import Distiller
from trainables.loop import Training
from trainables.methods.cocord import CoCoRD
from trainables.methods.cskd import CSKD
from trainables.methods.fitnets import FitNets
from trainables.methods.kd import KD
from trainables.models.mobilenetv2 import MobileNetV2
from trainables.models.resnet import ResNet
from trainables.models.wrn import WRN
from trainables.network import Family, Network, batch_norms
from trainables.recipe import Recipe
from trainables.source import Source, Splits
from trainables.synchronised import Shares, Synchronised, synchronise
from trainables.teachers import FrozenTeacher
from trainables.trial import Block, Teacher, Trial

# 50 rows in batches of 17: the last of three has 16 and one that fills it up, and of two or three workers some get one more.
RECIPE = Recipe(learning_rate=0.05, momentum=0.5, batch=17, epochs=2)
BOUND = 1e-5


@dataclass(frozen=True)
class Large(Photos):
    """Pictures of 32x32."""

    def load(self, split: int, opens_test: bool) -> Splits:
        found = super().load(split, opens_test)
        generator = torch.Generator().manual_seed(split)
        inputs, holdout = (torch.randint(256, (rows, 3, 32, 32), generator=generator, dtype=torch.uint8) for rows in (50, 20))
        return replace(found, inputs=inputs, holdout_inputs=holdout)


@dataclass(frozen=True)
class Exact(Family):
    """A network that computes in float64: of one with many layers of norm, a step in float32 is another after a change of 1e-7."""

    family: Family = field(default_factory=lambda: MobileNetV2(width=0.25))

    def build(self, shape: tuple[int, ...], classes: int) -> Network:
        network = self.family.build(shape, classes).double()
        network.register_forward_pre_hook(lambda _module, given: (given[0].double(), *given[1:]))
        return network


def _trial(data: Source, family: Family, method: Distiller[Any] | None, **changes: Any) -> Trial:
    teacher = None if method is None else Teacher(ResNet(depth=8), RECIPE)
    return Trial(data, Block(0, 1, 2, 3), family, replace(RECIPE, **changes), method, teacher)


TRIALS = {
    "resnet8, a teacher's": _trial(Pictures(labelled=40), ResNet(depth=8), None),
    "resnet8, uint8, augmented": _trial(Photos(augmentation="crop_flip", lies=MEMORY), ResNet(depth=8), KD()),
    "wrn-10-1, read along the way, augmented": _trial(Photos(augmentation="crop_flip", lies=READ), WRN(depth=10, width=1), KD()),
    "mobilenetv2, augmented": _trial(Large(augmentation="crop_flip"), Exact(), KD()),
    "maps of the middle": _trial(Photos(augmentation="crop_flip"), ResNet(depth=8), FitNets()),
    "two views of a row": _trial(Photos(augmentation="crop_flip"), ResNet(depth=8), CSKD()),
    "three views and a slow copy": _trial(Photos(augmentation="crop_flip"), ResNet(depth=8), CoCoRD()),
}


def _training(trial: Trial) -> Training:
    device = Cpu()
    device.settle()
    data = resident(trial.data.load(trial.block.split, opens_test=False), device)
    torch.manual_seed(0)
    teacher = None if trial.teacher is None else FrozenTeacher(trial.teacher.model.build(data.shape, data.classes), device)
    return Training(trial, data, teacher, device)


def _stand(training: Training) -> dict[str, Any]:
    """What a training has come to."""
    learned = (*training.student.parameters(), *training.state.parameters())
    return {
        "metrics": dict(training.reports[-1].metrics),
        "weights": {name: value.clone() for name, value in training.student.state_dict().items()},
        "state": {name: value.clone() for name, value in training.state.state_dict().items()},
        "slow": {} if training._step.slow is None else {k: v.clone() for k, v in training._step.slow.state_dict().items()},
        "gradients": [torch.zeros(0) if p.grad is None else p.grad.clone() for p in learned],
    }


def _trained(trial: Trial) -> dict[str, Any]:
    training = _training(trial)
    training.advance(1.0)
    return _stand(training)


def _batches(number: int) -> tuple[nn.Module, int, list[Tensor], list[Tensor]]:
    """A layer in float64, rows of the whole batch, and two batches with a factor each for what comes out: (V, B, C, ...)."""
    generator = torch.Generator().manual_seed(number)
    layer, length, shape = (
        (nn.BatchNorm2d(3), 7, (2, 7, 3, 4, 5)),
        (nn.BatchNorm1d(4, momentum=None), 6, (1, 6, 4)),
        (nn.BatchNorm1d(4, affine=False), 2, (1, 2, 4, 3)),
        (nn.BatchNorm3d(2, track_running_stats=False), 5, (1, 5, 2, 2, 3, 2)),
    )[number]
    layer.double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=generator)
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4)]
    return layer, length, [100 + 3 * value for value in drawn[:2]], drawn[2:]


LAYERS = 4


def _passed(layer: nn.Module, x: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """What comes out of a layer, and the gradient of its sum with factors: (V, B, C, ...) twice."""
    x = x.clone().requires_grad_()
    y = layer(x.flatten(0, 1)).reshape(x.shape)
    (gradient,) = torch.autograd.grad((y * factor).sum(), x, retain_graph=True)
    (y * factor).sum().backward()
    return y.detach(), gradient


def _layers(device: Cpu) -> list[dict[str, Any]]:
    found = []
    for number in range(LAYERS):
        layer, length, inputs, factors = _batches(number)
        holder = nn.Sequential(layer)
        synchronise(holder, device, length)
        wide = -(-length // device.size) * device.size
        places = torch.arange(device.rank, wide, device.size)
        real = (places < length).double().reshape(-1, *[1] * (inputs[0].dim() - 2))
        rows = places.clamp(max=length - 1)
        passed = [_passed(holder, x[:, rows], factor[:, rows] * real) for x, factor in zip(inputs, factors, strict=True)]
        found.append(
            {
                "places": places,
                "passed": passed,
                "gradients": {name: parameter.grad for name, parameter in holder.named_parameters()},
                "remembered": dict(holder.named_buffers()),
            }
        )
    return found


def _far(device: Cpu) -> tuple[Tensor, Tensor]:
    """Variances of float32 values that lie far from 0, where a mean of squares has no digits left."""
    x = 1000 + torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(5))
    layer = Synchronised(nn.BatchNorm2d(2, momentum=1.0), Shares(device, 8))
    layer(x[device.rank :: device.size][torch.arange(-(-8 // device.size)).clamp(max=len(x[device.rank :: device.size]) - 1)])
    return layer.running_var, x.double().var(dim=(0, 2, 3))


def _resumed(trial: Trial, saved: bytes) -> dict[str, Any]:
    training = _training(trial)
    training.load_state_dict(Cpu().from_bytes(saved))
    training.advance(1.0)
    return _stand(training)


RESUMED = "resnet8, uint8, augmented"


def _work(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    device = Cpu()
    trial = TRIALS[RESUMED]
    halfway = _training(trial)
    halfway.advance(0.5)
    saved = Cpu().to_bytes(halfway.state_dict())
    found = {
        "trained": {name: _trained(trial) for name, trial in TRIALS.items()},
        "resumed": _resumed(trial, saved),
        "taken over": _resumed(trial, _file(folder, "alone.pt")),
        "saved": saved,
        "layers": _layers(device),
        "far": _far(device),
    }
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def _file(folder: str, name: str) -> bytes:
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


@pytest.fixture(scope="module")
def halfway() -> bytes:
    """What one process saved at a rung."""
    training = _training(TRIALS[RESUMED])
    training.advance(0.5)
    return Cpu().to_bytes(training.state_dict())


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    return {name: _trained(trial) for name, trial in TRIALS.items()}


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def size(request: pytest.FixtureRequest) -> int:
    """How many workers there are."""
    return int(request.param)


@pytest.fixture(scope="module")
def workers(size: int, tmp_path_factory: pytest.TempPathFactory, halfway: bytes) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("workers")
    (folder / "alone.pt").write_bytes(halfway)
    multiprocessing.spawn(_work, (size, str(folder)), nprocs=size)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def _assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for part in ("weights", "state", "slow"):
        torch.testing.assert_close(found[part], expected[part], rtol=BOUND, atol=BOUND, msg=lambda text, part=part: f"{part}: {text}")
    torch.testing.assert_close(found["gradients"], expected["gradients"], rtol=BOUND, atol=10 * BOUND)
    assert found["metrics"] == pytest.approx(expected["metrics"], rel=BOUND, abs=BOUND)


@pytest.mark.parametrize("name", TRIALS)
def test_workers_train_as_one(name: str, workers: Any, alone: Any) -> None:
    for worker in workers:
        _assert_equal(worker["trained"][name], alone[name])


@pytest.mark.parametrize("name", TRIALS)
def test_all_workers_have_the_very_same_network(name: str, workers: Any) -> None:
    """Bit for bit: one saves it, every one goes on from it."""
    first, *others = (worker["trained"][name]["weights"] for worker in workers)
    for other in others:
        assert all(torch.equal(first[key], other[key]) for key in first)


def test_a_training_that_goes_on_at_a_rung_equals_the_unbroken_one_bit_for_bit(workers: Any) -> None:
    for worker in workers:
        whole, resumed = worker["trained"][RESUMED], worker["resumed"]
        assert resumed["metrics"] == whole["metrics"]
        assert all(torch.equal(resumed["weights"][key], value) for key, value in whole["weights"].items())


def test_a_training_goes_on_with_another_number_of_workers(workers: Any, alone: Any) -> None:
    for worker in workers:
        _assert_equal(worker["taken over"], alone[RESUMED])
    _assert_equal(_resumed(TRIALS[RESUMED], workers[0]["saved"]), alone[RESUMED])


@pytest.mark.parametrize("number", range(LAYERS))
def test_a_layer_equals_that_of_torch_on_the_whole_batch(number: int, workers: Any) -> None:
    """In float64: what comes out, gradients of inputs and parameters, and what is remembered, over two batches."""
    layer, length, inputs, factors = _batches(number)
    expected = [_passed(layer, x, factor) for x, factor in zip(inputs, factors, strict=True)]
    found = [worker["layers"][number] for worker in workers]
    for worker in found:
        real = worker["places"] < length
        rows = worker["places"][real]
        for ours, theirs in zip(worker["passed"], expected, strict=True):
            torch.testing.assert_close(ours[0][:, real], theirs[0][:, rows], rtol=1e-12, atol=1e-11)
            torch.testing.assert_close(ours[1][:, real], theirs[1][:, rows], rtol=1e-12, atol=1e-12)
            assert (ours[1][:, ~real] == 0).all()
        remembered = {name.removeprefix("0."): value for name, value in worker["remembered"].items()}
        torch.testing.assert_close(remembered, dict(layer.named_buffers()), rtol=1e-12, atol=1e-12)
    for name, parameter in layer.named_parameters():
        summed = torch.stack([worker["gradients"][f"0.{name}"] for worker in found]).sum(0)
        torch.testing.assert_close(summed, parameter.grad, rtol=1e-11, atol=1e-11)


def test_a_variance_far_from_zero_keeps_its_digits(workers: Any) -> None:
    for worker in workers:
        variance, exact = worker["far"]
        torch.testing.assert_close(variance.double(), exact, rtol=1e-5, atol=0)


class _Second(Cpu):  # type: ignore[misc] # which is final: a process that believes to be one of two
    rank = 1  # type: ignore[assignment]
    size = 2  # type: ignore[assignment]


class _Twin(_Second):
    """The other one has the same rows."""

    def all_gather(self, tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor])

    def all_reduce_sum(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            tensor.mul_(2)


def test_bfloat16_is_normalised_in_float32() -> None:
    """As by the layer of torch: what comes out is bfloat16, what is learned and remembered is not, and sums have all their digits."""
    generator = torch.Generator().manual_seed(0)
    x, factor = (torch.randn(64, 2, 8, 8, generator=generator).bfloat16() + 4 for _ in range(2))
    theirs, ours = nn.BatchNorm2d(2), Synchronised(nn.BatchNorm2d(2), Shares(_Twin(), 128))
    found = []
    for layer in (theirs, ours):
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(given)
        y.backward(factor)
        found.append((y, given.grad, layer.weight.grad, layer.bias.grad, layer.running_mean))
    for expected, value in zip(*found, strict=True):
        assert value.dtype == expected.dtype
        torch.testing.assert_close(
            value, expected, rtol=1e-5 if value.dtype == torch.float32 else 0.01, atol=0.01 * (value.dtype != torch.float32)
        )
    assert found[1][0].dtype == torch.bfloat16


@every
def test_all_batch_norms_of_a_network_are_found(name: str) -> None:
    network, before = built(name), built(name)
    synchronise(network, _Second(), 4)
    assert [type(norm) for norm in batch_norms(network)] == [Synchronised] * len(batch_norms(before))
    for ours, theirs in ((network.state_dict(), before.state_dict()), (dict(network.named_parameters()), dict(before.named_parameters()))):
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert built(name).load_state_dict(network.state_dict())


@every
def test_in_evaluation_a_network_says_the_same(name: str) -> None:
    network, before = built(name).eval(), built(name).eval()
    synchronise(network, _Second(), 4)
    inputs = torch.zeros(3, *SETTINGS[name].shape, dtype=torch.int64 if len(SETTINGS[name].shape) == 1 else torch.float32)
    assert torch.equal(network(inputs).logits, before(inputs).logits)
    assert torch.equal(copy.deepcopy(network)(inputs).logits, before(inputs).logits)
    assert before(inputs).logits.shape == (3, CLASSES)


def test_with_one_worker_nothing_changes() -> None:
    network = built("resnet")
    norms = batch_norms(network)
    synchronise(network, Cpu(), 4)
    assert batch_norms(network) == norms


def test_a_layer_that_stands_in_two_places_is_one_layer_in_both() -> None:
    norm = nn.BatchNorm1d(2)
    network = nn.Sequential(norm, nn.Sequential(norm, nn.ReLU()))
    synchronise(network, _Second(), 4)
    assert network[0] is network[1][0]
    assert isinstance(network[0], Synchronised)


def test_rows_that_are_no_shares_are_refused() -> None:
    layer = Synchronised(nn.BatchNorm1d(2), Shares(_Second(), 5))
    with pytest.raises(ValueError, match=r"rows of whole shares of 3, but got rows=4"):
        layer(torch.rand(4, 2))


def test_one_value_has_no_variance() -> None:
    layer = Synchronised(nn.BatchNorm1d(2), Shares(_Second(), 1))
    with pytest.raises(ValueError, match="more than one value per channel in training, but got 1"):
        layer(torch.rand(1, 2))
