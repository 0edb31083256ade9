"""Ray Tune drives: it finds room for lanes, starts them, starts them again where they died, and brings what they report.

To Tune, a trial is a lane, and a row is one of its results. Proposals, early stopping and resumption live in the sweep, as
functions of the table; Tune's own experiment state is disposable and lies in a temporary folder.
"""

from __future__ import annotations

import contextlib
import logging
import math
import pickle
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import ActorUnavailableError, OutOfMemoryError
from ray.tune.search import Searcher

from orchestrator import cluster, desk
from orchestrator.command import Command
from orchestrator.dispatch import Deliver, Dispatch
from orchestrator.errors import KdsweepError, LaneError
from orchestrator.groups import Crew, Vanished
from orchestrator.lanes import Lane
from orchestrator.placement import ANY, SLICE, Placement
from orchestrator.probes import Newcomers, checked
from orchestrator.sweep import Sweep
from orchestrator.workers import MakeRunner
from trainables.inventory import Wanted
from trainables.status import FAILED, OUT_OF_MEMORY
from trainables.trial import Row

_DRIVER_SHARE = 0.01
"""CPU that a lane's own actor reserves. Its workers reserve theirs in a placement group of their own: with a whole CPU for
the actor, lanes fill the cluster and no worker ever finds room (Ray 2.60, nested Train runs)."""
_NODE = "ray.io/node-id"
"""Label that every node has."""

_TUNE = {
    # We write the table: Tune's three loggers, and its frequent snapshots, would cost more than small trainings.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "RAY_AIR_NEW_OUTPUT": "0",
    # What a lane died of goes into the table, not into the terminal.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # The caller's handlers stay: Tune would put its own in place of the one for Ctrl-C.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A lane whose node was drained is dead like any other: Tune would start it anew under its name, with all that lies on its tray.
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",
}
_ANSWER_S = 10.0
"""How long the desk may take to answer."""
_LOOK_S = 1.0
"""How often the driver looks which machines there are, and what lanes that died left behind."""


@dataclass(frozen=True)
class Lanes:
    """How many lanes, and what each is made of."""

    count: int
    workers: int
    """Ray Train workers a lane; 0 trains in the lane's own process. A slice has as many as it has hosts, a chip or a host at most one."""
    make_runner: MakeRunner
    placement: Placement = field(default_factory=Placement)
    device: str = "cpu"
    """That ``make_runner`` makes runners for. With auto or cuda, plain lanes share out the cluster's GPUs, where it has any:
    Ray hides them from processes that reserve none."""
    address: str | None = None
    """A running cluster; None starts Ray on this machine and stops it again."""
    patience_s: float = 1200.0
    """How long the study waits without a single lane."""
    headless_s: float = 45.0
    """How long Ray's head may be away."""
    slack_s: float = 120.0
    """How long a lane whose cell has taken too long is left to end it, before the driver ends the lane."""
    wanted: Wanted | None = None
    """What machines are asked for before they get a cell; None: nothing."""

    @property
    def processes(self) -> int:
        """Ray Train workers of one lane; 0: it trains in its own process."""
        wanted = self.placement.processes
        if wanted is None:
            return self.workers
        return wanted if self.placement.kind == SLICE else min(self.workers, wanted)


def execute(
    sweep: Sweep,
    lanes: Lanes,
    deliver: Deliver,
    command: Command,
    say: Callable[[str], None],
    abandon: Callable[[LaneError], None] = lambda _: None,
) -> None:
    """Run the sweep on Ray until nothing is left to do, or nothing is wanted.

    ``deliver`` is called with the events of every row, in order of arrival, before another leg is handed out. ``say`` tells
    the user what he waits for. ``abandon`` is called where Ray's head is gone, and does not return: whatever asks Ray for
    anything then waits, until Ray ends this process.

    Raises:
        LaneError: the cluster cannot hold one lane, or Tune gave up.
        StudyError: a machine that may hold lanes lacks what trainings need.
    """
    needed = lanes.count * max(lanes.processes, 1)
    with (
        cluster.environment(_TUNE),
        _hushed(),
        cluster.connected(needed + 1, lanes.address),
        cluster.headed(lanes.headless_s, abandon),
        tempfile.TemporaryDirectory(prefix="kdsweep-tune-", ignore_cleanup_errors=True) as scratch,
    ):
        _check_room(lanes)
        newcomers = checked(lanes.wanted, lanes.placement, process_resources(lanes), say)
        counter, actors = desk.opened(), _Actors()
        dispatch = Dispatch(
            sweep,
            deliver,
            counter.put.remote,
            lanes.count,
            patience_s=lanes.patience_s,
            shortage=lambda: cluster.shortage(lanes.placement, cluster.machines(), ray.available_resources()),
            say=say,
            command=command,
            end=actors.end,
            slack_s=lanes.slack_s,
        )
        reports = _Reports(dispatch, counter, actors, newcomers)
        crew = Crew(lanes.processes, lanes.make_runner, process_resources(lanes), lanes.placement, lanes.device)
        try:
            while not _fitted(lanes, crew, counter, reports, scratch):
                pass
        finally:
            ray.kill(counter)
    if reports.failure is not None:
        raise reports.failure


