"""The driver of a study: takes the lock, brings the journal up to date, executes what is missing, writes table and report.

The driver is the only writer of a study's folder, apart from artifacts, which lanes keep by content id.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console

from orchestrator import mirror, needs, orders, provenance, table, variants
from orchestrator.command import Command, interruptible, listening
from orchestrator.errors import Hopeless, Interrupted, LaneError, StorageError, StudyError
from orchestrator.events import Event, end_event, study_event
from orchestrator.journal import Journal
from orchestrator.placement import ANY
from orchestrator.progress import Pace, Progress, clock
from orchestrator.proof import prover
from orchestrator.record import Record, record_of
from orchestrator.storage import StudyLock, local_path
from orchestrator.study import METRICS, Study
from orchestrator.sweep import Sweep
from trainables.device import device_named
from trainables.distiller import term_names
from trainables.runner import CHECKPOINTS, Runner, name_of_checkpoint
from trainables.store import Store, StoreError

if TYPE_CHECKING:
    from orchestrator.workers import Host, MakeRunner

_COMMIT_S = 30.0
"""How often the Parquet table is brought up to date while a study runs."""

_LEADING = 4
"""Arms that the line of progress has room for."""
_HERE = "driver"
"""The lane of a launch in this process."""
_REST_S = 5.0
"""Between two looks of a launch in this process that is paused."""
_DRAIN_S, _HURRY_S = 10.0, 1.0
"""How long the W&B mirror may go on after the last cell: of a finished study, and of one that the user stopped."""


@dataclass(frozen=True)
class Launch:
    """How a study is executed. Nothing here changes a number in the table but ``asynchronous``."""

    in_process: bool = False
    """Without Ray, cell after cell in this process."""
    address: str | None = None
    """Address of a running Ray cluster; None starts Ray on this machine."""
    asynchronous: bool = False
    make_runner: MakeRunner | None = None
    """Another way to make runners, for tests and benchmarks."""
    patience_s: float = 1200.0
    """How long a study waits without a single lane. A TPU machine of a cluster that grows takes minutes to boot."""
    headless_s: float = 45.0
    """How long Ray's head may be away. After 60 seconds Ray ends every process that was connected to it (2.60), the driver too."""

    @property
    def trains_here(self) -> bool:
        """Whether cells run on the machine of the driver: without a cluster there is no other."""
        return self.in_process or self.address is None


@dataclass(frozen=True)
class Outcome:
    """How a launch ended."""

    folder: str
    trained: int
    """Legs that this launch trained."""
    counts: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    """What the user should know besides the numbers."""
    mirrored: str = ""
    """How far the W&B mirror got, in a sentence."""

    @property
    def exit_code(self) -> int:
        return 3 if self.counts.get("failed") or self.problems else 0


def folder_of(study: Study) -> str:
    """Where the results of a study lie."""
    return f"{study.run.storage.rstrip('/')}/{study.name}"


