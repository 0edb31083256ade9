"""Watching: a study's standing looked at again and again, drawn in place, whatever its storage does meanwhile."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestrator.board import board, headline
from orchestrator.errors import StorageError
from orchestrator.located import printable
from orchestrator.standing import Standing

_EVERY_S = 2.0
"""Between two looks."""
_PATIENCE_S = 600.0
"""How long a storage may be away."""

Looks = Iterator[tuple[Standing, str]]


def looks(
    look: Callable[[], Standing], *, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
) -> Looks:
    """Where the study stands, again and again until no driver is at work; and why it could not be seen this time, or nothing.

    A storage that is away is asked again, and what was seen last is told meanwhile.

    Raises:
        StorageError: the first look fails, or all of them for ten minutes.
    """
    standing, answered = look(), clock()
    yield standing, ""
    while standing.driver is not None:
        sleep(_EVERY_S)
        trouble = ""
        try:
            standing, answered = look(), clock()
        except StorageError as fault:
            if clock() - answered > _PATIENCE_S:
                raise
            trouble = str(fault)
        yield standing, trouble


def show(seen: Looks, console: Console) -> None:
    """Draw what is seen: in place in a terminal, and whole at the end; elsewhere a line whenever something changed.

    Ctrl-C ends it, as if nothing more were to be seen.
    """
    last: Standing | None = None
    with contextlib.suppress(KeyboardInterrupt):
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
                for last, trouble in seen:
                    live.update(_frame(last, trouble, console.width, console.height), refresh=True)
        else:
            line = ""
            for last, trouble in seen:
                told = _away(trouble) if trouble else f"{last.study}: {headline(last)}"
                if told != line:
                    line = told
                    console.print(Text(line), soft_wrap=True)
    if last is not None:
        console.print(board(last, console.width), soft_wrap=True)


def stream(seen: Looks, say: Callable[[str], object]) -> None:
    """Say what is seen as one JSON object a line, with ``trouble`` where the storage did not answer. Ctrl-C ends it."""
    with contextlib.suppress(KeyboardInterrupt):
        for standing, trouble in seen:
            say(json.dumps({**standing.to_json(), "trouble": trouble or None}))


def _frame(standing: Standing, trouble: str, width: int, height: int) -> Text:
    if not trouble:
        return board(standing, width, height)
    return Text("\n").join([Text(_away(trouble), "bold red"), board(standing, width, height - 2 - len(_away(trouble)) // width)])


def _away(trouble: str) -> str:
    return f"The storage does not answer and is asked again; this is what was seen last. {printable(trouble)}"
