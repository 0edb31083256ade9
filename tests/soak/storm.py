"""The storm: a study runs to its end on a cluster where driver, workers and nodes are killed meanwhile."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import orders
from orchestrator.errors import StorageError
from orchestrator.journal import Event, Journal
from tests.soak.nodes import Node, Nodes
from tests.soak.processes import Process, bury, family, started
from tests.soak.schedule import Fault, Relaunch

_TICK_S, _LOOK_S = 0.05, 0.3
_PATIENCE_S = 60.0
"""How long a fault waits for something that it can hit."""
_ROW_S = 15.0
_START_S = 120.0
"""How long the next fault waits for something to train, unless it is early."""
_LEAVE_S = 120.0
"""How long a driver may take to end once it was told to, or has lost its cluster."""
_STUCK_S = 300.0
"""How long a study may bring no row while nothing keeps it from doing so."""
_NOTICE_S = 20.0
"""Between a notice and the end of a machine."""
_DEAD_S = 30.0
"""How long a node is frozen: Ray takes one for dead after less."""
_GIVE_UPS = 12
"""Launches that may end by themselves, unfinished, without a single row between them."""
_LANES = ("ray::Lane", "ray::ResourceTrainable")
"""What the processes of lanes' own actors call themselves: at rest, and at work, when Tune's wrapper shows (Ray 2.60)."""
NODES = 2
"""Besides the head. Each has room for both lanes."""
_INTERRUPTED, _FAILED = 4, 3


class Stuck(Exception):
    """The study does not come to its end."""


@dataclass
class Tally:
    """What was done to a study, and how its driver took it."""

    faults: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    """Faults that found nothing to hit."""
    ends: Counter[str] = field(default_factory=Counter)
    """How launches ended that nobody ended."""
    wrong: list[str] = field(default_factory=list)
    """What a driver did that it should not."""
    died: dict[int, float] = field(default_factory=dict)
    """When a process that trains was last seen alive, by pid."""
    start_ups: list[float] = field(default_factory=list)
    """Seconds from the start of a driver to the first leg, of those that came to one."""


class Storm:
    """One study, its driver and its cluster."""

    def __init__(
        self,
        folder: Path,
        name: str,
        nodes: Nodes,
        repository: Path,
        faults: Iterator[Fault],
        starts: Iterator[Relaunch],
        say: Callable[[str], None],
    ) -> None:
        """``folder`` has the study file; its results come to ``soaked``, the workers' notes to ``notes``."""
        self._folder, self._nodes, self._repository = folder, nodes, repository
        self._results = folder / "soaked" / name
        self._faults, self._starts, self._say = faults, starts, say
        self.tally = Tally()
        self._driver: subprocess.Popen[bytes] | None = None
        self._may_end_with: set[int] = set()
        """Codes of the driver, where it was told to end; empty: it was not."""
        self._must_end_by: float | None = None
        self._launched, self._launched_ns, self._journal_then, self._is_training = 0.0, 0, 0, False
        self._fault: Fault | None = None
        self._due: float | None = None
        self._since = 0.0
        self._launch_at: float | None = 0.0
        self._start = next(starts)
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._looked, self._grown, self._size, self._give_ups = 0.0, time.monotonic(), 0, 0
        self._training: list[Process] = []
        (folder / "notes").mkdir()

    # -- the loop

    def run(self, until: float) -> None:
        """Until the study is complete; faults come until then, or until ``until`` of the monotonic clock.

        Raises:
            Stuck: it does not get there.
        """
        try:
            while not self._is_complete():
                now = time.monotonic()
                self._tend(now)
                if now < until:
                    self._strike(now)
                time.sleep(_TICK_S)
        finally:
            self._calm()

    def _strike(self, now: float) -> None:
        """The next fault, if it is due."""
        if self._fault is None:
            self._fault, self._due, self._since = next(self._faults), None, now
        if self._due is None and (self._fault.is_early or self._is_training or now > self._since + _START_S):
            self._due = now + self._fault.gap_s
        if self._due is None or now < self._due:
            return
        if self._has_hit(self._fault):
            self.tally.faults[self._fault.kind] += 1
        elif now < self._due + _PATIENCE_S:
            return
        else:
            self.tally.missed[self._fault.kind] += 1
        self._fault = None

    def _is_complete(self) -> bool:
        if self._driver is None or self._driver.poll() is None:
            return False
        code, self._driver = self._driver.returncode, None
        if code == 0 or (code == _FAILED and self._has_ended_complete()):
            self._say(f"the driver ended with {code}: the study is complete")
            return True
        if not self._may_end_with:
            self.tally.ends[f"{code}: {self._last_words()}"] += 1
            self._give_ups += 1
            self._say(f"the driver ended by itself with {code}: {self._last_words()}")
            if self._give_ups > _GIVE_UPS:
                raise Stuck(f"{self._give_ups} launches ended by themselves without a row.")
        elif code not in self._may_end_with:
            self.tally.wrong.append(f"A driver that was told to end did so with {code}: {self._last_words()}")
            self._say(self.tally.wrong[-1])
        self._launch_at = time.monotonic() + self._start.delay_s
        return False

    def _tend(self, now: float) -> None:
        """Whatever goes on between faults."""
        for node in self._nodes.look():
            self._say(f"{node.name} has joined")
        for entry in [entry for entry in self._later if entry[0] <= now]:
            self._later.remove(entry)
            entry[1]()
        if self._launch_at is not None and now >= self._launch_at and self._nodes.workers:
            self._launch(now)
        if self._must_end_by is not None and now > self._must_end_by and self._driver is not None:
            self.tally.wrong.append(f"A driver that was told to end had not done so within {_LEAVE_S:g} s: {self._last_words()}")
            self._say(self.tally.wrong[-1])
            self._kill_driver()
        if now - self._looked > _LOOK_S:
            self._look(now)

    def _launch(self, now: float) -> None:
        command = (sys.executable, "-m", "tests.soak.driver", str(self._folder), self._nodes.address, str(self._start.workers))
        self._driver = started(command, self._log, self._nodes.environment, self._repository)
        self._say(f"the driver is started, workers={self._start.workers}, pid {self._driver.pid}")
        self._launched, self._launched_ns, self._journal_then, self._is_training = now, time.time_ns(), self._journal_size(), False
        self._may_end_with, self._must_end_by, self._launch_at = set(), None, None
        self._start = next(self._starts)

    def _look(self, now: float) -> None:
        self._looked = now
        bury([process for process in (self._driver, *(n.door for n in self._all_nodes())) if process is not None])
        known = {int(path.name.partition("-")[0]) for path in (self._folder / "notes").iterdir()}
        self._training = [process for process in family() if process.pid in known and process.command.startswith("ray::")]
        self.tally.died |= {process.pid: time.time() for process in self._training}
        size = self._journal_size()
        if size > self._size:
            self._size, self._grown, self._give_ups = size, now, 0
        if now - self._grown > _STUCK_S:
            raise Stuck(f"The study brought nothing for {_STUCK_S:g} s. The driver's last words: {self._last_words()}")
        if not self._is_training and self._driver is not None and any(self._have_begun()):
            self._is_training = True
            self.tally.start_ups.append(now - self._launched)

    def _have_begun(self) -> Iterator[bool]:
        """Whether workers of this launch have noted more than that they are up."""
        for path in (self._folder / "notes").iterdir():
            if int(path.stem.partition("-")[2]) > self._launched_ns:
                yield path.read_text().count("\n") > 1

    def _all_nodes(self) -> list[Node]:
        return [*self._nodes.workers, *self._nodes.joining, *self._nodes.leaving, *([self._nodes.head] if self._nodes.head else [])]

    def _calm(self) -> None:
        """Nothing that was begun is left half done."""
        if self._driver is not None:
            self._driver.kill()
            self._driver.wait()
        for node in list(self._nodes.leaving):
            self._nodes.bury(node)

    # -- faults

    def _has_hit(self, fault: Fault) -> bool:
        kinds: dict[str, Callable[[Fault], str | None]] = {
            "driver-kill": self._driver_kill,
            "driver-interrupt": self._driver_interrupt,
            "worker-kill": lambda fault: self._process_kill(fault, self._trainers()),
            "lane-kill": lambda fault: self._process_kill(fault, self._lanes()),
            "node-kill": self._node_kill,
            "node-drain": self._node_drain,
            "worker-freeze": self._worker_freeze,
            "node-freeze": self._node_freeze,
            "pause": self._pause,
            "stop": lambda fault: self._order(orders.STOP),
            "cancel": lambda fault: self._order(orders.CANCEL),
            "head": self._head,
        }
        told = kinds[fault.kind](fault)
        if told is not None:
            self._say(f"fault {fault.number}, {fault.kind}: {told}")
        return told is not None

    def _driver_kill(self, fault: Fault) -> str | None:
        driver = self._driver
        if driver is None or self._must_end_by is not None:
            return None
        when = "at once"
        if fault.at_row:
            if not self._is_training:
                return None
            size, until = self._journal_size(), time.monotonic() + _ROW_S
            while (now := time.monotonic()) < until and (grown := self._journal_size()) == size and driver.poll() is None:
                if now - self._looked > 1.0:
                    self._look(now)
                time.sleep(0.001)
            when = f"as {grown - size} bytes came to the journal" if grown > size else "after waiting for a row in vain"
        self._kill_driver()
        return f"SIGKILL to pid {driver.pid}, {when}"

    def _kill_driver(self) -> None:
        assert self._driver is not None
        self._may_end_with |= {-signal.SIGKILL}
        self._driver.kill()
        self._driver.wait()

    def _driver_interrupt(self, fault: Fault) -> str | None:
        if self._driver is None or not self._is_at_work() or self._must_end_by is not None:
            return None
        self._told_to_end({_INTERRUPTED})
        self._driver.send_signal(signal.SIGINT)
        return f"SIGINT to pid {self._driver.pid}"

    def _told_to_end(self, codes: set[int]) -> None:
        self._may_end_with |= codes
        self._must_end_by = time.monotonic() + _LEAVE_S

    def _process_kill(self, fault: Fault, candidates: list[Process]) -> str | None:
        if not candidates:
            return None
        process = candidates[fault.target(len(candidates))]
        return f"SIGKILL to pid {process.pid}, {process.command[:40]}" if process.signal(signal.SIGKILL) else None

    def _trainers(self) -> list[Process]:
        return [process for process in self._training if self._is_at_work()]

    def _lanes(self) -> list[Process]:
        return [process for process in family() if process.command.startswith(_LANES)]

    def _worker_freeze(self, fault: Fault) -> str | None:
        candidates = self._trainers()
        if not candidates:
            return None
        process = candidates[fault.target(len(candidates))]
        if not process.signal(signal.SIGSTOP):
            return None
        self._after(fault.rest_s, lambda: self._thaw([process], f"pid {process.pid}"))
        return f"SIGSTOP to pid {process.pid} for {fault.rest_s:.1f} s"

    def _thaw(self, processes: list[Process], what: str) -> None:
        self._say(f"SIGCONT to {what}: {sum(process.signal(signal.SIGCONT) for process in processes)} got it")

    def _node(self, fault: Fault) -> Node | None:
        """One that holds a process that trains, where there is one."""
        sessions = {process.session for process in self._training}
        nodes = [node for node in self._nodes.workers if node.door.pid in sessions] or self._nodes.workers
        return nodes[fault.target(len(nodes))] if nodes else None

    def _replaced(self, node: Node, seconds: float) -> None:
        """No node that counts any more, and a fresh one joins some time later."""
        self._nodes.take_away(node)
        self._after(seconds, self._add)

    def _add(self) -> None:
        if self._nodes.coming < NODES:
            self._nodes.add()

    def _node_kill(self, fault: Fault) -> str | None:
        node = self._node(fault)
        if node is None:
            return None
        self._replaced(node, fault.rest_s)
        count = len(node.processes())
        self._nodes.bury(node)
        return f"SIGKILL to {count} processes of {node.name}"

    def _node_drain(self, fault: Fault) -> str | None:
        node = self._node(fault)
        if node is None or self._nodes.drain(node, _NOTICE_S) is None:
            return None
        self._replaced(node, fault.rest_s)
        self._after(_NOTICE_S, lambda: self._end_of(node))
        return f"notice that {node.name} goes in {_NOTICE_S:g} s"

    def _end_of(self, node: Node) -> None:
        count = len(node.processes())
        self._nodes.bury(node)
        self._say(f"{node.name} is gone, SIGKILL to {count} processes")

    def _node_freeze(self, fault: Fault) -> str | None:
        node = self._node(fault)
        if node is None:
            return None
        frozen = node.processes()
        self._replaced(node, fault.rest_s)
        for process in frozen:
            process.signal(signal.SIGSTOP)
        self._after(_DEAD_S, lambda: self._thaw(frozen, node.name))
        self._after(_DEAD_S + _NOTICE_S, lambda: self._end_of(node))
        return f"SIGSTOP to {len(frozen)} processes of {node.name} for {_DEAD_S:g} s"

    def _pause(self, fault: Fault) -> str | None:
        if self._order(orders.PAUSE, ends=False) is None:
            return None
        self._after(fault.rest_s, self._resume)
        return f"order to pause, for {fault.rest_s:.1f} s"

    def _resume(self) -> None:
        orders.give(self._results, orders.RESUME)
        self._say("order to resume")

    def _order(self, kind: str, ends: bool = True) -> str | None:
        if self._driver is None or not self._is_at_work() or self._must_end_by is not None:
            return None
        if ends:
            self._told_to_end({_INTERRUPTED})
        orders.give(self._results, kind)
        return f"order to {kind}"

    def _head(self, fault: Fault) -> str | None:
        head = self._nodes.head
        if head is None or not self._is_at_work():
            return None
        if self._driver is not None:
            self._told_to_end(set(range(-64, 256)) - {0})
        head.kill()
        self._nodes.end()
        time.sleep(fault.rest_s)
        self._nodes.start(NODES)
        return "SIGKILL to all of Ray's head and its nodes; a fresh cluster is up"

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, action))

    # -- what there is

    @property
    def _log(self) -> Path:
        return self._folder / "driver.log"

    def _journal_size(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return (self._results / "journal.jsonl").stat().st_size
        return 0

    def _is_at_work(self) -> bool:
        """Whether this launch has written to the journal: before that it is still importing."""
        return self._driver is not None and self._journal_size() > self._journal_then

    def events(self) -> tuple[Event, ...]:
        """Of the journal."""
        return Journal(self._results).read()

    def _has_ended_complete(self) -> bool:
        with contextlib.suppress(StorageError):
            last = self.events()[-1:]
            return [(event["event"], event.get("status")) for event in last] == [("end", "complete")]
        return False

    def _last_words(self) -> str:
        text = self._log.read_text(errors="replace").strip() if self._log.exists() else ""
        return text.rpartition("\n")[2][-300:]


def notes_of(folder: Path) -> list[list[dict[str, object]]]:
    """What each process noted."""
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in sorted((folder / "notes").iterdir())]
