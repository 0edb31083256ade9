"""What a training takes care of where rows of a batch are normalised together."""

from __future__ import annotations

import os

import pytest
import torch
from torch import multiprocessing, nn

from tests.small_trials import Pictures
from trainables.batches import Order, resident
from trainables.device import Cpu
from trainables.loop import Training
from trainables.models.resnet import ResNet
from trainables.network import batch_norms
from trainables.recipe import Recipe
from trainables.trial import Block, Trial

# 12 labelled rows in batches of 8: the second of an epoch has 4 rows and 4 that fill it up.
TRIAL = Trial(Pictures(), Block(0, 1, 2, 3), ResNet(depth=8), Recipe(learning_rate=0.05, batch=8, epochs=2))


def _training(device=None):
    device = device or Cpu()
    return Training(TRIAL, resident(Pictures().load(0, opens_test=False), device), None, device)


def _statistics(training):
    return [value.clone() for norm in batch_norms(training.student) for value in (norm.running_mean, norm.running_var)]


def test_looking_at_shapes_leaves_no_trace():
    training = _training()
    for norm in batch_norms(training.student):
        assert (norm.running_mean == 0).all()
        assert (norm.running_var == 1).all()
        assert norm.num_batches_tracked == 0
        assert norm.training


def test_one_row_is_enough_to_look_at_shapes():
    """In training mode torch refuses a map of one position of one row, which has no variance."""
    training = _training()
    norm = batch_norms(training.student)[-1]
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(torch.rand(1, norm.num_features, 1, 1))
    training.student.body.append(nn.AdaptiveAvgPool2d(1)).append(nn.BatchNorm2d(64))
    training.student.stages = (*training.student.stages, "pooled", "normalised")
    assert training._facts(training.student, 12).student_shapes == {"logits": (3,)}


def test_other_rows_fill_a_batch_up():
    plain, mixed = Order(50, 16, 1, 0).epoch(0, Cpu()), Order(50, 16, 1, 0, is_mixed=True).epoch(0, Cpu())
    for column in ("weight", "total"):
        assert all(torch.equal(a, b) for a, b in zip(getattr(plain, column), getattr(mixed, column), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain.rows[:3], mixed.rows[:3], strict=True))
    assert torch.equal(plain.rows[3][:2], mixed.rows[3][:2])
    assert torch.equal(mixed.rows[3][2:], mixed.rows[0][:14])
    assert mixed.weight[3].tolist() == [1.0] * 2 + [0.0] * 14


def test_a_training_knows_whether_rows_are_mixed():
    assert _training().order == Order(12, 8, 2, 3, is_mixed=True)


def test_a_resumed_training_equals_the_unbroken_one_bit_for_bit():
    whole = _training()
    expected = whole.advance(1.0)
    first = _training()
    first.advance(0.5)
    second = _training()
    second.load_state_dict(Cpu().from_bytes(Cpu().to_bytes(first.state_dict())))
    assert second.advance(1.0)[-1].metrics == expected[-1].metrics
    for a, b in zip(whole.student.state_dict().values(), second.student.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert all(norm.num_batches_tracked == 4 for norm in batch_norms(whole.student))


def _work(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    training = _training()
    training.advance(0.25)  # one step
    found = _statistics(training)
    training.advance(1.0)
    torch.save({"start": found, "end": _statistics(training)}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_workers_remember_the_same(tmp_path):
    multiprocessing.spawn(_work, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(os.path.join(tmp_path, f"{rank}.pt"), weights_only=True) for rank in range(2))
    for name in ("start", "end"):
        assert all(torch.equal(a, b) for a, b in zip(first[name], second[name], strict=True))
    # By hand: mean and unbiased variance over all rows of the batch, a tenth of which is remembered.
    training = _training()
    rows = training.order.epoch(0, Cpu()).rows[0]
    inputs = Pictures().load(0, opens_test=False).inputs[rows]
    convolved = training.student.stem[0](inputs).detach()
    mean, variance = convolved.mean(dim=(0, 2, 3)), convolved.var(dim=(0, 2, 3), unbiased=True)
    torch.testing.assert_close(first["start"][0], 0.1 * mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(first["start"][1], 0.9 + 0.1 * variance, rtol=1e-4, atol=1e-6)
