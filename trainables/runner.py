"""Runner: the one host of trials, in this process, in a lane or in each of several workers. What goes wrong comes back as a row."""

from __future__ import annotations

import math
import os
import socket
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar, final

from trainables.batches import Resident, resident
from trainables.device import device_named
from trainables.loop import Diverged, Halted, Training, never
from trainables.redaction import redacted
from trainables.source import Source
from trainables.status import DIVERGED, FAILED, OK, OUT_OF_MEMORY, PREEMPTED, RUNNING, STOPPED, TIMED_OUT
from trainables.store import Store, StoreError
from trainables.teachers import FrozenTeacher, keep, name_of_weights, network_of
from trainables.trial import Leg, Report, Row, Trial

CHECKPOINTS = "checkpoints/"
"""What names of checkpoints in the store begin with."""
_KEPT = 4
"""How many splits and how many teachers stay on the device."""


class _TimedOut(Exception):
    """A leg took longer than it may."""


Key = TypeVar("Key")
Value = TypeVar("Value")


def name_of_checkpoint(trial_id: str) -> str:
    """Where the store keeps a trial that stands at a rung."""
    return f"{CHECKPOINTS}{trial_id}.pt"


@final
class Runner:
    """Runs legs one after another and keeps warm what the next one may need.

    Splits, teachers and the last trial stay on the device; every other trial is found again by its checkpoint in the
    store. With several workers each has a Runner, and all of them are given the same legs in the same order; what fails
    on one of them alone leaves the others waiting for it, until their process group gives up.
    """

    def __init__(self, store_root: str, device: str = "auto", workers: int = 1) -> None:
        """``workers``: processes that share one training. ValueError for a device or a store that is not there."""
        self._store = Store(store_root)
        self._device = device_named(device)
        self._device.settle()
        self._workers = workers
        self._splits: _Kept[tuple[Source, int, bool], Resident] = _Kept(_KEPT)
        self._teachers: _Kept[str, FrozenTeacher] = _Kept(_KEPT)
        self._live: Training | None = None

    def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        """Train from where the trial stands to ``leg.until``. Every Exception becomes a row, but for a StoreError, which says
        nothing about the training; an interrupt passes through as well.

        A trial that already stands at ``until`` gives the row of that leg again; one that stands further starts anew.
        ``halt`` is asked between steps. Where it says so the row has status "preempted", and whoever is given the leg
        again goes on from there, on this device or another. So is the time that the leg may take; a step that hangs never
        comes to that question, and needs somebody else to end it.
        """
        started = time.perf_counter()
        compiled = self._device.compilations()
        training: Training | None = None
        # Out of reach until the leg has ended well: a trial that stopped half way is not one to go on from.
        live, self._live = self._live, None
        try:
            training = self._stand(leg, live)
            row = self._trained(leg, training, halt, started)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 # whatever a training can raise is a fact about it, and belongs in the table
            row = self._failed(leg, training, error)
        seconds = time.perf_counter() - started
        where = {"host": socket.gethostname(), "pid": str(os.getpid()), "device": self._device.name, "workers": str(self._workers)}
        if self._device.captures:
            where["compilations"] = str(self._device.compilations() - compiled)
        return replace(row, seconds=seconds, device_seconds=seconds * self._device.count, where=where)

    def _stand(self, leg: Leg, live: Training | None) -> Training:
        """The trial as far as it has come, but not beyond ``until``."""
        if self._device.processes != self._workers:
            raise ValueError(
                f"A Runner needs workers to be its process group's size, but got workers={self._workers}, size={self._device.processes}."
            )
        # Workers meet before they read the store: by then the one that writes is done with the leg before.
        self._device.gathered(0)
        if live is not None and live.trial.id == leg.trial.id and live.until <= leg.until:
            training = live
        else:
            training = self._fresh(leg.trial)
            if not self._goes_on(training, leg):
                training = self._fresh(leg.trial)
        # Workers that stood at different steps would wait for each other for ever.
        return training if len(set(self._device.gathered(training.steps))) == 1 else self._fresh(leg.trial)

    def _goes_on(self, training: Training, leg: Leg) -> bool:
        """Put a new training where its checkpoint has it, if it has one for this leg. False: the checkpoint is damaged, and so is the
        training; that costs time, not a cell."""
        data = self._store.read(name_of_checkpoint(leg.trial.id))
        try:
            saved = None if data is None else self._device.from_bytes(data)
            if saved is not None and saved["until"] <= leg.until:
                training.load_state_dict(saved)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError) as error:
            if self._device.is_out_of_memory(error):
                raise
            return False
        return True

    def _fresh(self, trial: Trial) -> Training:
        key = (trial.data, trial.block.split, trial.opens_test)
        data = self._splits.get(key, lambda: resident(trial.data.load(trial.block.split, trial.opens_test), self._device))
        made_by = trial.teacher_trial
        teacher = None if made_by is None else self._network(made_by)
        return Training(trial, data, teacher, self._device, {name: self._network(other) for name, other in trial.others.items()})

    def _network(self, trial: Trial) -> FrozenTeacher:
        return self._teachers.get(trial.id, lambda: network_of(trial, self._store, self._device))

    def _trained(self, leg: Leg, training: Training, halt: Callable[[], bool], started: float) -> Row:
        """The leg, done or halted, and whatever is needed to go on kept."""
        trial = leg.trial.id
        end = math.inf if leg.seconds is None else started + leg.seconds

        def is_late() -> bool:
            return time.perf_counter() > end

        try:
            reports = training.advance(leg.until, lambda: halt() or is_late())
        except Halted as stop:
            # Whoever was late first among several workers: all of them say the same.
            if any(self._device.gathered(int(is_late()))):
                raise _TimedOut(f"{stop} Its cell has had all the seconds that run.cell_seconds allows.") from None
            self._save(leg, training)
            return Row(trial, PREEMPTED, training.steps / training.order.steps, training.steps, {}, message=str(stop))
        self._put_down(leg, training)
        return Row(trial, OK if leg.until == 1.0 else RUNNING, leg.until, training.steps, reports[-1].metrics, reports)

    def _put_down(self, leg: Leg, training: Training) -> None:
        """Keep what the next leg, or a student, needs. One worker writes for all."""
        trial, first = leg.trial, self._device.is_first
        if leg.until < 1.0:
            self._save(leg, training)
            return
        if trial.method is None or leg.keeps:
            shape, classes = training.data.shape, training.data.classes
            if first:
                keep(trial, training.student.state_dict(), shape, classes, self._store, self._device)
            self._teachers.put(trial.id, FrozenTeacher(training.student, self._device, trial.recipe.precision, (self._store, trial.id)))
        if first:
            self._store.remove(name_of_checkpoint(trial.id))

    def _save(self, leg: Leg, training: Training) -> None:
        content = self._device.to_bytes(training.state_dict())
        if self._device.is_first:
            self._store.write(name_of_checkpoint(leg.trial.id), content)
        self._live = training

    def _failed(self, leg: Leg, training: Training | None, error: Exception) -> Row:
        status = self._status_of(error)
        is_told = status in (DIVERGED, TIMED_OUT)
        message = str(error) if is_told else f"{type(error).__name__}: {error}"
        trace = "" if is_told else traceback.format_exc()
        if status == OUT_OF_MEMORY:
            self._splits.clear()
            self._teachers.clear()
        steps = training.steps if training else 0
        progress = min(steps / training.order.steps, leg.until) if training else 0.0
        reports = training.reports if training else ()
        metrics = reports[-1].metrics if reports else {}
        # Here, where the secrets are known that this process has and the driver may not have.
        return Row(leg.trial.id, status, progress, steps, metrics, reports, message=redacted(message), trace=redacted(trace))

    def _status_of(self, error: Exception) -> str:
        if isinstance(error, Diverged):
            return DIVERGED
        if isinstance(error, _TimedOut):
            return TIMED_OUT
        return OUT_OF_MEMORY if self._device.is_out_of_memory(error) else FAILED


