"""Threats: what else than the method differs between an arm and the one it is compared with. Pure functions of the plan.

A difference between two arms is one between everything that differs between them. What a variant declares to change is what
was asked; what a rival brings along beside its method (another teacher, a chain, data, a network, a recipe that was not
tuned) is not, and is named here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.analysis.wording import NOTHING
from orchestrator.events import CONFIRM

RIVAL = "rival"
"""What a design calls an arm that is no variant."""
_KINDS = (
    ("teacher.", "another teacher"),
    ("chain", "a chain of students"),
    ("data.", "other data"),
    ("model.", "another student network"),
    ("recipe.", "another recipe, beyond what was tuned"),
)
"""Beginning of a dotted name, and what it means that it differs."""


def threats(
    cells: Sequence[Mapping[str, Any]],
    pairs: Sequence[tuple[str, str]],
    choices: Sequence[Mapping[str, Any]],
    kinds: Mapping[str, Sequence[str]] | None = None,
) -> tuple[str, ...]:
    """One sentence per pair of arms that differ in more than their methods, and one where searches had different sizes.

    Args:
        cells: events of cells, in plan order.
        pairs: (arm, compared with); variants of the arm compared with, "BASE, ...", are what they declare to be.
        choices: events of ended searches: what was tuned is meant to differ.
        kinds: arm to what it is in the design, where there is one: only rivals bring along what was not asked for.
    """
    configs: dict[str, Mapping[str, Any]] = {}
    for cell in cells:
        if cell["stage"] == CONFIRM:
            configs.setdefault(cell["arm"], cell["config"])
    tuned = {str(choice["arm"]): tuple(choice["config"]) for choice in choices}
    said = []
    for arm, base in pairs:
        is_rival = RIVAL in (kinds or {}).get(arm, (RIVAL,)) and not arm.startswith(f"{base}, ")
        if is_rival and arm in configs and base in configs:
            sentence = _beside(arm, base, configs[arm], configs[base], {*tuned.get(arm, ()), *tuned.get(base, ())})
            if sentence:
                said.append(sentence)
    return (*said, *_searched({arm: len(names) for arm, names in tuned.items()}))


def _beside(arm: str, base: str, mine: Mapping[str, Any], theirs: Mapping[str, Any], tuned: Iterable[str]) -> str:
    free = tuple(tuned)
    differing = [
        name
        for name in dict.fromkeys((*theirs, *mine))
        if mine.get(name) != theirs.get(name)
        # The kind of a schedule decides which of its other names there are.
        and not any(name == other or name.rpartition(".")[0] == other.rpartition(".")[0] != "recipe" for other in free)
    ]
    found = []
    for prefix, what in _KINDS:
        names = [name for name in differing if name.startswith(prefix)]
        if not names:
            continue
        if prefix == "chain":
            found.append(_chain(mine, theirs))
        else:
            found.append(f"{what} ({', '.join(f'{name}={_told(mine, name)} instead of {_told(theirs, name)}' for name in names)})")
    if not found:
        return ""
    listed = found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}"
    if all(mine.get(name) == theirs.get(name) for name in {*mine, *theirs} if name.startswith("method.")):
        return f"{arm} and {base} have the same method, with the same settings: {arm} has {listed}, and the difference is of that."
    return f"{arm} differs from {base} in more than its method: it has {listed}. What it shows is of its method and of that together."


def _chain(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    own, other = (int(config.get("chain.steps") or 0) for config in (mine, theirs))
    if own == other:
        return "a chain whose earlier students are trained otherwise"
    return f"{own or 'no'} student{'' if own == 1 else 's'} trained before it instead of {other or 'none'}, each a training of its own"


def _told(config: Mapping[str, Any], name: str) -> str:
    value = config.get(name)
    return NOTHING if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _searched(sizes: Mapping[str, int]) -> list[str]:
    if len(set(sizes.values())) < 2:
        return []
    least, most = min(sizes.values()), max(sizes.values())
    few, many = ([arm for arm, size in sizes.items() if size == limit] for limit in (least, most))
    ends = [
        f"{size} ({', '.join(arms[:3])}{f' and {len(arms) - 3} more' if len(arms) > 3 else ''})"
        for size, arms in ((least, few), (most, many))
    ]
    return [f"Tuning chose between {ends[0]} and {ends[1]} settings per arm: the same number of trials covers fewer settings better."]
