"""Cluster: the connection to Ray, which machines there are and stay, how many lanes they hold, and when there is room for another."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData as _Table  # type: ignore[attr-defined] # generated
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from orchestrator.errors import LaneError
from orchestrator.placement import ACCELERATOR, ANY, CHIP, CHIPS_A_HOST, HOST, SLICE, Placement

TOPOLOGY = "ray.io/tpu-topology"
_SLICE, _WORKER, _POD = "ray.io/tpu-slice-name", "ray.io/tpu-worker-id", "ray.io/tpu-pod-type"
"""Labels that Ray gives to the machines of a TPU slice."""
TOKEN = 0.001
"""Share of a resource that says what a machine is, and is never used up."""
_ANSWER_S = 10.0
"""How long a cluster may take to accept a connection."""
_LOOK_S, _HEAD_S = 1.0, 2.0
"""Between two looks at the head of a cluster that this process is connected to, and how long it may take to accept a connection."""
_PATIENCE_S = 30.0
"""How long a slice that was begun to be reserved is waited for: another may be free by then."""


@contextlib.contextmanager
def connected(cpus: int, address: str | None = None) -> Iterator[None]:
    """Ray, connected to the cluster at ``address``, or started on this machine with so many CPUs and stopped again.

    Where this process is connected already, that connection is used and kept.

    Raises:
        LaneError: the cluster cannot be reached, or does not take this process in.
    """
    if ray.is_initialized():
        yield
        return
    # Lanes have working directories of their own, and data are where this process looks for them.
    local = {} if address else {"RAY_worker_maximum_startup_concurrency": str(4 * cpus), "KDSWEEP_DATA": str(Path.cwd())}
    with environment(local):
        if address:
            _join(address)
        else:
            # "local": without it Ray looks for a cluster on this machine, and finds even one that is gone.
            ray.init("local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()


def _join(address: str) -> None:
    advice = "Run it on a machine of the cluster, best on its head (`ray exec cluster.yaml 'kdsweep run ... --address auto'`)"
    if "://" in address:
        raise LaneError(
            f"A study needs HOST:PORT of a cluster, or auto, but got --address={address}: it does not run through Ray Client. {advice}."
        )
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdecimal():
            # Ray would go on asking for minutes.
            socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason, *_ = str(error).splitlines() or [type(error).__name__]
        raise LaneError(
            f"No connection to a Ray cluster at --address={address}: {reason.rstrip('.')}. {advice}, with the same Python and Ray, and where "
            "it wants a token with RAY_AUTH_MODE=token and its ~/.ray/auth_token."
        ) from error


@contextlib.contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the time of the ``with``; what the user has set stays."""
    missing = [name for name in settings if name not in os.environ]
    os.environ.update({name: settings[name] for name in missing})
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


