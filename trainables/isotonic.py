"""Isotonic regression: the non-decreasing function nearest to a sample in squared error.

Barlow, Bartholomew, Bremner, Brunk, "Statistical Inference under Order Restrictions", 1972; the fit is scikit-learn's
pool-adjacent-violators. Between thresholds the function is linear, beyond them constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.isotonic import IsotonicRegression
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Isotonic:
    """A fitted non-decreasing function."""

    inputs: NDArray[np.float64]
    """(P,) thresholds, increasing."""
    outputs: NDArray[np.float64]
    """(P,) values at the thresholds, non-decreasing."""

    def numbers(self, points: ArrayLike) -> NDArray[np.float64]:
        """Values at points of any shape, in float64."""
        return np.asarray(np.interp(np.asarray(points, dtype=np.float64), self.inputs, self.outputs))

    def tensor(self, points: Tensor) -> Tensor:
        """Values at points of any shape, on their device and with their type; the arithmetic is float64."""
        inputs = torch.as_tensor(self.inputs, device=points.device)  # (P,)
        outputs = torch.as_tensor(self.outputs, device=points.device)
        exact = points.to(inputs.dtype).clamp(inputs[0], inputs[-1])
        right = torch.searchsorted(inputs, exact.contiguous()).clamp(max=len(inputs) - 1)
        left = (right - 1).clamp(min=0)
        width = inputs[right] - inputs[left]
        share = torch.where(width > 0, (exact - inputs[left]) / width.where(width > 0, 1.0), 0.0)
        return torch.lerp(outputs[left], outputs[right], share).to(points.dtype)


def fit(inputs: ArrayLike, outputs: ArrayLike, weights: ArrayLike | None = None) -> Isotonic:
    """The weighted least-squares non-decreasing fit of M outputs on M inputs; equal inputs are averaged first.

    Raises:
        ValueError: no rows, lengths that differ, or a value that is not finite.
    """
    x, y = np.asarray(inputs, dtype=np.float64), np.asarray(outputs, dtype=np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 1 or x.size == 0 or not x.shape == y.shape == w.shape:
        raise ValueError(f"An isotonic fit needs equally many inputs, outputs and weights, but got {x.shape}, {y.shape}, {w.shape}.")
    if not (np.isfinite(x).all() and np.isfinite(y).all() and np.isfinite(w).all()):
        raise ValueError("An isotonic fit needs finite numbers, but got some that are not: look at the teacher's outputs.")
    model: Any = IsotonicRegression(increasing=True, out_of_bounds="clip").fit(x, y, sample_weight=w)
    return Isotonic(np.asarray(model.X_thresholds_, dtype=np.float64), np.asarray(model.y_thresholds_, dtype=np.float64))
