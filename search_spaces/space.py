"""A search space: flat dotted names to domains, with conditions under which a name exists at all."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from search_spaces.domains import Choice, Domain, Value
from search_spaces.tunable import nearest, tunables, value_at

Point = dict[str, Value]


@dataclass(frozen=True)
class Condition:
    """Holds where the parameter ``name`` (or, where it is not searched, the base value's field) is one of ``values``."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Parameter:
    """One dimension of a space."""

    name: str
    domain: Domain
    conditions: tuple[Condition, ...] = ()

    def exists(self, point: Mapping[str, Value]) -> bool:
        """Whether the parameter has an effect, given the values of those it depends on."""
        return all(condition.name in point and point[condition.name] in condition.values for condition in self.conditions)


@dataclass(frozen=True)
class Space:
    """Parameters, each after those it depends on. Names are unique; conditions refer to parameters of the space."""

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for parameter in self.parameters:
            if parameter.name in seen:
                raise ValueError(f"A Space needs distinct names, but got {parameter.name} twice.")
            for condition in parameter.conditions:
                if condition.name not in seen:
                    raise ValueError(f"A Space needs {condition.name} before {parameter.name}, which exists only if it has certain values.")
            seen.add(parameter.name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    def parameter(self, name: str) -> Parameter:
        """The parameter of that name; KeyError, with the nearest name, if there is none."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(f"The space has no {name}.{nearest(name, self.names)}")

    def contains(self, point: Mapping[str, Value]) -> bool:
        """Whether the point gives every existing parameter a value of its domain, and nothing else."""
        existing = {p.name for p in self.parameters if p.exists(point)}
        return set(point) == existing and all(self.parameter(name).domain.contains(value) for name, value in point.items())

    def draw(self, rng: random.Random) -> Point:
        """A random point."""
        point: Point = {}
        for parameter in self.parameters:
            if parameter.exists(point):
                point[parameter.name] = parameter.domain.draw(rng)
        return point

    def points(self) -> Iterator[Point]:
        """Every point of a space of finite domains, in lexicographic order.

        Raises:
            ValueError: if a domain is a continuum.
        """
        for parameter in self.parameters:
            if parameter.domain.size is None:
                raise ValueError(f"Listing a space needs finite domains, but {parameter.name} is {parameter.domain}.")
        yield from self._points({}, 0)

    def _points(self, point: Point, index: int) -> Iterator[Point]:
        if index == len(self.parameters):
            yield dict(point)
            return
        parameter = self.parameters[index]
        if not parameter.exists(point):
            yield from self._points(point, index + 1)
            return
        for value in parameter.domain.grid(parameter.domain.size or 0):
            yield from self._points({**point, parameter.name: value}, index + 1)

    def count(self) -> float:
        """Number of points; ``math.inf`` where a domain is a continuum."""
        if any(parameter.domain.size is None for parameter in self.parameters):
            return math.inf
        return sum(1 for _ in self.points())

    def fix(self, name: str, value: Value) -> Space:
        """The space with one parameter held at a value (still named, so that points stay complete)."""
        return self.narrow(name, Choice((value,)))

    def narrow(self, name: str, domain: Domain) -> Space:
        """The space with another domain for one parameter; KeyError if the name is unknown."""
        self.parameter(name)
        return Space(tuple(replace(p, domain=domain) if p.name == name else p for p in self.parameters))

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {
                "name": parameter.name,
                "domain": parameter.domain.to_json(),
                "only_if": {condition.name: list(condition.values) for condition in parameter.conditions},
            }
            for parameter in self.parameters
        ]

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with any name, domain or condition."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def space_of(value: Any, domains: Mapping[str, Domain | None] | None = None, prefix: str = "") -> Space:
    """The space over a value's fields.

    ``domains`` selects the searched names, relative to ``prefix``; None as a domain means the declared one, and a missing
    ``domains`` selects every field. A condition on a field that is not searched is settled by the value: the parameter
    is dropped where it can never exist. Conditions on searched fields become conditions of the space.

    Raises:
        KeyError: unknown name in ``domains``. ValueError: a selected name can never exist, or is a nested value.
    """
    selected: list[Parameter] = []
    wanted = None if domains is None else dict(domains)
    if wanted is not None:
        for name in wanted:
            value_at(value, name)
    _collect(value, "", (), wanted, selected)
    chosen = {parameter.name for parameter in selected}
    kept: list[Parameter] = []
    dropped: set[str] = set()
    for parameter in selected:
        unresolved: list[Condition] = []
        possible = True
        for condition in parameter.conditions:
            if condition.name in dropped:
                possible = False
            elif condition.name in chosen:
                searched = next(p.domain for p in selected if p.name == condition.name)
                possible = possible and any(searched.contains(allowed) for allowed in condition.values)
                unresolved.append(condition)
            elif value_at(value, condition.name) not in condition.values:
                possible = False
        if possible:
            kept.append(replace(parameter, conditions=tuple(unresolved)))
            continue
        if wanted is not None:
            needs = " and ".join(f"{c.name} in {list(c.values)}" for c in parameter.conditions)
            raise ValueError(f"Searching {parameter.name} needs {needs}, but the study never gives it that.")
        dropped.add(parameter.name)
    if wanted is not None:
        missing = [name for name in wanted if name not in chosen]
        if missing:
            raise ValueError(f"A space needs single fields, but {missing[0]} is a group of fields: name them one by one.")
    return Space(
        tuple(Parameter(prefix + p.name, p.domain, tuple(Condition(prefix + c.name, c.values) for c in p.conditions)) for p in kept)
    )


def _collect(
    value: Any, prefix: str, outer: tuple[Condition, ...], wanted: Mapping[str, Domain | None] | None, into: list[Parameter]
) -> None:
    """Depth-first, so a field comes after the siblings it depends on (which are declared before it)."""
    for field in tunables(value):
        name = prefix + field.name
        conditions = (*outer, *(Condition(prefix + sibling, allowed) for sibling, allowed in field.only_if))
        if field.domain is None:
            _collect(getattr(value, field.name), f"{name}.", conditions, wanted, into)
        elif wanted is None or name in wanted:
            domain = field.domain if wanted is None else (wanted[name] or field.domain)
            into.append(Parameter(name, domain, conditions))