@contextlib.contextmanager
def headed(patience_s: float, abandon: Callable[[LaneError], None]) -> Iterator[None]:
    """Watch over Ray's head while the body runs, and call ``abandon`` with the reason once it has been away for so long.

    In a thread: whatever asks Ray for anything meanwhile waits, until Ray ends the process after 60 seconds (2.60).
    """
    address, over = ray.get_runtime_context().gcs_address, threading.Event()

    def watch() -> None:
        seen = time.monotonic()
        while not over.wait(_LOOK_S):
            if answers():
                seen = time.monotonic()
            elif time.monotonic() - seen >= patience_s and not over.is_set():
                abandon(
                    LaneError(
                        f"Ray's head at {address} has not answered for {patience_s:g} seconds, and no driver outlives it. What is "
                        "finished is kept; once there is a cluster again, the same command goes on from there."
                    )
                )
                return

    thread = threading.Thread(target=watch, name="head", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def answers() -> bool:
    """Whether the head of the cluster that this process is connected to takes connections."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_HEAD_S).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Machine:
    """A node of the cluster that is up."""

    id: str
    resources: Mapping[str, float]
    labels: Mapping[str, str]
    host: str = ""


def machines() -> list[Machine]:
    """Those that are up and not about to be taken away.

    Raises:
        ConnectionError: Ray's head does not answer.
    """
    leaving = draining()
    up = (node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving)
    return [Machine(node["NodeID"], node["Resources"], node.get("Labels") or {}, node["NodeManagerHostname"]) for node in up]


def ran_out_of_memory(actor: str) -> bool:
    """Whether Ray ended the process of an actor, by its id, because the memory of its machine ran out."""
    found = state.actor_table(actor)
    return bool(found) and found["DeathCause"].HasField("oom_context")


def draining() -> frozenset[str]:
    """Ids of nodes that are about to be taken away. What Ray's own watcher of preemptions asks; there is no public way (2.60).

    Raises:
        ConnectionError: Ray's head does not answer. To have it asked in vain would end this process: Ray holds that to be fatal.
    """
    if not answers():
        raise ConnectionError("Ray's head does not answer.")
    return frozenset(state.get_draining_nodes())


def room(placement: Placement, found: Sequence[Machine]) -> int:
    """How many lanes of a kind the machines hold, whoever uses them now."""
    hosts = _hosts(placement, found)
    if placement.kind == CHIP:
        return sum(min(_whole(m, "TPU"), _whole(m, "CPU")) for m in hosts)
    hosts = [m for m in hosts if _whole(m, "TPU") >= CHIPS_A_HOST and _whole(m, "CPU") >= 1]
    if placement.kind == HOST:
        return len(hosts)
    return sum(count == placement.hosts_in_slice for count in _slices(hosts).values())


def holders(placement: Placement, found: Sequence[Machine], resources: Mapping[str, float]) -> dict[str, str]:
    """Id and host of the machines that lanes, whose processes reserve such resources, may be on."""
    fitting = found if placement.kind == ANY else _hosts(placement, found)
    return {m.id: m.host for m in fitting if all(m.resources.get(name, 0.0) >= amount for name, amount in resources.items())}


def broken(placement: Placement, found: Sequence[Machine]) -> list[str]:
    """Names of slices of which some hosts are up, and others not."""
    return [name for name, count in _slices(_hosts(placement, found)).items() if count < placement.hosts_in_slice]


def shortage(placement: Placement, found: Sequence[Machine], free: Mapping[str, float]) -> str:
    """Why no lane finds room, in a sentence. ``free`` are resources that nobody holds."""
    if placement.kind == ANY:
        return f"{free.get('CPU', 0.0):g} CPUs of the cluster are free."
    lanes, hosts = room(placement, found), [m for m in found if _is_host(m)]
    if lanes:
        return f"The cluster holds {lanes} of them, other studies' included, and {free.get('TPU', 0.0):g} of its TPU chips are free."
    if not hosts:
        return f"The cluster has no machine with a {ACCELERATOR}."
    kinds = Counter(m.labels.get(TOPOLOGY, "unknown") for m in hosts)
    listed = ", ".join(f"{count} of topology {kind}" for kind, count in sorted(kinds.items()))
    parts = "".join(f", and slice {name} is not whole" for name in broken(placement, found)) if placement.kind == SLICE else ""
    return f"Of machines with a {ACCELERATOR} the cluster has {listed}{parts}."


def _hosts(placement: Placement, found: Sequence[Machine]) -> list[Machine]:
    return [m for m in found if _is_host(m) and m.labels.get(TOPOLOGY) == placement.topology]


def _slices(hosts: Sequence[Machine]) -> Counter[str]:
    return Counter(m.labels.get(_SLICE, "") for m in hosts)


def _is_host(machine: Machine) -> bool:
    return f"accelerator_type:{ACCELERATOR}" in machine.resources and machine.resources.get("TPU", 0.0) > 0


def _whole(machine: Machine, resource: str) -> int:
    return int(machine.resources.get(resource, 0.0))


def request(placement: Placement) -> dict[str, float]:
    """What one process of a lane reserves of a machine with a TPU."""
    return {**placement.resources, f"accelerator_type:{ACCELERATOR}": TOKEN}


class Room:
    """A place for the workers of a lane, asked for until there is one, and given back then.

    The request is what makes a cluster grow. Ray Train could wait as well, but not be stopped while it does: it would leave
    its requests behind, and they would take whatever becomes free (2.60). Whoever has the head of a slice may have the rest:
    so Ray reserves slices. It may choose the head of one that is not whole, unless somebody has that already: this room.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._asked: list[PlacementGroup] = []
        self._aside: list[PlacementGroup] = []
        self._since = 0.0

    def is_free(self, seconds: float) -> bool:
        """Whether there is room, as soon as there is, or when so many seconds are over."""
        placement = self._placement
        hosts = placement.hosts_in_slice if placement.kind == SLICE else 1
        if not self._asked and hosts == 1:
            self._asked = [_asked(request(placement), {TOPOLOGY: placement.topology})]
        elif not self._asked:
            self._set_aside(seconds)
            self._asked = [_asked(self._head, {_WORKER: "0", _POD: placement.pod})]
            self._since = time.monotonic()
        if not self._asked[-1].wait(seconds):
            # The slice may never be whole again, or one that was set aside may be by now.
            if time.monotonic() - self._since > _PATIENCE_S and (self._aside or len(self._asked) > 1):
                self.give_back()
            return False
        if hosts == 1 or len(self._asked) > 1:
            return True
        self._asked.append(_asked(request(placement), {_SLICE: self._slice()}, hosts))
        return False

    def leave(self) -> None:
        """Give the place to whoever asks next, which is Ray Train, and keep it from taking a worse one."""
        _removed(self._asked)

    def give_back(self) -> None:
        """Ask for nothing any more, and hold nothing."""
        _removed(self._asked)
        _removed(self._aside)

    @property
    def _head(self) -> dict[str, float]:
        return {f"TPU-{self._placement.pod}-head": 1.0}

    def _set_aside(self, seconds: float) -> None:
        self._aside = [_asked(self._head, {_WORKER: "0", _SLICE: name}) for name in broken(self._placement, machines())]
        for group in self._aside:
            group.wait(seconds)  # or another lane has it, which is as good

    def _slice(self) -> str:
        (node,) = placement_group_table(self._asked[0])["bundles_to_node_id"].values()
        return next((n["Labels"].get(_SLICE, "") for n in ray.nodes() if n["NodeID"] == node), "")


def _asked(bundle: Mapping[str, float], labels: Mapping[str, str], count: int = 1) -> PlacementGroup:
    found: PlacementGroup = placement_group([dict(bundle)] * count, strategy="SPREAD", bundle_label_selector=[dict(labels)] * count)
    return found


def _removed(groups: list[PlacementGroup]) -> None:
    while groups:
        remove_placement_group(groups.pop())


def release_orphans() -> None:
    """Give back what actors of this job reserved and did not live to give back: Ray keeps it until the job ends."""
    job, removed = ray.get_runtime_context().get_job_id(), _Table.REMOVED
    for data in state._connect_and_get_accessor().get_placement_group_table():
        found = _Table.FromString(data)
        by_actor = found.creator_job_id.hex() == job and not ray.ActorID(found.creator_actor_id).is_nil()
        if by_actor and found.creator_actor_dead and found.state != removed:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(found.placement_group_id)))
