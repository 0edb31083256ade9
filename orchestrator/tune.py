"""Ray Tune drives: it starts lanes, hands each the next leg that the sweep has ready, and brings the rows back.

To Tune, a trial is one leg. Proposals, early stopping and resumption live in the sweep, as functions of the table; Tune's
own experiment state is disposable and lies in a temporary folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from orchestrator.errors import LaneError
from orchestrator.journal import Event
from orchestrator.lanes import Lane, MakeRunner
from orchestrator.sweep import Sweep

Deliver = Callable[[list[Event]], None]

_DRIVER_SHARE = 0.01
"""CPU that a lane's own actor reserves. Its workers reserve theirs in a placement group of their own: with a whole CPU for
the actor, lanes fill the cluster and no worker ever finds room (Ray 2.60, nested Train runs)."""

_TUNE = {
    # We write the table: Tune's three loggers, and its frequent snapshots, would cost more than small trainings.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "RAY_AIR_NEW_OUTPUT": "0",
    # What a lane died of goes into the table, not into the terminal.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # The caller's handlers stay: Tune would put its own in place of the one for Ctrl-C.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
_ON_ONE_MACHINE = {
    # Each would cost every lane a process: nobody reads Train's metrics here, and a laptop is not preempted.
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}

_DEATHS_A_LANE = 3
"""Deaths in a row, times the number of lanes, after which lanes are not started any more."""

_WARM_UP_S = 60.0
"""How long lanes wait for each other at the start."""


@dataclass(frozen=True)
class Lanes:
    """How many lanes, and what each is made of."""

    count: int
    workers: int
    """Ray Train workers a lane; 0 trains in the lane's own process."""
    make_runner: MakeRunner
    uses_gpu: bool = False
    """Whether lanes share out the cluster's GPUs, where it has any. Ray hides them from processes that reserve none."""
    address: str | None = None
    """A running cluster; None starts Ray on this machine and stops it again."""


def execute(sweep: Sweep, lanes: Lanes, deliver: Deliver, stop: Callable[[], bool]) -> None:
    """Run the sweep on Ray until nothing is left to do or ``stop()`` is true.

    ``deliver`` is called with the events of every row, in order of arrival, before another leg is handed out.

    Raises:
        LaneError: the cluster cannot hold one lane, or Tune gave up.
    """
    needed = lanes.count * max(lanes.workers, 1)
    with (
        _environment(_TUNE),
        connected(needed + 1, lanes.address),
        tempfile.TemporaryDirectory(prefix="kdsweep-tune-", ignore_cleanup_errors=True) as scratch,
    ):
        _check_room(lanes)
        search = _SweepSearch(sweep, deliver, stop, lanes.count)
        each = process_resources(lanes)
        tuner = tune.Tuner(
            tune.with_resources(Lane, tune.PlacementGroupFactory([{"CPU": _DRIVER_SHARE} if lanes.workers else each])),
            param_space={"workers": lanes.workers, "make_runner": lanes.make_runner, "resources": each},
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=_KeepLanes(lanes.count, search),
                num_samples=-1,
                max_concurrent_trials=lanes.count,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                stop=_Stop(stop),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )
        tuner.fit()
    if search.failure is not None:
        raise search.failure


def process_resources(lanes: Lanes) -> dict[str, float]:
    """What each process that trains reserves: a CPU and, where there are GPUs to share out, one of its own or a share."""
    gpus = ray.cluster_resources().get("GPU", 0.0) if lanes.uses_gpu else 0.0
    share = {"GPU": min(1.0, gpus / (lanes.count * max(lanes.workers, 1)))} if gpus else {}
    return {"CPU": 1.0, **share}


