"""Live progress in the terminal: cells done, running and failed, best so far, time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

_PLAIN_S = 10.0
"""How often a line is printed where there is no terminal."""


class Pace:
    """Time left, from what the legs of this launch took."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._seconds = 0.0
        self._trained = 0.0

    def add(self, seconds: float, progress: float) -> None:
        """A leg took so many seconds for so much progress."""
        self._seconds += seconds
        self._trained += progress

    def left(self, trainings: float) -> float | None:
        """Seconds for that many whole trainings; None while nothing was measured."""
        if self._trained <= 0.0:
            return None
        return trainings * self._seconds / self._trained / self._lanes


def clock(seconds: float) -> str:
    """Seconds as 0:42 or 1:02:03."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Shows ``line()`` while the body of the ``with`` runs: in place in a terminal, else as a line now and then."""

    def __init__(self, console: Console, line: Callable[[], str]) -> None:
        self._console, self._line = console, line
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=5)
        if self._live is not None:
            self._live.stop()

    def _tick(self) -> None:
        printed = 0.0
        while not self._over.wait(0.5):
            if self._live is not None:
                self._live.update(Text(self._line()), refresh=True)
            elif time.monotonic() - printed >= _PLAIN_S:
                printed = time.monotonic()
                self._console.print(Text(self._line()), soft_wrap=True)
