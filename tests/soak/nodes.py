"""A Ray cluster of processes on this machine: a head that holds no lane, and nodes that can be frozen, drained, killed and added.

Every node has a loopback address of its own (127.0.0.2 is the head's), its processes a session, the cluster a token, without
which nobody else gets in.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.preemption import ray_nodes
from tests.soak.processes import Process, end, family, started

_HEAD = "127.0.0.2"
_START_S, _FAILURES = 120.0, 5
_UP = "Ray runtime started"
_GONE = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_timeout_ms": 5000}
"""A node that died is known to be gone within some seconds; Ray's own limits are those of a slower network."""
_RAY = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", "--include-log-monitor=false")


class NodeError(Exception):
    """A node does not start."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster, the head among them."""

    name: str
    address: str
    door: subprocess.Popen[bytes]
    """``ray start --block``, the first of its processes."""
    log: Path

    def processes(self) -> list[Process]:
        """All of its processes that are alive."""
        return [process for process in family() if process.session == self.door.pid]

    def is_up(self) -> bool:
        """Whether it has joined.

        Raises:
            NodeError: it ended instead.
        """
        if self.door.poll() is not None:
            raise NodeError(f"Node {self.name} needs to start, but ended with {self.door.returncode}: {_tail(self.log)}")
        return _UP in self.log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> int:
        """A signal to each of its processes; how many got it."""
        return sum(process.signal(number) for process in self.processes())

    def kill(self) -> None:
        """SIGKILL to all of it; when this returns, nothing of it is left."""
        end(self.processes)
        self.door.wait()

    def id(self) -> str | None:
        """Ray's name for it; None where it has no raylet any more."""
        mine = {process.pid for process in self.processes()}
        return next((node.id for node in ray_nodes() if node.pid in mine), None)


class Nodes:
    """The cluster."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self._folder, self._repository = folder, repository
        self._count, self._wanted, self._failures = 0, 0, 0
        self._port = _free_port()
        self.head: Node | None = None
        self.workers: list[Node] = []
        """Those that have joined and were not taken away, in the order in which they were started."""
        self.joining: list[Node] = []
        self.leaving: list[Node] = []
        """Taken away, but not yet dead."""
        (folder / "ray").mkdir()
        (folder / "token").write_text(secrets.token_hex(32))
        (folder / "token").chmod(0o600)

    @property
    def address(self) -> str:
        """Where the cluster is."""
        return f"{_HEAD}:{self._port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """For whoever belongs to the cluster, or connects to it."""
        return {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self._repository), os.environ.get("PYTHONPATH")])),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._folder / "token"),
            "RAY_TMPDIR": str(self._folder / "ray"),
        }

    def start(self, workers: int) -> None:
        """Start the head and so many nodes."""
        settings = json.dumps({**_GONE, "prestart_worker_first_driver": False})
        own = ("--head", f"--port={self._port}", "--include-dashboard=false", f"--temp-dir={self._folder / 'ray'}", "--num-cpus=0")
        self.head = self._started("head", _HEAD, (*own, f"--system-config={settings}"))
        until = time.monotonic() + _START_S
        while not self.head.is_up():
            if time.monotonic() > until:
                raise NodeError(f"The head needs to be up within {_START_S:g} s, but is not: {_tail(self.head.log)}")
            time.sleep(0.1)
        self.fill(workers)

    def fill(self, workers: int) -> None:
        """Wait until there are so many nodes, adding those that lack."""
        while len(self.workers) < workers:
            if self.coming < workers:
                self.add()
            self.look()
            time.sleep(0.1)

    @property
    def coming(self) -> int:
        """How many nodes there are or will be."""
        return len(self.workers) + len(self.joining) + self._wanted

    def add(self) -> None:
        """A fresh node joins; ``look`` finds it when it has."""
        self._wanted += 1

    def look(self) -> list[Node]:
        """Nodes that have joined since the last look.

        Raises:
            NodeError: one after another does not get there.
        """
        found = []
        for node in list(self.joining):
            try:
                is_up = node.is_up()
            except NodeError:
                self.joining.remove(node)
                node.kill()
                self._failures += 1
                if self._failures > _FAILURES:
                    raise
                self.add()
                continue
            if is_up:
                self._failures = 0
                self.joining.remove(node)
                self.workers.append(node)
                found.append(node)
        # One after another: two that start at once may choose the same names for their sockets.
        if self._wanted and not self.joining:
            self._wanted -= 1
            self._count += 1
            # Never an address that a node had before, or Ray may take it for that one.
            address = f"127.0.{1 + self._count // 200}.{1 + self._count % 200}"
            self.joining.append(self._started(f"node-{self._count}", address, (f"--address={self.address}", "--num-cpus=2")))
        return found

    def take_away(self, node: Node) -> None:
        """No longer one that counts; it may still run."""
        self.workers.remove(node)
        self.leaving.append(node)

    def bury(self, node: Node) -> None:
        """Kill what is left of a node that was taken away."""
        node.kill()
        if node in self.leaving:
            self.leaving.remove(node)

    def drain(self, node: Node, seconds: float) -> subprocess.Popen[bytes] | None:
        """Tell the cluster that a node goes, as the watcher on a spot machine does; None where it is gone already."""
        id = node.id()
        if id is None:
            return None
        command = (sys.executable, "-m", "orchestrator.preemption", "--node", id, "--now", str(seconds))
        return started(command, self._folder / "drain.log", self.environment, self._repository)

    def end(self) -> None:
        """Kill every node."""
        for node in (*self.joining, *self.workers, *self.leaving, *([self.head] if self.head else [])):
            with contextlib.suppress(TimeoutError):
                node.kill()
        self.joining, self.workers, self.leaving, self.head, self._wanted = [], [], [], None, 0

    def _started(self, name: str, address: str, options: tuple[str, ...]) -> Node:
        log = self._folder / f"{name}.log"
        log.unlink(missing_ok=True)
        command = (*_RAY, f"--node-ip-address={address}", f"--object-store-memory={150 * 1024 * 1024}", *options)
        return Node(name, address, started(command, log, self.environment, self._repository), log)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((_HEAD, 0))
        return int(free.getsockname()[1])


def _tail(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-600:]
