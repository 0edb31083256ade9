"""uint8 pictures as they are kept and scaled, and trainings that do not depend on where the pictures are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.small_pictures import MAPPED, MEMORY, READ, SCALING, Photos
from tests.small_trials import TEACHER, Blobs, Everything, Plain, Toy, student_trial
from trainables.augmentation import Augmentation
from trainables.batches import Resident, resident
from trainables.device import Cpu
from trainables.loop import Halted, Training
from trainables.methods.cskd import CSKD
from trainables.models.cnn import CNN
from trainables.network import Network, outputs_of
from trainables.pixels import Pictures, in_turn, ready
from trainables.source import Scaling
from trainables.teachers import FrozenTeacher

DEVICE = Cpu()


def loaded(lies: str = MEMORY, augmentation: str = "none", opens_test: bool = True) -> Resident:
    return resident(Photos(augmentation=augmentation, lies=lies).load(0, opens_test), DEVICE)


def test_pixels_are_scaled_by_channel_when_a_batch_is_made():
    splits = Photos().load(0, opens_test=True)
    data = resident(splits, DEVICE)
    rows = torch.tensor([4, 40, 4])
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (SCALING.mean, SCALING.std))
    for found, given in ((data.inputs, splits.inputs), (data.holdout_inputs, splits.holdout_inputs)):
        expected = (given[rows % 20].numpy() / 255 - mean) / std
        np.testing.assert_allclose(ready(found, rows % 20).numpy(), expected, rtol=1e-6, atol=1e-6)
        (batch,) = in_turn(found, [rows % 20])
        assert torch.equal(batch, ready(found, rows % 20))
    assert data.shape == (3, 8, 8)


def test_batches_lie_as_the_device_wants_them_and_maps_in_the_order_of_their_axes():
    data = loaded()
    batch = ready(data.inputs, torch.arange(5))
    assert batch.is_contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    network = CNN(width=4).build(data.shape, 3)
    found = outputs_of(network, batch, ("first",)).features["first"]
    assert network(batch, (network.stages[0],)).features[network.stages[0]].is_contiguous(memory_format=torch.channels_last)
    assert found.is_contiguous()
    torch.testing.assert_close(found, outputs_of(network, batch.contiguous(), ("first",)).features["first"])


def test_they_stay_uint8_and_one_copy():
    splits = Photos().load(0, opens_test=True)
    data = resident(splits, DEVICE)
    for found, given in (
        (data.inputs, splits.inputs),
        (data.holdout_inputs, splits.holdout_inputs),
        (data.test_inputs, splits.test_inputs),
    ):
        assert found.stored.dtype == torch.uint8
        assert found.stored.data_ptr() == given.data_ptr()


@pytest.mark.parametrize(
    ("lies", "bound", "is_streamed"),
    [(READ, "", False), (READ, "0", True), (READ, "0.00001", True), (MAPPED, "", True), (MEMORY, "0", False)],
)
def test_where_pictures_are_kept_follows_from_their_size(lies, bound, is_streamed, monkeypatch):
    monkeypatch.setenv("KDSWEEP_RESIDENT_GIB", bound)
    data = loaded(lies)  # 85 pictures of 192 bytes: 16 kB, and .00001 GiB are 11 kB
    assert [part.is_streamed for part in (data.inputs, data.holdout_inputs, data.test_inputs)] == [is_streamed] * 3


def test_mapped_pictures_are_copied_to_a_device_with_a_memory_of_its_own(monkeypatch):
    monkeypatch.setattr(Cpu, "is_host", False)
    assert not loaded(MAPPED).inputs.is_streamed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scaling": None}, "uint8 pictures with a scaling, but got torch.uint8 and scaling=None"),
        ({"inputs": torch.zeros(50, 3, 8, 8)}, r"but got torch.float32 and scaling=Scaling\("),
        ({"inputs": torch.zeros(50, 4, dtype=torch.int32), "scaling": None}, "but got torch.int32"),
        ({"scaling": Scaling((0.5,), (0.5,))}, r"mean and a std for every channel of \(C, H, W\), but got 1 for shape=\(3, 8, 8\)"),
    ],
)
def test_inputs_have_one_of_three_forms(changes, message):
    with pytest.raises(ValueError, match=message):
        resident(dataclasses.replace(Photos().load(0, opens_test=False), **changes), DEVICE)


def test_token_ids_pass_as_they_are():
    splits = Blobs().load(0, opens_test=False)
    ids = torch.arange(50 * 7).reshape(50, 7)
    data = resident(dataclasses.replace(splits, inputs=ids, holdout_inputs=ids[:20]), DEVICE)
    assert torch.equal(ready(data.inputs, torch.tensor([3, 1])), ids[[3, 1]])
    assert data.shape == (7,)
    with pytest.raises(ValueError, match=r"crop_flip needs pictures \(C, H, W\), but got inputs of shape=\(7,\)"):
        resident(dataclasses.replace(splits, inputs=ids, holdout_inputs=ids[:20], augmentation="crop_flip"), DEVICE)


def _network() -> Network:
    torch.manual_seed(0)
    return TEACHER.model.build((3, 8, 8), 3)


def _training(method=None, data: Resident | None = None, lies: str = MEMORY, augmentation: str = "none") -> Training:
    trial = student_trial(method or Toy(), data=Photos(augmentation=augmentation), opens_test=True)  # one id, wherever they are
    return Training(trial, data or loaded(lies, augmentation), FrozenTeacher(_network(), DEVICE), DEVICE)


@pytest.mark.parametrize("lies", [READ, MAPPED])
@pytest.mark.parametrize("method", [Toy(), Everything(), CSKD()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("augmentation", ["none", "randaugment"])
def test_where_pictures_are_changes_no_number(lies, method, augmentation, monkeypatch):
    monkeypatch.setenv("KDSWEEP_RESIDENT_GIB", "0")
    expected = _training(method, augmentation=augmentation).advance(1.0)
    streamed = _training(method, lies=lies, augmentation=augmentation)
    assert streamed.data.inputs.is_streamed
    assert streamed.advance(1.0) == expected


def test_a_halted_training_goes_on_with_the_very_next_picture(monkeypatch):
    monkeypatch.setenv("KDSWEEP_RESIDENT_GIB", "0")
    expected = _training(lies=READ, augmentation="crop_flip").advance(1.0)
    for step in (0, 1, 3, 4, 7, 19):
        training = _training(lies=READ, augmentation="crop_flip")
        with pytest.raises(Halted):
            training.advance(1.0, lambda at=training, wanted=step: at.steps == wanted)
        resumed = _training(lies=READ, augmentation="crop_flip")
        resumed.load_state_dict(Cpu().from_bytes(Cpu().to_bytes(training.state_dict())))
        found = resumed.advance(1.0)
        assert found == expected
        assert training.advance(1.0) == expected, "the same one, asked again"


def test_a_teacher_asked_at_every_step_and_one_asked_once_give_equal_losses():
    cached = _training(Toy()).advance(1.0)
    # An augmentation that does nothing: the teacher cannot know, and is asked.
    live = _training(Toy(), dataclasses.replace(loaded(), augmentation=Augmentation())).advance(1.0)
    for one, other in zip(cached, live, strict=True):
        assert dict(other.metrics) == pytest.approx(dict(one.metrics), rel=1e-5, abs=1e-6)
    calls: list[int] = []
    for augmentation, expected in ((None, 0), (Augmentation(), 4)):
        training = _training(Plain(), dataclasses.replace(loaded(), augmentation=augmentation))
        teacher = training._teacher.network
        calls.clear()
        handle = teacher.register_forward_hook(lambda *_: calls.append(1))
        training.advance(4 / 20)
        handle.remove()
        assert len(calls) == expected


def test_a_teacher_with_too_much_to_remember_is_asked_at_every_step(monkeypatch):
    expected = _training(CSKD()).advance(1.0)
    wide = _training(Toy()).advance(1.0)
    monkeypatch.setattr("trainables.teachers.REMEMBERED_BYTES", 50 * 3 * 4 - 1)
    for method, known in ((CSKD(), expected), (Toy(), wide)):
        training = _training(method)
        assert ("train", "plain") not in training._teacher._known
        for one, other in zip(known, training.advance(1.0), strict=True):
            assert dict(other.metrics) == pytest.approx(dict(one.metrics), rel=1e-5, abs=1e-6)


def test_pictures_need_their_channels():
    with pytest.raises(ValueError, match="Pictures need a mean"):
        Pictures(torch.zeros(2, 8, 8, dtype=torch.uint8), SCALING, DEVICE)