class _SweepSearch(Searcher):
    """The sweep, as Tune's searcher."""

    def __init__(self, sweep: Sweep, deliver: Deliver, stop: Callable[[], bool], lanes: int) -> None:
        super().__init__()
        self._sweep, self._deliver, self._stop = sweep, deliver, stop
        self._cells: dict[str, str] = {}
        self._to_warm = lanes
        self._deaths, self._most_deaths = 0, _DEATHS_A_LANE * lanes
        self.reason = ""
        """What the lane that died last died of: a trace, its message last."""
        self.failure: LaneError | None = None

    def suggest(self, trial_id: str) -> Any:
        if self._stop() or self.failure is not None:
            return Searcher.FINISHED
        if self._to_warm > 0:
            self._to_warm -= 1
            return {"leg": None}
        leg = self._sweep.take()
        if leg is None:
            return Searcher.FINISHED if self._sweep.is_done else None
        self._deliver(self._sweep.drain())
        self._cells[trial_id] = leg.trial.id
        return {"leg": leg}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        cell = self._cells.pop(trial_id, None)
        if self._stop():
            return
        if not error:
            self._deaths = 0
        else:
            self._deaths += 1
            if self._deaths >= self._most_deaths:
                self.failure = LaneError(
                    f"{self._deaths} lanes in a row died before they finished anything. The last one: {_last(self.reason)}"
                )
        if cell is None:
            return
        if error or not result or "row" not in result:
            message = f"The lane that held this cell died: {_last(self.reason)}"
            self._deliver(self._sweep.lost(cell, message, self.reason))
        else:
            self._deliver(self._sweep.give(result["row"]))

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher for a restore, and ours is rebuilt from the journal."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""


def _last(trace: str) -> str:
    return trace.strip().rpartition("\n")[2]


class _KeepLanes(FIFOScheduler):
    """First in, first out; lanes start together and stay alive while they wait for a generation to end.

    Tune takes an idle actor rather than wait for one that is still starting, and stops the latter: with legs shorter than
    an actor's start, one lane would do all the work. So every lane first gets a warm-up (a leg of None) that ends when
    all are up, or after ``_WARM_UP_S``. Tune also keeps one idle actor for reuse and stops the others. A lane costs
    seconds to start, so the cache is told to hold as many as there are lanes. This is the one place that reaches into
    Tune (2.60); without it one lane is soon left alone with the work, which costs time and changes no number. A
    test counts what each lane does.
    """

    def __init__(self, lanes: int, search: _SweepSearch) -> None:
        super().__init__()
        self._lanes, self._search = lanes, search
        self._told = False
        self._up: set[str] = set()
        self._since = time.monotonic()

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Tune tells the reason to its scheduler alone, right before it tells the searcher that there was an error."""
        self._search.reason = Path(trial.error_file).read_text(errors="replace") if trial.error_file else "Ray does not say why."

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["row"] is not None:
            return str(FIFOScheduler.STOP)
        self._up.add(trial.trial_id)
        waited = time.monotonic() - self._since > _WARM_UP_S
        return str(FIFOScheduler.STOP if waited or len(self._up) >= self._lanes else FIFOScheduler.CONTINUE)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)
        if not self._told:
            tune_controller._actor_cache.increase_max(trial.placement_group_factory, self._lanes)
            self._told = True


class _Stop(tune.Stopper):
    """Ends the experiment when the user asks for it."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._asked = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._asked()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the searcher."""
        return {}


@contextlib.contextmanager
def connected(cpus: int, address: str | None = None) -> Iterator[None]:
    """Ray, connected to the cluster at ``address``, or started on this machine with so many CPUs and stopped again.

    Where this process is connected already, that connection is used and kept.
    """
    if ray.is_initialized():
        yield
        return
    local = {} if address else _ON_ONE_MACHINE | {"RAY_worker_maximum_startup_concurrency": str(4 * cpus)}
    with _environment(local):
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            # "local": without it Ray looks for a cluster on this machine, and finds even one that is gone.
            ray.init("local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()


def _check_room(lanes: Lanes) -> None:
    room = ray.cluster_resources().get("CPU", 0.0)
    needed = lanes.count * max(lanes.workers, 1)
    if room < needed:
        raise LaneError(
            f"{lanes.count} lanes of {lanes.workers} workers need {needed} CPUs, but the cluster has {room:g}. Use --lanes or --workers."
        )


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the time of the ``with``; what the user has set stays."""
    missing = [name for name in settings if name not in os.environ]
    os.environ.update({name: settings[name] for name in missing})
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
