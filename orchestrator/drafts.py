"""Arms as they are read: what could be read of each, what is searched, and what can be left out.

An arm whose method or network is at fault is a draft without it, so that everything else about the arm is still checked.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, replace
from functools import cached_property
from typing import Any

from orchestrator.corners import contradictions, corners, out_of_reach
from orchestrator.fields import Faults, chosen, domain_of, entries, filled, single, whole
from orchestrator.located import Node, joined, quoted
from orchestrator.networks import SMOOTHED, is_map, read_model, read_recipe, read_teacher
from orchestrator.study import Arm
from search_spaces import Domain, Space, all_names, changed, field_at, flat, is_off, nearest, space_of, without
from trainables.distiller import Distiller
from trainables.folder import name_of
from trainables.network import Family
from trainables.recipe import Recipe
from trainables.trial import Teacher

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
NAME_NEED = "a name of at most 64 letters, digits, - and _"
ALL = "all"
"""Where search.space holds what is searched for every arm."""
_PARTS = ("method", "recipe", "model")
OF_ARM = (*_PARTS, "steps", "teacher")
"""Keys of an arm beside the fields of its method, none of which may be called so."""
_MOST_STEPS = 100
_SEEDS = ("seed", "split", "init", "order", "block")


def is_name(value: object) -> bool:
    """Whether studies and arms can be called so."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


@dataclass(frozen=True)
class Searched:
    """A domain and where it was given."""

    domain: Domain
    node: Node
    path: str


@dataclass(frozen=True)
class Draft:
    """An arm of which a part may be missing."""

    name: str
    method: Distiller[Any] | None
    recipe: Recipe
    model: Family | None
    searched: Mapping[str, Searched] = field(default_factory=dict)
    """Dotted name to what is searched there."""
    steps: int = 1
    teacher: Teacher | None = None
    """Of its own; None also where it is at fault."""
    doubtful: frozenset[str] = frozenset()
    """Parts with a fault in themselves or in what is searched of them. What they can never reach is not known then."""

    def part(self, name: str) -> Any:
        """Method, recipe or model; None where it is missing."""
        return {"method": self.method, "recipe": self.recipe, "model": self.model}[name]

    @property
    def names(self) -> list[str]:
        """Every dotted name below the parts that are there."""
        return [name for part in _PARTS if self.part(part) is not None for name in all_names(self.part(part), f"{part}.")]

    @property
    def off_names(self) -> list[str]:
        """Those that declare an off-value."""
        return [name for name in self.names if field_at(self.arm, name).off is not MISSING]

    @property
    def arm(self) -> Arm:
        """The arm, as far as it is there."""
        return Arm(self.name, self.method, self.recipe, self.model, self.steps, self.teacher)  # type: ignore[arg-type] # a study is only made of whole ones

    def domains(self, part: str) -> dict[str, Domain]:
        """What is searched of one part, without its name in front."""
        prefix = f"{part}."
        return {name.removeprefix(prefix): found.domain for name, found in self.searched.items() if name.startswith(prefix)}

    @cached_property
    def reached(self) -> Mapping[str, Sequence[Any]]:
        """Of each part that is there, what it is as declared, and at the extremes of what is searched."""
        found: dict[str, Sequence[Any]] = {}
        for part in _PARTS:
            value, domains = self.part(part), self.domains(part)
            reached = [value]
            if domains and all(out_of_reach(value, name, domains) is None for name in domains):
                for _, point in corners(value, space_of(value, domains)):
                    # What a search must not reach has a fault of its own.
                    with contextlib.suppress(ValueError):
                        reached.append(changed(value, point))
            found[part] = reached
        return found

    def counting(self, left_out: Sequence[str]) -> set[str]:
        """Names of the fields that have an effect somewhere in what is reached, with parts left out or not."""
        found: set[str] = set()
        for part, values in self.reached.items():
            off = [name.removeprefix(f"{part}.") for name in left_out if name.startswith(f"{part}.")]
            for value in values:
                found.update(*(flat(variant, f"{part}.") for variant in (value, *(without(value, [name]) for name in off))))
        return found

    @property
    def space(self) -> Space:
        """The space over the whole arm."""
        return space_of(self.arm, {name: found.domain for name, found in self.searched.items()})


