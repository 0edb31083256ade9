"""From nodes to values: every field is checked through its own declaration, and every fault is kept with its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.errors import StudyError
from orchestrator.located import Fault, Node, Place, Scalar, joined, quoted
from search_spaces import Choice, Domain, IntUniform, LogUniform, Schedule, Text, Tunable, Uniform, nearest, tunables
from trainables.folder import load, names

T = TypeVar("T")

DECLARED = "declared"
MANY = 100_000
"""The most there may be of anything that is counted."""
_RANGES: Mapping[str, type[Uniform] | type[LogUniform] | type[IntUniform]] = {
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "int_uniform": IntUniform,
}


class Faults:
    """What is wrong so far. Where the YAML itself is at fault, nothing is added to it."""

    def __init__(self, found: Iterable[Fault] = ()) -> None:
        self._found = list(found)
        self._unreadable = {fault.place for fault in self._found}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, place: Place, path: str, message: str) -> None:
        """Keep one fault of the value at a dotted path."""
        if place not in self._unreadable:
            self._found.append(Fault(place, f"{path}: {message}" if path else message))

    def need(self, node: Node, path: str, need: str, known: Iterable[str] = ()) -> None:
        """Keep "needs X, but got Y", with the nearest of the known words."""
        hint = nearest(node.value[:100], known) if isinstance(node.value, str) else ""
        self.add(node.place, path, f"needs {need}, but got {node}.{hint}")

    def missing(self, place: Place, path: str, need: str) -> None:
        """Keep "needs X, but got nothing"."""
        self.add(place, path, f"needs {need}, but got nothing.")

    def unknown(self, node: Node, path: str, key: str, known: Sequence[str]) -> None:
        """Keep that a key is none of the known ones."""
        hint = nearest(key[:100], known)
        self.add(node.place, joined(path, key), f"needs to be one of {', '.join(known)}, but got {quoted(key)}.{hint}")

    def lines(self) -> list[str]:
        """One line each, in the order of the file, then of the overrides."""
        return [str(fault) for fault in sorted(set(self._found))]

    def settle(self) -> None:
        """Raise StudyError if anything is wrong."""
        if self._found:
            raise StudyError(self.lines())


@dataclass(frozen=True)
class Need:
    """What a single value must be."""

    text: str
    holds: Callable[[Scalar], bool]
    options: tuple[str, ...] = ()


def whole(low: int, high: int) -> Need:
    """A whole number in [low, high]."""
    return Need(f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def one_of(*options: str) -> Need:
    """One of some words."""
    return Need(f"one of {', '.join(options)}", lambda value: value in options, options)


def words() -> Need:
    """Text that is not empty."""
    return Need("text", lambda value: isinstance(value, str) and bool(value.strip()))


def positive() -> Need:
    """A number above 0."""
    return Need("a number above 0", lambda value: type(value) in (int, float) and value > 0)  # type: ignore[operator] # a number, by the first half


def fraction() -> Need:
    """A number strictly between 0 and 1."""
    return Need("a number between 0 and 1, both excluded", lambda value: type(value) is float and 0.0 < value < 1.0)


def entries(faults: Faults, node: Node, path: str, known: Sequence[str], required: Mapping[str, str] | None = None) -> dict[str, Node]:
    """The known entries of a map. ``required`` says of each key that must be there what it needs to be."""
    if not isinstance(node.value, Mapping):
        faults.need(node, path, f"a map with the keys {', '.join(known)}")
        return {}
    found: dict[str, Node] = {}
    for key, inner in node.value.items():
        if key in known:
            found[key] = inner
        else:
            faults.unknown(inner, path, key, known)
    for key, need in (required or {}).items():
        if key not in found:
            faults.missing(node.place, joined(path, key), need)
    return found


def single(faults: Faults, node: Node | None, path: str, need: Need, default: Any) -> Any:
    """The single value that a need holds for, or the default where there is none or it does not."""
    if node is None:
        return default
    if not isinstance(node.value, tuple | Mapping) and need.holds(node.value):
        return node.value
    faults.need(node, path, need.text, need.options)
    return default


def several(faults: Faults, node: Node | None, path: str, need: Need) -> list[tuple[Any, Node]]:
    """The items of a list that a need holds for, each with its node; nothing where there is no list."""
    if node is None:
        return []
    if not isinstance(node.value, tuple):
        faults.need(node, path, f"a list, each item {need.text}")
        return []
    found = [(single(faults, item, f"{path}[{index}]", need, None), item) for index, item in enumerate(node.value)]
    return [pair for pair in found if pair[0] is not None]


def fitted(field: Tunable, value: Any) -> Any:
    """The value as the field spells it: 1 becomes 1.0 where a real number stands."""
    if type(value) is not int or field.domain is None:
        return value
    is_real = field.domain.column == "float64" if not isinstance(field.domain, Choice) else field.domain.contains(float(value))
    return float(value) if is_real else value


def complaint(field: Tunable, node: Node) -> str | None:
    """Why a node is no valid value of a field that is not nested, or None."""
    if isinstance(node.value, tuple | Mapping):
        return field.complaint(None) or "a single value"
    return field.complaint(fitted(field, node.value))


def filled(faults: Faults, base: T, given: Mapping[str, Node], place: Place, path: str, beside: Sequence[str] = ()) -> T:
    """The value with the fields that a map gives, each checked, and then checked by its class as a whole.

    A field at fault keeps its value in ``base``, so that everything that builds on the value can be checked too.
    ``beside`` names other keys of the map, which somebody else reads.
    """
    before = len(faults)
    fields = {field.name: field for field in tunables(base)}
    changes: dict[str, Any] = {}
    for key, node in given.items():
        field = fields.get(key)
        if key in beside:
            continue
        if field is None:
            faults.unknown(node, path, key, (*beside, *fields))
        elif field.is_nested:
            changes[key] = _nested(faults, getattr(base, key), node, joined(path, key))
        else:
            need = complaint(field, node)
            if need is None:
                changes[key] = fitted(field, node.value)
            else:
                faults.need(node, joined(path, key), need, _words_of(field))
    try:
        return dataclasses.replace(base, **changes)  # type: ignore[type-var] # tunables() would have raised for anything but a dataclass
    except ValueError as error:
        if len(faults) == before:
            faults.add(place, path, str(error))
        return base


def _nested(faults: Faults, base: Any, node: Node, path: str) -> Any:
    given = node.entries
    if isinstance(base, Schedule) and isinstance(node.value, str):
        given = {"kind": node}
    elif not isinstance(node.value, Mapping):
        short = f", or one of {', '.join(_kinds())}" if isinstance(base, Schedule) else ""
        faults.need(node, path, f"a map with the keys {', '.join(field.name for field in tunables(base))}{short}")
        return base
    return filled(faults, base, given, node.place, path)


def chosen(faults: Faults, node: Node | None, place: Place, path: str, package: str, kind: type[T]) -> T | None:
    """A value, all defaults, of the class that a node names; None where there is no such class."""
    known = names(package)
    need = one_of(*known)
    if node is None:
        faults.missing(place, path, need.text)
        return None
    name = single(faults, node, path, need, None)
    if name is None:
        return None
    try:
        return load(package, name, kind)()
    except (TypeError, ValueError) as error:
        faults.add(node.place, path, str(error))
        return None


def domain_of(faults: Faults, field: Tunable, node: Node, path: str) -> Domain | None:
    """The domain that a node gives to a field, all of it valid for the field; None where it is at fault."""
    declared = field.domain
    before = len(faults)
    found: Domain | None = None
    if declared is None:
        raise ValueError(f"{field.name} is nested: its fields have domains, it has none.")
    if node.value == DECLARED and not isinstance(declared, Text):
        return declared
    if isinstance(node.value, tuple):
        found = _options(faults, field, node, path)
    elif len(node.entries) == 1:
        ((kind, argument),) = node.entries.items()
        if kind == "choice" and isinstance(argument.value, tuple):
            found = _options(faults, field, argument, joined(path, kind))
        elif kind in _RANGES:
            found = _range(faults, field, kind, argument, joined(path, kind))
        elif kind != "choice":
            faults.unknown(argument, path, kind, (*_RANGES, "choice"))
    if found is None and len(faults) == before:
        faults.need(node, path, f"a domain ({_forms(declared)})", [DECLARED])
    return found if len(faults) == before else None


def _forms(declared: Domain) -> str:
    if isinstance(declared, Text):
        return "a list of options"
    if isinstance(declared, Choice):
        return f"{DECLARED}, or a list of options"
    kinds = ["int_uniform"] if declared.column == "int64" else ["uniform", "log_uniform"]
    return f"{DECLARED}, a list of options, or " + " or ".join(f"{{{kind}: [low, high]}}" for kind in kinds)


def _options(faults: Faults, field: Tunable, node: Node, path: str) -> Domain | None:
    assert isinstance(node.value, tuple)
    before = len(faults)
    for index, item in enumerate(node.value):
        need = complaint(field, item)
        if need is not None:
            faults.need(item, f"{path}[{index}]", need, _words_of(field))
    if len(faults) > before:
        return None
    try:
        return Choice(tuple(fitted(field, item.value) for item in node.value))
    except ValueError as error:
        faults.add(node.place, path, str(error))
        return None


def _range(faults: Faults, field: Tunable, kind: str, node: Node, path: str) -> Domain | None:
    declared = field.domain
    assert declared is not None
    fits = () if isinstance(declared, Choice | Text) else ("int_uniform",) if declared.column == "int64" else ("uniform", "log_uniform")
    if kind not in fits:
        faults.add(node.place, path, f"needs {_forms(declared)} for {field.name}, which is {_article(declared)}, but got {kind}.")
        return None
    if not isinstance(node.value, tuple) or len(node.value) != 2:
        faults.need(node, path, "a list of two bounds, [low, high]")
        return None
    before = len(faults)
    bounds: list[Any] = []
    for index, item in enumerate(node.value):
        need = complaint(field, item)
        value = fitted(field, item.value)
        if need is None and not (isinstance(value, int | float) and field.low <= value <= field.high):
            # An off-value may lie outside the limits, but the numbers next to it are not valid.
            need = f"a number in [{field.low:g}, {field.high:g}]"
        if need is not None:
            faults.need(item, f"{path}[{index}]", need)
        bounds.append(value)
    if len(faults) > before:
        return None
    try:
        return _RANGES[kind](*bounds)
    except ValueError as error:
        faults.add(node.place, path, str(error))
        return None


def _words_of(field: Tunable) -> list[str]:
    options = field.domain.options if isinstance(field.domain, Choice) else ()
    return [option for option in options if isinstance(option, str)]


def _article(declared: Domain) -> str:
    if isinstance(declared, Choice | Text):
        return str(declared)
    return "a whole number" if declared.column == "int64" else "a real number"


def _kinds() -> tuple[str, ...]:
    kind = tunables(Schedule)[0].domain
    assert isinstance(kind, Choice)
    return tuple(str(option) for option in kind.options)
