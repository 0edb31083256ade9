"""Fractions of a factorial as they are read: a resolution that is asked for, or generators. Every fault is kept with its place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from orchestrator.designs import LETTERS, MOST_FACTORS, MOST_RUNS, Design, Generator, fraction_of
from orchestrator.fields import Faults, entries, several, single, whole, words
from orchestrator.located import Node, joined
from search_spaces import nearest

_GENERATOR_NEED = "text of the form D=ABC, in letters of the factors' order, or NAME = NAME*NAME"


def asked_of(faults: Faults, node: Node, path: str) -> tuple[int | None, list[tuple[str, Node]]] | None:
    """The resolution asked for, or generators; None where it is at fault."""
    before = len(faults)
    found = entries(faults, node, path, ("resolution", "generators"))
    if isinstance(node.value, Mapping) and len(found) != 1 and len(faults) == before:
        faults.add(node.place, path, f"needs either resolution or generators, but got {'both' if found else 'neither'}.")
    resolution = single(faults, found.get("resolution"), joined(path, "resolution"), whole(3, MOST_FACTORS), None)
    generators = several(faults, found.get("generators"), joined(path, "generators"), words())
    given = found.get("generators")
    if given is not None and isinstance(given.value, tuple) and not given.value:
        faults.need(given, joined(path, "generators"), f"a list, each item {_GENERATOR_NEED}")
    return (resolution, generators) if len(faults) == before else None


def read_design(faults: Faults, node: Node | None, path: str, factors: Sequence[str], above: Node) -> Design | None:
    """The design over factors that a fraction comes to, all combinations where there is no node; None where it is at fault.

    ``above`` is what a fraction that is missing would stand in.
    """
    if node is None or node.value is None:
        design = Design(tuple(factors))
        if design.runs <= MOST_RUNS:
            return design
        faults.add(
            above.place,
            path,
            f"needs to be given with {len(factors)} factors, whose {design.runs} runs are more than {MOST_RUNS}, but got nothing.",
        )
        return None
    asked = asked_of(faults, node, path)
    if asked is None:
        return None
    resolution, generators = asked
    if resolution is not None:
        try:
            return fraction_of(factors, resolution)
        except ValueError as error:
            faults.add(node.place, joined(path, "resolution"), f"needs a fraction that there is, but got this: {error}")
            return None
    before = len(faults)
    inside = joined(path, "generators")
    read = [_generator(faults, text, at, f"{inside}[{index}]", factors) for index, (text, at) in enumerate(generators)]
    if len(faults) > before:
        return None
    try:
        design = Design(tuple(factors), tuple(generator for generator in read if generator is not None))
    except ValueError as error:
        faults.add(node.place, inside, f"needs generators of a fraction, but got this: {error}")
        return None
    if design.runs > MOST_RUNS:
        faults.add(node.place, inside, f"needs generators that leave at most {MOST_RUNS} runs, but got {design.runs}.")
        return None
    return design


def _generator(faults: Faults, text: str, node: Node, path: str, factors: Sequence[str]) -> Generator | None:
    left, equals, right = (part.strip() for part in text.partition("="))
    sign = -1 if right.startswith("-") else 1
    product = right.lstrip("+-").strip()
    made, of = _factors_of(left, factors), _factors_of(product, factors)
    if not equals or made is None or len(made) != 1 or of is None:
        known = ", ".join(f"{letter} {name}" for letter, name in zip(LETTERS, factors, strict=False))
        faults.add(node.place, path, f"needs {_GENERATOR_NEED} ({known}), but got {node}.{_hint(right, left, factors)}")
        return None
    return Generator(made[0], tuple(name for name in factors if name in of) if len(set(of)) == len(of) else tuple(of), sign)


def _factors_of(text: str, factors: Sequence[str]) -> list[str] | None:
    """Factors by their names with * between them, else by their letters; None where one is unknown."""
    names = [part.strip() for part in text.split("*")]
    if all(name in factors for name in names):
        return names
    letters = dict(zip(LETTERS, factors, strict=False))
    found = re.sub(r"[*\s]", "", text)
    # Factors that are called by single letters are meant where all of them are.
    meant = {name: name for name in factors} if all(letter in factors for letter in found) else letters
    return [meant[letter] for letter in found] if found and all(letter in meant for letter in found) else None


def _hint(right: str, left: str, factors: Sequence[str]) -> str:
    unknown = [name.strip() for name in (left, *right.lstrip("+-").split("*")) if name.strip() not in factors]
    return nearest(unknown[0][:100], factors) if unknown else ""
