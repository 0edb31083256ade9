"""Chains: cells that exist because others need their networks, and how many there are. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from orchestrator import path as ablation
from orchestrator import variants
from orchestrator.corners import corners
from orchestrator.events import CONFIRM, SEARCH
from orchestrator.study import Arm, Confirm, Study
from search_spaces import Space
from trainables.folder import name_of
from trainables.trial import Trial

_NOTHING: Mapping[str, Any] = {}


def before(trial: Trial) -> Mapping[str, Trial]:
    """By id, everything that must be finished before a training, each after what it needs itself; teachers that are no students too."""
    found: dict[str, Trial] = {}
    for needed in trial.needed:
        if needed.id not in found:
            found |= {name: earlier for name, earlier in before(needed).items() if name not in found}
            found[needed.id] = needed
    return found


def students_before(trial: Trial) -> frozenset[str]:
    """Ids of the students among them."""
    return frozenset(name for name, needed in before(trial).items() if needed.method is not None)


def reached(arm: Arm, space: Space) -> list[Arm]:
    """The arm as declared and at the extremes of its space, without those that its classes refuse."""
    found = [arm]
    for _, point in corners(arm, space):
        with suppress(ValueError):
            found.append(arm.changed(point))
    return found


def students_at_most(study: Study, arm: Arm, values: Mapping[str, Any] = _NOTHING) -> int:
    """How many students a single cell of an arm, with values set in it, needs at most, wherever its search, if it has one, arrives."""
    space = study.search.spaces.get(arm.name) if study.search else None
    most = 0
    for each in [arm] if space is None else reached(arm, space):
        with suppress(ValueError):
            most = max(most, len(students_before(_trial(study, each.varied(study, values), SEARCH))))
    return most


def students_of_search(study: Study) -> Mapping[str, int]:
    """Searched arm to how many students its search needs beside its own cells, at most: proposals rarely share one."""
    search = study.search
    if search is None:
        return {}
    return {name: search.trials * search.blocks * students_at_most(study, study.arms[name]) for name in search.spaces}


def students_of_confirm(study: Study, confirm: Confirm) -> int:
    """How many students each block of stage two needs beside the arms' own cells, at most.

    Arms that are not searched are known: what several of them need, or is one of their own cells, counts once.
    """
    spaces = study.search.spaces if study.search else {}
    asked = variants.distinct(study, confirm)
    fixed = [_trial(study, variants.declared(study, each), CONFIRM) for each in asked if each.arm not in spaces]
    shared: frozenset[str] = frozenset().union(*map(students_before, fixed)) - {trial.id for trial in fixed}
    return len(shared) + sum(students_at_most(study, study.arms[each.arm], each.values) for each in asked if each.arm in spaces)


def teachers(study: Study) -> int:
    """How many teachers a study trains: one for all arms of a block, and one more for every other teacher, or data that it learns from."""
    search, confirm = study.search, study.confirm
    tuned = _teachers(study, [study.arms[name] for name in search.spaces]) * search.blocks if search else 0
    if confirm is not None and confirm.path is not None:
        tuned += _teachers(study, [study.arms[confirm.base]]) * confirm.path.blocks
    return tuned + (
        _teachers(study, [variants.declared(study, each) for each in variants.distinct(study, confirm)]) * confirm.blocks if confirm else 0
    )


def students_of_path(study: Study, confirm: Confirm) -> int:
    """How many students the trainings of the ablation path need beside its own cells, at most."""
    if confirm.path is None:
        return 0
    return ablation.bound(confirm.path) * confirm.path.blocks * students_at_most(study, study.arms[confirm.base])


def _teachers(study: Study, arms: Iterable[Arm]) -> int:
    found = [_trial(study, arm, SEARCH).first_teacher for arm in arms]
    return len({teacher.id for teacher in found if teacher is not None})


def _trial(study: Study, arm: Arm, stage: str) -> Trial:
    # Any block will do: ids differ from block to block, and what is the same in one is so in all.
    return arm.trial(study, study.block(stage, 0), opens_test=stage == CONFIRM)


def methods_that_teach(study: Study) -> frozenset[str]:
    """Names of methods whose cells in stage one may turn out to be what a later proposal needs: their networks are kept."""
    arms = [study.arms[name] for name in (study.search.spaces if study.search else ())]
    return frozenset(name_of(arm.method) for arm in arms if students_at_most(study, arm) > 0)
