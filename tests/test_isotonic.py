"""Isotonic regression against the min-max formula and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import oracles
from trainables.isotonic import fit


def sample(seed, count=30, ties=False):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 12, count) / 12 if ties else rng.random(count)
    return x, (rng.random(count) < 0.2 + 0.6 * x).astype(float), rng.uniform(0.1, 3.0, count)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_oracle(seed, ties, weighted):
    x, y, w = sample(seed, ties=ties)
    points, fitted = oracles.isotonic(x, y, w if weighted else None)
    np.testing.assert_allclose(fit(x, y, w if weighted else None).numbers(points), fitted, atol=1e-12)


def test_by_hand():
    """1, 3, 2, 4 becomes 1, 2.5, 2.5, 4; linear between thresholds and constant beyond."""
    found = fit([0.0, 1.0, 2.0, 3.0], [1.0, 3.0, 2.0, 4.0])
    expected = [1.0, 1.0, 1.75, 2.5, 2.5, 3.25, 4.0, 4.0]
    points = [-5.0, 0.0, 0.5, 1.0, 1.5, 2.5, 3.0, 9.0]
    np.testing.assert_allclose(found.numbers(points), expected)
    np.testing.assert_allclose(found.tensor(torch.tensor(points)), expected)


def test_monotone_and_within_the_range_of_the_sample():
    x, y, _ = sample(5)
    values = fit(x, y).numbers(np.linspace(-1, 2, 500))
    assert (np.diff(values) >= 0).all()
    assert values.min() >= 0
    assert values.max() <= 1
    assert values[0] == fit(x, y).numbers(x.min())
    assert values[-1] == fit(x, y).numbers(x.max())


def test_tensors_and_numbers_agree():
    x, y, _ = sample(6, ties=True)
    found = fit(x, y)
    points = np.concatenate([np.linspace(-0.5, 1.5, 301), found.inputs])
    np.testing.assert_allclose(found.tensor(torch.tensor(points)), found.numbers(points), atol=1e-14)
    single = found.tensor(torch.tensor(points[:300], dtype=torch.float32).view(3, 100))
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, found.numbers(points[:300].astype(np.float32)).reshape(3, 100), atol=1e-6)


def test_one_point_is_a_constant():
    found = fit([0.5, 0.5, 0.5, 0.5], [1.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(found.numbers([-1.0, 0.5, 7.0]), 0.25)
    np.testing.assert_allclose(found.tensor(torch.tensor([-1.0, 0.5, 7.0])), 0.25)


@pytest.mark.parametrize(("x", "y", "w", "message"), [
    ([], [], None, "equally many inputs, outputs and weights"),
    ([1.0, 2.0], [1.0], None, r"but got \(2,\), \(1,\), \(2,\)"),
    ([1.0], [1.0], [1.0, 2.0], "equally many"),
    ([1.0, float("nan")], [1.0, 2.0], None, "finite numbers"),
    ([1.0, 2.0], [1.0, float("inf")], None, "finite numbers"),
])  # fmt: skip
def test_what_cannot_be_fitted_is_refused(x, y, w, message):
    with pytest.raises(ValueError, match=message):
        fit(x, y, w)
