"""Worker: a process that trains. It takes the legs of its lane one after another, and hears when it has to stop half way."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import ray

from orchestrator import cluster
from orchestrator.placement import Placement
from trainables.loop import never
from trainables.redaction import redacted
from trainables.status import TIMED_OUT
from trainables.trial import Leg, Row

_LOOK_S = 1.0
"""How often a process asks whether its machine is to be taken away."""
_LAST_WORD_S = 5.0
"""How long a process that ends itself waits for its last word to arrive."""


class Host(Protocol):
    """Whatever runs legs: ``trainables.runner.Runner``."""

    def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        """Run a leg; a failing training comes back as a row, never as an exception.

        Where ``halt()`` is true the leg ends early, with a checkpoint and status "preempted".
        """


MakeRunner = Callable[[int], Host]
"""Makes the runner of one process, given how many workers share a training. Must pickle."""


def enter(placement: Placement) -> None:
    """Make this process one of a lane's: whatever libtpu must find in its environment, before anything imports it."""
    os.environ.update(placement.environment(os.environ.get("TPU_VISIBLE_CHIPS")))


class Worker:
    """One of the processes of a lane."""

    def __init__(self, desk: Any, lane: str, make_runner: MakeRunner, rank: int = 0, size: int = 1, is_of_group: bool = False) -> None:
        self._desk, self._lane, self._is_of_group = desk, lane, is_of_group
        self._host = make_runner(size)
        self._halt = notice(desk)
        self._node = ray.get_runtime_context().get_node_id()
        self.number: int = ray.get(desk.arrive.remote(lane, rank, size, self._node))
        """Of the leg that is next."""

    def nodes(self) -> tuple[str, ...]:
        """Where this process is."""
        return (self._node,)

    def row(self) -> tuple[Row, tuple[str, ...]] | None:
        """Train the lane's next leg, as soon as there is one, and say where; None: there will be none."""
        leg = ray.get(self._desk.take.remote(self._lane, self.number))
        if leg is None:
            return None
        with self._watched(leg):
            row = self._host.run(leg, self._halt)
        self.number += 1
        return row, self.nodes()

    @contextlib.contextmanager
    def _watched(self, leg: Leg) -> Iterator[None]:
        """Where the body hangs, end this process: between two steps it would have ended by itself."""
        if leg.seconds is None:
            yield
            return
        timer = threading.Timer(leg.overdue_s, self._end, (leg, threading.get_ident(), time.monotonic()))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _end(self, leg: Leg, thread: int, since: float) -> None:
        seconds = time.monotonic() - since
        message = f"No step of it ended for {seconds:.0f} seconds, so its process was ended (run.cell_seconds)."
        frame = sys._current_frames().get(thread)
        trace = "" if frame is None else "".join(traceback.format_stack(frame))
        where = {"host": socket.gethostname(), "pid": str(os.getpid())}
        row = Row(leg.trial.id, TIMED_OUT, 0.0, 0, {}, seconds=seconds, message=message, trace=redacted(trace), where=where)
        with contextlib.suppress(Exception):  # whatever keeps the word from arriving, this process ends
            ray.get(self._desk.overdue.remote(self._lane, self.number, row, self._is_of_group), timeout=_LAST_WORD_S)
        os._exit(1)

    def close(self) -> None:
        """Nothing: what this process holds ends with it."""


def notice(desk: Any) -> Callable[[], bool]:
    """Whether to stop: this machine is to be taken away, or the study ends. A thread finds out, so asking costs nothing."""
    here, heard = ray.get_runtime_context().get_node_id(), threading.Event()

    def watch() -> None:
        end = desk.closed.remote()
        while not heard.is_set():
            is_over, _ = ray.wait([end], timeout=_LOOK_S)
            # A cluster that does not answer is asked again, whatever it raises meanwhile.
            with contextlib.suppress(Exception):
                if is_over or here in cluster.draining():
                    heard.set()

    threading.Thread(target=watch, name="notice", daemon=True).start()
    return heard.is_set