def read_arms(faults: Faults, node: Node, path: str, student: Draft, teacher: tuple[Family | None, Recipe]) -> dict[str, Draft]:
    """Name to draft. ``student`` has the model and recipe that arms start from, with doubts about them; ``teacher`` is the study's."""
    if not is_map(faults, node, path):
        return {}
    if not node.entries:
        faults.need(node, path, "at least one arm")
    return {name: _read_arm(faults, name, inner, joined(path, name), student, teacher) for name, inner in node.entries.items()}


def _read_arm(faults: Faults, name: str, node: Node, path: str, student: Draft, teacher: tuple[Family | None, Recipe]) -> Draft:
    if not is_name(name) or name == ALL:
        faults.add(node.place, path, f"needs {NAME_NEED}, other than {ALL}, but got {quoted(name)}.")
    if not is_map(faults, node, path):
        return replace(student, name=name, doubtful=frozenset(_PARTS))
    given = node.entries
    doubtful = set(student.doubtful)
    before = len(faults)
    recipe = read_recipe(faults, given.get("recipe"), joined(path, "recipe"), student.recipe, smooths=False)
    model = read_model(faults, given.get("model"), joined(path, "model"), student.model)
    if len(faults) > before:
        doubtful |= {"recipe", "model"}
    before = len(faults)
    method = chosen(faults, given.get("method"), node.place, joined(path, "method"), "trainables.methods", Distiller)  # type: ignore[type-abstract] # load() finds a concrete one
    if method is not None:
        method = filled(faults, method, given, node.place, path, beside=OF_ARM)
    if len(faults) > before:
        doubtful.add("method")
    draft = Draft(name, method, recipe, model, doubtful=frozenset(doubtful))
    steps = single(faults, given.get("steps"), joined(path, "steps"), whole(1, _MOST_STEPS), 1)
    taught_by = read_teacher(faults, given.get("teacher"), joined(path, "teacher"), *teacher)
    return replace(draft, steps=steps, teacher=taught_by)


def check_steps(faults: Faults, draft: Draft, node: Node, path: str) -> None:
    """Keep that a student of the arm's chain, or of what the search makes of it, would have a method that is not valid."""
    if draft.method is None or "method" in draft.doubtful:
        return
    if draft.steps > 1 and type(draft.method).predict is not Distiller.predict:
        faults.add(
            node.entries["steps"].place,
            joined(path, "steps"),
            f"needs to be 1 with {name_of(draft.method)}, but got {draft.steps}: its students classify with more than their own network, "
            "and only their network teaches the next.",
        )
    try:
        for method in draft.reached["method"]:
            for number in range(1, draft.steps + 1):
                method.at_step(number, draft.steps)
    except ValueError as error:
        faults.add(node.place, path, f"needs a valid method at every step of its chain, but reaches this with {draft.name}: {error}")


def read_spaces(faults: Faults, node: Node, path: str, drafts: Mapping[str, Draft]) -> Mapping[str, Draft]:
    """The drafts with what is searched of each."""
    sections = {
        name: inner
        for name, inner in entries(faults, node, path, tuple(dict.fromkeys((ALL, *drafts)))).items()
        if is_map(faults, inner, joined(path, name))
    }
    shared = sections.pop(ALL, Node({}, node.place))
    if not any(section.entries for section in (shared, *sections.values())):
        faults.need(node, path, "at least one name that is searched")
    found: dict[str, dict[str, Searched]] = {name: {} for name in drafts}
    for name, inner in shared.entries.items():
        # What an arm's own section says of the name counts for that arm.
        targets = [draft for draft in drafts.values() if draft.name not in sections or name not in sections[draft.name].entries]
        for draft, searched in _read_searched(faults, targets, name, inner, joined(joined(path, ALL), name)):
            found[draft.name][name] = searched
    for section, given in sections.items():
        for name, inner in given.entries.items():
            for _, searched in _read_searched(faults, [drafts[section]], name, inner, joined(joined(path, section), name)):
                found[section][name] = searched
    searching: dict[str, Draft] = {}
    for name, draft in drafts.items():
        lost = {*shared.entries, *(sections[name].entries if name in sections else ())} - set(found[name])
        heads = {other.partition(".")[0] for other in lost}
        doubtful = draft.doubtful | (heads if heads <= set(_PARTS) else set(_PARTS))
        searching[name] = replace(draft, searched=found[name], doubtful=doubtful)
        searching[name] = replace(searching[name], doubtful=doubtful | _check_reach(faults, searching[name]))
    return searching


