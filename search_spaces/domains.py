"""The kinds of domain a field can have: frozen, self-validating, drawable without any library."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Value = float | int | str | bool


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class Domain(ABC):
    """A set of values with a way to draw from it."""

    @property
    @abstractmethod
    def column(self) -> str:
        """Type of a table column that holds this domain: float64, int64, string or bool."""

    @abstractmethod
    def contains(self, value: object) -> bool:
        """Whether the value, with its exact type, belongs to the domain."""

    @abstractmethod
    def draw(self, rng: random.Random) -> Value:
        """One value, uniform in the domain's own scale. ValueError for Text, which nothing is drawn from."""

    @abstractmethod
    def grid(self, count: int) -> tuple[Value, ...]:
        """At most ``count`` values, evenly spread, both ends included."""

    @property
    @abstractmethod
    def size(self) -> int | None:
        """Number of values, or None where there is a continuum."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The form that study files use; ``domain_from_json`` reads it back."""

    @abstractmethod
    def __str__(self) -> str:
        """What to write after "needs"."""


@dataclass(frozen=True)
class Uniform(Domain):
    """Real numbers in [low, high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (_is_number(self.low) and _is_number(self.high) and self.low < self.high):
            raise ValueError(f"Uniform needs finite low < high, but got low={self.low!r}, high={self.high!r}.")

    @property
    def column(self) -> str:
        return "float64"

    @property
    def size(self) -> int | None:
        return None

    def contains(self, value: object) -> bool:
        return _is_number(value) and self.low <= value <= self.high  # type: ignore[operator] # narrowed by _is_number

    def draw(self, rng: random.Random) -> float:
        return rng.uniform(self.low, self.high)

    def grid(self, count: int) -> tuple[float, ...]:
        if count < 2:
            return ((self.low + self.high) / 2,)
        return tuple(self.low + (self.high - self.low) * i / (count - 1) for i in range(count))

    def to_json(self) -> dict[str, Any]:
        return {"uniform": [self.low, self.high]}

    def __str__(self) -> str:
        return f"a number in [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class LogUniform(Domain):
    """Positive real numbers in [low, high], uniform in the logarithm."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (_is_number(self.low) and _is_number(self.high) and 0 < self.low < self.high):
            raise ValueError(f"LogUniform needs finite 0 < low < high, but got low={self.low!r}, high={self.high!r}.")

    @property
    def column(self) -> str:
        return "float64"

    @property
    def size(self) -> int | None:
        return None

    def contains(self, value: object) -> bool:
        return _is_number(value) and self.low <= value <= self.high  # type: ignore[operator] # narrowed by _is_number

    def draw(self, rng: random.Random) -> float:
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return min(max(drawn, self.low), self.high)

    def grid(self, count: int) -> tuple[float, ...]:
        if count < 2:
            return (math.sqrt(self.low * self.high),)
        ratio = self.high / self.low
        inner = tuple(self.low * ratio ** (i / (count - 1)) for i in range(1, count - 1))
        return (self.low, *inner, self.high)

    def to_json(self) -> dict[str, Any]:
        return {"log_uniform": [self.low, self.high]}

    def __str__(self) -> str:
        return f"a number in [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class IntUniform(Domain):
    """Whole numbers low, low + 1, ..., high."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not (_is_whole(self.low) and _is_whole(self.high) and self.low <= self.high):
            raise ValueError(f"IntUniform needs whole low <= high, but got low={self.low!r}, high={self.high!r}.")

    @property
    def column(self) -> str:
        return "int64"

    @property
    def size(self) -> int | None:
        return self.high - self.low + 1

    def contains(self, value: object) -> bool:
        return _is_whole(value) and self.low <= value <= self.high  # type: ignore[operator] # narrowed by _is_whole

    def draw(self, rng: random.Random) -> int:
        return rng.randint(self.low, self.high)

    def grid(self, count: int) -> tuple[int, ...]:
        span = self.high - self.low
        if count > span:
            return tuple(range(self.low, self.high + 1))
        if count < 2:
            return (self.low + span // 2,)
        return tuple(dict.fromkeys(self.low + round(span * i / (count - 1)) for i in range(count)))

    def to_json(self) -> dict[str, Any]:
        return {"int_uniform": [self.low, self.high]}

    def __str__(self) -> str:
        return f"a whole number in [{self.low}, {self.high}]"


@dataclass(frozen=True)
class Choice(Domain):
    """A finite list of values, in no order."""

    options: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.options, tuple):
            raise ValueError(f"Choice needs a tuple, but got options={self.options!r}.")
        if not self.options:
            raise ValueError("Choice needs at least one option, but got options=().")
        for option in self.options:
            if not isinstance(option, bool | int | float | str):
                raise ValueError(f"Choice needs numbers, words or booleans, but got option={option!r}.")
        if len({(type(option), option) for option in self.options}) < len(self.options):
            raise ValueError(f"Choice needs distinct options, but got options={self.options!r}.")

    @property
    def column(self) -> str:
        kinds = {type(option) for option in self.options}
        if kinds == {bool}:
            return "bool"
        if kinds == {int}:
            return "int64"
        if kinds <= {int, float}:
            return "float64"
        return "string"

    @property
    def size(self) -> int | None:
        return len(self.options)

    def contains(self, value: object) -> bool:
        # 1, 1.0 and True are equal in Python but not the same choice.
        return any(type(value) is type(option) and value == option for option in self.options)

    def draw(self, rng: random.Random) -> Value:
        return self.options[rng.randrange(len(self.options))]

    def grid(self, count: int) -> tuple[Value, ...]:
        return self.options[: max(count, 1)]

    def to_json(self) -> dict[str, Any]:
        return {"choice": list(self.options)}

    def __str__(self) -> str:
        return "one of " + ", ".join(str(option) for option in self.options)


@dataclass(frozen=True)
class Text(Domain):
    """One line of text that names something outside the study, like a folder or a data set: given, and never drawn.

    What is searched instead is a list of such names, which is a Choice.
    """

    most: int = 500
    """Characters."""

    @property
    def column(self) -> str:
        return "string"

    @property
    def size(self) -> int | None:
        return None

    def contains(self, value: object) -> bool:
        return isinstance(value, str) and len(value) <= self.most and value.isprintable()

    def draw(self, rng: random.Random) -> str:
        raise ValueError("Text needs a list of options to be drawn from, but got none.")

    def grid(self, count: int) -> tuple[str, ...]:
        return ()

    def to_json(self) -> dict[str, Any]:
        return {"text": self.most}

    def __str__(self) -> str:
        return f"a line of at most {self.most} printable characters"


_KINDS: dict[str, type[Uniform] | type[LogUniform] | type[IntUniform]] = {
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "int_uniform": IntUniform,
}


def domain_from_json(form: Mapping[str, Any] | list[Value]) -> Domain:
    """The domain that ``{"uniform": [low, high]}``, ``{"choice": [...]}`` or a plain list of options means.

    Raises:
        ValueError: if the form is none of these, or its bounds are not in order.
    """
    if isinstance(form, list):
        return Choice(tuple(form))
    if isinstance(form, Mapping) and len(form) == 1:
        (kind, argument), *_ = form.items()
        if kind == "choice" and isinstance(argument, list):
            return Choice(tuple(argument))
        if kind == "text" and _is_whole(argument):
            return Text(argument)
        if kind in _KINDS and isinstance(argument, list) and len(argument) == 2:
            return _KINDS[kind](*argument)
    raise ValueError(
        "A domain needs the form {uniform: [low, high]}, {log_uniform: [low, high]}, {int_uniform: [low, high]} "
        f"or a list of options, but got {form!r}."
    )
