"""Smoke: a study made so small that it runs end to end in minutes, with its own networks, methods, arms and lanes.

What is changed is said as overrides of the study file, so that the text that is kept with the results is that of the smoke run, and
`resume`, `status` and `report` need to know nothing of it. Data are made up (``trainables.synthetic``); one epoch, two trials a
search and two blocks are what is left, or one block where many arms are compared. No weights are fetched. Results lie in a folder
of their own, and their report says first that no number in it means anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from orchestrator.placement import ANY
from orchestrator.study import Arm, Study
from search_spaces import Value, flat, tunables
from trainables.network import Family
from trainables.recipe import Recipe

FOLDER = "smoke"
"""Below the study's storage."""
_BATCHES = 4
"""Steps that an epoch has at least, where rows are known, and batches are not the smallest ones."""
_SMALLEST = 16
"""Rows of a batch, at least."""
_MANY = 20
"""Arms of stage two, above which one block is enough: differences have no intervals then."""
_LEAST = {"recipe.epochs": 1, "recipe.batch": _SMALLEST, "method.passes": 2}
"""What makes a training long, and how little of it is enough; passes are looks at every row."""
_RATE = 1e-3


def overrides(study: Study, data: Mapping[str, Value], rows: int | None) -> tuple[str, ...]:
    """What makes a study small, in the form of ``--set``. Pure.

    Args:
        study: as it was checked.
        data: fields of its source, as ``trainables.synthetic.stand_in`` gives them.
        rows: of its training split, None for what the study has.
    """
    return tuple(f"{name}={json.dumps(value)}" for name, value in _changes(study, data, rows))


def _changes(study: Study, data: Mapping[str, Value], rows: int | None) -> Iterator[tuple[str, Value | list[int]]]:
    yield "run.smoke", True
    yield "run.lane", ANY
    yield "run.topology", ""
    yield from ((f"data.{name}", value) for name, value in data.items())
    yield from _network("teacher", study.teacher.model, study.teacher.recipe, rows)
    yield from _recipe("student", next(iter(study.arms.values())).recipe, rows)
    for name, arm in study.arms.items():
        yield from _arm(f"arms.{name}", arm, rows)
    if study.search is not None:
        trials = min(study.search.trials, 2)
        yield from (("search.trials", trials), ("search.generation", trials), ("search.startup", 1), ("search.blocks", 1))
        for name, space in study.search.spaces.items():
            least = ((each.name, _least(each.name)) for each in space.parameters)
            yield from ((f"search.space.{name}.{each}", [value]) for each, value in least if value is not None)
    if study.confirm is not None:
        yield "confirm.blocks", min(study.confirm.blocks, 2 if len(study.confirm.arms) <= _MANY else 1)
        if study.confirm.path is not None:
            yield "confirm.path.blocks", 1


def _arm(path: str, arm: Arm, rows: int | None) -> Iterator[tuple[str, Value]]:
    yield from _network(path, arm.model, arm.recipe, rows)
    if arm.teacher is not None:
        yield from _network(f"{path}.teacher", arm.teacher.model, arm.teacher.recipe, rows)
    least = ((each.name, _least(f"method.{each.name}")) for each in tunables(arm.method))
    yield from ((f"{path}.{name}", value) for name, value in least if value is not None)


def _least(name: str) -> int | None:
    """How little is enough of what makes a training long; None for what does not."""
    # Stages of a method that come before its own training have epochs of their own.
    return _LEAST.get(name, 1 if name.startswith("method.") and name.endswith("_epochs") else None)


def _network(path: str, model: Family, recipe: Recipe, rows: int | None) -> Iterator[tuple[str, Value]]:
    yield from _recipe(path, recipe, rows)
    if flat(model).get("weights"):
        yield f"{path}.model.weights", ""


def _recipe(path: str, recipe: Recipe, rows: int | None) -> Iterator[tuple[str, Value]]:
    yield f"{path}.recipe.epochs", 1
    yield f"{path}.recipe.batch", recipe.batch if rows is None else min(recipe.batch, max(_SMALLEST, rows // _BATCHES))
    # A teacher that is hardly trained is none that a term with a large weight can be compared with: at a paper's rate some diverge.
    yield f"{path}.recipe.learning_rate", min(recipe.learning_rate, _RATE)
