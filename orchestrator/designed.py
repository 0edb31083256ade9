"""What the designs of a study come to, tried before anything runs: arms that no class refuses, and what could not be shown.

It is asked of a study whose fields are valid one by one. Faults end the reading; warnings are told by validate, plan and run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator import chains, variants
from orchestrator.analysis.reach import blocks_needed
from orchestrator.designs import Word, roman
from orchestrator.events import CONFIRM
from orchestrator.fields import Faults
from orchestrator.located import Node, joined
from orchestrator.study import Arm, Confirm, Study
from orchestrator.variants import FACTORIAL, Candidate
from search_spaces import Space
from trainables.network import Family
from trainables.source import Source

_PATHS = {variants.REFERENCE: "add_one_in"}
_MOST_RUNS = 16
"""Up to so many runs of a factorial are tried at the extremes of the search, beyond only as declared."""

Misfit = Callable[[Source], str | None]


def check_designs(faults: Faults, warnings: Faults, study: Study, confirm: Confirm, node: Node, misfit: Misfit) -> None:
    """Keep what cannot be trained, or told apart, among the arms of stage two, and warn of what they cannot show.

    Args:
        node: the section of the study file.
        misfit: why no block can be drawn from data, or None.
    """
    before = len(faults)
    asked = variants.candidates(study, confirm)
    _check_labels(faults, asked, confirm, node)
    many = sum(each.kind == FACTORIAL for each in asked) > _MOST_RUNS
    reached = {name: chains.reached(study.arms[name], _space(study, name)) for name in confirm.arms}
    for each in asked:
        arms = reached[each.arm][:1] if each.kind == FACTORIAL and many else reached[each.arm]
        complaint = next((found for arm in arms if (found := _complaint(study, arm, each.values, misfit)) is not None), None)
        if each.values and complaint is not None:
            key = _PATHS.get(each.kind, each.kind)
            message = f"needs trainings that are valid throughout, but reaches this with {each.label!r}: {complaint}"
            faults.add(_place(node, key), joined("confirm", key), message)
    if len(faults) == before:
        _warn_of_reach(warnings, study, confirm, node)
        _warn_of_levels(warnings, study, confirm, node, reached)


def _space(study: Study, name: str) -> Space:
    return study.search.spaces.get(name, Space(())) if study.search else Space(())


def _place(node: Node, key: str) -> Any:
    return node.entries[key].place if key in node.entries else node.place


def _complaint(study: Study, arm: Arm, values: Mapping[str, Any], misfit: Misfit) -> str | None:
    try:
        varied = arm.varied(study, values)
        _ = varied.trial(study, study.block(CONFIRM, 0), opens_test=True).id
    except ValueError as error:
        return str(error)
    source = varied.source(study)
    fault = None if varied.data is None else misfit(varied.data)
    return fault or unreadable(varied.model, source) or unreadable(varied.taught_by(study).model, source)


def unreadable(family: Family, source: Source) -> str | None:
    """Why networks of a family cannot read the rows of a source, as far as fields tell; None where they can."""
    form = source.form
    try:
        if form is not None:
            family.fits(form)
    except ValueError as error:
        return str(error)
    return None


def _check_labels(faults: Faults, asked: Sequence[Candidate], confirm: Confirm, node: Node) -> None:
    """Labels tell arms apart in every table."""
    known: dict[str, Candidate] = {}
    for each in asked:
        other = known.setdefault(each.label, each)
        if (other.arm, other.values) != (each.arm, each.values):
            key = _PATHS.get(each.kind, each.kind)
            faults.add(
                _place(node, key), joined("confirm", key), f"needs names that tell its arms apart, but got two arms called {each.label!r}."
            )


def _warn_of_reach(warnings: Faults, study: Study, confirm: Confirm, node: Node) -> None:
    families = {"comparisons": len(variants.planned(study, confirm))}
    if confirm.factorial is not None:
        families["effects of the factorial"] = len(confirm.factorial.design.effects)
    for what, count in families.items():
        needed = blocks_needed(count) if count else 1
        if confirm.blocks < needed:
            warnings.add(
                _place(node, "blocks"),
                "confirm.blocks",
                f"needs at least {needed} blocks for any of {count} {what} to reach p <= 0.05 after Holm's correction, "
                f"but got {confirm.blocks}.",
            )


def _warn_of_levels(warnings: Faults, study: Study, confirm: Confirm, node: Node, reached: Mapping[str, Sequence[Arm]]) -> None:
    if confirm.factorial is not None:
        design, path = confirm.factorial.design, "confirm.factorial"
        place = _place(node, "factorial")
        if design.confounded:
            told = "; ".join(" = ".join(("*".join(effect), *map(str, _two(design.aliases(effect, 2))))) for effect in design.confounded)
            warnings.add(
                place,
                joined(path, "fraction"),
                f"needs resolution IV to tell main effects from two-way interactions, but got {roman(design.resolution or 0)}: {told}.",
            )
        idle = _idle(study, confirm, reached)
        for name in (factor.name for factor in confirm.factorial.factors):
            if name in idle:
                inside = joined(joined(path, "factors"), name)
                warnings.add(place, inside, "needs levels that differ, but got two that are the same training in every run.")
    base = confirm.base
    for factor in confirm.one_factor:
        place = _place(node.entries["one_factor"], factor.name)
        for level in factor.levels:
            values = dict(level.values)
            if (
                level.arm is None
                and not level.off
                and all(_id(study, arm) == _id(study, arm.varied(study, values)) for arm in reached[base])
            ):
                warnings.add(
                    place,
                    f"confirm.one_factor.{factor.name}",
                    f"needs levels that differ from {base}, but got {level.label}, which it has anyway: it is no arm of its own.",
                )


def _two(words: Sequence[Word]) -> Sequence[Word]:
    return [word for word in words if len(word.factors) == 2]


def _idle(study: Study, confirm: Confirm, reached: Mapping[str, Sequence[Arm]]) -> frozenset[str]:
    """Factors without effect in the arms as declared, and wherever else the base's search can take it."""
    declared = {name: arms[0] for name, arms in reached.items()}
    found = variants.idle_factors(study, confirm, declared)
    for arm in reached[confirm.base][1:]:
        if not found:
            break
        found = variants.idle_factors(study, confirm, {**declared, confirm.base: arm}, found)
    return found


def _id(study: Study, arm: Arm) -> str:
    return arm.trial(study, study.block(CONFIRM, 0), opens_test=True).id
