"""Ablation path: from a default to the tuned base, one part at a time, each step decided by real trainings. Pure functions of rows.

Fawcett and Hoos, "Analysing differences between algorithm configurations through ablation", Journal of Heuristics 22, 2016,
https://doi.org/10.1007/s10732-014-9275-9, section 3 (first at MIC 2013). At every step each part that still has the value of the start is
given that of the base, alone; all of these are trained on the path's own blocks, and the one with the best mean of the metric that
selects is kept, until every part is as in the base. It is greedy, so the order of the parts depends on the parts flipped before, and
what two parts do only together counts for the later one.

Cells of a step exist once the step before is decided. They open no test split, and their scores have chosen: what is reported
are the arms along the path, trained again in stage two.

Departure: a step ties in favour of the part that is named first; the paper races configurations until one is significantly better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.events import PATH
from orchestrator.levels import Part
from orchestrator.plan import DESIGN, Cell
from orchestrator.study import Arm, Confirm, Path, Study
from search_spaces import value_at


@dataclass(frozen=True)
class Step:
    """One flip."""

    part: Part
    """That was kept."""
    tried: tuple[tuple[Part, float | None], ...]
    """Every part that could have been, with its score on the path's blocks; None where a training failed or is not valid."""

    @property
    def score(self) -> float | None:
        """Of the part that was kept."""
        return dict(self.tried)[self.part]


@dataclass(frozen=True)
class Course:
    """A path that was walked to its end."""

    path: Path
    steps: tuple[Step, ...]
    idle: tuple[Part, ...] = ()
    """Parts that have in the base what they start with: tuning left them alone."""
    stuck: tuple[Part, ...] = ()
    """Parts of which no flip could be trained: the last step to the base flips them all at once."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """Flipped one by one, in their order."""
        return tuple(step.part for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """As the design event has it."""
        steps = [
            {"part": step.part.title, "tried": [{"part": part.title, "score": score} for part, score in step.tried]} for step in self.steps
        ]
        names = {"idle": [part.title for part in self.idle], "stuck": [part.title for part in self.stuck]}
        return {"start": self.path.start, "blocks": self.path.blocks, "steps": steps, **names}


def bound(path: Path) -> int:
    """Trainings of the path on each of its blocks, at most."""
    return len(path.parts) * (len(path.parts) + 1) // 2


def label(base: str, flipped: Sequence[Part]) -> str:
    """Of an arm along the path: where it starts, or how many parts are flipped, and which one was last."""
    return f"{base}, path +{len(flipped)} {flipped[-1].title}" if flipped else start_label(base)


def start_label(base: str) -> str:
    """Of the arm that the path starts from."""
    return f"{base}, path start"


def held(study: Study, confirm: Confirm, path: Path, flipped: Sequence[Part]) -> dict[str, Any]:
    """What the base gets where some parts are flipped: of every other part, the values that the path starts with."""
    start = study.arms[path.start or confirm.base]
    return {name: value_at(start, name) for part in path.parts if part not in flipped for name in part.fields}


Score = Callable[[Sequence[Cell]], tuple[bool, float | None]]
"""Of cells, whether all of them are final, and their mean; None where there is none."""


class Walk:
    """A path under way: ``settle`` does all that has become decidable."""

    def __init__(self, study: Study, confirm: Confirm, path: Path, base: Arm, enter: Callable[[Cell], object], score: Score) -> None:
        """``base``: as tuned. ``enter`` puts a cell into the plan."""
        self._study, self._confirm, self._path, self._base = study, confirm, path, base
        self._enter, self._score = enter, score
        values = held(study, confirm, path, ())
        self._idle = tuple(part for part in path.parts if all(value_at(base, name) == values[name] for name in part.fields))
        self._steps: list[Step] = []
        self._stuck: tuple[Part, ...] = ()
        self._asked: Mapping[Part, tuple[Cell, ...]] | None = None
        self.entered = 0
        """Trainings asked for so far, on each block."""

    @property
    def left(self) -> tuple[Part, ...]:
        """Parts that are still to be flipped."""
        gone = (*self._idle, *self._stuck, *(step.part for step in self._steps))
        return tuple(part for part in self._path.parts if part not in gone)

    @property
    def to_come(self) -> int:
        """Trainings on each block that will be asked for yet, at most."""
        count = len(self.left) - (self._asked is not None)
        return count * (count + 1) // 2

    @property
    def is_done(self) -> bool:
        return not self.left

    @property
    def course(self) -> Course:
        """As far as it has come."""
        return Course(self._path, tuple(self._steps), self._idle, self._stuck)

    def settle(self) -> None:
        """Decide every step whose trainings are in, and ask for those of the next."""
        while not self.is_done:
            if self._asked is None:
                self._asked = {part: self._cells(part) for part in self.left}
                self.entered += sum(bool(cells) for cells in self._asked.values())
                for cell in (cell for cells in self._asked.values() for cell in cells):
                    self._enter(cell)
            found = {part: self._score(cells) if cells else (True, None) for part, cells in self._asked.items()}
            if not all(is_final for is_final, _ in found.values()):
                return
            tried = tuple((part, score) for part, (_, score) in found.items())
            sign = self._study.metric.sign
            scored = [(part, sign * score) for part, score in tried if score is not None]
            if scored:
                self._steps.append(Step(max(scored, key=lambda each: each[1])[0], tried))
            else:
                self._stuck = self.left
            self._asked = None

    def _cells(self, part: Part) -> tuple[Cell, ...]:
        """Of the configuration with one more part flipped; none where it is not valid."""
        flipped = [*(step.part for step in self._steps), part]
        study, path = self._study, self._path
        try:
            arm = self._base.varied(study, held(study, self._confirm, path, [*self._idle, *flipped]))
            trials = [arm.trial(study, study.block(PATH, index), opens_test=False) for index in range(path.blocks)]
        except ValueError:
            return ()
        name = label(self._confirm.base, flipped)
        return tuple(Cell(trial, PATH, name, index, DESIGN, generation=len(self._steps)) for index, trial in enumerate(trials))


def mean_of(values: Sequence[float]) -> float | None:
    """None where a value is not finite."""
    mean = math.fsum(values) / len(values)
    return mean if math.isfinite(mean) else None
