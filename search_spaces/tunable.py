"""The dataclass field that carries default, domain, meaning and off-value on one line, and views of such dataclasses.

A *value* here is a frozen dataclass whose fields are made with ``tunable`` or ``nested``. Its flat view names every
hyper-parameter by a dotted path ("schedule.kind"). A field that exists only under a condition
(``only_if={"kind": ("cosine",)}``) is left out of the flat view where the condition does not hold, so two values that
differ only in something without effect are the same configuration and get the same content id.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, TypeVar

from search_spaces.domains import Choice, Domain, Text, Value, _is_number, _is_whole

T = TypeVar("T")
_KEY = "search_spaces.tunable"


@dataclass(frozen=True)
class Tunable:
    """What is known about one field of a value class."""

    name: str
    default: Any
    domain: Domain | None
    """Where a search looks; None for a nested value, whose own fields have domains."""
    doc: str
    off: Any
    """Value that takes the field's effect away, or MISSING."""
    only_if: tuple[tuple[str, tuple[Value, ...]], ...]
    """The field exists only where each of these sibling fields has one of these values."""
    low: float
    high: float
    """Hard limits of validity; the domain may be narrower."""

    @property
    def is_nested(self) -> bool:
        return self.domain is None

    @property
    def column(self) -> str:
        """Type of a table column for the domain; ValueError for a nested value, which has none."""
        if self.domain is None:
            raise ValueError(f"{self.name} is nested: its fields have columns, it has none.")
        return self.domain.column

    def complaint(self, value: object) -> str | None:
        """Why the value is not valid for the field, or None. Off-values and values outside the search domain are valid."""
        if self.domain is None:
            kind = type(self.default)
            return None if isinstance(value, kind) else f"a {kind.__name__}"
        if self.off is not MISSING and type(value) is type(self.off) and value == self.off:
            return None
        if isinstance(self.domain, Choice | Text):
            return None if self.domain.contains(value) else str(self.domain)
        whole = self.domain.column == "int64"
        if not (_is_whole(value) if whole else _is_number(value)):
            return "a whole number" if whole else "a finite number"
        if not self.low <= value <= self.high:  # type: ignore[operator] # a number, by the line above
            return f"a number in [{self.low:g}, {self.high:g}]"
        return None


def tunable(
    default: Any,
    domain: Domain,
    doc: str,
    *,
    off: Any = MISSING,
    only_if: Mapping[str, Iterable[Value]] | None = None,
    low: float = float("-inf"),
    high: float = float("inf"),
) -> Any:
    """A field with its default, search domain, meaning (with unit) and, where it has one, off-value.

    ``low`` and ``high`` are the hard limits of validity; ``only_if`` names sibling fields and the values for which this
    field has an effect.
    """
    conditions = tuple((name, tuple(values)) for name, values in (only_if or {}).items())
    entry = Tunable("", default, domain, doc, off, conditions, low, high)
    return dataclasses.field(default=default, metadata={_KEY: entry})


def nested(default: Any, doc: str, *, off: Any = MISSING) -> Any:
    """A field that holds another value, whose fields are reached by a dot."""
    entry = Tunable("", default, None, doc, off, (), float("-inf"), float("inf"))
    return dataclasses.field(default=default, metadata={_KEY: entry})


def tunables(value: Any) -> tuple[Tunable, ...]:
    """The tunable fields of a value or value class, in declaration order."""
    return _tunables_of(value if isinstance(value, type) else type(value))


@functools.cache  # every view of a value starts here: a hundred times as fast
def _tunables_of(kind: type[Any]) -> tuple[Tunable, ...]:
    return tuple(dataclasses.replace(field.metadata[_KEY], name=field.name) for field in dataclasses.fields(kind) if _KEY in field.metadata)


def check(value: Any) -> None:
    """Raise ValueError, naming class, field, need and value, if any field is invalid. For ``__post_init__``."""
    for field in tunables(value):
        got = getattr(value, field.name)
        need = field.complaint(got)
        if need is not None:
            raise ValueError(f"{type(value).__name__} needs {field.name} to be {need}, but got {field.name}={got!r}.")


def exists(field: Tunable, value: Any) -> bool:
    """Whether the field has an effect in this value."""
    return all(getattr(value, name) in allowed for name, allowed in field.only_if)


def flat(value: Any, prefix: str = "") -> dict[str, Value]:
    """Dotted names to plain values, without fields that have no effect here."""
    found: dict[str, Value] = {}
    for field in tunables(value):
        if not exists(field, value):
            continue
        got = getattr(value, field.name)
        if field.is_nested:
            found.update(flat(got, f"{prefix}{field.name}."))
        else:
            # YAML's 1 and 1.0 are one value of a real field, so they must be one configuration.
            real = isinstance(field.default, float) and _is_whole(got) and not isinstance(field.domain, Choice)
            found[prefix + field.name] = float(got) if real else got
    return found


def all_names(value: Any, prefix: str = "") -> tuple[str, ...]:
    """Every dotted name of the value's class, nested values (without a dot behind) included, whether it exists or not."""
    names: list[str] = []
    for field in tunables(value):
        names.append(prefix + field.name)
        if field.is_nested:
            names.extend(all_names(getattr(value, field.name), f"{prefix}{field.name}."))
    return tuple(names)


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean *x*?' or an empty string, to be put behind a message about an unknown name."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""


def field_at(value: Any, name: str) -> Tunable:
    """The field at a dotted name.

    Raises:
        KeyError: if there is none; the message suggests the nearest name.
    """
    head, _, rest = name.partition(".")
    for field in tunables(value):
        if field.name == head:
            if not rest:
                return field
            if field.is_nested:
                return field_at(getattr(value, head), rest)
    raise KeyError(f"{type(value).__name__} has no field {name}.{nearest(name, all_names(value))}")


def value_at(value: Any, name: str) -> Any:
    """What stands at a dotted name; KeyError as in ``field_at``."""
    field_at(value, name)
    for part in name.split("."):
        value = getattr(value, part)
    return value


def changed(value: T, changes: Mapping[str, Any]) -> T:
    """A copy with the dotted names changed all at once, validated by the classes themselves.

    Raises:
        KeyError: unknown name. ValueError: invalid value.
    """
    own: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, new in changes.items():
        field_at(value, name)
        head, _, rest = name.partition(".")
        if rest:
            inner.setdefault(head, {})[rest] = new
        else:
            own[head] = new
    for head, deeper in inner.items():
        own[head] = changed(own.get(head, getattr(value, head)), deeper)
    return dataclasses.replace(value, **own)  # type: ignore[type-var] # T is a dataclass: field_at would have raised