def drive(study: Study, launch: Launch, console: Console) -> Outcome:
    """Run whatever a study still lacks, and leave journal and table complete.

    Raises:
        StorageError, StudyLocked: the folder cannot be used. LaneError: lanes cannot be had.
        StudyError: a machine that trains lacks what trainings need.
        Interrupted: the user stopped the launch; everything finished is kept.
    """
    folder, run = folder_of(study), study.run
    if run.wandb == mirror.ONLINE and (problem := mirror.online_problem()) is not None:
        raise StudyError([problem])
    if launch.in_process or (launch.address is None and run.lane == ANY):
        try:
            device_named(run.device)
        except ValueError as error:
            raise StudyError([f"run.device: {error}"]) from error

    @functools.cache
    def look() -> None:
        # Another way to make runners has needs of its own.
        for told in needs.check_here(study, launch.trains_here) if launch.make_runner is None else ():
            console.print(f"note: {told}", soft_wrap=True, markup=False)

    command = Command()
    with interruptible(command), StudyLock(folder):
        journal = Journal(folder)
        before = journal.read()
        record = record_of(before)
        _check_same_study(study, launch, record, folder)
        if not (before and before[-1].get("status") == "complete"):
            look()  # before the sweep, which may rehearse arms at once
        sweep = Sweep(study, record, asynchronous=launch.asynchronous, prove=prover(study, record))
        events = sweep.drain()
        if sweep.is_done and not events:
            if before and before[-1]["event"] != "end":  # the last driver was killed when all was done but to say so
                journal.append([end_event(status="complete", counts=sweep.counts())])
            table.write(record, folder)
            missing = mirror.missing(record, folder, run.wandb, run.wandb_project)
            mirrored = mirror.Mirror(folder, run.wandb, run.wandb_project).finish() if missing else ""
            return Outcome(folder, 0, sweep.counts(), sweep.problems, mirrored)
        look()
        hands = _Hands(study, sweep, journal, record, folder)
        orders.sweep_away(folder)
        hands.deliver([_launch_event(study, launch), *events])
        replay = mirror.Mirror(folder, run.wandb, run.wandb_project)
        status, can_write = "interrupted", True

        def conclude() -> str:
            """Leave everything as a launch leaves it; how far the mirror got."""
            try:
                if can_write:
                    hands.deliver([end_event(status=status, counts=sweep.counts())])
                    table.write(record, folder)
                    _forget_checkpoints(sweep, folder)
            finally:
                mirrored = replay.finish(_HURRY_S if status == "interrupted" else _DRAIN_S)
            return mirrored

        def abandon(reason: LaneError) -> None:
            """End this process, which Ray would not leave alive."""
            try:
                conclude()
            finally:
                sys.stderr.write(f"{reason}\n")
                sys.stderr.flush()
                os._exit(reason.exit_code)

        command.is_at_work = True
        try:
            with (
                listening(command, folder, hands.deliver),
                Progress(console, lambda: " · ".join(part for part in (command.state, hands.line()) if part)),
                contextlib.suppress(KeyboardInterrupt),
            ):
                _execute(study, sweep, launch, hands.deliver, command, console, abandon)
            status = "complete" if sweep.is_done else "given up" if sweep.hopeless is not None else status
        except StorageError:
            can_write = False  # asking again would take as long again, and hide the reason
            raise
        finally:
            mirrored = conclude()
    if sweep.hopeless is not None:
        raise Hopeless(sweep.hopeless)
    if status == "interrupted":
        counts = sweep.counts()
        done = counts["ok"] + counts["stopped"] + counts["failed"]
        raise Interrupted(f"Stopped. {done} cells are finished and kept in {folder}; the same command goes on from there.")
    return Outcome(folder, hands.legs, sweep.counts(), sweep.problems, mirrored)


class _Hands:
    """Takes the sweep's events to the journal, the record and, now and then, the table; knows what to show."""

    def __init__(self, study: Study, sweep: Sweep, journal: Journal, record: Record, folder: str) -> None:
        self._study, self._sweep, self._journal, self._record, self._folder = study, sweep, journal, record, folder
        self._pace = Pace(study.run.lanes)
        self._committed = time.monotonic()
        self._lock = threading.Lock()
        self.legs = 0

    def deliver(self, events: list[Event]) -> None:
        """Make events durable: those of the sweep, and of orders that another thread takes in."""
        if not events:
            return
        with self._lock:
            self._keep(events)

    def _keep(self, events: list[Event]) -> None:
        self._journal.append(events)
        for event in events:
            if event["event"] == "row" and event["seconds"] > 0:
                self.legs += 1
                before = self._record.rows_of(event["cell"])
                self._pace.add(event["seconds"], event["progress"] - max((r["progress"] for r in before), default=0.0))
            self._record.add(event)
        if time.monotonic() - self._committed > _COMMIT_S:
            table.write(self._record, self._folder)
            self._committed = time.monotonic()

    def line(self) -> str:
        """One line of progress."""
        counts = self._sweep.counts()
        done = counts["ok"] + counts["stopped"] + counts["failed"]
        total = done + counts["running"] + counts["waiting"]
        parts = [f"cells {done}/{total} done", f"{counts['running']} running", f"{counts['failed']} failed"]
        leading = sorted(self._sweep.best.items(), key=lambda item: -item[1] * self._study.metric.sign)[:_LEADING]
        parts += [f"best {arm} {score:.4f}" for arm, score in leading]
        left = self._pace.left(self._sweep.remaining())
        parts.append("time left --" if left is None else f"time left {clock(left)}")
        return " · ".join(parts)


