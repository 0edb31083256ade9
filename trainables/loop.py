"""Training: the one loop. It knows progress, evaluation, and how to stop anywhere and go on as if it had not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from trainables.batches import Epoch, Order, Resident
from trainables.device import Device, seed_of
from trainables.distiller import Batch, Distiller, Facts, flat_shapes
from trainables.evaluate import logits_over, measures, outputs_over, sizes
from trainables.exposure import Exposure
from trainables.network import Network, batch_norms, outputs_of
from trainables.pixels import Inputs, ready
from trainables.probe import RowProbe
from trainables.step import Step, check_needs, cross_entropy, float_table
from trainables.synchronised import synchronise
from trainables.teachers import FrozenTeacher
from trainables.trial import Report, Trial

EVALUATIONS = 10
"""Evenly spaced evaluations of a whole training. The end of a leg is evaluated too."""


_AGREE_STEPS = 20
"""How often several processes ask each other whether to stop: it costs them a message and a look at the device."""


class Diverged(ArithmeticError):
    """A training left the finite numbers."""


class Halted(Exception):
    """A training was asked to stop between two steps. It can be saved, and goes on from there."""


def never() -> bool:
    """The halt of a training that nobody stops."""
    return False


class Training:
    """One trial, live on a device: a student and how far it has come.

    Its numbers depend on the trial and, by rounding, on the number of workers alone: where legs end, what else runs in this
    process and how often it was saved and loaded in between changes nothing.
    """

    def __init__(
        self, trial: Trial, data: Resident, teacher: FrozenTeacher | None, device: Device, others: Mapping[str, FrozenTeacher] | None = None
    ) -> None:
        """``others``: the networks of ``trial.others``. ValueError if the method needs what networks, data or step do not supply."""
        self.trial, self.data, self.device = trial, data, device
        self.steps = 0
        """Steps done."""
        self.until = 0.0
        """Where the last leg ended."""
        self.reports: tuple[Report, ...] = ()
        """Of the last leg, or, after an exception, of what was done of it."""
        self._teacher = teacher
        method = trial.method or cross_entropy(trial.recipe.smoothing)
        self._method = method
        # Every student of a chain starts anew, and sees the rows in an order of its own.
        step = (len(trial.chain),) if trial.chain else ()
        self._seed = seed_of("chain", trial.block.order, *step) if step else trial.block.order
        # A teacher learns from A alone: the labelled rows are the first.
        rows = data.labelled if trial.method is None else len(data.inputs)
        self.order = Order(rows, trial.recipe.batch, trial.recipe.epochs, self._seed)
        self._points = {self.step_at(k / EVALUATIONS) for k in range(1, EVALUATIONS + 1)}
        with device.generators_kept():
            device.seed(seed_of("network", trial.block.init, *step))
            student = trial.model.build(data.shape, data.classes).to(device.torch_device)
            check_needs(method, student, teacher.network if teacher else None)
            self.order = replace(self.order, is_mixed=bool(batch_norms(student)))
            synchronise(student, device, self.order.length)
            device.seed(seed_of("state", trial.block.init, *step))
            state = method.state(self._facts(student, rows)).to(device.torch_device)
            device.boundary()
            self._exposure = Exposure(method.needs, data, rows, teacher, self._seed, device)
            self._holdout_logits = teacher.over("holdout", data.holdout_inputs).logits.cpu() if teacher else None
            self._step = Step(method, state, student, trial.recipe, device, self.order.length)
            self._probe = RowProbe(method.needs, data, rows, teacher, student, device, trial.recipe.precision, others or {})
            if not method.needs.each_epoch:
                self._prepare()
        self._sums = torch.zeros(1 + len(self._step.names), device=device.torch_device)
        self._epoch: tuple[int, Epoch] | None = None

    @property
    def student(self) -> Network:
        """The network that is trained."""
        return self._step.student

    @property
    def state(self) -> nn.Module:
        """The method's state."""
        return self._step.state

    def step_at(self, until: float) -> int:
        """How many steps a leg to ``until`` ends at: the nearest to that share of all, half a step counting as one.

        At least one, and only the end itself is the last step.
        """
        steps = self.order.steps
        if until == 1.0:
            return steps
        return max(1, min(steps - 1, math.floor(until * steps + 0.5)))

    def advance(self, until: float, halt: Callable[[], bool] = never) -> tuple[Report, ...]:
        """Train to ``until``; the reports of this leg, the last of them at its end. Asked again for the leg that ended last, the same.

        ``halt`` is asked between steps; where several processes train together, each has its own and one that says so is enough.

        Raises:
            ValueError: the training is already further.
            Diverged: a loss or a logit is not finite at an evaluation.
            Halted: ``halt`` said so. Asked again, the leg goes on.
        """
        if until < self.until:
            raise ValueError(f"A Training at progress {self.until} needs until to be at least that, but got until={until}.")
        if until == self.until:
            return self.reports
        if not self._is_within_a_leg:
            self.reports = ()
        stop = self.step_at(until)
        try:
            with self.device.generators_kept():
                for mark in (*sorted(point for point in self._points if self.steps < point < stop), stop):
                    self._train_to(mark, halt)
                    self.reports += (self._evaluate(until),)
            self.until = until
        except Halted:
            self._carry()
            raise
        self._carry()
        return self.reports

    def _carry(self) -> None:
        """One worker carries the sum from here on: whoever goes on from a saved state finds the same."""
        self.device.all_reduce_sum([self._sums])
        if self.device.rank > 0:
            self._sums.zero_()

    @property
    def _is_within_a_leg(self) -> bool:
        return self.steps > (self.step_at(self.until) if self.until > 0 else 0)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a new Training of the same trial needs to go on bit for bit; plain values and tensors. After a leg, or ``Halted``."""
        return {
            "trial": self.trial.id,
            "steps": self.steps,
            "until": self.until,
            "reports": [(report.step, report.progress, dict(report.metrics)) for report in self.reports],
            "student": self.student.state_dict(),
            "state": self.state.state_dict(),
            # Without its options: those follow from the recipe, and from the device that goes on.
            "optimiser": self._step.optimiser.state_dict()["state"],
            "sums": self._sums,
            "slow": None if self._step.slow is None else self._step.slow.state_dict(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Stand where the saved training stood. ValueError if it was of another trial."""
        if saved["trial"] != self.trial.id:
            raise ValueError(f"Training {self.trial.id} needs a state of its own, but got one of trial={saved['trial']}.")
        self.steps, self.until = saved["steps"], saved["until"]
        self.reports = tuple(Report(step, progress, metrics) for step, progress, metrics in saved["reports"])
        self.student.load_state_dict(saved["student"])
        self.state.load_state_dict(saved["state"])
        optimiser = self._step.optimiser
        optimiser.load_state_dict({"state": saved["optimiser"], "param_groups": optimiser.state_dict()["param_groups"]})
        if self._step.slow is not None:
            self._step.slow.load_state_dict(saved["slow"])
        self._sums.copy_(saved["sums"])
        if self.device.rank > 0:
            self._sums.zero_()

    def _facts(self, student: Network, rows: int) -> Facts:
        data = self.data
        features = self._method.needs.features
        one = ready(data.inputs, torch.zeros(1, dtype=torch.int64))
        norms = batch_norms(student)
        for norm in norms:
            norm.eval()  # one row has no variance, and looking at shapes is nothing to remember
        with torch.no_grad():
            shapes = flat_shapes(outputs_of(student, one, features))
            teacher = self._teacher.network if self._teacher else None
            teacher_shapes = flat_shapes(outputs_of(teacher, one, features)) if teacher else {}
        for norm in norms:
            norm.train()
        return Facts(data.classes, rows, len(data.holdout_inputs), shapes, teacher_shapes)

    def _prepare(self) -> None:
        with torch.no_grad():
            self._method.prepare(self.state, self._probe)
        self.device.boundary()

    def _train_to(self, mark: int, halt: Callable[[], bool]) -> None:
        """Steps up to ``mark``, without reading anything from the device."""
        if self.steps == mark:
            return
        if self.steps == 0 or self.steps in self._points:
            self._sums.zero_()
            self.device.boundary()  # no part of the first step's graph
        progress = [(step + 0.5) / self.order.steps for step in range(self.steps, mark)]
        recipe, data, device = self.trial.recipe, self.data, self.device
        rates = [recipe.learning_rate * recipe.schedule.at(p) for p in progress]
        values = device.unbound(float_table(self._method, progress))  # steps times (F,)
        moments = device.unbound(torch.tensor(progress, dtype=torch.float32))  # steps times ()
        self.student.train()
        for rate, now, level in zip(rates, moments, values, strict=True):
            if self._is_halted(halt):
                raise Halted(f"Stopped at step {self.steps} of {self.order.steps}.")
            epoch, place = self._at(self.steps)
            rows = epoch.rows[place]
            batch = Batch(
                data.label.index_select(0, rows), data.is_labelled.index_select(0, rows), rows, epoch.weight[place], epoch.total[place], now
            )
            inputs, teacher = self._exposure.of(rows)
            # Whatever a step draws depends on the trial, the step and the worker alone, so there is no generator to save.
            # What the terms draw of the whole batch is the same for all workers.
            device.seed(seed_of("step", self._seed, self.steps, device.rank))
            draw = seed_of("terms", self._seed, self.steps, 0 if self._method.needs.whole_batch else device.rank)
            self._sums += self._step(inputs, batch, teacher, level, rate, draw)
            self.steps += 1
            device.boundary()

    def _is_halted(self, halt: Callable[[], bool]) -> bool:
        if self.device.processes == 1:
            return halt()
        # All of them stop at the same step, or the others would wait for ever.
        return self.steps % _AGREE_STEPS == 0 and any(self.device.gathered(int(halt())))

    def _at(self, step: int) -> tuple[Epoch, int]:
        number, place = divmod(step, self.order.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != number:
            self._epoch = number, self.order.epoch(number, self.device)
            self._exposure.start(number, self._epoch[1].numbers[place:])
        if place == 0 and self._method.needs.each_epoch:
            self._prepare()
        return self._epoch[1], place

    def _evaluate(self, until: float) -> Report:
        data, trial = self.data, self.trial
        sums = self._sums.clone()
        self.device.all_reduce_sum([sums])
        # Since the last of the evenly spaced evaluations, so that ends of legs between them change nothing.
        since = max(point for point in (0, *self._points) if point < self.steps)
        loss, *terms = (sums / (self.steps - since)).tolist()
        logits = self._logits(data.holdout_inputs)
        metrics = {"train.loss": loss}
        if trial.method is not None:
            metrics |= {f"train.{name}": value for name, value in zip(self._step.names, terms, strict=True)}
        metrics |= measures("validation", logits, data.holdout_labels, self._holdout_logits)
        if until == 1.0 and self.steps == self.order.steps:
            metrics |= sizes(self.student, self.state)
            if trial.opens_test:
                metrics |= self._test()
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise Diverged(f"{name} is {value} at step {self.steps} of {self.order.steps}.")
        return Report(self.steps, self.steps / self.order.steps, metrics)

    def _test(self) -> dict[str, float]:
        inputs, labels = self.data.test_inputs, self.data.test_labels
        if inputs is None or labels is None:
            raise ValueError(f"Trial {self.trial.id} opens the test split, but its data were loaded without.")
        teacher = self._teacher.over("test", inputs).logits.cpu() if self._teacher else None
        found = measures("test", self._logits(inputs), labels, teacher)
        if teacher is not None:
            found["test.teacher_accuracy"] = measures("test", teacher, labels)["test.accuracy"]
        return found

    def _logits(self, inputs: Inputs) -> Tensor:
        method, precision = self._method, self.trial.recipe.precision
        if type(method).predict is Distiller.predict:
            logits = logits_over(self.student, inputs, self.device, precision)
        else:
            found = outputs_over(self.student, inputs, self.device, method.needs.features, precision)
            with torch.no_grad():
                logits = method.frozen(self.steps / self.order.steps).predict(self.state, found).cpu()
        if not bool(logits.isfinite().all()):
            raise Diverged(f"A logit of the student is not finite at step {self.steps} of {self.order.steps}.")
        return logits
