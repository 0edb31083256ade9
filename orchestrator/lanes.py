"""Lanes: a reused Tune trainable that takes leg after leg, in its own process or on one warm Ray Train worker group.

A trainable is asked for one leg at a time and is done after it: early stopping is never being asked again, so nothing
blocks. The process, its imports, the data, the teachers and the Train worker group stay warm between legs.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol

import ray
from ray import train, tune
from ray.train.torch import TorchTrainer

from orchestrator.errors import LaneError
from trainables.trial import Leg, Row

_WARM_UP_STEP_S = 0.05
_LOOK_S = 1.0
"""How often a waiting lane looks whether its worker group still lives."""
_RESTARTS = 2
"""How often Ray Train restarts a group whose worker died, before the lane gives up."""


class Host(Protocol):
    """Whatever runs legs: ``trainables.runner.Runner``, or a worker group of them."""

    def run(self, leg: Leg) -> Row:
        """Run a leg; a failing training comes back as a row, never as an exception."""


MakeRunner = Callable[[int], Host]
"""Makes the runner of one process, given how many workers share a training. Must pickle."""


class Lane(tune.Trainable):
    """One lane. The config holds ``leg`` (None: wait until the other lanes are up), ``workers``, ``make_runner`` and ``resources`` of a worker."""

    def setup(self, config: dict[str, Any]) -> None:
        self._leg: Leg | None = config["leg"]
        self._group: WorkerGroup | None = None
        if config["workers"] > 0:
            self._group = WorkerGroup(config["workers"], config["make_runner"], config["resources"])
        self._host: Host = self._group or config["make_runner"](1)

    def step(self) -> dict[str, Any]:
        if self._leg is None:
            time.sleep(_WARM_UP_STEP_S)
            return {"row": None}
        return {"row": self._host.run(self._leg), "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._leg = new_config["leg"]
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a leg's checkpoint is kept by content id, where every lane finds it."""

    def cleanup(self) -> None:
        if self._group is not None:
            self._group.close()


@ray.remote(num_cpus=0)
class Mailbox:
    """Between a lane and its workers: numbered legs one way, rows the other."""

    def __init__(self) -> None:
        self._legs: list[Leg | None] = []
        self._rows: list[Row] = []
        self._changed = asyncio.Condition()

    async def put(self, leg: Leg | None) -> int:
        """Append a leg, or None to send the workers home; its number."""
        async with self._changed:
            self._legs.append(leg)
            self._changed.notify_all()
            return len(self._legs) - 1

    async def unanswered(self) -> int:
        """Number of the first leg without a row: where a restarted group goes on."""
        return len(self._rows)

    async def take(self, number: int) -> Leg | None:
        """Leg ``number``, as soon as there is one."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._legs) > number)
            return self._legs[number]

    async def answer(self, number: int, row: Row) -> None:
        """Deliver the row of leg ``number``; a second delivery, by a restarted group, is dropped."""
        async with self._changed:
            if number == len(self._rows):
                self._rows.append(row)
                self._changed.notify_all()

    async def row(self, number: int) -> Row:
        """The row of leg ``number``, as soon as it is there."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._rows) > number)
            return self._rows[number]


def _serve(config: dict[str, Any]) -> None:
    """The train loop of every worker of a lane: take legs until sent home."""
    context = train.get_context()
    mailbox = config["mailbox"]
    runner: Host = config["make_runner"](context.get_world_size())
    number = ray.get(mailbox.unanswered.remote())
    while True:
        leg = ray.get(mailbox.take.remote(number))
        if leg is None:
            return
        row = runner.run(leg)
        if context.get_world_rank() == 0:
            ray.get(mailbox.answer.remote(number, row))
        number += 1


class WorkerGroup:
    """One Ray Train run that lives as long as its lane and is fed through a mailbox."""

    def __init__(self, workers: int, make_runner: MakeRunner, resources: dict[str, float]) -> None:
        self._mailbox = Mailbox.remote()  # type: ignore[attr-defined] # added by ray.remote
        self._failure = ""
        # Train keeps its own state here; nothing in it outlives the lane.
        self._scratch = tempfile.TemporaryDirectory(prefix="kdsweep-lane-", ignore_cleanup_errors=True)
        self._trainer = TorchTrainer(
            _serve,
            train_loop_config={"mailbox": self._mailbox, "make_runner": make_runner},
            scaling_config=train.ScalingConfig(num_workers=workers, use_gpu="GPU" in resources, resources_per_worker=resources),
            run_config=train.RunConfig(
                name="lane",
                storage_path=self._scratch.name,
                # The controller's own limit is -1, for ever, and a group that finds no room would never say so.
                failure_config=train.FailureConfig(max_failures=_RESTARTS, controller_failure_limit=2),  # type: ignore[call-arg] # the stub is Train V1's
            ),
        )
        self._thread = threading.Thread(target=self._carry, name="lane-train", daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        try:
            self._trainer.fit()
        except Exception:  # noqa: BLE001 # whatever Train raises is what the lane died of
            self._failure = traceback.format_exc()

    def run(self, leg: Leg) -> Row:
        """Run a leg on the group.

        Raises:
            LaneError: the group ended without a row.
        """
        number = ray.get(self._mailbox.put.remote(leg))
        pending = self._mailbox.row.remote(number)
        while True:
            done, _ = ray.wait([pending], timeout=_LOOK_S)
            if done:
                row: Row = ray.get(pending)
                return row
            if not self._thread.is_alive():
                raise LaneError(f"The Ray Train worker group of a lane ended while it held a cell. {self._failure}")

    def close(self) -> None:
        """Send the workers home and wait for a moment."""
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self._mailbox.put.remote(None), timeout=2)
        self._thread.join(timeout=3)
        self._scratch.cleanup()
