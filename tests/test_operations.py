"""Operations of networks by hand and as published, and of trainings and studies by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from orchestrator.costs import shares
from orchestrator.events import CONFIRM, TEACHER
from orchestrator.reading import study_of
from orchestrator.record import record_of
from orchestrator.workload import workload
from tests.small_trials import TEACHER as SMALL_TEACHER
from tests.small_trials import Blobs, student_trial
from trainables.data.cifar100 import Cifar100
from trainables.data.digits import Digits
from trainables.data.stl10 import Stl10
from trainables.distiller import Needs
from trainables.form import Form
from trainables.methods.kd import KD
from trainables.models.imagenet import ImageNet
from trainables.models.mlp import MLP
from trainables.models.wrn import WRN
from trainables.operations import operations, sketch
from trainables.recipe import Recipe
from trainables.source import Extent


def test_a_multiplication_and_an_addition_are_two() -> None:
    assert sketch(MLP(width=16, depth=2), (1, 8, 8), 10).operations == 2 * (64 * 16 + 16 * 16 + 16 * 10)


@pytest.mark.parametrize(
    ("model", "side", "classes", "published"),
    [
        # He et al. 2016 (arXiv:1512.03385), Table 1, counts a multiplication with its addition as one.
        (ImageNet(network="resnet18"), 224, 1000, 2 * 1.8e9),
        # Zagoruyko and Komodakis 2016 (arXiv:1605.07146) and the READMEs of its ports: 0.33 billion of them.
        (WRN(depth=40, width=2), 32, 100, 2 * 0.33e9),
    ],
    ids=["resnet18", "wrn40-2"],
)
def test_operations_are_those_that_are_published(model, side, classes, published) -> None:
    if isinstance(model, ImageNet):
        pytest.importorskip("transformers")
    assert sketch(model, (3, side, side), classes).operations == pytest.approx(published, rel=0.02)


def test_nothing_is_computed_and_no_weights_are_fetched() -> None:
    pytest.importorskip("transformers")
    state = torch.get_rng_state()
    found = sketch(ImageNet(network="resnet18", weights="no/such-weights"), (3, 64, 64), 10)
    assert {p.device.type for p in found.network.parameters()} == {"meta"}
    assert torch.equal(torch.get_rng_state(), state)


FORM, EXTENT = Form((1, 1, 2), 3), Extent(labelled=10, rows=50)
STUDENT, TEACHER_ROW = 2 * (2 * 6 + 6 * 3), 2 * (2 * 8 + 8 * 3)
"""Of MLPs 2 -> 6 -> 3 and 2 -> 8 -> 3."""
RECIPE = Recipe(epochs=4, precision="bfloat16")
TAUGHT = replace(SMALL_TEACHER, recipe=replace(SMALL_TEACHER.recipe, epochs=5, precision="bfloat16"))


@dataclass(frozen=True)
class Alone(KD):
    """Never asks its teacher."""

    needs: ClassVar[Needs] = Needs(teacher=False)


def trial(method=KD(), **changes):  # noqa: B008 # a frozen value
    return replace(student_trial(method, RECIPE), teacher=TAUGHT, **changes)


@pytest.mark.parametrize(
    ("found", "extent", "expected"),
    [
        (trial(), EXTENT, 3 * 50 * 4 * STUDENT + 50 * TEACHER_ROW),
        (trial(), replace(EXTENT, is_augmented=True), 50 * 4 * (3 * STUDENT + TEACHER_ROW)),
        (trial(Alone()), EXTENT, 3 * 50 * 4 * STUDENT),
        (trial().first_teacher, EXTENT, 3 * 10 * 5 * TEACHER_ROW),
        (trial(chain=(KD(),)), EXTENT, 3 * 50 * 4 * STUDENT + 50 * STUDENT),
        (trial(recipe=replace(RECIPE, precision="float32")), EXTENT, 6 * 3 * 50 * 4 * STUDENT + 50 * TEACHER_ROW),
    ],
    ids=["rows as they are", "augmented", "no teacher", "a teacher", "taught by a student", "float32"],
)
def test_a_training_by_hand(found, extent, expected) -> None:
    assert operations(found, FORM, extent) == expected


def test_what_sources_know_before_they_are_read() -> None:
    assert Digits(labelled=60, validation=250, test=500).extent == Extent(60, 1797 - 750)
    found = Cifar100(labelled=0.2, validation=1000, augmentation="crop_flip").extent
    assert found == Extent(10_000, 49_000, is_augmented=True)
    more = Stl10(labelled=1.0, validation=500).extent
    assert more.rows == 4500 + (100_000 if Stl10(labelled=1.0, validation=500).joins_more else 0)
    assert Blobs().extent is None


def test_the_workload_of_a_study_is_that_of_its_trainings(tiny_study_text: str) -> None:
    study = study_of(tiny_study_text, [])
    form, extent = study.data.form, study.data.extent
    empty = record_of([])
    by_method = {}
    for arm in study.arms.values():
        each = arm.trial(study, study.block("search", 0), opens_test=False)
        by_method[each.config()["method.name"]] = operations(each, form, extent)
        by_method[None] = operations(each.first_teacher, form, extent)
    whole = sum(share.missing * by_method[share.method] for share in shares(study, empty))
    assert {share.stage for share in shares(study, empty)} >= {TEACHER, CONFIRM}
    assert workload(study, empty).operations == pytest.approx(whole)
    assert whole > 0


def test_a_source_that_tells_nothing_is_named(tiny_study_text: str) -> None:
    study = replace(study_of(tiny_study_text, []), data=Blobs())
    assert workload(study, record_of([])) == workload(study, record_of([]))
    assert workload(study, record_of([])).operations is None
    assert "before it is read" in workload(study, record_of([])).obstacle