def _read_searched(faults: Faults, targets: Iterable[Draft], name: str, node: Node, path: str) -> list[tuple[Draft, Searched]]:
    head, _, rest = name.partition(".")
    # An arm without the part that the name belongs to has a fault already.
    targets = [draft for draft in targets if head not in _PARTS or draft.part(head) is not None]
    known = list(dict.fromkeys(known for draft in targets for known in draft.names))
    without_it = [draft.name for draft in targets if name not in draft.names]
    if not targets:
        return []
    if len(without_it) == len(targets):
        faults.add(node.place, path, _why_unknown(name, targets, known))
        return []
    if without_it:
        faults.add(
            node.place, path, f"needs a name that every arm has, but got one that {', '.join(without_it)} has not: search it arm by arm."
        )
    found: list[tuple[Draft, Searched]] = []
    for draft in targets:
        if draft.name in without_it:
            continue
        declared = field_at(draft.part(head), rest)
        if declared.is_nested:
            inner = ", ".join(f"{name}.{inner}" for inner in all_names(declared.default))
            faults.add(node.place, path, f"needs a single field, but got a group of fields: name one of {inner}.")
            continue
        domain = domain_of(faults, declared, node, path)
        if domain is not None and name == "recipe.smoothing" and not (domain.size == 1 and domain.contains(0.0)):
            faults.need(node, path, SMOOTHED)
        elif domain is not None:
            found.append((draft, Searched(domain, node, path)))
    return found


def _why_unknown(name: str, targets: list[Draft], known: list[str]) -> str:
    head = name.partition(".")[0]
    if head in ("data", "teacher"):
        return f"needs a name under method, recipe or model, but got {quoted(name)}: data and teachers are fixed, and never searched."
    if head.removesuffix("s") in _SEEDS:
        return f"needs a hyper-parameter, but got {quoted(name)}: seeds come from blocks, which all arms share, and are never searched."
    arms = ", ".join(draft.name for draft in targets)
    return f"needs a field of {arms} under method, recipe or model, but got {quoted(name)}.{nearest(name[:100], known)}"


def _check_reach(faults: Faults, draft: Draft) -> set[str]:
    """Keep what a search could never, or must never, arrive at; the parts in which there is such a thing."""
    found: set[str] = set()
    for part in _PARTS:
        value, domains = draft.part(part), draft.domains(part)
        if not domains:
            continue
        needs = {name: need for name in domains if (need := out_of_reach(value, name, domains)) is not None}
        messages = {name: f"needs {part}.{need}, but neither {draft.name} nor its search ever has that." for name, need in needs.items()}
        if needs:
            found.add(part)
        else:
            for name, complaint in contradictions(value, space_of(value, domains)).items():
                messages[name] = f"needs valid values throughout, but reaches this with {draft.name}: {complaint}"
                found.add(part)
        for name, message in messages.items() if part not in draft.doubtful or not needs else ():
            searched = draft.searched[f"{part}.{name}"]
            faults.add(searched.node.place, searched.path, message)
    return found


def check_left_out(faults: Faults, draft: Draft, name: str, node: Node, path: str) -> None:
    """Keep why a part of the base cannot be left out, or why that would never change anything."""
    head, _, rest = name.partition(".")
    if head in _PARTS and draft.part(head) is None:
        return
    if name not in draft.names or field_at(draft.arm, name).off is MISSING:
        known = draft.off_names
        reason = "which declares no off-value" if name in draft.names else f"which {draft.name} has not"
        hint = nearest(name[:100], known)
        faults.add(
            node.place,
            path,
            f"needs a part of {draft.name} with an off-value ({', '.join(known)}), but got {quoted(name)}, {reason}.{hint}",
        )
        return
    try:
        if head not in draft.doubtful and all(is_off(corner, rest) for corner in draft.reached[head]):
            faults.add(
                node.place, path, f"needs a part that {draft.name} has, but got {quoted(name)}, which is off or without effect already."
            )
            return
        for corner in draft.reached[head]:
            without(corner, [rest])
    except ValueError as error:
        faults.add(node.place, path, f"needs a part that can be turned off, but without {name} there is a fault: {error}")


def warn_of_idle(warnings: Faults, node: Node, path: str, counting: set[str], prefix: str = "") -> None:
    """Keep a line for every single field of a map that is not among those that count."""
    for key, inner in node.entries.items():
        name = prefix + key
        if inner.entries:
            warn_of_idle(warnings, inner, joined(path, key), counting, f"{name}.")
        elif name != "model.family" and not any(known == name or known.startswith(f"{name}.") for known in counting):
            warnings.add(inner.place, joined(path, key), f"needs other fields that give it an effect, but got {inner} where it has none.")
