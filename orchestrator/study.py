"""Study: what was asked. One YAML file, read and checked as a whole before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search_spaces import Space, nested
from trainables.distiller import Distiller
from trainables.network import Family
from trainables.recipe import Recipe
from trainables.source import Source
from trainables.trial import Teacher


@dataclass(frozen=True)
class Arm:
    """A named method value with network and training recipe. Dotted names start with method, recipe or model."""

    name: str
    method: Distiller[Any] = nested(None, "the distillation method")
    recipe: Recipe = nested(Recipe(), "how the student is trained")
    model: Family = nested(None, "the student network")


@dataclass(frozen=True)
class Metric:
    """What is compared."""

    select: str = "validation.accuracy"
    """Chooses configurations; never a test metric."""
    report: str = "test.accuracy"
    """Compares arms in the report; opened once per chosen configuration."""
    goal: str = "maximise"

    @property
    def sign(self) -> float:
        """1 where more is better, else -1."""
        return 1.0 if self.goal == "maximise" else -1.0


@dataclass(frozen=True)
class Search:
    """Stage one: every searched arm gets the same number of trials, generations and rungs."""

    spaces: Mapping[str, Space]
    """Arm name to the space that is searched for it."""
    trials: int = 24
    generation: int = 8
    """Trials proposed at a time; also the group within which early stopping compares."""
    startup: int = 8
    """Trials drawn at random before the sampler models anything."""
    blocks: int = 1
    """Blocks on which each configuration is trained; its score is the mean."""
    rungs: tuple[float, ...] = ()
    """Progress in (0, 1) at which a share of the generation is stopped."""
    keep: float = 0.5
    """Share of a generation that goes on after a rung."""
    sampler: str = "tpe"


@dataclass(frozen=True)
class Confirm:
    """Stage two: the tuned base, variants with one part off, and tuned rivals, over blocks that tuning never saw."""

    base: str
    leave_one_out: tuple[str, ...] = ()
    """Dotted names of parts of the base arm."""
    against: tuple[str, ...] = ()
    """Names of rival arms."""
    blocks: int = 10


@dataclass(frozen=True)
class Run:
    """How, not what: nothing here changes a number in the table."""

    lanes: int = 2
    workers: int = 1
    device: str = "auto"
    wandb: str = "offline"
    wandb_project: str = "kdsweep"
    storage: str = "kdsweep-results"
    retries: int = 1
    """How often a cell whose worker died is taken again."""


@dataclass(frozen=True)
class Study:
    """A checked study."""

    name: str
    question: str
    seed: int
    metric: Metric
    data: Source
    teacher: Teacher
    arms: Mapping[str, Arm]
    search: Search | None
    confirm: Confirm | None
    run: Run = field(default_factory=Run)
    text: str = ""
    """The study file, overrides applied, as it is kept with the results."""
