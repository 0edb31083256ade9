"""What can be turned off in a value, and the ablation variants that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING
from typing import Any, TypeVar

from search_spaces.tunable import changed, exists, field_at, flat, tunables

T = TypeVar("T")


def switches(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name to off-value of everything in the value that declares one and has an effect there."""
    found: dict[str, Any] = {}
    for field in tunables(value):
        if not exists(field, value):
            continue
        if field.off is not MISSING:
            found[prefix + field.name] = field.off
        if field.is_nested:
            found.update(switches(getattr(value, field.name), f"{prefix}{field.name}."))
    return found


def without(value: T, names: Sequence[str]) -> T:
    """The value with the named parts off.

    Raises:
        KeyError: unknown name. ValueError: a part that declares no off-value.
    """
    changes: dict[str, Any] = {}
    for name in names:
        off = field_at(value, name).off
        if off is MISSING:
            known = ", ".join(switches(value)) or "nothing"
            raise ValueError(f"Turning {name} off needs an off-value, but it declares none. What can be turned off: {known}.")
        changes[name] = off
    return changed(value, changes)


def is_off(value: Any, name: str) -> bool:
    """Whether turning the part off would change nothing."""
    return flat(without(value, [name])) == flat(value)


def leave_one_out(value: T, names: Sequence[str]) -> dict[str, T]:
    """One variant per name, with that part off."""
    return {name: without(value, [name]) for name in names}


def add_one_in(value: T, names: Sequence[str]) -> dict[str, T]:
    """One variant per name, with every other named part off."""
    return {name: without(value, [other for other in names if other != name]) for name in names}
