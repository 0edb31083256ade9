"""The processes that this one started, and theirs: whoever loses its parent falls to this process, so none is ever out of sight."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""
_LEAVE = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15, 0, 0, 0); os.execvp(sys.argv[1], sys.argv[1:])"
"""Asks for SIGTERM when the parent dies (PR_SET_PDEATHSIG), then becomes the command."""
_prctl = ctypes.CDLL(None, use_errno=True).prctl


@dataclass(frozen=True)
class Process:
    """A process that is alive. Pid and start together are never given twice."""

    pid: int
    start: int
    """Ticks since the machine was started."""
    session: int
    command: str

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; whether the process was there to get it."""
        found = _read(self.pid)
        if found is None or found[0].start != self.start:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False


def adopt() -> None:
    """From now on, whoever of ours loses its parent becomes a child of this process."""
    if _prctl(_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed: a soak needs Linux")


def started(command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, which is told to end should this one die. For the main thread."""

    with log.open("ab") as out:
        return subprocess.Popen(
            (sys.executable, "-ISc", _LEAVE, *command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )


def family() -> list[Process]:
    """Everything below this process, by pid; those that ended and were not waited for are left out."""
    every = {int(path.name): found for path in Path("/proc").glob("[0-9]*") if (found := _read(int(path.name)))}
    ours, wave = set[int](), {os.getpid()}
    while wave:
        wave = {pid for pid, (_, parent) in every.items() if parent in wave}
        ours |= wave
    return [every[pid][0] for pid in sorted(ours)]


def _read(pid: int) -> tuple[Process, int] | None:
    """A process and its parent; None where it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return Process(pid, int(fields[19]), int(fields[3]), command), int(fields[1])


def end(which: Callable[[], Iterable[Process]], seconds: float = 30.0) -> None:
    """SIGKILL until ``which()`` finds nobody.

    Raises:
        TimeoutError: somebody is still there.
    """
    until = time.monotonic() + seconds
    while found := list(which()):
        for process in found:
            process.signal(signal.SIGKILL)
        if time.monotonic() > until:
            raise TimeoutError(f"Processes need to end when they are killed, but these have not: {[p.pid for p in found]}.")
        time.sleep(0.05)
        bury(())


def bury(known: Iterable[subprocess.Popen[bytes]]) -> None:
    """Take leave of children that ended and that nobody waits for: those that this process did not start itself."""
    waited = {process.pid for process in known}
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    for pid in map(int, path.read_text().split()) if path.exists() else ():
        if pid not in waited:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
