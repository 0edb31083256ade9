"""One schedule for learning rates, estimated accuracies, temperatures and loss weights: a number as a function of progress.

Progress runs from 0 to 1 over a training, so a schedule means the same at every length of training. The driver side
evaluates it as a plain number once a step, so its kind and its numbers never enter a compiled graph.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

from search_spaces.domains import Choice, LogUniform, Uniform
from search_spaces.tunable import check, tunable

CONSTANT, LINEAR, COSINE, EXPONENTIAL, STEP = "constant", "linear", "cosine", "exponential", "step"
_MOVING = (LINEAR, COSINE, EXPONENTIAL, STEP)


@dataclass(frozen=True)
class Schedule:
    """A level that starts at ``start``, moves to ``end`` in the way of its kind, and may be warmed up from zero.

    With q the progress after warm-up: linear moves evenly, cosine as (1 + cos(pi q)) / 2, exponential geometrically,
    and step multiplies the distance to ``end`` by ``factor`` at ``first``, ``first + every``, ... of the whole training.
    """

    kind: str = tunable(CONSTANT, Choice((CONSTANT, *_MOVING)), "way from start to end")
    start: float = tunable(1.0, Uniform(0.0, 1.0), "level where warm-up ends", low=0.0)
    end: float = tunable(0.0, Uniform(0.0, 1.0), "level at the end of training", only_if={"kind": _MOVING}, low=0.0)
    first: float = tunable(0.5, Uniform(0.2, 0.8), "progress of the first step", only_if={"kind": (STEP,)}, low=0.0, high=1.0)
    every: float = tunable(0.25, Uniform(0.1, 0.5), "progress between steps", only_if={"kind": (STEP,)}, low=1e-3, high=1.0)
    factor: float = tunable(
        0.1, LogUniform(0.01, 0.9), "what a step leaves of the distance to end", only_if={"kind": (STEP,)}, low=0.0, high=1.0
    )
    warmup: float = tunable(
        0.0, Uniform(0.0, 0.3), "fraction of training over which the level rises from 0 to start", off=0.0, low=0.0, high=1.0
    )

    def __post_init__(self) -> None:
        check(self)
        if self.kind == EXPONENTIAL and not (self.start > 0 and self.end > 0):
            raise ValueError(f"An exponential Schedule needs start and end above 0, but got start={self.start}, end={self.end}.")

    def at(self, progress: float) -> float:
        """The level at a progress in [0, 1]."""
        if progress < self.warmup:
            return self.start * progress / self.warmup
        left = 1.0 - self.warmup
        q = (progress - self.warmup) / left if left > 0 else 1.0
        distance = self.start - self.end
        if self.kind == LINEAR:
            return self.end + distance * (1.0 - q)
        if self.kind == COSINE:
            return self.end + distance * 0.5 * (1.0 + math.cos(math.pi * q))
        if self.kind == EXPONENTIAL:
            return float(self.start * (self.end / self.start) ** q)
        if self.kind == STEP:
            # 1e-9: milestones such as 0.4 + 0.2 + 0.2 must count as reached at 0.8.
            steps = 0 if progress < self.first - 1e-9 else 1 + int((progress - self.first + 1e-9) / self.every)
            return self.end + distance * self.factor**steps
        return self.start

    def frozen(self, progress: float) -> Schedule:
        """The constant schedule that stays at this schedule's level at ``progress``."""
        return Schedule(start=self.at(progress))

    @property
    def now(self) -> float:
        """The level of a schedule that was frozen at a progress, as the training loop does before every step."""
        if self.kind != CONSTANT or self.warmup != 0.0:
            raise ValueError(f"A Schedule needs to be frozen before its level is read, but got {self}.")
        return self.start

    def lifted(self, level: float) -> Schedule:
        """The constant schedule at ``level``, which may be a traced scalar and is not checked."""
        new = copy.copy(_CONSTANT)  # not dataclasses.replace: its checks cannot be traced
        object.__setattr__(new, "start", level)
        return new


_CONSTANT = Schedule()
