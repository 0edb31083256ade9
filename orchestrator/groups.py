"""Groups: the warm Ray Train worker group of a lane, on any machine, on one TPU host, or on all hosts of a slice."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import traceback
from dataclasses import dataclass
from typing import Any

import ray
from ray import train
from ray.exceptions import ActorUnavailableError
from ray.train import ControllerError, WorkerGroupError
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckFailedError
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.torch.torch_trainer import TorchTrainer

from orchestrator.cluster import TOPOLOGY, Room
from orchestrator.errors import LaneError
from orchestrator.placement import ACCELERATOR, ANY, SLICE, Placement
from orchestrator.workers import MakeRunner, Worker, enter
from trainables.trial import Row

XLA = "xla"
_LOOK_S = 1.0
"""How often a waiting lane looks whether its worker group still lives."""
_RESTARTS = 2
"""How often Ray Train restarts the group of a plain lane whose worker died, before the lane gives up."""
_TRAIN = {
    # Each would cost every lane a process: nobody reads Train's metrics here, and workers watch their machines themselves.
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
_ON_TPU = {
    # There was room a moment ago. Whoever takes it meanwhile makes the lane begin again.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120"
}


class Vanished(LaneError):
    """A worker does not answer, and nobody saw it die: its machine may be gone."""


@dataclass(frozen=True)
class Crew:
    """What the worker group of a lane is made of."""

    workers: int
    make_runner: MakeRunner
    resources: dict[str, float]
    """Of each worker."""
    placement: Placement
    device: str
    """That the runners were made for. Workers on xla must not meet in a process group of torch: SPMD spreads the batch."""


class Group:
    """One Ray Train run that lives as long as its lane, whose workers take the lane's legs from the desk."""

    def __init__(self, crew: Crew, desk: Any, lane: str) -> None:
        self._crew, self._desk, self._lane = crew, desk, lane
        self._number = 0
        self._arrival: Any = desk.where.remote(lane)
        self._failure: Exception | None = None
        self._trace = ""
        # Train keeps its own state here; nothing in it outlives the lane.
        self._scratch = tempfile.TemporaryDirectory(prefix="kdsweep-lane-", ignore_cleanup_errors=True)
        self._thread = threading.Thread(target=self._carry, name="lane-train", daemon=True)
        self._room = Room(crew.placement) if self._waits else None
        self._is_started = False
        if self._room is None:
            self._start()

    def _start(self) -> None:
        self._thread.start()
        self._is_started = True

    @property
    def _waits(self) -> bool:
        return self._crew.placement.kind != ANY

    def _carry(self) -> None:
        for name, value in (_TRAIN | (_ON_TPU if self._waits else {})).items():
            os.environ.setdefault(name, value)  # of the lane's own process, which hands them on to Train's
        config = {"desk": self._desk, "lane": self._lane, "make_runner": self._crew.make_runner}
        try:
            _trainer(self._crew, config, self._scratch.name).fit()
        except Exception as error:  # noqa: BLE001 # whatever Train raises is what the lane died of
            self._failure, self._trace = error, traceback.format_exc()

    def nodes(self) -> tuple[str, ...] | None:
        """Where the workers are, none while they wait for room or start; None: there will be no workers.

        Raises:
            LaneError: the group ended before its workers were up.
        """
        if self._room is not None and not self._is_started:
            if self._room.is_free(_LOOK_S):
                self._room.leave()
                self._start()
            return ()
        done, _ = ray.wait([self._arrival], timeout=_LOOK_S)
        if not done:
            return None if self._is_over() else ()
        if self._room is not None:
            self._room.give_back()
        found: tuple[str, ...] = ray.get(self._arrival)
        return found

    def row(self) -> tuple[Row, tuple[str, ...]] | None:
        """The next row, and where it was trained; None: the workers were sent home.

        Raises:
            LaneError: the group ended for another reason.
        """
        answer = self._desk.row.remote(self._lane, self._number)
        while True:
            done, _ = ray.wait([answer], timeout=_LOOK_S)
            if done:
                self._number += 1
                found: tuple[Row, tuple[str, ...]] = ray.get(answer)
                return found
            if self._is_over():
                return None

    def _is_over(self) -> bool:
        if self._thread.is_alive():
            return False
        if self._failure is None or (self._waits and _found_no_room(self._failure)):
            return True
        kind = Vanished if _does_not_answer(self._failure) else LaneError
        raise kind(f"The Ray Train worker group of a lane ended. {self._trace}")

    def close(self) -> None:
        """Wait for a moment for workers that were sent home."""
        if self._room is not None:
            self._room.give_back()
        if self._is_started:
            self._thread.join(timeout=3)
        self._scratch.cleanup()


