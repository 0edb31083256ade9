"""Designs in the study file: the arms and pairs that they come to, what is wrong with them, and what the journal keeps."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator import table, variants
from orchestrator.analysis.frames import frames_of
from orchestrator.costs import Costs
from orchestrator.driver import Launch, drive
from orchestrator.errors import StorageError, StudyError
from orchestrator.events import Event, design_event
from orchestrator.journal import Journal
from orchestrator.levels import Part, shown
from orchestrator.outline import compile_signatures, outline, outline_json, outline_lines, standing_lines
from orchestrator.reading import read_study, study_of
from orchestrator.record import Record, record_of
from orchestrator.report import facts_of
from orchestrator.study import Study
from orchestrator.sweep import Sweep
from search_spaces import Schedule
from tests.synthetic import Synthetic
from trainables.folder import names
from trainables.methods.kd import KD
from trainables.methods.vanilla import Vanilla
from trainables.models.mlp import MLP

STUDY = Path(__file__).parents[1] / "search_spaces/studies/slam_factorial_digits.yaml"
PARTS = ("method.lower_bound", "method.mixing", "method.k_rule")


@pytest.fixture
def text(tiny_study_text: str) -> str:
    """Of the tiny study: nothing is searched and nothing left out, so every number follows from the designs given."""
    return tiny_study_text.replace("  leave_one_out: [method.lower_bound]\n  against: [vanilla]\n", "")


def study(text: str, *overrides: str, search: bool = False) -> Study:
    return study_of(text, [*([] if search else ["search=null"]), *overrides], "f.yaml")


def faults(text: str, override: str) -> list[str]:
    """Of one line in the confirm section; messages without the place."""
    key, _, value = override.partition("=")
    with pytest.raises(StudyError) as caught:
        study(text.replace("  base: slam\n", f"  base: slam\n  {key}: {value}\n"))
    line = text[: text.index("  base: slam\n")].count("\n") + 2
    assert all(fault.startswith(f"f.yaml:{line}: ") for fault in caught.value.faults)
    return [fault.removeprefix(f"f.yaml:{line}: ") for fault in caught.value.faults]


def told(study: Study) -> list[str]:
    """Warnings about the confirm section, without the place."""
    return [warning[warning.index(": confirm.") + 2 :] for warning in study.warnings if ": confirm." in warning]


def found(study: Study, **points: dict[str, Any]) -> variants.Variants:
    assert study.confirm is not None
    return variants.variants(study, study.confirm, {name: arm.changed(points.get(name, {})) for name, arm in study.arms.items()})


def pairs(result: variants.Variants) -> list[tuple[str, str]]:
    return [(arm, against) for arm, against, _ in result.comparisons]


# Parts


def test_a_group_is_left_out_together(text: str) -> None:
    one = study(text, "confirm.leave_one_out=[method.mixing, {bounds: [method.lower_bound, method.upper_bound]}]")
    assert one.confirm is not None
    assert one.confirm.leave_one_out == (
        Part("method.mixing", ("method.mixing",)), Part("bounds", ("method.lower_bound", "method.upper_bound")),
    )  # fmt: skip
    result = found(one)
    assert list(result.arms) == ["slam", "slam, mixing=normalised", "slam, bounds=off"]
    method = result.arms["slam, bounds=off"].method
    assert (method.lower_bound, method.upper_bound, method.mixing) == (0.0, 1.0, one.arms["slam"].method.mixing)
    assert pairs(result) == [("slam, mixing=normalised", "slam"), ("slam, bounds=off", "slam")]


def test_one_part_alone_is_compared_with_none_of_them(text: str) -> None:
    one = study(text, f"confirm.add_one_in=[{', '.join(PARTS)}]")
    result = found(one)
    reference = "slam, without lower_bound, mixing, k_rule"
    assert list(result.arms) == ["slam", reference, *(f"slam, only {name}" for name in ("lower_bound", "mixing", "k_rule"))]
    assert result.comparisons == tuple((f"slam, only {name}", reference, "add_one_in") for name in ("lower_bound", "mixing", "k_rule"))
    assert (result.kinds["slam"], result.kinds[reference], result.kinds["slam, only mixing"]) == (
        ("base",),
        ("reference",),
        ("add_one_in",),
    )
    off, on = one.arms["slam"].method, result.arms
    bare = replace(off, lower_bound=0.0, mixing="normalised", k_rule="fixed")
    assert on[reference].method == bare
    assert on["slam, only lower_bound"].method == replace(bare, lower_bound=off.lower_bound)
    assert on["slam, only k_rule"].method == replace(bare, k_rule=off.k_rule)


def test_of_two_parts_alone_and_left_out_are_the_same_trainings(text: str) -> None:
    one = study(text, "confirm.add_one_in=[method.mixing, method.k_rule]", "confirm.leave_one_out=[method.mixing, method.k_rule]")
    result = found(one)
    assert list(result.arms) == ["slam", "slam, mixing=normalised", "slam, k_rule=fixed", "slam, without mixing, k_rule"]
    assert result.kinds["slam, k_rule=fixed"] == ("leave_one_out", "add_one_in")
    assert pairs(result) == [
        ("slam, mixing=normalised", "slam"), ("slam, k_rule=fixed", "slam"),
        ("slam, k_rule=fixed", "slam, without mixing, k_rule"), ("slam, mixing=normalised", "slam, without mixing, k_rule"),
    ]  # fmt: skip
    assert result.skipped == ()
    assert (outline(one).confirm_arms, outline(one).comparisons) == (4, 4)


def test_a_single_part_alone_is_its_variant_read_backwards_and_compared_once(text: str) -> None:
    one = study(text, "confirm.add_one_in=[method.mixing]", "confirm.leave_one_out=[method.mixing]")
    assert pairs(found(one)) == [("slam, mixing=normalised", "slam")]
    assert outline(one).comparisons == 1


def test_parts_that_tuning_left_off_are_named(text: str) -> None:
    result = found(study(text, f"confirm.add_one_in=[{', '.join(PARTS)}]"), slam={"method.mixing": "normalised"})
    reference = "slam, without lower_bound, mixing, k_rule"
    assert list(result.arms) == ["slam", reference, "slam, only lower_bound", "slam, only k_rule"]
    assert result.skipped == (("slam, only mixing", f"it would be the same training as {reference}"),)


# One factor at a time


def test_levels_of_anything_make_variants_of_the_base(text: str) -> None:
    factors = {
        "method.lower_bound": ["off", 0.3],
        "recipe.schedule": ["cosine", {"kind": "linear", "end": 0.1}],
        "teacher.model.width": [4],
        "teacher.recipe.smoothing": [0.2],
        "data.labelled": [30],
        "model": [{"family": "mlp", "width": 9}],
        "method": ["kd", {"method": "vanilla", "temperature": 3}],
        "arm": ["vanilla"],
    }
    one = study(text, f"confirm.one_factor={json.dumps(factors)}")
    result = found(one)
    base = one.arms["slam"]
    assert list(result.arms) == ["slam", *(f"slam, {label}" for label in (
        "lower_bound=off", "lower_bound=0.3", "recipe.schedule=cosine", "recipe.schedule=linear(end=0.1)", "teacher.model.width=4",
        "teacher.recipe.smoothing=0.2", "data.labelled=30", "model=mlp(width=9)", "method=kd", "method=vanilla(temperature=3)", "arm=vanilla",
    ))]  # fmt: skip
    arms = dict(zip(("base", "off", "low", "cosine", "linear", "width", "smooth", "labels", "model", "kd", "warm", "vanilla"),
                    result.arms.values(), strict=True))  # fmt: skip
    assert (arms["off"].method.lower_bound, arms["low"].method.lower_bound) == (0.0, 0.3)
    assert (arms["cosine"].recipe.schedule, arms["linear"].recipe.schedule) == (Schedule("cosine"), Schedule("linear", end=0.1))
    assert arms["width"].taught_by(one) == replace(one.teacher, model=MLP(width=4, depth=1))
    assert arms["smooth"].taught_by(one) == replace(one.teacher, recipe=replace(one.teacher.recipe, smoothing=0.2))
    assert arms["labels"].source(one) == replace(one.data, labelled=30)
    assert (arms["model"].model, arms["model"].method) == (MLP(width=9), base.method)
    assert (arms["kd"].method, arms["warm"].method) == (KD(), Vanilla(temperature=3.0))
    assert (arms["kd"].recipe, arms["vanilla"].method) == (base.recipe, one.arms["vanilla"].method)
    assert result.comparisons == tuple((name, "slam", "one_factor") for name in list(result.arms)[1:])
    # The seeds of a block are everyone's, and what an arm changes of data and teacher is in its trial.
    trials = {name: arm.trial(one, one.block("confirm", 0), True) for name, arm in arms.items()}
    assert {trial.block for trial in trials.values()} == {one.block("confirm", 0)}
    assert (trials["labels"].config()["data.labelled"], trials["width"].config()["teacher.model.width"]) == (30, 4)
    columns = {parameter["name"] for parameter in one.parameters}
    for trial in trials.values():
        for each in (trial, *trial.needed):
            assert columns >= set(each.config())
    # One for the base and whoever shares it, three of their own.
    assert outline(one).teachers == 2 * 4
    # Students: slam, with another teacher, with fewer labels, wider, kd, vanilla. Teachers: the study's, a smaller one, one of
    # fewer labels. Floats and schedules are traced, and so is what labels are smoothed by.
    assert compile_signatures(one) == 6 + 3


def test_a_level_that_the_base_has_is_no_arm_and_a_warning(text: str) -> None:
    one = study(text, "confirm.one_factor={data.labelled: [50, 30], recipe.epochs: [1]}", "confirm.blocks=9")
    assert told(one) == [
        "confirm.one_factor.data.labelled: needs levels that differ from slam, but got 50, which it has anyway: it is no arm of its own."
    ]
    result = found(one)
    assert list(result.arms) == ["slam", "slam, data.labelled=30", "slam, recipe.epochs=1"]
    assert result.skipped == (("slam, data.labelled=50", "it would be the same training as slam"),)
    assert (outline(one).confirm_arms, outline(one).comparisons) == (3, 2)


def test_a_level_of_what_is_searched_may_be_another_arm(text: str) -> None:
    one = study(text, "confirm.one_factor={method.lower_bound: [0.5]}", search=True)
    assert outline(one).confirm_arms == 2
    assert list(found(one, slam={"method.lower_bound": 0.5}).arms) == ["slam"]
    assert list(found(one, slam={"method.lower_bound": 0.4}).arms) == ["slam", "slam, lower_bound=0.5"]


def test_values_in_labels_are_short_and_tell_values_apart() -> None:
    assert [shown(value) for value in (0.3, 1e-6, 0.1234567891, 12, True, "soft", 1.0)] == [
        "0.3", "1e-06", "0.1234567891", "12", "true", "soft", "1",
    ]  # fmt: skip
    assert (shown(Schedule()), shown(Schedule("step", first=0.4))) == ("constant", "step(first=0.4)")
    assert (shown(MLP()), shown(KD(temperature=2.5))) == ("mlp", "kd(temperature=2.5)")


# Factorials

TWO = "confirm.factorial={factors: {bound: {method.lower_bound: off}, mix: {method.mixing: off}}}"
FOUR = (
    "confirm.factorial={factors: {bound: {method.lower_bound: off}, teacher: {teacher.model.width: [4, 8]}, labels: {data.labelled: [30, 50]}, "
    "both: {recipe.epochs: [1, tuned], recipe.schedule: [cosine, tuned]}}, fraction: {resolution: 4}}"
)


def test_the_base_is_the_run_with_everything_on(text: str) -> None:
    one = study(text, TWO)
    result = found(one)
    assert [(arm, tuple(levels.values())) for arm, levels in result.runs] == [
        ("slam, bound=off, mix=off", (-1, -1)), ("slam, bound=on, mix=off", (1, -1)), ("slam, bound=off, mix=on", (-1, 1)), ("slam", (1, 1)),
    ]  # fmt: skip
    assert result.kinds["slam"] == ("base", "factorial")
    assert (result.comparisons, result.skipped, result.idle) == ((), (), frozenset())
    assert (outline(one).confirm_arms, outline(one).comparisons, outline(one).smallest_p, outline(one).blocks_needed) == (4, 0, 0.5, None)


def test_runs_that_other_designs_ask_for_too_are_one_training(text: str) -> None:
    one = study(text, TWO, "confirm.leave_one_out=[method.mixing]", f"confirm.add_one_in=[{', '.join(PARTS[:2])}]")
    result = found(one)
    # Four arms: all that two switches can be.
    assert list(result.arms) == ["slam", "slam, mixing=normalised", "slam, without lower_bound, mixing", "slam, only mixing"]
    assert result.kinds["slam, mixing=normalised"] == ("leave_one_out", "add_one_in", "factorial")
    assert [arm for arm, _ in result.runs] == [
        "slam, without lower_bound, mixing", "slam, mixing=normalised", "slam, only mixing", "slam",
    ]  # fmt: skip
    assert outline(one).confirm_arms == 4


def test_a_fraction_of_fields_groups_teacher_and_data(text: str) -> None:
    one = study(text, FOUR)
    assert one.confirm is not None
    assert one.confirm.factorial is not None
    assert [str(each) for each in one.confirm.factorial.design.generators] == ["both = bound*teacher*labels"]
    result = found(one)
    assert len(result.runs) == 8
    for name, levels in result.runs:
        arm = result.arms[name]
        assert levels["both"] == levels["bound"] * levels["teacher"] * levels["labels"]
        assert arm.method.lower_bound == (one.arms["slam"].method.lower_bound if levels["bound"] > 0 else 0.0)
        assert arm.taught_by(one).model == MLP(width=8 if levels["teacher"] > 0 else 4, depth=1)
        assert arm.source(one) == replace(one.data, labelled=50 if levels["labels"] > 0 else 30)
        assert (arm.recipe.epochs, arm.recipe.schedule.kind) == ((2, "constant") if levels["both"] > 0 else (1, "cosine"))
    assert "slam, bound=off, teacher=4, labels=30, both=low" in result.arms
    assert dict(result.runs)["slam"] == {"bound": 1, "teacher": 1, "labels": 1, "both": 1}
    # Teachers: two widths on two numbers of labels, all of them in every half.
    assert (outline(one).confirm_arms, outline(one).teachers, outline(one).cells) == (8, 4 * 2, 8 + 16)


def test_whole_arms_are_levels(text: str) -> None:
    factors = "{method: {arm: [vanilla, slam]}, soft: {method.targets: [hard, soft]}}"
    one = study(text, f"confirm.factorial={{factors: {factors}}}")
    assert one.confirm is not None
    assert one.confirm.arms == ("slam", "vanilla")
    result = found(one)
    assert [arm for arm, _ in result.runs] == [
        "slam, method=vanilla, soft=hard", "slam, method=slam, soft=hard", "slam, method=vanilla, soft=soft", "slam",
    ]  # fmt: skip
    assert [type(result.arms[arm].method).__name__ for arm, _ in result.runs] == ["Vanilla", "SLaM", "Vanilla", "SLaM"]
    assert not [warning for warning in one.warnings if "arms.vanilla" in warning]


def test_a_factor_that_tuning_made_equal_is_told_and_its_runs_are_one_training(text: str) -> None:
    result = found(study(text, TWO), slam={"method.mixing": "normalised"})
    assert result.idle == {"mix"}
    assert [arm for arm, _ in result.runs] == ["slam, bound=off, mix=off", "slam", "slam, bound=off, mix=off", "slam"]


def test_a_factor_without_effect_is_a_warning(text: str) -> None:
    idle = "confirm.factorial={factors: {bound: {method.lower_bound: off}, k: {method.fixed_k: [3, 4]}}}"
    one = study(text, idle, "confirm.blocks=8")
    assert told(one) == ["confirm.factorial.factors.k: needs levels that differ, but got two that are the same training in every run."]
    # Another factor gives it one.
    both = idle.replace("bound: {method.lower_bound: off}", "rule: {method.k_rule: off}")
    assert told(study(text, both, "confirm.blocks=8")) == []


def test_of_resolution_iii_and_of_few_blocks_the_study_warns(text: str) -> None:
    one = study(text, FOUR.replace("{resolution: 4}", "{generators: [labels = bound*teacher]}"), "confirm.blocks=8")
    assert told(one) == [
        (
            "confirm.factorial.fraction: needs resolution IV to tell main effects from two-way interactions, but got III: "
            "bound = teacher*labels; teacher = bound*labels; labels = bound*teacher."
        ),
        "confirm.blocks: needs at least 9 blocks for any of 7 effects of the factorial to reach p <= 0.05 after Holm's correction, but got 8.",
    ]


@pytest.mark.parametrize(("form", "generator"), [("D=ABC", "both = bound*teacher*labels"), ("both = labels * bound*teacher", "both = bound*teacher*labels"), ("D = -AC", "both = -bound*labels")])  # fmt: skip
def test_generators_have_letters_or_names(text: str, form: str, generator: str) -> None:
    one = study(text, FOUR.replace("{resolution: 4}", f'{{generators: ["{form}"]}}'))
    assert one.confirm is not None
    assert one.confirm.factorial is not None
    assert [str(each) for each in one.confirm.factorial.design.generators] == [generator]


# Identity


def test_designs_that_ask_for_nothing_change_no_identity(text: str) -> None:
    plain = study(text)
    empty = study(text, "confirm.add_one_in=[]", "confirm.one_factor={}", "confirm.factorial=null")
    assert empty.fingerprint == plain.fingerprint
    changes = [
        "confirm.add_one_in=[method.mixing]", "confirm.add_one_in=[{method.mixing: [method.mixing]}]", "confirm.one_factor={recipe.epochs: [1]}",
        "confirm.one_factor={recipe.epochs: [3]}", TWO, TWO.replace("mixing: off", "mixing: [unnormalised, normalised]"),
        FOUR, FOUR.replace("4}", "5}"), FOUR.replace("{resolution: 4}", "{generators: [D=-ABC]}"), FOUR.replace("[30, 50]", "[50, 30]"),
    ]  # fmt: skip
    del changes[1]
    assert len({study(text, change).fingerprint for change in changes} | {plain.fingerprint}) == len(changes) + 1
    # How a fraction is asked for does not count, nor the order of parts.
    assert study(text, FOUR).fingerprint == study(text, FOUR.replace("{resolution: 4}", "{generators: [D=ABC]}")).fingerprint
    one, other = (study(text, f"confirm.add_one_in=[{', '.join(parts)}]") for parts in (PARTS, PARTS[::-1]))
    assert one.fingerprint == other.fingerprint


def test_overrides_reach_into_designs(text: str) -> None:
    one = study(text, "confirm.one_factor.teacher.model.width=[4]", "confirm.factorial.factors.k.method.k_rule=off",
                "confirm.factorial.factors.mix.method.mixing=off")  # fmt: skip
    assert one.confirm is not None
    assert [factor.name for factor in one.confirm.one_factor] == ["teacher.model.width"]
    assert one.confirm.factorial is not None
    assert one.confirm.factorial.design.factors == ("k", "mix")
    assert study_of(one.text).fingerprint == one.fingerprint


# What is wrong

SLAM_HAS = "needs arm, or a field of slam under method, recipe, model, teacher or data, but got"
PART_NEED = "a dotted name, or a group: {NAME: [dotted names]}"
FAULTS = [
    ("leave_one_out=[3]", [f"confirm.leave_one_out[0]: needs {PART_NEED}, but got 3."]),
    ("leave_one_out=[{a: [method.mixing], b: []}]", [f"confirm.leave_one_out[0]: needs {PART_NEED}, but got a map."]),
    ("leave_one_out=[{a b: [method.mixing]}]", ["confirm.leave_one_out[0]: needs a name of at most 64 letters, digits, - and _, but got 'a b'."]),
    ("leave_one_out=[{mixing: [method.k_rule]}]", ["confirm.leave_one_out[0]: needs a name that no field of slam has, but got 'mixing': labels would not tell them apart."]),
    ("leave_one_out=[{a: []}]", ["confirm.leave_one_out[0].a: needs a list of dotted names, but got an empty list."]),
    ("leave_one_out=[{a: [method.mixing, method.mixing]}]",
     ["confirm.leave_one_out[0].a: needs fields that are no parts of each other, but got method.mixing beside method.mixing."]),
    ("add_one_in=[method.mixing, {a: [method.mixing, method.k_rule]}]",
     ["confirm.add_one_in: needs parts that share no field, but got method.mixing beside method.mixing."]),
    ("add_one_in=[method.mixing, method.mixing]",
     ["confirm.add_one_in: needs distinct names, none of them slam, but got 'method.mixing'."]),
    ("add_one_in=method.mixing", [f"confirm.add_one_in: needs a list, each item {PART_NEED}, but got 'method.mixing'."]),
    ("one_factor=[1]", ["confirm.one_factor: needs a map from dotted names to lists of levels, but got a list."]),
    ("one_factor={data.labeled: [3]}", [f"confirm.one_factor.data.labeled: {SLAM_HAS} 'data.labeled'. Did you mean data.labelled?"]),
    ("one_factor={teacher.modl.width: [3]}", [f"confirm.one_factor.teacher.modl.width: {SLAM_HAS} 'teacher.modl.width'. Did you mean teacher.model.width?"]),
    ("one_factor={seed: [3]}", [f"confirm.one_factor.seed: {SLAM_HAS} 'seed'."]),
    ("one_factor={data: [3]}", [f"confirm.one_factor.data: {SLAM_HAS} 'data': name one of data.labelled, data.validation, data.test."]),
    ("one_factor={recipe.epochs: 3}", ["confirm.one_factor.recipe.epochs: needs a list of levels, but got 3."]),
    ("one_factor={recipe.epochs: [0, x, 3]}", ["confirm.one_factor.recipe.epochs[0]: needs a number in [1, inf], but got 0.",
                                               "confirm.one_factor.recipe.epochs[1]: needs a whole number, but got 'x'."]),
    ("one_factor={recipe.epochs: [3, 3]}", ["confirm.one_factor.recipe.epochs: needs distinct levels, but got 3, 3."]),
    ("one_factor={method.mixing: [normalized]}", ["confirm.one_factor.method.mixing[0]: needs one of unnormalised, normalised, renormalised, but got 'normalized'. Did you mean normalised?"]),
    ("one_factor={recipe.schedule: [cosin]}", ["confirm.one_factor.recipe.schedule[0].kind: needs one of constant, linear, cosine, exponential, step, but got 'cosin'. Did you mean cosine?"]),
    ("one_factor={recipe.schedule: [3]}", ["confirm.one_factor.recipe.schedule[0]: needs a map with the fields of Schedule, or its kind, but got 3."]),
    ("one_factor={arm: [vanila, slam]}", ["confirm.one_factor.arm: needs other arms than the base, but got slam.",
                                          "confirm.one_factor.arm[0]: needs one of slam, vanilla, but got 'vanila'. Did you mean vanilla?"]),
    ("one_factor={model: [{width: 3}]}", ["confirm.one_factor.model[0].family: needs one of FAMILIES, but got nothing."]),
    ("one_factor={method: [3]}", ["confirm.one_factor.method[0]: needs a name, or a map with method and its fields, but got 3."]),
    ("one_factor={data.labelled: [5000]}", None),
    ("one_factor={recipe.smoothing: [0.1]}", None),
    ("factorial=[1]", ["confirm.factorial: needs a map with the keys factors, fraction, but got a list."]),
    ("factorial={fraction: {resolution: 3}}", ["confirm.factorial.factors: needs a map from names to factors, but got nothing."]),
    ("factorial={factors: [1]}", ["confirm.factorial.factors: needs a map from names to factors, but got a list."]),
    ("factorial={factors: {}}", ["confirm.factorial.factors: needs 2 to 12 factors, but got an empty map."]),
    ("factorial={factors: {a: {method.mixing: off}}}", ["confirm.factorial.factors: needs 2 to 12 factors, but got 1."]),
    ("factorial={factors: {a: {method.mixing: off}, b: 3}}", ["confirm.factorial.factors.b: needs a map from dotted names to two levels, [low, high], or off, but got 3."]),
    ("factorial={factors: {a: {method.mixing: off}, b: {recipe.epochs: [1, 2, 3]}}}",
     ["confirm.factorial.factors.b.recipe.epochs: needs two levels, [low, high], or off, but got a list."]),
    ("factorial={factors: {a: {method.mixing: off}, b: {recipe.epochs: [1, 1]}}}",
     ["confirm.factorial.factors.b.recipe.epochs: needs two different levels, but got 1 twice."]),
    ("factorial={factors: {a: {method.mixing: off}, b: {recipe.epochs: off}}}", ["confirm.factorial.factors.b.recipe.epochs: needs a whole number, but got 'off'."]),
    ("factorial={factors: {a: {method.mixing: off}, b: {method.mixing: [normalised, tuned]}}}",
     ["confirm.factorial.factors.b: needs fields of its own, but got method.mixing beside method.mixing."]),
    ("factorial={factors: {a: {arm: [slam, vanilla]}, b: {method.mixing: off}}}",
     ["confirm.factorial.factors.b.method.mixing: needs arm, or a field of vanilla under method, recipe, model, teacher or data, but got 'method.mixing'. Did you mean method.targets?"]),
    ("factorial={factors: {a: {method.mixing: off}, b: {recipe.epochs: [1, 2]}}, fraction: {}}", ["confirm.factorial.fraction: needs either resolution or generators, but got neither."]),
    ("factorial={factors: {a: {method.mixing: off}, b: {recipe.epochs: [1, 2]}}, fraction: {resolution: 2}}",
     ["confirm.factorial.fraction.resolution: needs a whole number from 3 to 12, but got 2."]),
    ("factorial={factors: {a: {method.mixing: off}, b: {recipe.epochs: [1, 2]}}, fraction: {generators: [c=ab]}}",
     ["confirm.factorial.fraction.generators[0]: needs text of the form D=ABC, in letters of the factors' order, or NAME = NAME*NAME (A a, B b), but got 'c=ab'."]),
    ("factorial={factors: {a: {method.mixing: off}, b: {recipe.epochs: [1, 2]}}, fraction: {generators: [b=a]}}",
     ["confirm.factorial.fraction.generators: needs generators of a fraction, but got this: A generator needs two or more distinct factors that no generator makes (a) on its right side, but got b = a."]),
]  # fmt: skip


@pytest.mark.parametrize(("override", "lines"), FAULTS, ids=lambda value: value if isinstance(value, str) else "")
def test_faults_of_designs(text: str, override: str, lines: list[str] | None) -> None:
    got = faults(text, override)
    if lines is None:
        assert len(got) == 1
        assert got[0].startswith("confirm.one_factor")
    else:
        assert got == [line.replace("FAMILIES", ", ".join(names("trainables.models"))) for line in lines]


# The plan


def test_the_plan_of_the_package_in_hand_computed_numbers() -> None:
    one = read_study(STUDY)
    assert one.warnings == ()
    plan = outline(one)
    # slam, all off, three alone, 20 and 80 labels, cosine, vanilla; and of the 16 runs with mix*k*bound*teacher*labels = 1 those that
    # are none of them: with the large teacher and 40 labels mix*k*bound = 1, which slam has and each part alone.
    assert {kind: len(labels) for kind, labels in plan.designs.items()} == {
        "base": 1, "reference": 1, "add_one_in": 3, "one_factor": 3, "factorial": 16, "rival": 1,
    }  # fmt: skip
    assert plan.confirm_arms == 1 + 1 + 3 + 3 + (16 - 4) + 1
    # 40 labels: widths 16 and 8; 20 labels: both; 80 labels: 16.
    assert plan.teachers == 10 * 5
    assert (plan.confirm_cells, plan.cells) == (210, 260)
    assert (plan.factorial, plan.runs, plan.generators) == ("2^(5-1), resolution V", 16, ("labels = mix*k*bound*teacher",))
    assert plan.aliases[0] == "I = mix*k*bound*teacher*labels"
    assert "mix*k = bound*teacher*labels" in plan.aliases
    assert len(plan.aliases) == 1 + 10
    # 3 alone, 3 levels, vanilla; five main effects and ten interactions. 2 / 2^10 is .00195, 7 and 15 times that .0137 and .0293.
    told = [(each.name, each.size, each.smallest_p, each.smallest_p_holm, each.blocks_needed) for each in plan.families]
    assert told == [("comparisons", 7, 2 / 2**10, 7 * 2 / 2**10, 9), ("effects", 15, 2 / 2**10, 15 * 2 / 2**10, 10)]
    assert (plan.comparisons, plan.smallest_p, plan.blocks_needed) == (7, 2 / 2**10, 9)


def test_the_plan_in_words_and_as_data() -> None:
    one = read_study(STUDY)
    plan = outline(one)
    unknown = Costs(lanes=1, devices=1, seconds=None, seconds_missing=None, source="unknown: for a reason")
    lines = outline_lines(one, plan, unknown, 0)
    for line in (
        "  confirm   21 arms x 10 blocks = 210 cells",
        "    one factor (3): slam, data.labelled=20; slam, data.labelled=80; slam, recipe.schedule=cosine",
        "    reference (1): slam, without mixing, k_rule, bounds",
        "    25 are asked for, 21 are different trainings",
        "  factorial 2^(5-1), resolution V: 16 runs of mix (off / on), k (off / on), bound (off / on), teacher (8 / 16), labels (20 / 40)",
        "    labels = mix*k*bound*teacher",
        "    I = mix*k*bound*teacher*labels",
        "    teacher*labels = mix*k*bound",
        "  the exact paired test cannot give less than p = 0.002 with 10 blocks; 7 comparisons under Holm's correction need 9 blocks",
        "  the exact paired test cannot give less than p = 0.002 with 10 blocks; 15 effects under Holm's correction need 10 blocks",
    ):
        assert line in lines
    data = json.loads(json.dumps(outline_json(one, plan, unknown, 0)))
    assert data["designs"]["add_one_in"] == ["slam, only mixing", "slam, only k_rule", "slam, only bounds"]
    assert data["families"][1] == {
        "name": "effects", "size": 15, "smallest_p": 2 / 2**10, "smallest_p_holm": 30 / 2**10, "blocks_needed": 10,
    }  # fmt: skip
    assert data["factors"]["teacher"] == ["8", "16"]
    reference = "slam, without mixing, k_rule, bounds"
    assert data["pairs"] == [
        ["slam, only mixing", reference], ["slam, only k_rule", reference], ["slam, only bounds", reference],
        ["slam, data.labelled=20", "slam"], ["slam, data.labelled=80", "slam"], ["slam, recipe.schedule=cosine", "slam"], ["vanilla", "slam"],
    ]  # fmt: skip


def test_nothing_can_be_shown_with_one_block(text: str) -> None:
    plan = outline(study(text, FOUR, "confirm.against=[vanilla]", "confirm.blocks=1"))
    assert [(each.smallest_p, each.smallest_p_holm) for each in plan.families] == [(1.0, 1.0), (1.0, 1.0)]


# The journal


def launched(one: Study, record: Record | None = None) -> tuple[Sweep, list[Event]]:
    """All of a study, by formula, in this process."""
    sweep = Sweep(one, record or record_of([]))
    events = sweep.drain()
    host = Synthetic()
    while (leg := sweep.take()) is not None:
        events += sweep.drain()
        events += sweep.give(host.run(leg))
    assert sweep.is_done
    return sweep, events


ALL = (TWO, "confirm.add_one_in=[method.mixing, method.k_rule]", "confirm.one_factor={data.labelled: [30]}", "confirm.against=[vanilla]")


def test_the_design_is_in_the_journal_before_its_first_cell(text: str) -> None:
    one = study(text, *ALL, search=True)
    _, events = launched(one)
    kinds = [event["event"] for event in events]
    assert kinds.count("design") == 1
    at = kinds.index("design")
    assert all(event["stage"] != "confirm" for event in events[:at] if event["event"] == "cell")
    design = events[at]
    assert (design["blocks"], design["base"], design["late"]) == (2, "slam", False)
    cells = {(event["arm"], event["block"]): event["cell"] for event in events if event["event"] == "cell" and event["stage"] == "confirm"}
    assert [arm["arm"] for arm in design["arms"]] == list(dict.fromkeys(arm for arm, _ in cells))
    assert {arm["arm"]: arm["cell"] for arm in design["arms"]} == {arm: cell for (arm, block), cell in cells.items() if block == 0}
    assert {"arm": "slam, only mixing", "against": "slam, without mixing, k_rule", "kind": "add_one_in"} in design["comparisons"]
    assert len(design["comparisons"]) == 2 + 1 + 1
    factorial = design["factorial"]
    assert factorial["factors"][1] == {"name": "mix", "letter": "B", "low": "off", "high": "on", "differs": True}
    assert [run["levels"] for run in factorial["runs"]] == [{"bound": b, "mix": m} for m in (-1, 1) for b in (-1, 1)]
    assert (factorial["runs"][3]["arm"], factorial["resolution"], factorial["generators"]) == ("slam", None, [])
    assert [effect["factors"] for effect in factorial["effects"]] == [["bound"], ["mix"], ["bound", "mix"]]
    # The hash is that of the content, whoever spells it.
    content = {name: design[name] for name in ("blocks", "base", "arms", "comparisons", "factorial")}
    spelled = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    assert design["hash"] == hashlib.sha256(spelled).hexdigest()


def test_a_relaunch_says_nothing_again(text: str) -> None:
    one = study(text, *ALL)
    sweep, events = launched(one)
    record = record_of(events)
    assert record.design is not None
    again, more = launched(one, record)
    assert more == []
    assert again.counts() == sweep.counts()
    assert standing_lines(one, record) == [f"  the design is fixed: 2 blocks, hash {record.design['hash'][:16]}"]


def test_more_blocks_extend_the_design_by_name(text: str) -> None:
    one, three, five = (study(text, *ALL, f"confirm.blocks={blocks}") for blocks in (2, 3, 5))
    _, events = launched(one)
    first = record_of(events)
    _, more = launched(three, first)
    assert [event["event"] for event in more].count("extension") == 1
    extension = more[0]
    assert (extension["event"], extension["name"], extension["before"], extension["blocks"]) == ("extension", "extension 1", 2, 3)
    whole = launched(three)[1]
    assert extension["hash"] == next(event for event in whole if event["event"] == "design")["hash"]
    assert first.design is not None
    assert extension["design"] == first.design["hash"]
    # Only the new block is trained, and the cells are those of the study that had three blocks from the start.
    assert {event["block"] for event in more if event["event"] == "cell"} == {2}
    both = record_of([*events, *more])
    assert set(both.cells) == set(record_of(whole).cells)
    assert (both.design, [event["name"] for event in both.extensions], both.blocks) == (first.design, ["extension 1"], 3)
    assert standing_lines(five, both)[1:] == ["  extension 1: blocks 2 to 3", "  a run would make extension 2 of it: blocks 3 to 5"]
    last = launched(five, both)[1]
    assert [(event["name"], event["before"], event["blocks"]) for event in last if event["event"] == "extension"] == [("extension 2", 3, 5)]
    # What was planned is not taken back, and another design is no extension.
    with pytest.raises(StorageError, match=r"needs confirm\.blocks of at least 3, which its design was fixed or extended to, but got 2"):
        Sweep(one, both)
    with pytest.raises(StorageError, match="needs the design that it was begun with"):
        Sweep(study(text, *ALL[:-1], "confirm.blocks=3"), both)


def test_the_first_word_on_a_design_and_on_an_extension_counts(text: str) -> None:
    one, more = (study(text, *ALL, f"confirm.blocks={blocks}") for blocks in (2, 3))
    _, events = launched(one)
    _, extended = launched(more, record_of(events))
    again = [event | {"blocks": 99} for event in [*events, *extended] if event["event"] in ("design", "extension")]
    record = record_of([*events, *extended, *again])
    assert record.design is not None
    assert (record.design["blocks"], [event["blocks"] for event in record.extensions], record.blocks) == (2, [3], 3)


def test_before_stage_two_opens_blocks_are_free(text: str) -> None:
    one, more = (study(text, *ALL, f"confirm.blocks={blocks}", search=True) for blocks in (4, 3))
    sweep = Sweep(one, record_of([]))
    record = record_of(sweep.drain())
    assert (record.design, record.blocks) == (None, None)
    _, events = launched(more, record)
    assert next(event for event in events if event["event"] == "design")["blocks"] == 3


def test_a_journal_of_confirm_cells_without_a_design_says_that_it_came_late(text: str) -> None:
    one = study(text, *ALL)
    _, events = launched(one)
    _, more = launched(one, record_of([event for event in events if event["event"] != "design"]))
    assert [(event["event"], event["late"]) for event in more] == [("design", True)]


def test_only_blocks_may_differ_between_launches_of_one_study(text: str) -> None:
    one = study(text, *ALL)
    launch = {"fingerprint": one.fingerprint, "blocks": 2}
    assert study(text, *ALL, "confirm.blocks=7").is_that_of(launch)
    assert not study(text, *ALL, "confirm.blocks=7").is_that_of({"fingerprint": one.fingerprint})
    assert not study(text, *ALL, "seed=1").is_that_of(launch)
    assert not study(text, *ALL[1:]).is_that_of(launch)
    assert study(text, "confirm=null", search=True).is_that_of(
        {"fingerprint": study(text, "confirm=null", search=True).fingerprint, "blocks": None}
    )


def test_the_hash_knows_every_part_of_a_design() -> None:
    given: dict[str, Any] = {
        "blocks": 3,
        "base": "a",
        "arms": [{"arm": "a", "kinds": ["base"], "cell": "0"}],
        "comparisons": [],
        "factorial": None,
    }
    changes: list[dict[str, Any]] = [
        {}, {"blocks": 4}, {"base": "b"}, {"arms": []}, {"comparisons": [{"arm": "b", "against": "a", "kind": "rival"}]}, {"factorial": {}},
    ]  # fmt: skip
    assert len({design_event(**given | change)["hash"] for change in changes}) == len(changes)
    assert design_event(**given)["hash"] == design_event(**given, skipped=[["x", "y"]], late=True)["hash"]


# All of it, for real


def test_every_design_trains_and_is_extended(text: str, tmp_path: Path) -> None:
    """One study with each of them, trained in this process: rows, columns, pairs of the report, then one block more."""
    overrides = [FOUR, *ALL[1:], "confirm.leave_one_out=[{bounds: [method.lower_bound, method.upper_bound]}]"]
    options = {"storage": str(tmp_path)}
    quiet = Console(quiet=True)

    def run(blocks: int) -> Any:
        one = study_of(text, ["search=null", *overrides, f"confirm.blocks={blocks}"], options=options)
        return one, drive(one, Launch(in_process=True), quiet)

    one, outcome = run(2)
    # slam, bounds, all off, two alone, 30 labels, vanilla and seven runs: 30 labels alone is no run of the half.
    arms = 1 + 1 + 3 + 1 + 1 + 7
    # Teachers of 8 and 4 units, on 50 and 30 labels.
    assert outcome.exit_code == 0
    assert outcome.counts["ok"] == outline(one).cells == (arms + 4) * 2
    record = record_of(events := Journal(tmp_path / "tiny").read())
    rows = table.read_trials(tmp_path / "tiny").to_pandas()
    confirmed = rows[rows.stage == "confirm"]
    assert Counter(confirmed["arm"]) == {arm["arm"]: 2 for arm in record.design["arms"]} if record.design else False
    assert confirmed["metric.test.accuracy"].between(0.0, 1.0).all()
    assert dict(confirmed.groupby("arm")["hp.data.labelled"].first())["slam, data.labelled=30"] == 30
    assert set(confirmed["hp.teacher.model.width"]) == {4, 8}
    assert confirmed.groupby("block")["seeds_json"].nunique().eq(1).all()

    _, more = run(3)
    assert more.trained == arms + 4
    record = record_of(events := Journal(tmp_path / "tiny").read())
    facts = facts_of(events, record)
    assert (facts.fixed_blocks, [event["name"] for event in facts.extensions]) == (2, ["extension 1"])
    assert facts.kinds["slam"] == ("base", "factorial")
    frames = frames_of(facts, table.read_trials(tmp_path / "tiny").to_pandas())
    reference = "slam, without mixing, k_rule"
    assert [(each.arm, each.base) for each in frames.comparisons] == list(facts.pairs) == [
        ("slam, bounds=off", "slam"), ("slam, only mixing", reference), ("slam, only k_rule", reference),
        ("slam, data.labelled=30", "slam"), ("vanilla", "slam"),
    ]  # fmt: skip
    assert {each.family for each in frames.comparisons} == {5}
    with pytest.raises(StorageError, match=r"needs confirm\.blocks of at least 3"):
        run(2)
