from __future__ import annotations

import pytest
import torch

from tests.small_trials import Blobs
from trainables.batches import resident
from trainables.device import Cpu
from trainables.distiller import Needs
from trainables.models.mlp import MLP
from trainables.probe import RowProbe
from trainables.teachers import FrozenTeacher


def _probe(needs=None, dropout=0.0, taught=True):
    torch.manual_seed(0)
    device = Cpu()
    data = resident(Blobs().load(0, opens_test=False), device)
    teacher = FrozenTeacher(MLP(width=8, depth=1, dropout=dropout).build((1, 1, 2), 3), device) if taught else None
    student = MLP(width=6, depth=2).build((1, 1, 2), 3).train()
    return data, RowProbe(needs or Needs(holdout=True, features=("penultimate",)), data, 50, teacher, student, device)


def test_rows_in_order():
    data, probe = _probe()
    batch, outputs = next(probe.train())
    assert batch.row.tolist() == list(range(50))
    assert torch.equal(batch.label, data.label)
    found = probe.teacher.network(data.inputs, ("penultimate",))
    assert torch.equal(outputs.logits, found.logits)
    assert torch.equal(outputs.features["penultimate"], found.features["penultimate"])
    batch, outputs = next(probe.holdout())
    assert torch.equal(batch.label, data.holdout_labels)
    assert batch.is_labelled.tolist() == [1.0] * 20
    assert (float(batch.total), float(batch.progress)) == (20.0, 0.0)
    assert torch.equal(outputs.logits, probe.teacher.network(data.holdout_inputs).logits)


def test_a_random_view_is_shown_plain():
    _, probe = _probe(Needs(views=("weak", "plain")))
    _, outputs = next(probe.train())
    assert outputs.logits.shape == (2, 50, 3)
    assert torch.equal(outputs.logits[0], outputs.logits[1])


def test_the_head_reads_the_penultimate_features():
    _, probe = _probe()
    weight, bias = probe.head()
    _, outputs = next(probe.train())
    torch.testing.assert_close(outputs.features["penultimate"] @ weight.T + bias, outputs.logits)
    weight.zero_()
    assert float(probe.head()[0].abs().sum()) > 0, "a copy, not the teacher's own"


def test_passes_differ_by_dropout_alone_and_repeat():
    data, probe = _probe(dropout=0.5)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    batch, draws = next(probe.passes(3))
    assert torch.rand(1) == expected
    assert draws.shape == (3, 50, 3)
    assert not torch.equal(draws[0], draws[1])
    assert torch.equal(next(probe.passes(3))[1], draws)
    assert not any(module.training for module in probe.teacher.network.modules())
    _, sure = _probe()
    _, same = next(sure.passes(2))
    assert torch.equal(same[0], same[1])
    assert torch.equal(same[0], sure.teacher.network(data.inputs).logits)
    assert batch.row.tolist() == list(range(50))


def test_the_student_is_asked_as_it_stands():
    data, probe = _probe()
    batch, before = next(probe.student("holdout"))
    assert torch.equal(batch.label, data.holdout_labels)
    with torch.no_grad():
        probe.network.head.bias.add_(1.0)
    _, after = next(probe.student("holdout"))
    torch.testing.assert_close(after.logits, before.logits + 1.0)
    assert after.features["penultimate"].shape == (20, 6)
    assert probe.network.training, "left as it was found"
    assert next(probe.student("train"))[1].logits.shape == (50, 3)


def test_what_was_not_asked_for_is_kept_back():
    _, probe = _probe(Needs(teacher=False), taught=False)
    for ask in (lambda: next(probe.holdout()), lambda: next(probe.student("holdout"))):
        with pytest.raises(ValueError, match="holdout=True"):
            ask()
    for ask in (lambda: next(probe.train()), lambda: next(probe.passes(2)), probe.head):
        with pytest.raises(ValueError, match="teacher=True"):
            ask()


def test_outputs_of_too_many_rows_are_asked_for_batch_by_batch(monkeypatch):
    _, probe = _probe(Needs(holdout=True, features=("penultimate",), views=("plain", "weak")), dropout=0.5)
    expected = [list(found) for found in (probe.train(), probe.holdout(), probe.student("train"))]
    _, fresh = _probe(Needs(holdout=True, features=("penultimate",), views=("plain", "weak")), dropout=0.5)
    for place in ("trainables.teachers.REMEMBERED_BYTES", "trainables.probe.REMEMBERED_BYTES"):
        monkeypatch.setattr(place, 20 * 3 * 4 - 1)
    monkeypatch.setattr("trainables.evaluate._NUMBERS", 2 * 16)  # batches of 16 rows
    for part, told in zip((fresh.train(), fresh.holdout(), fresh.student("train")), expected, strict=True):
        batches = list(part)
        assert [len(batch.row) for batch, _ in batches] == [16] * -(-len(told[0][0].row) // 16)
        real = torch.cat([batch.weight for batch, _ in batches]) > 0
        for name in ("row", "label", "is_labelled"):
            assert torch.equal(torch.cat([getattr(batch, name) for batch, _ in batches])[real], getattr(told[0][0], name))
        assert float(sum(batch.total for batch, _ in batches)) == len(told[0][0].row)
        axis = told[0][1].logits.dim() - 2
        for name in ("logits", "penultimate"):
            found = torch.cat([outputs.logits if name == "logits" else outputs.features[name] for _, outputs in batches], dim=axis)
            wanted = told[0][1].logits if name == "logits" else told[0][1].features[name]
            torch.testing.assert_close(found.index_select(axis, real.nonzero().squeeze(1)), wanted)
    assert fresh.teacher._known == {}
    assert fresh.network.training
    with pytest.raises(
        ValueError, match=r"Passes need the logits of all training rows to be at most 239 bytes a pass, but got 50 rows of 3"
    ):
        next(fresh.passes(2))
