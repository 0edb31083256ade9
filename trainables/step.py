"""The training step, the only one: student forward, the method's terms, backward, sum over workers, observe, update."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces import Choice, Schedule, Uniform, nearest, tunable, tunables
from trainables.device import Device
from trainables.distiller import Batch, Distiller, Needs, Outputs, term_names
from trainables.network import PENULTIMATE, Network, outputs_of
from trainables.recipe import Recipe


@final
@dataclass(frozen=True)
class _CrossEntropy(Distiller[nn.Module]):
    """How a teacher is trained: the mean cross-entropy with the true class, of which a share may be spread evenly over all classes."""

    needs = Needs(teacher=False)

    smoothing: float = tunable(0.0, Uniform(0.0, 1.0), "the share", off=0.0, low=0.0, high=1.0)
    truth_weight: float = tunable(1.0, Choice((1.0,)), "fixed", low=1.0, high=1.0)

    def terms(self, state: nn.Module, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        log_probability = student.logits.log_softmax(dim=-1)
        truth = F.nll_loss(log_probability, batch.label, reduction="none")
        return {"truth": batch.mean((1 - self.smoothing) * truth - self.smoothing * log_probability.mean(dim=-1))}


def cross_entropy(smoothing: float = 0.0) -> Distiller[Any]:
    """What stands in for the method of a teacher's trial, so that there is one step. Its one term is the loss itself."""
    return _CrossEntropy(smoothing=smoothing)


def check_needs(method: Distiller[Any], student: Network, teacher: Network | None) -> None:
    """Raise ValueError if the method needs something that this step does not supply."""
    needs, title = method.needs, type(method).__name__
    if needs.teacher and teacher is None:
        raise ValueError(f"{title} needs a teacher, but got none.")
    if needs.ema and "ema_decay" not in {field.name for field in tunables(method)}:
        raise ValueError(f"{title} needs a field ema_decay, since it needs ema=True.")
    for role, network in (("student", student), ("teacher", teacher)):
        stages = needs.features if network is None else (*network.stages, PENULTIMATE)
        for stage in (name if network is None else network.stage(name) for name in needs.features):
            if stage not in stages:
                raise ValueError(f"{title} needs stage {stage}, but the {role} has {', '.join(stages)}.{nearest(stage, stages)}")


