"""Threats: what an arm brings along beside its method is named, and what was asked for or tuned is not."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.analysis.threats import threats

BASE = {
    "data.labelled": 100,
    "model.width": 4,
    "recipe.epochs": 20,
    "recipe.learning_rate": 0.01,
    "recipe.schedule.kind": "cosine",
    "recipe.schedule.end": 0.0,
    "teacher.model.width": 16,
    "teacher.recipe.smoothing": 0.0,
    "method.name": "kd",
    "method.temperature": 4.0,
    "chain": "[]",
    "chain.steps": 0,
}


def cell(arm: str, stage: str = "confirm", **changed: Any) -> dict[str, Any]:
    config = {**BASE, **{name.replace("__", "."): value for name, value in changed.items()}}
    return {"stage": stage, "arm": arm, "config": {name: value for name, value in config.items() if value is not None}}


def said(arm: str = "rival", tuned: tuple[str, ...] = (), **changed: Any) -> tuple[str, ...]:
    choices = [{"arm": arm, "config": dict.fromkeys(tuned, 1)}] if tuned else []
    return threats([cell("kd"), cell(arm, **changed)], [(arm, "kd")], choices)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"teacher__recipe__smoothing": 0.1}, "another teacher (teacher.recipe.smoothing=0.1 instead of 0)"),
        ({"chain__steps": 1, "chain": "[[]]"}, "1 student trained before it instead of none, each a training of its own"),
        ({"chain__steps": 2, "chain": "[[], []]"}, "2 students trained before it instead of none, each a training of its own"),
        ({"chain": "[[1]]"}, "a chain whose earlier students are trained otherwise"),
        ({"data__labelled": 200}, "other data (data.labelled=200 instead of 100)"),
        ({"model__width": 8}, "another student network (model.width=8 instead of 4)"),
        ({"recipe__epochs": 40}, "another recipe, beyond what was tuned (recipe.epochs=40 instead of 20)"),
        ({"recipe__precision": "bfloat16"}, "another recipe, beyond what was tuned (recipe.precision=bfloat16 instead of –)"),
    ],
)
def test_what_differs_beside_the_method_is_named(changed: dict[str, Any], what: str) -> None:
    assert said(**changed, method__name="slam") == (
        f"rival differs from kd in more than its method: it has {what}. What it shows is of its method and of that together.",
    )


def test_several_are_one_sentence() -> None:
    (sentence,) = said(teacher__model__width=4, chain__steps=1, data__labelled=50, method__temperature=2.0)
    assert "it has another teacher (teacher.model.width=4 instead of 16), 1 student trained before it" in sentence
    assert sentence.endswith("and other data (data.labelled=50 instead of 100). What it shows is of its method and of that together.")


def test_where_the_method_is_the_same_that_is_said() -> None:
    (sentence,) = said(chain__steps=1)
    assert sentence == (
        "rival and kd have the same method, with the same settings: rival has 1 student trained before it instead of none, "
        "each a training of its own, and the difference is of that."
    )


def test_methods_tuned_settings_and_declared_variants_are_what_was_asked() -> None:
    assert said(method__name="slam", method__temperature=1.0) == ()
    assert said(tuned=("recipe.learning_rate",), recipe__learning_rate=0.02) == ()
    assert said(tuned=("recipe.schedule.kind",), recipe__schedule__kind="constant", recipe__schedule__end=None) == ()
    assert said(arm="kd, schedule=constant", recipe__schedule__kind="constant") == ()
    assert len(said(recipe__learning_rate=0.02)) == 1
    assert len(said(tuned=("recipe.learning_rate",), recipe__epochs=40)) == 1


def test_variants_of_a_design_are_what_was_asked_whatever_they_are_called() -> None:
    cells = [cell("kd"), cell("other", data__labelled=7)]
    assert threats(cells, [("other", "kd")], [], {"other": ("one_factor",)}) == ()
    assert len(threats(cells, [("other", "kd")], [], {"other": ("factorial", "rival")})) == 1


def test_only_the_confirm_stage_and_planned_pairs_count() -> None:
    cells = [cell("kd"), cell("rival", stage="search", data__labelled=7), cell("other", data__labelled=7)]
    assert threats(cells, [("rival", "kd")], []) == ()
    assert len(threats(cells, [("other", "kd")], [])) == 1


def test_searches_of_different_sizes_are_told() -> None:
    choices = [{"arm": arm, "config": dict.fromkeys(range(size), 1)} for arm, size in (("a", 1), ("b", 3), ("c", 3))]
    assert threats([], [], choices) == (
        "Tuning chose between 1 (a) and 3 (b, c) settings per arm: the same number of trials covers fewer settings better.",
    )
    assert threats([], [], choices[1:]) == ()
