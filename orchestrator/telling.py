"""Telling: an order is given to the driver at work, and its word in the journal is waited for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator import orders
from orchestrator.errors import Refused, StorageError
from orchestrator.events import Event
from orchestrator.journal import Journal
from orchestrator.orders import Order
from orchestrator.storage import holder_of, local_path

_PATIENCE_S, _PATIENCE_AFAR_S = 30.0, 90.0
"""How long a driver may take, on a disk and in a bucket, where it looks seldom."""
_LOOK_S, _LOOK_AFAR_S = 0.2, 2.0


@dataclass(frozen=True)
class Told:
    """What became of an order."""

    order: Order
    driver: str
    """Who was at work when it was given."""
    event: Event | None
    """The driver's word in the journal; None where there is none yet."""
    is_driver_gone: bool = False
    """Whether nobody is at work any more, so that the order was taken back."""


def known(folder: str) -> tuple[Event, ...]:
    """What the journal of a study holds.

    Raises:
        StorageError: there is no study.
    """
    events = Journal(folder).read()
    if all(event["event"] != "study" for event in events):
        raise StorageError(f"{folder} holds no results of a study: there is no journal in it. `kdsweep run STUDY` makes one.")
    return events


def is_paused(events: Sequence[Event]) -> bool:
    """Whether the driver of the last launch was told to pause, and not to go on."""
    for event in reversed(events):
        if event["event"] == "study":
            return False
        if event["event"] == "order" and event.get("order") in (orders.PAUSE, orders.RESUME):
            return bool(event["order"] == orders.PAUSE)
    return False


def driver_of(folder: str, kind: str) -> str:
    """Who is at work on a study.

    Raises:
        Refused: nobody is. StorageError: there is no study.
    """
    driver = holder_of(folder)
    if driver is None:
        known(folder)
        raise Refused(
            f"`kdsweep {kind}` needs a driver that is at work on {folder}, but got none: nothing is running. "
            "`kdsweep status` shows where the study stands, and `kdsweep resume` goes on with it."
        )
    return driver


def tell(folder: str, kind: str, cells: Sequence[str] = (), *, say: Callable[[str], None], patience_s: float | None = None) -> Told:
    """Give an order and wait until the journal has it, for at most ``patience_s``. ``say`` tells the user what is waited for.

    Raises:
        Refused: no driver is at work. StorageError: the folder cannot be used.
    """
    driver = driver_of(folder, kind)
    is_afar = local_path(folder) is None
    patience = patience_s if patience_s is not None else _PATIENCE_AFAR_S if is_afar else _PATIENCE_S
    order, journal = orders.give(folder, kind, cells), Journal(folder)
    say(f"Waiting, for at most {patience:.0f} s, until {driver} has taken the order in.")
    deadline = time.monotonic() + patience
    while True:
        started = time.monotonic()
        with contextlib.suppress(StorageError):  # a store that is away for a moment takes no order back
            # Whoever ends says its last words before it lets go: so this is asked first.
            is_gone = holder_of(folder) is None
            event = next((event for event in reversed(journal.read()) if event.get("token") == order.token), None)
            if event is not None:
                return Told(order, driver, event)
            if is_gone:
                orders.Inbox(folder).remove(order)
                return Told(order, driver, None, is_driver_gone=True)
        now = time.monotonic()
        if now >= deadline:
            return Told(order, driver, None)
        # A long journal is read seldom.
        time.sleep(min(max(_LOOK_AFAR_S if is_afar else _LOOK_S, 2 * (now - started)), max(0.05, deadline - now)))