def _execute(
    study: Study,
    sweep: Sweep,
    launch: Launch,
    deliver: Callable[[list[Event]], None],
    command: Command,
    console: Console,
    abandon: Callable[[LaneError], None],
) -> None:
    """Run the sweep to its end, or until the user stops it."""
    # The class itself, so that a lane imports what it trains with and nothing of the driver.
    run = study.run
    device = run.device if launch.in_process else run.lane_device
    make_runner = launch.make_runner or functools.partial(Runner, _artifacts(folder_of(study)), device)
    if launch.in_process:
        _in_process(sweep, make_runner(1), deliver, command)
        return
    from orchestrator.tune import Lanes, execute  # Ray takes a second to import

    lanes = Lanes(
        run.lanes,
        run.workers,
        make_runner,
        run.placement,
        device,
        launch.address,
        launch.patience_s,
        headless_s=launch.headless_s,
        wanted=None if launch.trains_here or launch.make_runner is not None else needs.wanted_of(study),
    )
    execute(sweep, lanes, deliver, command, functools.partial(console.print, soft_wrap=True), abandon)


def _in_process(sweep: Sweep, runner: Host, deliver: Callable[[list[Event]], None], command: Command) -> None:
    held: str | None = None
    while sweep.hopeless is None and not command.is_cancelled():
        if command.is_paused:
            command.rest(_REST_S)
            continue
        if wanted := command.retried():
            deliver(sweep.retry(wanted))
        finishing = command.is_finishing
        leg = (None if held is None else sweep.take_on(held)) if finishing else sweep.take()
        if leg is None:
            return
        held = leg.trial.id
        deliver([*sweep.drain(), sweep.cells[held].handed(leg.until, _HERE)])
        with _stored():
            row = runner.run(leg, command.is_cancelled)
        deliver(sweep.give(row))


def _forget_checkpoints(sweep: Sweep, folder: str) -> None:
    """Remove checkpoints of cells that early stopping ended or that failed; a lane removes those of cells that reach the end."""
    with _stored():
        store = Store(_artifacts(folder))
        kept = set(store.names(CHECKPOINTS))  # at once: to ask for each of many would take minutes in a bucket
        for name, standing in ((name_of_checkpoint(cell), standing) for cell, standing in sweep.cells.items()):
            if standing.status is not None and name in kept:
                store.remove(name)


@contextlib.contextmanager
def _stored() -> Iterator[None]:
    """What keeps artefacts from their storage, as an error that a user can act on."""
    try:
        yield
    except StoreError as fault:
        raise StorageError(f"{fault} What is finished is kept: see to it, then run the study again.") from fault


def _artifacts(folder: str) -> str:
    """Root of the store. Absolute, because a lane has a working directory of its own."""
    path = local_path(folder)
    return f"{folder}/artifacts" if path is None else str(path.absolute() / "artifacts")


def _check_same_study(study: Study, launch: Launch, record: Record, folder: str) -> None:
    known = record.study
    if known is None:
        return
    if not study.is_that_of(known):
        raise StorageError(
            f"{folder} holds the results of another study of this name (fingerprint {known['fingerprint']}, this file has "
            f"{study.fingerprint}). Give the study another name, or use another --storage."
        )
    mode = _mode(launch)
    if known["mode"] != mode:
        raise StorageError(
            f"{folder} was begun {'with' if mode == 'generations' else 'without'} --async, and the two propose differently. "
            f"Go on as it was begun, or use another --storage."
        )


def _mode(launch: Launch) -> str:
    return "async" if launch.asynchronous else "generations"


def _launch_event(study: Study, launch: Launch) -> Event:
    return study_event(
        study=study.name,
        fingerprint=study.fingerprint,
        text=study.text,
        seed=study.seed,
        question=study.question,
        metric={"select": study.metric.select, "report": study.metric.report, "goal": study.metric.goal},
        base=study.confirm.base if study.confirm else None,
        versions=provenance.versions(),
        code_commit=provenance.code_commit(),
        lock_hash=provenance.lock_hash(),
        space_fingerprint=study.space_fingerprint,
        parameters=study.parameters,
        metrics=_metrics(study),
        mode=_mode(launch),
        blocks=study.confirm.blocks if study.confirm else None,
        lanes=1 if launch.in_process else study.run.lanes,
        machine=provenance.machine(),
    )


def _metrics(study: Study) -> list[str]:
    """Every metric that a cell of the study may end with."""
    terms = dict.fromkeys(name for method in variants.methods(study) for name in term_names(method))
    return [
        *METRICS,
        "test.teacher_accuracy",
        "parameters.student",
        "parameters.method",
        "train.loss",
        *(f"train.{name}" for name in terms),
    ]
