"""Needs: what trainings of a study ask of the machines that they run on, and what becomes of a launch on machines that lack it.

The machine of the driver trains nothing where lanes are a cluster's, but rehearses stage two (``orchestrator.proof``): what it lacks then
is told, and nothing is refused. A machine that holds lanes needs everything.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator import variants
from orchestrator.errors import StudyError
from orchestrator.located import one_line
from orchestrator.study import Arm, Study
from trainables.inventory import Inventory, Wanted, taken

_MOST_HOSTS = 3


def wanted_of(study: Study, trains: bool = True) -> Wanted:
    """All sources and networks that any cell of a study may have: of its arms and of what its designs make of them.

    ``trains``: whether cells run; where stage two is only rehearsed, no weights are asked for.
    """
    arms = all_arms(study)
    networks = [(model, arm.source(study)) for arm in arms for model in (arm.model, arm.taught_by(study).model)]
    if not trains:
        networks = [(model.untrained(), source) for model, source in networks]
    return Wanted(tuple(dict.fromkeys(arm.source(study) for arm in arms)), tuple(dict.fromkeys(networks)))


def all_arms(study: Study) -> list[Arm]:
    """Arms as declared, and the variants of stage two."""
    asked = variants.distinct(study, study.confirm) if study.confirm else ()
    return [*study.arms.values(), *(variants.declared(study, each) for each in asked)]


def check_here(study: Study, trains: bool) -> tuple[str, ...]:
    """Look at this machine, and tell what the user should know.

    Args:
        study: that is going to run.
        trains: whether cells run here.

    Raises:
        StudyError: they do, and would fail.
    """
    found = taken(wanted_of(study, trains))
    if not found.faults:
        return found.remarks
    if trains:
        raise refusal([found])
    if study.confirm is None:
        return ()
    return tuple(
        f"This machine could not rehearse stage two, so that parts without effect are not found out: {each}" for each in found.faults
    )


def refusal(found: Iterable[Inventory]) -> StudyError:
    """The error that a launch ends with: each fault once, with the machines that have it."""
    hosts: dict[str, list[str]] = {}
    for each in found:
        for fault in each.faults:
            hosts.setdefault(fault, []).append(each.host)
    return StudyError([f"{_listed(names)}: {one_line(fault)}" for fault, names in hosts.items()])


def _listed(names: list[str]) -> str:
    shown = names[:_MOST_HOSTS]
    return " and ".join([", ".join(shown), f"{len(names) - len(shown)} more machines"] if len(names) > len(shown) else [", ".join(shown)])
