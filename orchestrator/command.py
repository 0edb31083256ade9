"""Command: what the user wants of the launch at work. Signals say it, and orders from other terminals."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from orchestrator import orders
from orchestrator.errors import StorageError
from orchestrator.events import Event, order_event
from orchestrator.orders import Inbox, Order
from orchestrator.storage import local_path

_LOOK_S, _LOOK_AFAR_S = 1.0, 5.0
"""How often orders are looked for, on a disk and in a bucket, where every look is paid for."""


class Command:
    """Flags that whoever executes a study looks at between two legs, and a halt that a leg looks at between two steps."""

    def __init__(self) -> None:
        self._paused, self._finishing, self._cancelled = threading.Event(), threading.Event(), threading.Event()
        self._changed = threading.Event()
        self._lock = threading.Lock()
        self._retried: list[str] = []
        self.is_at_work = False
        """Whether there may be something in flight, which Ctrl-C saves. Before that it ends the launch where it stands."""

    @property
    def is_paused(self) -> bool:
        """Whether nothing is to be handed out for now."""
        return self._paused.is_set() and not self.is_ending

    @property
    def is_finishing(self) -> bool:
        """Whether cells in flight are to be finished, and nothing else."""
        return self._finishing.is_set()

    @property
    def is_ending(self) -> bool:
        """Whether the launch is to end before the study does."""
        return self._finishing.is_set() or self._cancelled.is_set()

    @property
    def state(self) -> str:
        """What is wanted besides going on, in a word or two; empty where nothing is."""
        if self._cancelled.is_set():
            return "stopping: what is in flight is saved"
        return "finishing what is in flight" if self.is_finishing else "paused" if self.is_paused else ""

    def is_cancelled(self) -> bool:
        """Whether the launch is to end now: the halt of everything in flight."""
        return self._cancelled.is_set()

    def obey(self, kind: str, cells: tuple[str, ...] = ()) -> None:
        """Take in one order."""
        match kind:
            case orders.PAUSE:
                self._paused.set()
            case orders.RESUME:
                self._paused.clear()
            case orders.STOP:
                self._finishing.set()
            case orders.CANCEL:
                self._cancelled.set()
            case orders.RETRY:
                with self._lock:
                    self._retried += cells
        self._changed.set()

    def retried(self) -> tuple[str, ...]:
        """Cells that are to be taken again, and were not asked for before."""
        with self._lock:
            found, self._retried = tuple(self._retried), []
        return found

    def rest(self, seconds: float) -> None:
        """Wait, but no longer than until the next order."""
        self._changed.wait(seconds)
        self._changed.clear()


@contextlib.contextmanager
def listening(command: Command, folder: str, deliver: Callable[[list[Event]], None]) -> Iterator[None]:
    """Orders for the driver of a folder reach the command while the body runs; the journal says of each that it was taken in."""
    inbox, over = Inbox(folder), threading.Event()
    pause_s = _LOOK_S if local_path(folder) is not None else _LOOK_AFAR_S

    def listen() -> None:
        while not over.wait(pause_s):
            for order in inbox.poll():
                # A journal that cannot be written ends the launch in any case: the next event says why.
                with contextlib.suppress(StorageError):
                    _take_in(order)

    def _take_in(order: Order) -> None:
        command.obey(order.kind, order.cells)
        deliver([order_event(order=order.kind, token=order.token, by=order.by, cells=order.cells)])
        inbox.remove(order)

    thread = threading.Thread(target=listen, name="orders", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=2 * pause_s)


@contextlib.contextmanager
def interruptible(command: Command) -> Iterator[None]:
    """Ctrl-C or SIGTERM once: cancel. Twice, or before there is anything to save: KeyboardInterrupt as well.

    A library may swallow that; what is cancelled stays it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        ends_here = command.is_cancelled() or not command.is_at_work
        command.obey(orders.CANCEL)
        if ends_here:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
