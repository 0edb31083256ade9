"""Parts of the base as they are read: fields that are switched off, or flipped along a path, alone or together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from orchestrator.drafts import NAME_NEED, Draft, check_left_out, is_name
from orchestrator.fields import MANY, Faults, entries, one_of, several, single, whole, words
from orchestrator.levels import Part
from orchestrator.located import Node, joined, quoted
from orchestrator.study import Path
from search_spaces import Schedule, Tunable, field_at

DEFAULTS = "defaults"
"""Where a path starts: the base as it is declared."""
MOST_PARTS = 12
"""Of a path, whose trainings are half the square of them."""
_PARTS_NEED = "a dotted name, or a group: {NAME: [dotted names]}"
_Check = Callable[[Faults, Draft, str, Node, str], None]


def is_group(declared: Tunable) -> bool:
    """Whether a field is a value of several, of which a schedule is not one."""
    return declared.is_nested and not isinstance(declared.default, Schedule)


def read_parts(
    faults: Faults, node: Node | None, path: str, draft: Draft, is_apart: bool, check: _Check = check_left_out
) -> tuple[Part, ...]:
    """``is_apart``: no field may belong to two parts. ``check`` keeps what is wrong with a field."""
    if node is None:
        return ()
    if not isinstance(node.value, tuple):
        faults.need(node, path, f"a list, each item {_PARTS_NEED}")
        return ()
    found: list[Part] = []
    for index, item in enumerate(node.value):
        part = _part(faults, item, f"{path}[{index}]", draft)
        if part is None:
            continue
        if any(part.name == other.name for other in found):
            faults.need(item, path, f"distinct names, none of them {draft.name}")
            continue
        earlier = [name for other in found for name in other.fields] if is_apart else []
        for name in part.fields:
            check(faults, draft, name, item, path)
            if (other := overlap(name, earlier)) is not None:
                faults.add(item.place, path, f"needs parts that share no field, but got {name} beside {other}.")
        found.append(part)
    return tuple(found)


def _part(faults: Faults, item: Node, path: str, draft: Draft) -> Part | None:
    if isinstance(item.value, str) and item.value.strip():
        return Part(item.value, (item.value,))
    if not isinstance(item.value, Mapping) or len(item.value) != 1:
        faults.need(item, path, _PARTS_NEED)
        return None
    ((name, inner),) = item.value.items()
    if not is_free(faults, name, inner, path, draft):
        return None
    names = [each for each, _ in several(faults, inner, joined(path, name), words())]
    for place, each in enumerate(names):
        if (other := overlap(each, names[:place])) is not None:
            faults.add(inner.place, joined(path, name), f"needs fields that are no parts of each other, but got {each} beside {other}.")
    if isinstance(inner.value, tuple) and not inner.value:
        faults.need(inner, joined(path, name), "a list of dotted names")
    return Part(name, tuple(names)) if names else None


def is_free(faults: Faults, name: str, node: Node, path: str, draft: Draft) -> bool:
    """Whether a group or a factor can be called so; kept as a fault where it cannot."""
    if not is_name(name):
        faults.add(node.place, path, f"needs {NAME_NEED}, but got {quoted(name)}.")
        return False
    if f"method.{name}" in draft.names:
        faults.add(
            node.place, path, f"needs a name that no field of {draft.name} has, but got {quoted(name)}: labels would not tell them apart."
        )
        return False
    return True


def overlap(name: str, others: Sequence[str]) -> str | None:
    """The first of the others that is the same field, a part of it, or what it is a part of."""
    return next((other for other in others if f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}.")), None)


def read_path(faults: Faults, node: Node | None, path: str, base: str, drafts: Mapping[str, Draft]) -> Path | None:
    """The ablation path: which parts, from where, on how many blocks; None where there is none, or no part that could be flipped."""
    if node is None:
        return None
    found = entries(faults, node, path, ("from", "parts", "blocks"), {"parts": f"a list, each item {_PARTS_NEED}"})
    alike = [name for name, draft in drafts.items() if name != base and _is_alike(draft, drafts[base])]
    start = single(faults, found.get("from"), joined(path, "from"), one_of(DEFAULTS, *alike), DEFAULTS)
    blocks = single(faults, found.get("blocks"), joined(path, "blocks"), whole(1, MANY), Path(()).blocks)
    where = joined(path, "parts")
    parts = read_parts(faults, found.get("parts"), where, drafts[base], is_apart=True, check=_check_flipped)
    if "parts" in found and not parts and isinstance(found["parts"].value, tuple) and not found["parts"].value:
        faults.need(found["parts"], where, f"a list, each item {_PARTS_NEED}")
    if len(parts) > MOST_PARTS:
        faults.add(found["parts"].place, where, f"needs at most {MOST_PARTS} parts, but got {len(parts)}.")
    return Path(parts, None if start == DEFAULTS else start, blocks) if parts else None


def _is_alike(draft: Draft, base: Draft) -> bool:
    """Whether an arm has the fields that the base has."""
    return all(type(draft.part(name)) is type(base.part(name)) for name in ("method", "model"))


def _check_flipped(faults: Faults, draft: Draft, name: str, node: Node, path: str) -> None:
    """Keep that a part cannot be given another value."""
    head = name.partition(".")[0]
    if head in ("method", "recipe", "model") and draft.part(head) is None:
        return
    known = [each for each in draft.names if not is_group(field_at(draft.arm, each))]
    if name not in known:
        faults.need(node, path, f"a field of {draft.name} under method, recipe or model", known)
