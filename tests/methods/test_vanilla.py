"""Pseudo-label distillation against NumPy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from search_spaces import flat
from tests import oracles
from tests.toy import CLASSES, batch
from trainables.distiller import Outputs
from trainables.methods.vanilla import Vanilla


def case(count=7, labelled=3, seed=0):
    """(batch, student logits, teacher logits, truth)."""
    rng = np.random.default_rng(seed)
    student, teacher = (2 * rng.normal(size=(2, count, CLASSES))).astype(np.float32)
    truth = torch.tensor(rng.integers(CLASSES, size=count))
    return batch(torch.arange(count), truth, labelled), student, teacher, truth


def terms(method, made, student, teacher):
    return method.terms(None, made, Outputs(torch.tensor(student), {}), Outputs(torch.tensor(teacher), {}))


@pytest.mark.parametrize("targets", ["soft", "hard"])
def test_oracle(targets):
    made, student, teacher, truth = case()
    label = oracles.softmax(teacher) if targets == "soft" else oracles.onehot(teacher.argmax(1), CLASSES)
    found = terms(Vanilla(targets=targets), made, student, teacher)
    f = oracles.softmax(student)
    assert found["pseudo"].item() == pytest.approx(oracles.cross_entropy(label, f)[3:].sum() / 7, rel=1e-6)
    assert found["labelled"].item() == pytest.approx(oracles.cross_entropy(oracles.onehot(truth, CLASSES), f)[:3].sum() / 7, rel=1e-6)


def test_weights_of_one_give_the_plain_mean_over_the_batch():
    made, student, teacher, truth = case()
    label = oracles.softmax(teacher)
    label[:3] = oracles.onehot(truth[:3], CLASSES)
    method = Vanilla()
    expected = oracles.cross_entropy(label, oracles.softmax(student)).mean()
    assert method.loss(terms(method, made, student, teacher)).item() == pytest.approx(expected, rel=1e-6)


def test_temperature_by_hand():
    """Logits (2, 0) against (0, 2) at T = 2: p = (e, 1)/(e + 1), and 4 times the cross-entropy is 4 (log(1 + e) - 1/(1 + e))."""
    made = batch(torch.arange(1), torch.zeros(1, dtype=torch.int64), labelled=0)
    found = terms(Vanilla(temperature=2.0), made, [[0.0, 2.0]], [[2.0, 0.0]])["pseudo"]
    e = math.e
    assert found.item() == pytest.approx(4 * (math.log(1 + e) - 1 / (1 + e)), rel=1e-6)


def test_temperature_leaves_the_size_of_the_gradient():
    """Hinton et al., eq. (4): in the limit of a high temperature T^2 times the gradient is (z - v)/K, for logits of mean zero."""
    made, student, teacher, _ = case(labelled=0)
    student, teacher = (x - x.mean(1, keepdims=True) for x in (student, teacher))
    leaf = torch.tensor(student, dtype=torch.float64, requires_grad=True)
    found = Vanilla(temperature=1000.0).terms(None, made, Outputs(leaf, {}), Outputs(torch.tensor(teacher, dtype=torch.float64), {}))
    found["pseudo"].backward()
    np.testing.assert_allclose(7 * leaf.grad, (student - teacher) / CLASSES, atol=5e-3)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_oracle_at_a_temperature(temperature):
    made, student, teacher, _ = case(labelled=0, seed=4)
    found = terms(Vanilla(temperature=temperature), made, student, teacher)["pseudo"]
    assert found.item() == pytest.approx(oracles.hinton(student, teacher, temperature).mean(), rel=1e-6)


def test_a_hard_label_has_no_temperature():
    made, student, teacher, _ = case()
    first, second = (terms(Vanilla(targets="hard", temperature=t), made, student, teacher) for t in (1.0, 5.0))
    assert torch.equal(first["pseudo"], second["pseudo"])
    assert "temperature" not in flat(Vanilla(targets="hard", temperature=5.0))