def _does_not_answer(failure: Exception) -> bool:
    causes = failure.worker_failures.values() if isinstance(failure, WorkerGroupError) else ()
    return any(isinstance(c.health_check_failure, ActorUnavailableError) for c in causes if isinstance(c, WorkerHealthCheckFailedError))


def _found_no_room(failure: Exception) -> bool:
    return isinstance(failure, ControllerError) and isinstance(failure.controller_failure, WorkerGroupStartupTimeoutError)


def _trainer(crew: Crew, config: dict[str, Any], scratch: str) -> DataParallelTrainer:
    plain = crew.placement.kind == ANY
    # The controller's own limit is -1, for ever, and a group that finds no room would never say so. On a TPU the lane ends with
    # its group: its machine may be gone, and another lane shall have the cell meanwhile.
    failures = FailureConfig(
        max_failures=_RESTARTS if plain else 0, controller_failure_limit=_RESTARTS if plain else 0, max_preemption_failures=0
    )
    run = RunConfig(name="lane", storage_path=scratch, failure_config=failures)
    if plain and crew.device != XLA:
        return TorchTrainer(_serve, train_loop_config=config, scaling_config=_scaling(crew), run_config=run)
    # TorchTrainer takes a TPU for one of torch_tpu (Ray 2.60), which is another library.
    backend = TpuConfig(crew.placement, joins=crew.device != XLA and crew.workers > 1)
    return DataParallelTrainer(
        _serve,
        train_loop_config=config,
        scaling_config=_scaling(crew),
        run_config=run,  # type: ignore[arg-type] # annotated with the class of Train V1
        backend_config=backend,
    )


def _scaling(crew: Crew) -> ScalingConfig:
    placement, resources = crew.placement, crew.resources
    if placement.kind == ANY:
        return ScalingConfig(num_workers=crew.workers, use_gpu="GPU" in resources, resources_per_worker=resources)
    if placement.kind == SLICE and placement.hosts_in_slice > 1:
        # All hosts of one slice, or none: Ray reserves the slice by its head.
        return ScalingConfig(
            num_workers=crew.workers,
            use_tpu=True,
            topology=placement.topology,
            accelerator_type=ACCELERATOR,
            resources_per_worker=resources,
        )
    where = {TOPOLOGY: placement.topology}
    return ScalingConfig(num_workers=1, use_tpu=True, accelerator_type=ACCELERATOR, resources_per_worker=resources, label_selector=where)


def _serve(config: dict[str, Any]) -> None:
    """The train loop of every worker of a lane: train legs until sent home."""
    context = train.get_context()
    desk, lane, rank = config["desk"], config["lane"], context.get_world_rank()
    worker = Worker(desk, lane, config["make_runner"], rank, context.get_world_size(), is_of_group=True)
    while True:
        number = worker.number
        found = worker.row()
        if found is None:
            return
        ray.get(desk.answer.remote(lane, number, rank, found[0]))


@dataclass
class TpuConfig(BackendConfig):
    """How a worker is made ready for torch_xla, or, on the CPU of a TPU host, for torch's process group."""

    placement: Placement
    joins: bool
    """Whether the workers meet in a process group."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _TpuBackend


class _TpuBackend(Backend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(enter, backend_config.placement)
        if backend_config.joins:
            address = worker_group.execute_single(0, _address)
            size = len(worker_group)
            ray.get([worker_group.execute_single_async(rank, _join, address, rank, size) for rank in range(size)])


def _address() -> str:
    with socket.socket() as free:
        free.bind(("", 0))
        return f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"


def _join(address: str, rank: int, size: int) -> None:
    from torch import distributed  # the driver and the lane's own process need no torch

    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=size)
