"""Drivers in processes of their own, which die, wait or meet a fault at an exact moment.

They are forked from one process that has imported what a driver needs, so that each costs a second less. What is patched
here is patched in a process that ends right after it.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NoReturn

from orchestrator import driver, lease, storage, table
from orchestrator.__main__ import main
from tests.synthetic import Synthetic
from trainables.loop import never
from trainables.runner import Runner
from trainables.trial import Leg, Row

Hook = Callable[[], None]
_TOGETHER = multiprocessing.get_context("forkserver")
_TOGETHER.set_forkserver_preload(["tests.faults.drivers", "orchestrator.report", "torch._dynamo", "sklearn.datasets", "pytest"])


class Command:
    """``kdsweep`` with these arguments in a process of its own. What it says is in the file ``said``."""

    def __init__(self, said: Path, *arguments: str, hook: Hook | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._said = said
        self._process: ForkServerProcess = _TOGETHER.Process(target=_command, args=(said, arguments, hook, environment or {}))
        self._process.start()
        assert self._process.pid is not None
        self._pid = self._process.pid

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def is_over(self) -> bool:
        return self._process.exitcode is not None

    def end(self, limit_s: float = 60.0) -> tuple[int, str]:
        """Exit code, the negative signal where it was killed, and what it said."""
        self._process.join(limit_s)
        code, said = self._process.exitcode, self._said.read_text()
        self.stop()
        assert code is not None, f"it did not end: {said}"
        return code, said

    def send(self, number: int) -> None:
        """A signal."""
        os.kill(self._pid, number)

    def stop(self) -> None:
        """Kill it, where it is not over."""
        self._process.kill()
        self._process.join()


def _command(said: Path, arguments: tuple[str, ...], hook: Hook | None, environment: Mapping[str, str]) -> None:
    said.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(handle, number)
    os.environ.update({"COLUMNS": "200", **environment})
    sys.argv = ["kdsweep", *arguments]
    if hook is not None:
        hook()
    main()


# Moments


def trains_nothing(nap_s: float = 0.0, before: Callable[[int], None] | None = None, after: Callable[[int], None] | None = None) -> None:
    """Legs are computed by formula. ``before`` and ``after`` are called with the number of every leg, from 1 on."""
    count = 0

    def run(self: Runner, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        nonlocal count
        count += 1
        if before is not None:
            before(count)
        row = Synthetic(nap_s=nap_s).run(leg, halt)
        if after is not None:
            after(count)
        return row

    Runner.run = run  # type: ignore[method-assign]


def takes_long(number: int, begun: Path) -> None:
    """The n-th leg takes a minute, unless it is halted."""
    count = 0

    def run(self: Runner, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        nonlocal count
        count += 1
        if count == number:
            begun.touch()
        return Synthetic(nap_s=60.0 if count == number else 0.0).run(leg, halt)

    Runner.run = run  # type: ignore[method-assign]


def dies_behind_leg(number: int) -> None:
    """The row is there, and in no journal yet."""
    trains_nothing(after=lambda count: _die() if count == number else None)


def dies_in_append(number: int) -> None:
    """Half of what is appended the n-th time reaches the disk."""
    trains_nothing()
    whole, calls = storage._write, iter(range(1, sys.maxsize))

    def half(descriptor: int, data: bytes) -> None:
        if next(calls) == number:
            whole(descriptor, data[: len(data) // 2])
            _die()
        whole(descriptor, data)

    storage._write = half


def dies_before_commit(finished: int) -> None:
    """The journal has so many finished cells; the commit that is to bring the last of them does not come."""
    _commits_always()
    whole = table.write
    table.write = lambda record, folder: _die() if len(record.finished) >= finished else whole(record, folder)


def dies_within_commit(number: int) -> None:
    """One of the three files is the new one, the others are not."""
    _commits_always()
    whole, calls = storage.LocalFolder.replace, iter(range(1, sys.maxsize))

    def replace(folder: storage.LocalFolder, name: str, data: bytes) -> None:
        whole(folder, name, data)
        if name == "studies.parquet" and next(calls) == number:
            _die()

    storage.LocalFolder.replace = replace  # type: ignore[method-assign]


def waits(before: int, until: Path) -> None:
    """Is at work on the n-th leg until there is a file. The lock in a bucket is renewed often."""
    lease._RENEW_S = 0.2

    def wait(count: int) -> None:
        if count == before:
            until.with_suffix(".begun").touch()
            while not until.exists():
                time.sleep(0.02)

    trains_nothing(before=wait)


def _commits_always() -> None:
    trains_nothing()
    driver._COMMIT_S = 0.0


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def hook(function: Callable[..., None], *arguments: Any) -> Hook:
    """To be called in the other process."""
    return functools.partial(function, *arguments)