def run_trial(
    trial: Trial, store_root: str, report: Callable[[float, Mapping[str, float]], bool], rungs: Sequence[float] = (), device: str = "auto"
) -> Row:
    """A whole trial in this process, its teacher first where the store has none: what a notebook calls.

    ``report(progress, metrics)`` is called at every rung, or at every tenth of the training where none is named, and at
    the end; the trial stops, with status "stopped", where it returns False. The row holds all reports of this call.
    """
    runner = Runner(store_root, device)
    for teacher in _missing(trial, Store(store_root)):
        row = runner.run(Leg(teacher, 1.0, keeps=True))
        if row.status != OK:
            return replace(
                row, trial=trial.id, progress=0.0, steps=0, metrics={}, reports=(), message=f"Its teacher {teacher.id}: {row.message}"
            )
    reports: tuple[Report, ...] = ()
    seconds = 0.0
    for until in (*(sorted(rungs) or (k / 10 for k in range(1, 10))), 1.0):
        row = runner.run(Leg(trial, until))
        reports, seconds = reports + row.reports, seconds + row.seconds
        row = replace(row, reports=reports, seconds=seconds, device_seconds=seconds)
        if row.status not in (RUNNING, OK):
            return row
        if not report(until, row.metrics) and row.status == RUNNING:
            return replace(row, status=STOPPED)
    return row


def _missing(trial: Trial, store: Store) -> list[Trial]:
    """Trials whose networks are needed first and are not in the store, in an order in which they can be run."""
    found: dict[str, Trial] = {}
    for needed in trial.needed:
        if not store.exists(name_of_weights(needed.id)):
            found |= {earlier.id: earlier for earlier in (*_missing(needed, store), needed)}
    return list(found.values())


class _Kept(Generic[Key, Value]):
    """The few values used last, by key."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is not kept."""
        value = self._values[key] if key in self._values else make()
        self.put(key, value)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, and let go of the one not used for longest."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)

    def clear(self) -> None:
        """Let go of everything."""
        self._values.clear()