def _fitted(lanes: Lanes, crew: Crew, counter: Any, reports: _Reports, scratch: str) -> bool:
    """Lanes until nothing is left for them. False: Tune gave up because the memory of a machine ran out, and has to begin anew."""
    tuner = tune.Tuner(
        tune.with_resources(Lane, _request(lanes)),
        param_space={"desk": counter, "crew": crew},
        tune_config=tune.TuneConfig(search_alg=_Lanes(reports), num_samples=-1, max_concurrent_trials=lanes.count),
        run_config=tune.RunConfig(
            name=f"lanes-{uuid.uuid4().hex[:8]}",
            storage_path=scratch,
            verbose=0,
            stop=_Stop(reports),
            callbacks=[reports],
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    try:
        tuner.fit()
    except RuntimeError as error:
        # To Tune (2.60) this is no death of an actor, which it knows how to deal with, but something unheard of.
        if not isinstance(error.__cause__, OutOfMemoryError):
            raise
        reports.collapsed(str(error.__cause__))
        return False
    return True


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Tune ends with an error in the terminal where a lane died, though others have done its work."""
    logger = logging.getLogger("ray.tune.tune")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def process_resources(lanes: Lanes) -> dict[str, float]:
    """What each process that trains reserves: a CPU and its chips or, where there are GPUs to share out, one of its own or a share."""
    if lanes.placement.kind != ANY:
        return dict(lanes.placement.resources)
    gpus = ray.cluster_resources().get("GPU", 0.0) if lanes.device in ("auto", "cuda") else 0.0
    share = {"GPU": min(1.0, gpus / (lanes.count * max(lanes.workers, 1)))} if gpus else {}
    return {"CPU": 1.0, **share}


def _request(lanes: Lanes) -> tune.PlacementGroupFactory:
    """What Tune reserves for a lane's own actor, and where."""
    each, placement = process_resources(lanes), lanes.placement
    if placement.kind == ANY:
        return tune.PlacementGroupFactory([{"CPU": _DRIVER_SHARE} if lanes.processes else each])
    if lanes.processes:
        # Beside the driver: machines with TPUs may be taken away, and the actor of a lane on one of them is not to die with another.
        here = ray.get_runtime_context().get_node_id()
        token = {f"node:{ray.util.get_node_ip_address()}": cluster.TOKEN}
        return tune.PlacementGroupFactory([token], bundle_label_selector=[{_NODE: here}])
    return tune.PlacementGroupFactory([cluster.request(placement)], bundle_label_selector=[{cluster.TOPOLOGY: placement.topology}])


class _Actors:
    """The lanes' own actors. Tune shows them to nobody but those who look into its trials (2.60)."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    def known(self, trials: list[Any]) -> None:
        """Take in which lanes there are."""
        self._found = {trial.trial_id: trial.temporary_state.ray_actor for trial in trials}

    def end(self, lane: str) -> None:
        """End a lane by force. Tune sees it die."""
        actor = self._found.get(lane)
        if actor is not None:
            ray.kill(actor)

    def ran_out_of_memory(self, lane: str) -> bool:
        """Whether that is what a lane died of."""
        actor = self._found.get(lane)
        return actor is not None and cluster.ran_out_of_memory(actor._actor_id.hex())


class _Reports(tune.Callback):
    """What Tune tells of lanes, on its way to the dispatch."""

    def __init__(self, dispatch: Dispatch, counter: Any, actors: _Actors, newcomers: Newcomers) -> None:
        self._dispatch, self._desk, self._actors, self._newcomers = dispatch, counter, actors, newcomers
        self._broken: KdsweepError | None = None
        self._is_closed = False
        self._looked = -math.inf

    @property
    def failure(self) -> KdsweepError | None:
        """Why nothing goes on, if not because all is done."""
        return self._broken or self._dispatch.failure

    @property
    def is_closing(self) -> bool:
        """Whether nothing more is handed out, so that no lane is needed but for what it still holds."""
        return self._broken is not None or self._dispatch.is_closing

    @property
    def is_over(self) -> bool:
        """Whether no lane is needed any more."""
        return self._broken is not None or self._dispatch.is_over

    def close(self) -> None:
        """Send all lanes home, once. What they hold they save first."""
        if not self._is_closed:
            self._is_closed = True
            self._desk.close.remote()

    def collapsed(self, trace: str) -> None:
        """Tune ended all lanes because the memory of the machine of one of them ran out."""
        with self._taken_in():
            self._dispatch.collapsed(trace, self._actors.ran_out_of_memory)

    @contextlib.contextmanager
    def _taken_in(self) -> Iterator[None]:
        """Tune would wrap what a user can act on into an error of its own."""
        try:
            yield
        except KdsweepError as error:
            self._broken = error

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._looked >= _LOOK_S:
            self._actors.known(trials)
            with self._taken_in():
                self._look()

    def _look(self) -> None:
        self._looked = time.monotonic()
        if not cluster.answers():
            return  # whatever asked it for anything would wait for it
        self._dispatch.look(frozenset(machine.id for machine in cluster.machines()))
        self._newcomers.release(self._dispatch.up)
        # At every look: the last process of a lane that died may go long after it, and what it held keeps a slice from all others.
        cluster.release_orphans()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        if self.failure is not None:
            return
        # What is done is taken in even where the user has asked to stop meanwhile.
        with self._taken_in():
            if result["row"] is not None:
                self._dispatch.row(trial.trial_id, result["row"], result["nodes"])
            elif result["nodes"]:
                self._newcomers.add(trial.trial_id, result["nodes"])
                self._newcomers.release(self._dispatch.up)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._newcomers.drop(trial.trial_id)
        self._dispatch.left(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._newcomers.drop(trial.trial_id)
        if self.is_over:
            return
        with self._taken_in():
            self._look()
            trace = Path(trial.error_file).read_text(errors="replace") if trial.error_file else "Ray does not say why."
            lane, error = trial.trial_id, _error(trial)
            ran_out = isinstance(error, OutOfMemoryError) or OutOfMemoryError.__name__ in trace
            self._dispatch.died(lane, trace, _vanished(error), self._left_behind(lane), OUT_OF_MEMORY if ran_out else FAILED)

    def _left_behind(self, lane: str) -> Row | None:
        try:
            found: Row | None = ray.get(self._desk.left_behind.remote(lane, self._dispatch.brought(lane)), timeout=_ANSWER_S)
        except ray.exceptions.RayError:
            return None
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it was given for a restore, and ours is rebuilt from the journal."""
        return {}


def _error(trial: Any) -> Exception | None:
    """What a lane died of, as Tune keeps it; None where that is not known."""
    if not trial.pickled_error_file:
        return None
    try:
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
    except Exception:  # noqa: BLE001 # an error of a class that is not here, whatever that makes of it
        return None
    return error if isinstance(error, Exception) else None


def _vanished(error: Exception | None) -> bool:
    """Whether a lane does not answer, rather than having been seen to die."""
    return isinstance(error, ActorUnavailableError) or isinstance(getattr(error, "cause", None), Vanished)


class _Lanes(Searcher):
    """Another lane, as long as there is something to do. Tune asks where one ended, and starts as many as there is room for."""

    def __init__(self, reports: _Reports) -> None:
        super().__init__()
        self._reports = reports

    def suggest(self, trial_id: str) -> Any:
        return Searcher.FINISHED if self._reports.is_closing else {}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the callback has told."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the callback."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""


class _Stop(tune.Stopper):
    """Ends the experiment when nothing is left to do, or when the user asks for it."""

    def __init__(self, reports: _Reports) -> None:
        self._reports = reports

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self._reports.is_closing:
            self._reports.close()  # or a lane would wait for a leg, or go on with one, and be killed in the end
        return self._reports.is_over

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the callback."""
        return {}


def _check_room(lanes: Lanes) -> None:
    if lanes.placement.kind == ANY:
        room = ray.cluster_resources().get("CPU", 0.0)
        needed = lanes.count * max(lanes.workers, 1)
        if room < needed:
            raise LaneError(
                f"{lanes.count} lanes of {lanes.workers} workers need {needed} CPUs, but the cluster has {room:g}. Use --lanes or --workers."
            )
    elif lanes.address is None:
        found = cluster.machines()
        if cluster.room(lanes.placement, found) == 0:
            raise LaneError(
                f"A lane that is a {lanes.placement.kind} of {lanes.placement.topology} finds no room on this machine. "
                f"{cluster.shortage(lanes.placement, found, ray.available_resources())} Use --address for a cluster."
            )
