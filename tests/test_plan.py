"""The arms of stage two, the cells of a block, and what their compiled graphs depend on."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import plan
from orchestrator.reading import read_study, study_of
from orchestrator.study import Arm, Study
from orchestrator.variants import variants
from search_spaces import Schedule, changed
from trainables.data.digits import Digits
from trainables.methods.slam import SLaM
from trainables.methods.vanilla import Vanilla
from trainables.models.cnn import CNN
from trainables.models.mlp import MLP
from trainables.recipe import Recipe
from trainables.trial import Block, Teacher, Trial

DIGITS = Path(__file__).parents[1] / "search_spaces/studies/slam_digits.yaml"


@pytest.fixture(scope="module")
def digits() -> Study:
    return read_study(DIGITS)


def tuned(study: Study, **points: dict[str, object]) -> dict[str, Arm]:
    return {name: changed(arm, points.get(name, {})) for name, arm in study.arms.items()}


def test_variants_are_the_base_with_one_part_at_its_off_value(digits: Study) -> None:
    assert digits.confirm is not None
    moving = {"method.accuracy_ramp.kind": "linear", "method.accuracy_ramp.start": 0.1, "recipe.schedule.kind": "cosine"}
    found = variants(digits, digits.confirm, tuned(digits, slam=moving))
    assert list(found.arms) == [
        "slam",
        "slam, lower_bound=0",
        "slam, mixing=normalised",
        "slam, k_rule=fixed",
        "slam, accuracy_ramp=constant",
        "slam, recipe.schedule=constant",
        "vanilla",
    ]
    assert found.skipped == ()
    base, variant = found.arms["slam"], found.arms["slam, lower_bound=0"]
    assert (variant.method, variant.recipe) == (changed(base.method, {"lower_bound": 0.0}), base.recipe)
    assert found.arms["slam, accuracy_ramp=constant"].method.accuracy_ramp.at(0.3) == 1.0
    assert found.arms["slam, recipe.schedule=constant"].recipe.schedule.at(0.9) == 1.0


def test_what_tuning_left_off_is_skipped_with_the_reason(digits: Study) -> None:
    assert digits.confirm is not None
    found = variants(digits, digits.confirm, tuned(digits, slam={"method.mixing": "normalised", "method.k_rule": "fixed"}))
    reasons = dict(found.skipped)
    assert set(reasons) == {
        "slam, mixing=normalised",
        "slam, k_rule=fixed",
        "slam, accuracy_ramp=constant",
        "slam, recipe.schedule=constant",
    }
    assert reasons["slam, mixing=normalised"] == "the tuned slam already has method.mixing off: there is nothing to leave out"
    assert list(found.arms) == ["slam", "slam, lower_bound=0", "vanilla"]


def test_an_arm_that_would_be_another_one_is_not_trained_twice(tiny_study_text: str) -> None:
    study = study_of(tiny_study_text.replace("vanilla: {method: vanilla}", "vanilla: {method: slam, lower_bound: 0.0}"))
    assert study.confirm is not None
    found = variants(study, study.confirm, tuned(study))
    assert list(found.arms) == ["slam", "slam, lower_bound=0"]
    assert found.skipped == (("vanilla", "it would be the same training as slam, lower_bound=0"),)


def test_cells_of_a_block_share_seeds_and_teacher(digits: Study) -> None:
    assert digits.confirm is not None
    cells = plan.confirm_cells(digits, digits.confirm, tuned(digits))
    for index in range(digits.confirm.blocks):
        block = [cell for cell in cells if cell.block == index]
        assert {cell.arm for cell in block} == {"slam", "vanilla"}
        assert len({cell.trial.block for cell in block}) == 1
        assert len({needed.id for cell in block for needed in cell.needs}) == 1
    assert len({cell.id for cell in cells}) == len(cells)


# Compile signatures


def taught(**changes: object) -> Trial:
    """A training of the quick start's size, with some of its parts replaced."""
    parts = {
        "data": Digits(labelled=40, validation=300, test=400), "block": Block(1, 2, 3, 4), "model": MLP(width=128), "recipe": Recipe(),
        "method": SLaM(), "teacher": Teacher(MLP(width=16), Recipe(optimiser="adam", epochs=60)),
    }  # fmt: skip
    return Trial(**{**parts, **changes})  # type: ignore[arg-type] # what it is given is what it declares


@pytest.mark.parametrize(
    "changes",
    [
        {"block": Block(5, 6, 7, 8)},
        {"opens_test": True},
        {"recipe": Recipe(learning_rate=0.3, momentum=0.5, weight_decay=1e-3)},
        {"recipe": Recipe(schedule=Schedule(kind="cosine", warmup=0.1), epochs=7)},
        {"method": SLaM(lower_bound=0.0, upper_bound=1.0, mixed_weight=0.0, labelled_weight=1.5, k_threshold=0.7)},
        {"method": SLaM(accuracy_ramp=Schedule(kind="linear", start=0.0, end=1.0))},
        {"teacher": Teacher(MLP(width=16), Recipe(epochs=1))},
    ],
)
def test_seeds_floats_schedules_and_lengths_share_a_graph(changes: dict[str, object]) -> None:
    assert plan.signature(taught(**changes)) == plan.signature(taught())


DIFFERENT: list[dict[str, object]] = [
    {},
    {"method": SLaM(mixing="normalised")},
    {"method": SLaM(targets="hard")},
    {"method": SLaM(k_rule="fixed")},
    {"method": SLaM(k_rule="fixed", fixed_k=3)},
    {"method": Vanilla()},
    {"model": MLP(width=64)},
    {"model": MLP(width=128, depth=1)},
    {"model": MLP(width=128, dropout=0.2)},
    {"model": CNN()},
    {"teacher": Teacher(MLP(width=32), Recipe())},
    {"data": Digits(labelled=50, validation=300, test=400)},
    {"recipe": Recipe(batch=64)},
    {"recipe": Recipe(precision="bfloat16")},
    {"recipe": Recipe(momentum=0.0)},
    {"recipe": Recipe(momentum=1.0)},
    {"recipe": Recipe(weight_decay=0.0)},
    {"recipe": Recipe(optimiser="adam")},
    {"recipe": Recipe(optimiser="adamw")},
    {"recipe": Recipe(optimiser="adam", weight_decay=0.0)},
    {"method": None, "teacher": None},
    {"method": None, "teacher": None, "recipe": Recipe(batch=64)},
]


def test_whatever_changes_a_graph_changes_the_signature() -> None:
    assert len({plan.signature(taught(**changes)) for changes in DIFFERENT}) == len(DIFFERENT)


def test_how_much_is_dropped_is_a_value_of_the_graph() -> None:
    some, more = (plan.signature(taught(model=MLP(width=128, dropout=share))) for share in (0.2, 0.4))
    assert some == more


def test_momentum_is_nothing_to_adam() -> None:
    still, moving = (Recipe(optimiser="adam", momentum=momentum) for momentum in (0.0, 0.9))
    assert plan.signature(taught(recipe=still)) == plan.signature(taught(recipe=moving))


def test_a_cell_has_the_signature_of_its_training_and_teachers_share_one(digits: Study) -> None:
    assert digits.search is not None
    arm = digits.arms["slam"]
    one, other = plan.search_cells(digits, digits.search, arm, 0, 0, "design")
    assert one.signature == other.signature == plan.signature(one.trial)
    assert one.needs[0].signature == other.needs[0].signature != one.signature
