"""How many floating-point operations networks and trainings take, counted on shapes alone: no data, no weights, nothing computed."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from trainables.form import Form
from trainables.network import Family, Network
from trainables.recipe import FLOAT32, Recipe
from trainables.source import Extent
from trainables.trial import Trial

_FORWARD_AND_BACKWARD = 3
"""Of a training step, over those of forward alone: backward makes the gradients of inputs and of weights."""
_PASSES = {FLOAT32: 6}
"""Of the bfloat16 units of a TPU, for products in float32 at the highest precision, which kdsweep asks for."""


@dataclass(frozen=True)
class Sketch:
    """A network without weights, on torch's "meta" device, which has shapes alone."""

    network: Network
    operations: float
    """Of one row, forward; a multiplication and an addition are two."""

    @property
    def parameters(self) -> int:
        """How many it has."""
        return sum(each.numel() for each in self.network.parameters())


@functools.cache
def sketch(model: Family, shape: tuple[int, ...], classes: int) -> Sketch:
    """A network for inputs of ``shape``, (C, H, W) or (L,). Weights to start from are not fetched.

    Raises:
        ValueError: the family is not for such inputs. ModuleNotFoundError: the extra kdsweep[models] is not installed.
    """
    is_text = len(shape) == 1
    with torch.device("meta"):
        network = model.untrained().build(shape, classes).eval()
        inputs = torch.zeros((1, *shape), dtype=torch.int64 if is_text else torch.float32)
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            network(inputs)
    return Sketch(network, counted.get_total_flops())


def operations(trial: Trial, form: Form, extent: Extent) -> float:
    """Of a whole training, in bfloat16 operations of a TPU: its network forward and backward, its teacher forward.

    Evaluations and whatever the method adds (views, networks and passes of its own) are not among them. A teacher is asked once
    for each row where pictures are shown as they are, and at every step where they are augmented.
    """
    rows = extent.labelled if trial.method is None else extent.rows
    found = _FORWARD_AND_BACKWARD * rows * trial.recipe.epochs * _of_row(trial.model, trial.recipe, form)
    if trial.teacher is not None and trial.method is not None and trial.method.needs.teacher:
        times = trial.recipe.epochs if extent.is_augmented else 1
        taught_by = (trial.model, trial.recipe) if trial.chain else (trial.teacher.model, trial.teacher.recipe)
        found += rows * times * _of_row(*taught_by, form)
    return found


def _of_row(model: Family, recipe: Recipe, form: Form) -> float:
    return sketch(model, form.shape, form.classes).operations * _PASSES.get(recipe.precision, 1)
