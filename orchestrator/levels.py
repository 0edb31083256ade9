"""Levels: what the designs of a study set in its arms, as values. A part is switched off; a factor has levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.designs import Design
from search_spaces import Schedule, flat, tunables
from trainables.distiller import Distiller
from trainables.folder import name_of
from trainables.network import Family

TUNED = "tuned"
"""As a level: what the arm has after tuning."""
OFF, ON = "off", "on"
LOW, HIGH = "low", "high"


@dataclass(frozen=True)
class Part:
    """Fields that are switched off together."""

    name: str
    """Of a single field its dotted name, of a group what the study calls it."""
    fields: tuple[str, ...]
    """Dotted names."""

    @property
    def title(self) -> str:
        """As labels have it: a field of the method without "method."."""
        return self.name.removeprefix("method.")

    def to_json(self) -> Any:
        """The dotted name alone, or the group's name and fields."""
        return self.name if self.fields == (self.name,) else [self.name, sorted(self.fields)]


@dataclass(frozen=True)
class Level:
    """One setting of a factor. Without anything set, it is the arm as tuned."""

    label: str
    values: tuple[tuple[str, Any], ...] = ()
    """Dotted names, under method, recipe, model, teacher or data, and what they are set to."""
    off: tuple[str, ...] = ()
    """Dotted names that are set to their off-values."""
    arm: str | None = None
    """The tuned arm that it starts from; None for the base."""

    def to_json(self) -> Any:
        """What is set. The label follows from it."""
        return [self.arm, {name: spelled(value) for name, value in self.values}, sorted(self.off)]


@dataclass(frozen=True)
class Factor:
    """What is varied, and its levels: two in a factorial, low first, or any number one at a time."""

    name: str
    levels: tuple[Level, ...]

    @property
    def title(self) -> str:
        """As labels have it: a field of the method without "method."."""
        return self.name.removeprefix("method.")

    def to_json(self) -> Any:
        return [self.name, [level.to_json() for level in self.levels]]


@dataclass(frozen=True)
class Factorial:
    """Factors of two levels, and which of their combinations are trained."""

    factors: tuple[Factor, ...]
    design: Design
    """Over the factors' names, in their order."""

    def levels(self, row: Mapping[str, int]) -> tuple[Level, ...]:
        """The level of every factor in a run."""
        return tuple(factor.levels[row[factor.name] > 0] for factor in self.factors)

    def to_json(self) -> Any:
        return [[factor.to_json() for factor in self.factors], [generator.to_json() for generator in self.design.generators]]


def spelled(value: Any) -> Any:
    """A level's value as JSON: of a method or network its name with its fields, of a schedule its fields."""
    if isinstance(value, Distiller | Family):
        return [name_of(value), flat(value)]
    return flat(value) if isinstance(value, Schedule) else value


def shown(value: Any) -> str:
    """A level's value in a label: short, and different for different values."""
    if isinstance(value, Schedule):
        return value.kind + _said(value, Schedule(), ("kind",))
    if isinstance(value, Distiller | Family):
        return name_of(value) + _said(value, type(value)())
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _said(value: Any, default: Any, left_out: tuple[str, ...] = ()) -> str:
    """In parentheses, the fields that differ from a default."""
    names = [field.name for field in tunables(value) if field.name not in left_out]
    said = [f"{name}={shown(getattr(value, name))}" for name in names if getattr(value, name) != getattr(default, name)]
    return f"({', '.join(said)})" if said else ""
