"""A runner that notes when a leg begins and when it ends, beside the one that trains: what a killed process was at stays known."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.workers import Host, MakeRunner
from trainables.loop import never
from trainables.trial import Leg, Row


def noting(folder: str, make_runner: MakeRunner, workers: int) -> Noted:
    """A runner of ``make_runner`` whose legs are noted in ``folder``, in a file of this process."""
    return Noted(Path(folder), make_runner(workers))


class Noted:
    """A runner whose legs are noted."""

    def __init__(self, folder: Path, host: Host) -> None:
        self._host = host
        self._file = os.open(folder / f"{os.getpid()}-{time.time_ns()}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._note(event="up")

    def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        self._note(event="begin", cell=leg.trial.id, until=leg.until)
        row = self._host.run(leg, halt)
        self._note(event="end", cell=leg.trial.id, until=leg.until, status=row.status, seconds=row.seconds)
        return row

    def _note(self, **what: Any) -> None:
        # One write each: a process that is killed leaves whole lines.
        os.write(self._file, json.dumps({"time": time.time(), "pid": os.getpid(), **what}).encode() + b"\n")
