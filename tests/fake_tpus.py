"""A Ray cluster on this machine whose nodes call themselves TPU v4 hosts: the resources, labels and variables of real ones, and no chip."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster

from orchestrator.cluster import release_orphans
from tests.synthetic import Synthetic
from trainables.loop import never
from trainables.trial import Leg, Row

_PODS = {"2x2x1": "v4-8", "2x2x2": "v4-16"}
_QUICK = {
    # A machine that died is known to be gone within two seconds instead of twenty, and none starts processes ahead of need.
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
    "prestart_worker_first_driver": False,
}
_PREEMPTION = 2
"""DRAIN_NODE_REASON_PREEMPTION of Ray's protocol."""
_STUB = """\
import json, os
with open(os.path.join(os.environ["KDSWEEP_TEST_IMPORTS"], str(os.getpid())), "w") as file:
    json.dump(dict(os.environ), file)
"""


class FakeTpus:
    """The cluster. Hosts are known by the name of their slice and their number in it."""

    def __init__(self, cluster: Cluster, imports: Path) -> None:
        self._cluster = cluster
        self._hosts: dict[tuple[str, int], ray._private.node.Node] = {}
        self._imports = imports

    @property
    def address(self) -> str:
        """Where the cluster is."""
        found: str = self._cluster.address
        return found

    def imported(self) -> dict[int, dict[str, str]]:
        """The environment in which each process, by pid, imported torch_xla, which is a stub here."""
        return {int(path.name): json.loads(path.read_text()) for path in self._imports.iterdir()}

    def add(self, slice_name: str, number: int = 0, topology: str = "2x2x2") -> None:
        """A host joins."""
        pod = _PODS[topology]
        resources: dict[str, float] = {"TPU": 4, slice_name: 1, "accelerator_type:TPU-V4": 1}
        if number == 0:
            resources[f"TPU-{pod}-head"] = 1
        labels = {"slice-name": slice_name, "worker-id": str(number), "topology": topology, "pod-type": pod}
        variables = {"TPU_NAME": slice_name, "TPU_WORKER_ID": str(number), "TPU_ACCELERATOR_TYPE": pod, "TPU_TOPOLOGY": topology}
        self._hosts[slice_name, number] = self._cluster.add_node(
            num_cpus=4, resources=resources, labels={f"ray.io/tpu-{key}": value for key, value in labels.items()}, env_vars=variables
        )

    def switch_off(self, slice_name: str, number: int = 0) -> None:
        """A host is gone from one moment to the next."""
        self._cluster.remove_node(self._hosts.pop((slice_name, number)), allow_graceful=False)

    def drain(self, slice_name: str, number: int = 0) -> None:
        """A host is to be taken away: what ``ray drain-node`` says."""
        id = self._hosts[slice_name, number].node_id
        accepted, reason = GcsClient(address=self.address).drain_node(id, _PREEMPTION, "test", int(1000 * (time.time() + 600)))
        assert accepted, reason

    def remove(self, slice_name: str, number: int = 0) -> None:
        """A host leaves in an orderly way; one that was drained may have done so by itself."""
        self._cluster.remove_node(self._hosts.pop((slice_name, number)))

    def restore(self) -> None:
        """Two whole slices of two hosts, and nothing else."""
        wanted = {(name, number) for name in ("a", "b") for number in (0, 1)}
        gone = {node["NodeID"] for node in ray.nodes() if not node["Alive"]} | set(ray._private.state.state.get_draining_nodes())
        for key, node in list(self._hosts.items()):
            if key not in wanted or node.node_id in gone:
                self.remove(*key)
        for key in sorted(wanted - set(self._hosts)):
            self.add(*key)
        until = time.monotonic() + 60
        # What the study before reserved is given back when its last process is gone, which may be a while after its end.
        while ray.available_resources().get("TPU", 0.0) < 4 * len(wanted) or ray.available_resources().get("TPU-v4-16-head", 0.0) < 2:
            assert time.monotonic() < until, f"Hosts need to be free, but these are: {ray.available_resources()}."
            release_orphans()
            time.sleep(0.2)


@contextlib.contextmanager
def fake_tpus(folder: Path) -> Iterator[FakeTpus]:
    """The cluster, connected to, while the body of the ``with`` runs. Its processes find a torch_xla that notes its import."""
    (folder / "path/torch_xla").mkdir(parents=True)
    (folder / "path/torch_xla/__init__.py").write_text(_STUB)
    (folder / "imports").mkdir()
    before = dict(os.environ)
    os.environ["KDSWEEP_TEST_IMPORTS"] = str(folder / "imports")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder / "path"), before.get("PYTHONPATH")]))
    head = {"num_cpus": 4, "include_dashboard": False, "_system_config": _QUICK}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        found = FakeTpus(cluster, folder / "imports")
        found.restore()
        yield found
    finally:
        ray.shutdown()
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


@dataclasses.dataclass(frozen=True)
class Noting:
    """Makes runners that note in a folder, by pid, the process that each was made in."""

    folder: Path
    nap_s: float = 0.2
    """How long a leg takes."""
    together: int = 1
    """No leg begins before so many processes have noted: otherwise the first one up may do all the work."""
    imports: bool = False
    """Whether the runner imports torch_xla, as a real one on a TPU does."""

    def __call__(self, workers: int) -> Noted:
        from torch import distributed

        node = ray.get_runtime_context().get_node_id()
        note = {**os.environ, "node": node, "workers": workers, "joined": distributed.is_initialized(), "early": "torch_xla" in sys.modules}
        unfinished = self.folder / f".{os.getpid()}"
        unfinished.write_text(json.dumps(note))
        unfinished.rename(self.folder / str(os.getpid()))
        if self.imports:
            __import__("torch_xla")
        return Noted(self)


class Noted:
    """A runner that a Noting made."""

    def __init__(self, noting: Noting) -> None:
        self._noting = noting

    def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        while len(notes(self._noting.folder)) < self._noting.together:
            time.sleep(0.05)
        return Synthetic(self._noting.nap_s).run(leg, halt)


def notes(folder: Path) -> Mapping[int, Mapping[str, str]]:
    """What was noted, by pid."""
    return {int(path.name): json.loads(path.read_text()) for path in folder.glob("[0-9]*")}