def optimiser_of(recipe: Recipe, parameters: Sequence[Tensor], device: Device) -> torch.optim.Optimizer:
    """The recipe's update rule over the parameters. The learning rate is set anew at every step."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=recipe.momentum, weight_decay=decay, fused=device.fuses)
    kind = torch.optim.Adam if recipe.optimiser == "adam" else torch.optim.AdamW
    return kind(parameters, lr=rate, weight_decay=decay, fused=device.fuses, capturable=device.captures)


def float_table(method: Distiller[Any], progress: Sequence[float]) -> Tensor:
    """``method.floats`` at every progress, on the host: (S, F) float32."""
    columns = []
    for name in method.traced_names:
        value = getattr(method, name)
        columns.append([value.at(p) for p in progress] if isinstance(value, Schedule) else [float(value)] * len(progress))
    return torch.tensor(columns, dtype=torch.float32).reshape(len(columns), len(progress)).T.contiguous()


class Step:
    """Student, method state and optimiser, and what one batch does to them."""

    def __init__(self, method: Distiller[Any], state: nn.Module, student: Network, recipe: Recipe, device: Device, length: int) -> None:
        """``length``: rows of the whole batch, without those that fill it up for workers to have equal shares."""
        self.student, self.state, self.device = student, state, device
        self.names = term_names(method)
        needs = method.needs
        self.slow = copy.deepcopy(student).requires_grad_(False).eval() if needs.ema else None
        """The student's running mean over steps, for methods that need one."""
        self._learned = list(state.parameters())
        self.parameters = [*student.parameters(), *self._learned]
        """Also those of the method's state: projectors learn with the student."""
        self.optimiser = optimiser_of(recipe, self.parameters, device)
        self._precision, self._features, self._views = recipe.precision, needs.features, len(needs.views)
        self._length = length
        self._sees_all = needs.whole_batch
        self._remembers = type(method).observe is not Distiller.observe
        # Lifted once: its floats are views of this vector, which each step fills in place.
        self._values = torch.zeros(len(method.traced_names), device=device.torch_device)
        self._method = method.lift(self._values)

    def __call__(self, inputs: Tensor, batch: Batch, teacher: Outputs, values: Tensor, learning_rate: float, draw: int = 0) -> Tensor:
        """Train on one batch: this worker's rows (B, C, H, W), the teacher's outputs for them, and ``floats`` (F,).

        With several views, inputs and the teacher's outputs have an axis V in front. ``draw`` seeds what the terms draw.
        Returns this worker's share of the loss, followed by its shares of the unweighted terms ``names``: (1 + terms,).
        """
        student = self._outputs(self.student, inputs)
        if self.slow is not None:
            with torch.no_grad():
                batch = batch._replace(slow=self._outputs(self.slow, inputs))
        if self._sees_all:
            batch, student, teacher = self._whole(batch, student, teacher)
        self._values.copy_(values)
        self.device.seed(draw)
        terms = self._method.terms(self.state, batch, student, teacher)
        loss = self._method.loss(terms)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        shares = torch.stack([loss, *(terms[name] for name in self.names)]).detach()
        if self._sees_all:
            # Each worker has all of the loss: whole gradients of what the state learns, and of the student those through its own rows.
            shares = shares / self.device.size
            for parameter in self._learned:
                if parameter.grad is not None:
                    parameter.grad /= self.device.size
        self.device.all_reduce_sum([p.grad for p in self.parameters if p.grad is not None])
        if self._remembers:
            with torch.no_grad():
                # A memory by row must not depend on which worker saw the row: every worker observes the whole batch.
                seen = _detached(student), _detached(teacher)
                self._method.observe(self.state, *((batch, *seen) if self._sees_all else self._whole(batch, *seen)))
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.step()
        if self.slow is not None:
            self._follow(self.slow)
        return shares

    def _outputs(self, network: Network, inputs: Tensor) -> Outputs:
        if self._views == 1:
            return outputs_of(network, inputs, self._features, self._precision)
        found = outputs_of(network, inputs.flatten(0, 1), self._features, self._precision)  # (V * B, ...)
        return Outputs(_apart(found.logits, self._views), {name: _apart(value, self._views) for name, value in found.features.items()})

    @torch.no_grad()
    def _follow(self, slow: Network) -> None:
        decay = getattr(self._method, "ema_decay")  # noqa: B009 # a field of methods that need it, see check_needs
        for mean, value in zip(slow.parameters(), self.student.parameters(), strict=True):
            mean.mul_(decay).add_(value * (1 - decay))
        for copied, buffer in zip(slow.buffers(), self.student.buffers(), strict=True):
            copied.copy_(buffer)

    def _whole(self, batch: Batch, *both: Outputs) -> tuple[Batch, Outputs, Outputs]:
        def rows(value: Tensor) -> Tensor:
            return self.device.whole(value, self._length) if value.numel() else value

        def whole(value: Tensor) -> Tensor:
            # Contiguous: what is drawn "like" a tensor is drawn in the order of its memory.
            return rows(value) if self._views == 1 else rows(value.transpose(0, 1)).transpose(0, 1).contiguous()

        def outputs(found: Outputs) -> Outputs:
            return Outputs(whole(found.logits), {name: whole(value) for name, value in found.features.items()})

        label, is_labelled, row, weight = (rows(value) for value in (batch.label, batch.is_labelled, batch.row, batch.weight))
        slow = None if batch.slow is None else outputs(batch.slow)
        student, teacher = (outputs(found) for found in both)
        return Batch(label, is_labelled, row, weight, batch.total, batch.progress, slow), student, teacher


def _apart(value: Tensor, views: int) -> Tensor:
    """(V * B, ...) -> (V, B, ...)."""
    return value.reshape(views, -1, *value.shape[1:])


def _detached(outputs: Outputs) -> Outputs:
    return Outputs(outputs.logits.detach(), {name: value.detach() for name, value in outputs.features.items()})
