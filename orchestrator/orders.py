"""Orders: what another terminal, or another machine, tells the driver that is at work on a study.

An order is an object of its own below ``orders/`` in the study's folder, named by when it was given; so it reaches a driver
wherever both reach the results. The driver takes it in, says so in the journal, and removes it. Whatever else lies there,
half written, foreign or crafted, is no order: it is removed and changes nothing.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import Refused, StorageError
from orchestrator.events import Clock, utc_now
from orchestrator.storage import Folder, LocalFolder, folder_at

PAUSE, RESUME, STOP, CANCEL, RETRY = KINDS = ("pause", "resume", "stop", "cancel", "retry")

_FOLDER = "orders"
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-([0-9a-f]{32})\.json")
_CELL = re.compile(r"[0-9a-f]{1,64}")
_MANY = 200
"""Characters of who gave an order."""


@dataclass(frozen=True)
class Order:
    """What the driver is to do. ``pause``: legs in flight run to their rung and none is handed out until ``resume``.
    ``stop``: cells in flight are finished, then the launch ends. ``cancel``: it ends at once, and what is in flight is saved.
    ``retry``: failed cells are taken again."""

    kind: str
    token: str
    """32 hex digits, by which the journal acknowledges it."""
    by: str
    """user@host"""
    cells: tuple[str, ...] = ()
    """Of ``retry``: content ids."""


def give(folder: str | Path, kind: str, cells: Sequence[str] = (), clock: Clock = utc_now) -> Order:
    """Give an order to whatever driver is at work on the study at ``folder``, or will be.

    Raises:
        ValueError: there is no such kind. Refused: cells do not go with it. StorageError: it cannot be written.
    """
    if kind not in KINDS:
        raise ValueError(f"An Order needs a kind out of {', '.join(KINDS)}, but got kind={kind!r}.")
    if bool(cells) != (kind == RETRY) or not all(_CELL.fullmatch(cell) for cell in cells):
        raise Refused(f"An order needs cells, by their content ids, where it is retry, and only there, but got {kind} {list(cells)!r}.")
    order = Order(kind, uuid.uuid4().hex, _who(), tuple(cells))
    given = clock().astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    content = {"kind": order.kind, "token": order.token, "by": order.by, "cells": list(order.cells)}
    _place(folder).replace(f"{given}-{order.token}.json", json.dumps(content).encode() + b"\n")
    return order


class Inbox:
    """The orders for the driver of the study at ``folder``. One driver has it; it remembers what it has seen."""

    def __init__(self, folder: str | Path) -> None:
        self._place = _place(folder)
        self._seen: set[str] = set()

    def poll(self) -> tuple[Order, ...]:
        """Orders that were not seen yet, the oldest first. What is no order is removed.

        Where the folder cannot be read there are none this time, and they are found the next time: a store that is away for
        a minute ends no study. In a bucket a call may take as long as the store takes to answer.
        """
        found: list[Order] = []
        with contextlib.suppress(StorageError):
            for name in _names(self._place):
                if name not in self._seen:
                    found += self._take(name)
        return tuple(found)

    def _take(self, name: str) -> list[Order]:
        """The order of that name, if it is one."""
        try:
            data = self._place.read(name)
        except StorageError:
            if isinstance(self._place, LocalFolder):
                return []  # a file that its owner closed to others must not keep later orders from us
            raise
        self._seen.add(name)
        order = _order(name, data)
        if order is not None:
            return [order]
        with contextlib.suppress(StorageError):
            self._place.remove(name)
        return []

    def remove(self, order: Order) -> None:
        """Forget an order that the journal has acknowledged. Where that fails, it is not seen again by this driver, and swept away
        by the next one."""
        with contextlib.suppress(StorageError):
            for name in _names(self._place):
                if name.endswith(f"-{order.token}.json"):
                    self._place.remove(name)


def sweep_away(folder: str | Path) -> int:
    """Remove what lies there, and say how many orders: they were for a driver that is gone. A driver does this when it starts.

    Raises:
        StorageError: the folder cannot be used.
    """
    place = _place(folder)
    names = _names(place)
    for name in names:
        place.remove(name)
    return len(names)


def waiting(folder: str | Path) -> tuple[tuple[str, datetime], ...]:
    """Names of the orders that nobody has taken in, below the study's folder, and when each was given; the oldest first.

    Raises:
        StorageError: the folder cannot be read.
    """
    names = (name for name in _names(_place(folder)) if _NAME.fullmatch(name))
    return tuple((f"{_FOLDER}/{name}", _given(name)) for name in names)


def _given(name: str) -> datetime:
    try:
        return datetime.strptime(name.partition("-")[0], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    except ValueError:  # a crafted name: the thirteenth month
        return datetime.fromtimestamp(0, UTC)


def _place(folder: str | Path) -> Folder:
    return folder_at(folder / _FOLDER if isinstance(folder, Path) else f"{folder.rstrip('/')}/{_FOLDER}")


def _names(place: Folder) -> list[str]:
    """Of the objects that lie there. One that starts with a dot is being written."""
    return [name for name in place.names("") if name and not name.startswith(".")]


def _order(name: str, data: bytes | None) -> Order | None:
    """What an object says; None where it is no order."""
    named = _NAME.fullmatch(name)
    try:
        content = json.loads(data or b"")
        kind, token, by, cells = content["kind"], content["token"], content["by"], content["cells"]
        is_order = named is not None and kind in KINDS and token == named[1] and isinstance(by, str) and isinstance(cells, list)
        is_order = is_order and len(by) <= _MANY and by.isprintable() and bool(cells) == (kind == RETRY)
        is_order = is_order and all(isinstance(cell, str) and _CELL.fullmatch(cell) for cell in cells)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Order(kind, token, by, tuple(cells)) if is_order else None


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = str(os.getuid())
    return "".join(each for each in f"{user}@{socket.gethostname()}" if each.isprintable())[:_MANY]
