"""The study of a soak: SLaM against vanilla distillation on digits, searched with rungs and confirmed, as long as is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.events import Event
from trainables.status import OK, RUNNING

STUDY = "search_spaces/studies/slam_digits.yaml"
RUN = ('run.wandb="off"', "run.device=cpu", "run.lanes=2", "run.workers=0", "run.give_up_after=0", "run.retries=100000")
"""Every kill of a lane costs a cell one retry, and no cell is to run out of them."""
SMALL = (
    "search.trials=4",
    "search.generation=4",
    "search.startup=4",
    "search.blocks=1",
    "confirm.blocks=1",
    "confirm.leave_one_out=[method.mixing]",
    "student.recipe.epochs=60",
)
"""What the time of an epoch is measured with."""
_ARMS_SEARCHED, _BLOCKS_SEARCHED, _ARMS_CONFIRMED = 2, 2, 7
_SHARE = 0.5
"""Of a whole training, that a cell of the search takes: with rungs at a quarter and at a half, half of them go on at each."""
_CELL_S = 4.0


@dataclass(frozen=True)
class Size:
    """Of the study."""

    trials: int
    blocks: int
    epochs: int

    @property
    def overrides(self) -> tuple[str, ...]:
        return (f"search.trials={self.trials}", f"confirm.blocks={self.blocks}", f"student.recipe.epochs={self.epochs}")


def size_of(device_s: float, epoch_s: float) -> Size:
    """The size of a study that takes about so many device-seconds, where an epoch of a student takes ``epoch_s``."""
    unit = _ARMS_SEARCHED * 8 * _BLOCKS_SEARCHED * _SHARE + _ARMS_CONFIRMED * 4
    times = max(1, round(device_s / (unit * _CELL_S)))
    return Size(8 * times, 4 * times, max(8, round(device_s / (unit * times) / epoch_s)))


def seconds_an_epoch(events: Sequence[Event]) -> float:
    """Device-seconds of an epoch of a student, from the journal of an undisturbed study."""
    epochs = {event["cell"]: event["config"]["recipe.epochs"] for event in events if event["event"] == "cell" and event["method"]}
    trained, reached, seconds = 0.0, dict[str, float](), list[float]()
    for event in events:
        if event["event"] == "row" and event["cell"] in epochs and event["status"] in (RUNNING, OK):
            trained += (event["progress"] - reached.get(event["cell"], 0.0)) * epochs[event["cell"]]
            reached[event["cell"]] = event["progress"]
            seconds.append(event["device_seconds"])
    return math.fsum(seconds) / trained
