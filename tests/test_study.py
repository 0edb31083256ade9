"""The study file: what it means, everything that can be wrong with it, and that nothing else than a StudyError comes out."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import search as proposing
from orchestrator.analysis.reach import blocks_needed
from orchestrator.drafts import Draft, check_left_out
from orchestrator.errors import StudyError
from orchestrator.fields import Faults, domain_of
from orchestrator.levels import Part
from orchestrator.located import Node, Place
from orchestrator.reading import _misfit, read_study, study_of
from orchestrator.study import CONFIRM, METRICS, SAMPLERS, SEARCH, Study, _columns_of, _widest
from search_spaces import Choice, IntUniform, LogUniform, Uniform, flat, tunable, tunables, without
from trainables import folder
from trainables.data.digits import Digits
from trainables.evaluate import measures
from trainables.methods.slam import SLaM
from trainables.methods.vanilla import Vanilla
from trainables.models.mlp import MLP
from trainables.recipe import Recipe
from trainables.source import Source, Splits

TEXT = """\
study: mini
question: Does it read?
seed: 3
metric: {select: validation.accuracy, report: test.accuracy, goal: maximise}
data: {source: digits, labelled: 60, validation: 300, test: 400}
teacher:
  model: {family: mlp, width: 32}
  recipe: {optimiser: adam, learning_rate: 0.01, epochs: 60, batch: 32}
student:
  model: {family: mlp, width: 16}
  recipe: {optimiser: sgd, epochs: 30, batch: 128}
arms:
  slam: {method: slam, lower_bound: 0.4}
  vanilla: {method: vanilla, targets: soft, recipe: {epochs: 20}, model: {depth: 1}}
search:
  trials: 24
  generation: 6
  startup: 5
  blocks: 2
  rungs: [0.25, 0.5]
  keep: 0.4
  sampler: tpe
  space:
    all:
      recipe.learning_rate: {log_uniform: [0.003, 1.0]}
      recipe.schedule.kind: [constant, cosine, step]
    slam:
      method.lower_bound: {uniform: [0.0, 0.9]}
      method.k_rule: declared
      method.fixed_k: {int_uniform: [2, 10]}
    vanilla:
      method.temperature: declared
confirm:
  base: slam
  leave_one_out: [method.lower_bound, recipe.schedule]
  against: [vanilla]
  blocks: 10
run: {lanes: 2, workers: 1, device: auto, wandb: offline, wandb_project: kdsweep, storage: kdsweep-results, retries: 1}
"""
SETTINGS = settings(max_examples=250, derandomize=True, deadline=None, database=None)
SLAM_FIELDS = ", ".join(field.name for field in tunables(SLaM))
VANILLA_FIELDS = ", ".join(field.name for field in tunables(Vanilla))
METHODS = ", ".join(folder.names("trainables.methods"))
MLP_FIELDS = ", ".join(field.name for field in tunables(MLP))
RECIPE_FIELDS = ", ".join(field.name for field in tunables(Recipe))


def study(text: str = TEXT, *overrides: str, **options: Any) -> Study:
    return study_of(text, overrides, "f.yaml", options)


def faults(text: str = TEXT, *overrides: str, **options: Any) -> list[str]:
    with pytest.raises(StudyError) as caught:
        study_of(text, overrides, "f.yaml", options)
    assert str(caught.value) == "\n".join(caught.value.faults)
    return caught.value.faults


def edited(*pairs: tuple[str, str], text: str = TEXT) -> str:
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


# What a file means


def test_a_file_becomes_a_study():
    found = study()
    assert (found.name, found.question, found.seed) == ("mini", "Does it read?", 3)
    assert (found.metric.select, found.metric.report, found.metric.sign) == ("validation.accuracy", "test.accuracy", 1.0)
    assert (folder.name_of(found.data), flat(found.data)) == ("digits", {"labelled": 60, "validation": 300, "test": 400})
    assert found.teacher.model == MLP(width=32, depth=2)
    assert found.teacher.recipe == Recipe("adam", learning_rate=0.01, epochs=60, batch=32)
    assert list(found.arms) == ["slam", "vanilla"]
    slam, vanilla = found.arms.values()
    assert slam.name == "slam"
    assert slam.method == SLaM(lower_bound=0.4)
    assert slam.recipe == Recipe(epochs=30)
    assert vanilla.method == Vanilla()
    assert vanilla.recipe == Recipe(epochs=20)
    assert vanilla.model == MLP(width=16, depth=1)
    assert found.run.retries == 1
    assert found.text == TEXT
    assert found.warnings == ()


def test_search_and_confirm():
    found = study()
    search, confirm = found.search, found.confirm
    assert search is not None
    assert confirm is not None
    assert (search.trials, search.generation, search.startup, search.blocks) == (24, 6, 5, 2)
    assert (search.rungs, search.keep, search.sampler) == ((0.25, 0.5), 0.4, "tpe")
    slam = {parameter.name: parameter for parameter in search.spaces["slam"].parameters}
    assert list(slam) == [
        "method.lower_bound", "method.k_rule", "method.fixed_k", "recipe.learning_rate", "recipe.schedule.kind",
    ]  # fmt: skip
    assert slam["method.lower_bound"].domain == Uniform(0.0, 0.9)
    assert slam["method.k_rule"].domain == Choice(("threshold", "fixed"))
    assert slam["method.fixed_k"].domain == IntUniform(2, 10)
    assert [(c.name, c.values) for c in slam["method.fixed_k"].conditions] == [("method.k_rule", ("fixed",))]
    assert slam["recipe.learning_rate"].domain == LogUniform(0.003, 1.0)
    assert search.spaces["vanilla"].names == ("method.temperature", "recipe.learning_rate", "recipe.schedule.kind")
    parts = tuple(Part(name, (name,)) for name in ("method.lower_bound", "recipe.schedule"))
    assert (confirm.base, confirm.leave_one_out, confirm.against, confirm.blocks) == ("slam", parts, ("vanilla",), 10)


def test_what_an_arm_says_of_a_name_replaces_what_all_says():
    text = edited(("method.temperature: declared", "recipe.learning_rate: [0.1, 0.2]"))
    search = study(text).search
    assert search is not None
    assert search.spaces["vanilla"].parameter("recipe.learning_rate").domain == Choice((0.1, 0.2))
    assert search.spaces["slam"].parameter("recipe.learning_rate").domain == LogUniform(0.003, 1.0)


def test_what_all_says_need_not_fit_an_arm_that_says_otherwise():
    # A CNN has two or three stages, an MLP any number of layers.
    text = edited(
        ("model: {depth: 1}", "model: {family: cnn}"), ("[constant, cosine, step]", "[constant, cosine, step]\n      model.depth: [1, 4]")
    )
    assert faults(text) == [
        f"f.yaml:27: search.space.all.model.depth[{i}]: needs one of 2, 3, but got {value}." for i, value in enumerate((1, 4))
    ]
    assert study(edited(("method.temperature: declared", "model.depth: declared"), text=text)).search is not None


def test_an_arm_of_another_family_starts_from_the_defaults_of_that_family():
    arm = study(edited(("model: {depth: 1}", "model: {family: cnn, width: 4}"))).arms["vanilla"]
    assert folder.name_of(arm.model) == "cnn"
    assert flat(arm.model)["width"] == 4


def test_a_schedule_may_be_written_as_its_kind():
    long, short = (edited(("lower_bound: 0.4", f"accuracy_ramp: {form}")) for form in ("{kind: cosine}", "cosine"))
    assert study(long).arms == study(short).arms
    assert study(short).arms["slam"].method.accuracy_ramp.kind == "cosine"


def test_sections_that_are_left_out_have_defaults():
    text = edited(("question: Does it read?\n", ""), ("seed: 3\n", ""))
    text = "\n".join(line for line in text.splitlines() if not line.startswith(("metric", "run")))
    found = study(text)
    assert (found.question, found.seed, found.metric.select, found.run.wandb) == ("", 0, "validation.accuracy", "offline")
    assert study(TEXT, "search=null", "confirm.leave_one_out=[method.lower_bound]").search is None
    assert study(TEXT, "confirm=null").confirm is None


def test_a_generation_is_never_larger_than_a_small_search():
    search = study(edited(("trials: 24\n  generation: 6\n", "trials: 3\n"))).search
    assert search is not None
    assert search.generation == 3


def test_goal_and_report_follow_the_metric_that_selects():
    metric = study(edited(("{select: validation.accuracy, report: test.accuracy, goal: maximise}", "{select: validation.nll}"))).metric
    assert (metric.report, metric.goal, metric.sign) == ("test.nll", "minimise", -1.0)


def test_the_known_metrics_are_those_that_are_measured():
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    measured = [name for split in ("validation", "test") for name in measures(split, logits, torch.tensor([1, 0]), logits)]
    assert list(METRICS) == measured


def test_the_known_samplers_are_those_that_search():
    assert set(SAMPLERS) == set(proposing.SAMPLERS)


# Seeds, identities, columns


def test_seeds_of_blocks_are_derived_from_study_stage_and_number():
    found = study()
    block = found.block(CONFIRM, 7)
    expected = [
        int(hashlib.sha256(f"3/confirm/7/{part}".encode()).hexdigest()[:8], 16) // 2 for part in ("split", "teacher", "init", "order")
    ]
    assert [block.split, block.teacher, block.init, block.order] == expected
    seeds = [seed for stage in (SEARCH, CONFIRM) for i in range(200) for seed in vars(found.block(stage, i)).values()]
    assert len(set(seeds)) == 1600
    assert max(seeds) < 2**31
    assert study(edited(("seed: 3", "seed: 4"))).block(CONFIRM, 7) != block


@pytest.mark.parametrize(("stage", "index"), [("tune", 0), (SEARCH, -1)])
def test_blocks_of_no_stage_are_refused(stage, index):
    with pytest.raises(ValueError, match="A block needs"):
        study().block(stage, index)


def test_an_arm_makes_trials():
    found = study()
    block = found.block(CONFIRM, 0)
    trial = found.arms["vanilla"].trial(found, block, opens_test=True)
    assert (trial.data, trial.block, trial.teacher, trial.opens_test) == (found.data, block, found.teacher, True)
    assert (trial.method, trial.recipe.epochs, flat(trial.model)["depth"]) == (Vanilla(), 20, 1)
    changed = found.arms["slam"].changed({"method.lower_bound": 0.1, "recipe.schedule.kind": "cosine"})
    assert (changed.name, changed.method.lower_bound, changed.recipe.schedule.kind) == ("slam", 0.1, "cosine")


SPELLINGS = [
    (("labelled: 60", "labelled: +60"),),
    (("learning_rate: 0.01", "learning_rate: 1e-2"),),
    (("[0.003, 1.0]", "[3.0e-3, 1]"),),
    (("{uniform: [0.0, 0.9]}", "{uniform: [0, 0.9]}"),),
    (("{uniform: [0.0, 0.9]}", "declared"),),  # what SLaM declares for its lower bound
    (("method.k_rule: declared", "method.k_rule: {choice: [threshold, fixed]}"),),
    (("method: slam, lower_bound: 0.4", "lower_bound: .4, 'method': \"slam\""),),
    (("targets: soft, ", ""),),
    (("recipe: {optimiser: sgd, epochs: 30, batch: 128}", "recipe: {epochs: 30}"),),
    (("optimiser: sgd", "optimiser: sgd, schedule: constant"),),
    (("optimiser: sgd", "optimiser: sgd, schedule: {kind: constant, start: 1}"),),
    (("seed: 3\n", "seed: 3 # a comment\n\n"),),
    (("leave_one_out: [method.lower_bound, recipe.schedule]", "leave_one_out:\n    - recipe.schedule\n    - method.lower_bound"),),
    (("lower_bound: 0.4", "lower_bound: 0.4, steps: 1, teacher: {model: {width: 32}, recipe: {epochs: 60}}"),),
    (("question: Does it read?", "question: Anything?"), ("study: mini", "study: other")),
    (("lanes: 2, workers: 1, device: auto, wandb: offline", "lanes: 5, workers: 0, device: cpu, wandb: off"),),
    (("lanes: 2, workers: 1, device: auto", "lane: slice, topology: 2x2x4, device: xla, training_seconds: 3"),),
]


@pytest.mark.parametrize("pairs", SPELLINGS, ids=lambda pairs: pairs[0][1])
def test_spelling_and_run_change_no_identity(pairs):
    one, other = study(), study(edited(*pairs))
    assert other.fingerprint == one.fingerprint
    assert other.space_fingerprint == one.space_fingerprint
    block = one.block(SEARCH, 0)
    for name in one.arms:
        assert other.arms[name].trial(other, block, False).id == one.arms[name].trial(one, block, False).id


def test_the_order_of_keys_changes_no_identity():
    content = yaml.safe_load(TEXT)

    def reversed_keys(value: Any) -> Any:
        return {k: reversed_keys(value[k]) for k in reversed(value)} if isinstance(value, dict) else value

    assert study(yaml.safe_dump(reversed_keys(content), sort_keys=False)).fingerprint == study().fingerprint


@pytest.mark.parametrize(
    "override",
    [
        "seed=4", "metric={select: validation.nll}", "metric.report=test.agreement", "data.labelled=61", "teacher.model.width=33",
        "teacher.recipe.epochs=61", "student.model.width=17", "student.recipe.batch=64", "arms.slam.lower_bound=0.3",
        "arms.vanilla.recipe.epochs=21", "arms.vanilla.model.depth=2", "arms.extra={method: vanilla}", "search=null", "search.trials=25",
        "search.generation=7", "search.startup=6", "search.blocks=3", "search.rungs=[0.25]", "search.keep=0.5", "search.sampler=random",
        "search.space.all.recipe.schedule.kind=[cosine, constant, step]", "search.space.slam.method.lower_bound={uniform: [0.0, 0.8]}",
        "search.space.slam.method.max_k=declared", "confirm=null", "confirm.base=vanilla", "confirm.against=[vanilla]", "confirm.blocks=11",
        "confirm.leave_one_out=[]", "arms.slam.max_k=9", "arms.slam.steps=2", "arms.slam.teacher.recipe.smoothing=0.1",
        "arms.vanilla.teacher.model.width=33",
    ],
)  # fmt: skip
def test_whatever_changes_a_number_changes_the_fingerprint(override):
    text = edited(("method.lower_bound, recipe.schedule", "recipe.schedule"), ("schedule.kind: [c", "schedule.kind: [linear, c"))
    text = edited(("optimiser: sgd", "optimiser: sgd, schedule: linear"), ("against: [vanilla]", "against: []"), text=text)
    assert study(text, override).fingerprint != study(text).fingerprint


def test_a_field_that_only_the_search_brings_to_life_is_part_of_the_fingerprint():
    # fixed_k has no effect in the arm as declared, but k_rule is searched.
    assert study(TEXT, "arms.slam.k_threshold=0.8").fingerprint != study().fingerprint
    assert (
        study(TEXT, "search.space.slam={method.k_rule: declared}", "arms.slam.fixed_k=4").fingerprint
        != study(TEXT, "search.space.slam={method.k_rule: declared}").fingerprint
    )


def test_every_name_of_every_configuration_has_a_column_of_its_type():
    # The network of a teacher is the model of the cell that trains it, and that alone has a norm here.
    found = study(TEXT, "teacher.model={family: cnn}")
    columns = {parameter["name"]: parameter["column"] for parameter in found.parameters}
    assert list(columns) == sorted(columns)
    kinds = {"float64": float, "int64": int, "string": str, "bool": bool}
    rng = random.Random(0)
    assert found.search is not None
    for arm, space in ((found.arms[name], space) for name, space in found.search.spaces.items()):
        for _ in range(100):
            trial = arm.changed(space.draw(rng)).trial(found, found.block(SEARCH, 0), False)
            teacher = trial.teacher_trial
            assert teacher is not None
            for name, value in (*trial.config().items(), *teacher.config().items()):
                assert type(value) is kinds[columns[name]], name
    assert columns["recipe.learning_rate"] == "float64"
    assert columns["method.fixed_k"] == "int64"
    assert columns["method.name"] == columns["teacher.model.family"] == columns["model.norm"] == "string"


def test_a_column_is_whole_only_where_every_branch_declares_whole_numbers():
    @dataclass(frozen=True)
    class Mixed:
        whole: int = tunable(1, IntUniform(1, 3), "")
        real: float = tunable(1.0, Uniform(0.0, 3.0), "", off=0)
        word: str = tunable("a", Choice(("a", "b")), "")
        either: Any = tunable(0.5, Choice((0.5, "auto")), "")
        odd: Any = tunable(1, IntUniform(1, 3), "", off="none")
        flag: bool = tunable(True, Choice((True, False)), "")

    kinds = {field.name: _widest(_columns_of(field)) for field in tunables(Mixed)}
    assert kinds == {"whole": "int64", "real": "float64", "word": "string", "either": "string", "odd": "string", "flag": "bool"}
    assert _widest({"int64", "float64"}) == "float64"
    assert _widest({"bool", "int64"}) == "string"


def test_the_skeleton_is_json_and_says_what_the_study_comes_to():
    found = study()
    skeleton = json.loads(json.dumps(found.skeleton_json()))
    assert skeleton["fingerprint"] == found.fingerprint
    assert skeleton["arms"]["slam"]["method"]["name"] == "slam"
    assert skeleton["arms"]["vanilla"]["recipe"]["epochs"] == 20
    assert skeleton["search"]["spaces"]["vanilla"][0]["name"] == "method.temperature"
    assert skeleton["confirm"]["leave_one_out"] == ["method.lower_bound", "recipe.schedule"]


def test_a_step_of_a_chain_for_which_the_method_is_not_valid_is_a_fault(monkeypatch):
    def fussy(self: SLaM, number: int, steps: int) -> SLaM:
        return replace(self, lower_bound=self.lower_bound * number)

    monkeypatch.setattr(SLaM, "at_step", fussy)
    assert study(TEXT, "arms.slam.steps=1").arms["slam"].steps == 1
    # The search goes up to .9.
    (fault,) = faults(TEXT, "arms.slam.steps=2")
    assert fault.startswith(
        "f.yaml:13: arms.slam: needs a valid method at every step of its chain, but reaches this with slam: SLaM needs "
    )


def test_a_chain_of_students_that_classify_with_more_than_their_own_network_is_a_fault():
    assert study(TEXT, "search=null", "arms={slam: {method: norm, steps: 1}}", "confirm={base: slam, blocks: 2}").arms["slam"].steps == 1
    (fault,) = faults(TEXT, "search=null", "arms={slam: {method: norm, steps: 2}}", "confirm={base: slam, blocks: 2}")
    assert fault.endswith(
        "arms.slam.steps: needs to be 1 with norm, but got 2: its students classify with more than their own network, "
        "and only their network teaches the next."
    )


def test_what_an_arms_own_teacher_has_without_effect_is_a_warning():
    found = study(TEXT, "arms.slam.teacher={recipe: {momentum: 0.5}}")
    assert len(found.warnings) == 1
    assert "arms.slam.teacher.recipe.momentum: needs other fields that give it an effect" in found.warnings[0]


def test_columns_of_an_arms_own_teacher_are_there():
    found = study(TEXT, "arms.slam={method: slam, steps: 2, teacher: {model: {family: cnn, width: 4}}}")
    columns = {parameter["name"] for parameter in found.parameters}
    trial = found.arms["slam"].trial(found, found.block(CONFIRM, 0), True)
    for each in (trial, *trial.needed, trial.first_teacher):
        assert each is not None
        assert columns >= set(each.config())
    assert found.skeleton_json()["arms"]["slam"]["teacher"]["model"]["family"] == "cnn"
    assert found.skeleton_json()["arms"]["slam"]["steps"] == 2


# What can be wrong

KEYS = "study, question, seed, metric, data, teacher, student, arms, search, confirm, run, published"
NAMES = "a name of at most 64 letters, digits, - and _"
REACH = "needs valid values throughout, but reaches this with slam: "
SMOOTHED = (
    "needs 0.0: a student's losses are its method's own, and what is smoothed is its teacher's cross-entropy (teacher.recipe.smoothing)"
)
NEEDS_TOPOLOGY = "A lane that is a chip, a host or a slice needs the topology of its slice, and no other does"
AXES = "A TPU v4 topology needs three numbers AxBxC that hosts of 2x2x1 fill, as in 2x2x1 (v4-8) or 2x2x4 (v4-32)"
FAULTS: list[tuple[str, str, str]] = [
    # unknown keys, in every section
    ("seed: 3", "sed: 3", f"f.yaml:3: sed: needs to be one of {KEYS}, but got 'sed'. Did you mean seed?"),
    ("goal: maximise", "gaol: maximise", "f.yaml:4: metric.gaol: needs to be one of select, report, goal, but got 'gaol'. Did you mean goal?"),
    ("labelled: 60", "labeled: 60", "f.yaml:5: data.labeled: needs to be one of source, labelled, validation, test, but got 'labeled'. Did you mean labelled?"),
    ("model: {family: mlp, width: 32}", "model: {family: mlp, witdh: 32}", f"f.yaml:7: teacher.model.witdh: needs to be one of family, {MLP_FIELDS}, but got 'witdh'. Did you mean width?"),
    ("optimiser: adam", "optimizer: adam", f"f.yaml:8: teacher.recipe.optimizer: needs to be one of {RECIPE_FIELDS}, but got 'optimizer'. Did you mean optimiser?"),
    ("student:\n", "student:\n  size: 3\n", "f.yaml:10: student.size: needs to be one of model, recipe, but got 'size'."),
    ("lower_bound: 0.4", "lower_bond: 0.4", f"f.yaml:13: arms.slam.lower_bond: needs to be one of method, recipe, model, steps, teacher, {SLAM_FIELDS}, but got 'lower_bond'. Did you mean lower_bound?"),
    ("{epochs: 20}", "{epoch: 20}", f"f.yaml:14: arms.vanilla.recipe.epoch: needs to be one of {RECIPE_FIELDS}, but got 'epoch'. Did you mean epochs?"),
    ("lower_bound: 0.4", "accuracy_ramp: {knid: step}", "f.yaml:13: arms.slam.accuracy_ramp.knid: needs to be one of kind, start, end, first, every, factor, warmup, but got 'knid'. Did you mean kind?"),
    ("trials: 24", "trial: 24", "f.yaml:16: search.trial: needs to be one of trials, generation, startup, blocks, rungs, keep, sampler, space, but got 'trial'. Did you mean trials?"),
    ("base: slam", "base: slam\n  bas: slam", "f.yaml:35: confirm.bas: needs to be one of base, leave_one_out, against, blocks, add_one_in, one_factor, factorial, path, effect, correlation, but got 'bas'. Did you mean base?"),
    ("workers: 1", "worker: 1", "f.yaml:38: run.worker: needs to be one of lanes, workers, lane, topology, device, wandb, wandb_project, storage, retries, retry_on, cell_seconds, give_up_after, training_seconds, smoke, but got 'worker'. Did you mean workers?"),
    # missing keys
    ("study: mini\n", "", "f.yaml:1: study: needs a name for the folder of results, but got nothing."),
    ("source: digits, ", "", "f.yaml:5: data.source: needs one of SOURCES, but got nothing."),
    ("  model: {family: mlp, width: 32}\n", "", "f.yaml:6: teacher.model: needs a map with family and its fields, but got nothing."),
    ("model: {family: mlp, width: 16}", "model: {width: 16}", "f.yaml:10: student.model.family: needs one of FAMILIES, but got nothing."),
    ("method: slam, ", "", f"f.yaml:13: arms.slam.method: needs one of {METHODS}, but got nothing."),
    ("  base: slam\n", "", "f.yaml:33: confirm.base: needs the name of an arm, but got nothing."),
    # types
    ("study: mini", "study: 5", f"f.yaml:1: study: needs {NAMES}, but got 5."),
    ("study: mini", "study: a/b", f"f.yaml:1: study: needs {NAMES}, but got 'a/b'."),
    ("question: Does it read?", "question: [a]", "f.yaml:2: question: needs text, but got a list."),
    ("seed: 3", "seed: -1", "f.yaml:3: seed: needs a whole number from 0 to 2147483647, but got -1."),
    ("seed: 3", "seed: true", "f.yaml:3: seed: needs a whole number from 0 to 2147483647, but got true."),
    ("metric: {select: validation.accuracy, report: test.accuracy, goal: maximise}", "metric: accuracy", "f.yaml:4: metric: needs a map with the keys select, report, goal, but got 'accuracy'."),
    ("data: {source: digits, labelled: 60, validation: 300, test: 400}", "data: digits", "f.yaml:5: data: needs a map with the keys source and its fields, but got 'digits'."),
    ("model: {family: mlp, width: 32}", "model: mlp", "f.yaml:7: teacher.model: needs a map, but got 'mlp'."),
    ("labelled: 60", "labelled: 60.0", "f.yaml:5: data.labelled: needs a whole number, but got 60.0."),
    ("epochs: 60", "epochs: {a: 1}", "f.yaml:8: teacher.recipe.epochs: needs a whole number, but got a map."),
    ("learning_rate: 0.01", "learning_rate: '0.01'", "f.yaml:8: teacher.recipe.learning_rate: needs a finite number, but got '0.01'."),
    ("learning_rate: 0.01", "learning_rate:", "f.yaml:8: teacher.recipe.learning_rate: needs a finite number, but got null."),
    ("learning_rate: 0.01", "learning_rate: [0.01]", "f.yaml:8: teacher.recipe.learning_rate: needs a finite number, but got a list."),
    ("optimiser: adam", "optimiser: [adam]", "f.yaml:8: teacher.recipe.optimiser: needs one of sgd, adam, adamw, but got a list."),
    ("lower_bound: 0.4", "accuracy_ramp: 0.5", "f.yaml:13: arms.slam.accuracy_ramp: needs a map with the keys kind, start, end, first, every, factor, warmup, or one of constant, linear, cosine, exponential, step, but got 0.5."),
    ("trials: 24", "trials: 24.0", "f.yaml:16: search.trials: needs a whole number from 1 to 100000, but got 24.0."),
    ("rungs: [0.25, 0.5]", "rungs: 0.5", "f.yaml:20: search.rungs: needs a list, each item a number between 0 and 1, both excluded, but got 0.5."),
    ("against: [vanilla]", "against: vanilla", "f.yaml:36: confirm.against: needs a list, each item one of slam, vanilla, but got 'vanilla'."),
    # domains, hard limits, options
    ("labelled: 60", "labelled: 0", "f.yaml:5: data.labelled: needs a number in [1, inf], but got 0."),
    ("lower_bound: 0.4", "lower_bound: 1.5", "f.yaml:13: arms.slam.lower_bound: needs a number in [0, 1], but got 1.5."),
    ("targets: soft", "targets: sfot", "f.yaml:14: arms.vanilla.targets: needs one of soft, hard, but got 'sfot'. Did you mean soft?"),
    ("lower_bound: 0.4", "accuracy_ramp: cosin", "f.yaml:13: arms.slam.accuracy_ramp.kind: needs one of constant, linear, cosine, exponential, step, but got 'cosin'. Did you mean cosine?"),
    ("lower_bound: 0.4", "upper_bound: 0.3", "f.yaml:13: arms.slam: SLaM needs lower_bound <= upper_bound, but got lower_bound=0.5, upper_bound=0.3."),
    ("optimiser: adam", "optimiser: adam, schedule: exponential", "f.yaml:8: teacher.recipe.schedule: An exponential Schedule needs start and end above 0, but got start=1.0, end=0.0."),
    ("source: digits", "source: digit", "f.yaml:5: data.source: needs one of SOURCES, but got 'digit'. Did you mean digits?"),
    ("{family: mlp, width: 32}", "{family: mpl}", "f.yaml:7: teacher.model.family: needs one of FAMILIES, but got 'mpl'. Did you mean mlp?"),
    ("method: slam", "method: slm", f"f.yaml:13: arms.slam.method: needs one of {METHODS}, but got 'slm'. Did you mean slam?"),
    ("method: slam", "method: 3", f"f.yaml:13: arms.slam.method: needs one of {METHODS}, but got 3."),
    ("sampler: tpe", "sampler: tp", "f.yaml:22: search.sampler: needs one of tpe, random, but got 'tp'. Did you mean tpe?"),
    ("wandb: offline", "wandb: ofline", "f.yaml:38: run.wandb: needs one of offline, online, off, but got 'ofline'. Did you mean offline?"),
    ("device: auto", "device: gpu", "f.yaml:38: run.device: needs one of auto, cpu, cuda, xla, but got 'gpu'. Did you mean cpu?"),
    ("lanes: 2", "lanes: 0", "f.yaml:38: run.lanes: needs a whole number from 1 to 100000, but got 0."),
    ("workers: 1", "workers: -1", "f.yaml:38: run.workers: needs a whole number from 0 to 100000, but got -1."),
    ("storage: kdsweep-results", "storage: ''", "f.yaml:38: run.storage: needs text, but got ''."),
    # lanes
    ("lanes: 2", "lane: chp", "f.yaml:38: run.lane: needs one of any, chip, host, slice, but got 'chp'. Did you mean chip?"),
    ("lanes: 2", "lane: 4", "f.yaml:38: run.lane: needs one of any, chip, host, slice, but got 4."),
    ("lanes: 2", "lane: host", f"f.yaml:38: run.lane: {NEEDS_TOPOLOGY}, but got lane='host', topology=''. A v4-8 is 2x2x1."),
    ("lanes: 2", "lane: host, topology: ''", f"f.yaml:38: run.lane: {NEEDS_TOPOLOGY}, but got lane='host', topology=''. A v4-8 is 2x2x1."),
    ("lanes: 2", "topology: 2x2x1", f"f.yaml:38: run.topology: {NEEDS_TOPOLOGY}, but got lane='any', topology='2x2x1'. A v4-8 is 2x2x1."),
    ("lanes: 2", "lane: any, topology: 2x2x1", f"f.yaml:38: run.topology: {NEEDS_TOPOLOGY}, but got lane='any', topology='2x2x1'. A v4-8 is 2x2x1."),
    ("lanes: 2", "lane: chip, topology: 2x2", f"f.yaml:38: run.topology: {AXES}, but got topology='2x2'."),
    ("lanes: 2", "lane: chip, topology: 4x3x4", "f.yaml:38: run.topology: A TPU v4 topology needs even numbers on its first two axes, but got topology='4x3x4'."),
    ("lanes: 2", "lane: chip, topology: 4", "f.yaml:38: run.topology: needs text, as in 2x2x1, but got 4."),
    ("lanes: 2", "lane: chp, topology: v4-8", f"f.yaml:38: run.lane: needs one of any, chip, host, slice, but got 'chp'. Did you mean chip?|f.yaml:38: run.topology: {AXES}, but got topology='v4-8'."),
    ("lanes: 2", "lane: chp, topology: 4", "f.yaml:38: run.lane: needs one of any, chip, host, slice, but got 'chp'. Did you mean chip?|f.yaml:38: run.topology: needs text, as in 2x2x1, but got 4."),
    ("lanes: 2, workers: 1", "lane: chip, topology: 2x2x1, workers: 2", "f.yaml:38: run.workers: needs 0 or 1 for a lane that is a chip, all of which one process drives, but got 2."),
    ("lanes: 2, workers: 1", "lane: host, topology: 2x2x4, workers: 4", "f.yaml:38: run.workers: needs 0 or 1 for a lane that is a host, all of which one process drives, but got 4."),
    ("lanes: 2, workers: 1", "lane: slice, topology: 2x2x4, workers: 1", "f.yaml:38: run.workers: needs 4 for a slice of 2x2x4, one for each host, or to be left out, but got 1."),
    ("lanes: 2, workers: 1", "lane: slice, topology: 2x2x1, workers: 0", "f.yaml:38: run.workers: needs 1 for a slice of 2x2x1, one for each host, or to be left out, but got 0."),
    ("lanes: 2, workers: 1", "lane: slice, topology: 2x2x4, workers: x", "f.yaml:38: run.workers: needs a whole number from 0 to 100000, but got 'x'."),
    ("retries: 1", "training_seconds: 0", "f.yaml:38: run.training_seconds: needs a number above 0, but got 0."),
    ("retries: 1", "training_seconds: -1.5", "f.yaml:38: run.training_seconds: needs a number above 0, but got -1.5."),
    ("retries: 1", "training_seconds: true", "f.yaml:38: run.training_seconds: needs a number above 0, but got true."),
    ("retries: 1", "training_seconds: 1 h", "f.yaml:38: run.training_seconds: needs a number above 0, but got '1 h'."),
    # metrics
    ("select: validation.accuracy", "select: test.accuracy", "f.yaml:4: metric.select: needs a validation metric, but got 'test.accuracy': the test split stays sealed while something is chosen, or its numbers come out too good. Did you mean validation.accuracy?"),
    ("select: validation.accuracy", "select: validation.acuracy", "f.yaml:4: metric.select: needs one of validation.accuracy, validation.nll, validation.ece, validation.agreement, but got 'validation.acuracy'. Did you mean validation.accuracy?"),
    ("report: test.accuracy", "report: test.f1", f"f.yaml:4: metric.report: needs one of {', '.join(METRICS)}, but got 'test.f1'. Did you mean test.nll?"),
    ("goal: maximise", "goal: minimise", "f.yaml:4: metric.goal: needs maximise, which is better for validation.accuracy, but got 'minimise'."),
    ("goal: maximise", "goal: up", "f.yaml:4: metric.goal: needs one of maximise, minimise, but got 'up'."),
    ("report: test.accuracy", "report: test.nll", "f.yaml:4: metric.report: needs a metric to maximise, like validation.accuracy, but got 'test.nll'."),
    # sizes that do not fit
    ("labelled: 60", "labelled: 1200", "f.yaml:5: data: Digits needs labelled + validation + test to be at most 1797, but got labelled=1200, validation=300, test=400."),
    # arms
    ("arms:\n", "arms:\n  all: {method: vanilla}\n", f"f.yaml:13: arms.all: needs {NAMES}, other than all, but got 'all'."),
    ("arms:\n", "arms:\n  a b: {method: vanilla}\n", f"f.yaml:13: arms.'a b': needs {NAMES}, other than all, but got 'a b'."),
    ("  slam: {method: slam, lower_bound: 0.4}", "  slam: slam", "f.yaml:13: arms.slam: needs a map, but got 'slam'."),
    # chains and teachers
    ("lower_bound: 0.4", "step: 3", f"f.yaml:13: arms.slam.step: needs to be one of method, recipe, model, steps, teacher, {SLAM_FIELDS}, but got 'step'. Did you mean steps?"),
    ("lower_bound: 0.4", "steps: 0", "f.yaml:13: arms.slam.steps: needs a whole number from 1 to 100, but got 0."),
    ("lower_bound: 0.4", "steps: 2.0", "f.yaml:13: arms.slam.steps: needs a whole number from 1 to 100, but got 2.0."),
    ("lower_bound: 0.4", "teacher: cnn", "f.yaml:13: arms.slam.teacher: needs a map with the keys model, recipe, but got 'cnn'."),
    ("lower_bound: 0.4", "teacher: {recipy: {}}", "f.yaml:13: arms.slam.teacher.recipy: needs to be one of model, recipe, but got 'recipy'. Did you mean recipe?"),
    ("lower_bound: 0.4", "teacher: {recipe: {smothing: 0.1}}", f"f.yaml:13: arms.slam.teacher.recipe.smothing: needs to be one of {RECIPE_FIELDS}, but got 'smothing'. Did you mean smoothing?"),
    ("lower_bound: 0.4", "teacher: {recipe: {smoothing: 1.5}}", "f.yaml:13: arms.slam.teacher.recipe.smoothing: needs a number in [0, 1], but got 1.5."),
    ("lower_bound: 0.4", "teacher: {model: {family: mpl}}", "f.yaml:13: arms.slam.teacher.model.family: needs one of FAMILIES, but got 'mpl'. Did you mean mlp?"),
    ("optimiser: sgd", "optimiser: sgd, smoothing: 0.1", f"f.yaml:11: student.recipe.smoothing: {SMOOTHED}, but got 0.1."),
    ("{epochs: 20}", "{smoothing: 0.1}", f"f.yaml:14: arms.vanilla.recipe.smoothing: {SMOOTHED}, but got 0.1."),
    ("method.temperature: declared", "recipe.smoothing: declared", f"f.yaml:32: search.space.vanilla.recipe.smoothing: {SMOOTHED}, but got 'declared'."),
    ("method.temperature: declared", "recipe.smoothing: [0.0, 0.1]", f"f.yaml:32: search.space.vanilla.recipe.smoothing: {SMOOTHED}, but got a list."),
    # search
    ("generation: 6", "generation: 25", "f.yaml:17: search.generation: needs at most as many trials as the whole search, 24, but got 25."),
    ("blocks: 2", "blocks: 0", "f.yaml:19: search.blocks: needs a whole number from 1 to 100000, but got 0."),
    ("[0.25, 0.5]", "[0.5, 0.25]", "f.yaml:20: search.rungs: needs increasing values, each above the one before (0.5), but got 0.25."),
    ("[0.25, 0.5]", "[0.25, 1.0]", "f.yaml:20: search.rungs[1]: needs a number between 0 and 1, both excluded, but got 1.0."),
    ("keep: 0.4", "keep: 1", "f.yaml:21: search.keep: needs a number between 0 and 1, both excluded, but got 1."),
    ("keep: 0.4", "keep: 0.0", "f.yaml:21: search.keep: needs a number between 0 and 1, both excluded, but got 0.0."),
    # spaces
    ("    vanilla:\n      method", "    vanila:\n      method", "f.yaml:31: search.space.vanila: needs to be one of all, slam, vanilla, but got 'vanila'. Did you mean vanilla?"),
    ("recipe.learning_rate: {", "recipe.learning_rte: {", "f.yaml:25: search.space.all.recipe.learning_rte: needs a field of slam, vanilla under method, recipe or model, but got 'recipe.learning_rte'. Did you mean recipe.learning_rate?"),
    ("[constant, cosine, step]", "[constant, cosine, step]\n      method.mixing: declared", "f.yaml:27: search.space.all.method.mixing: needs a name that every arm has, but got one that vanilla has not: search it arm by arm."),
    ("method.k_rule: declared", "method.krule: declared", "f.yaml:29: search.space.slam.method.krule: needs a field of slam under method, recipe or model, but got 'method.krule'. Did you mean method.k_rule?"),
    ("recipe.schedule.kind: [constant, cosine, step]", "recipe.schedule: declared", "f.yaml:26: search.space.all.recipe.schedule: needs a single field, but got a group of fields: name one of recipe.schedule.kind, recipe.schedule.start, recipe.schedule.end, recipe.schedule.first, recipe.schedule.every, recipe.schedule.factor, recipe.schedule.warmup."),
    ("recipe.schedule.kind: [constant, cosine, step]", "seed: [1, 2]", "f.yaml:26: search.space.all.seed: needs a hyper-parameter, but got 'seed': seeds come from blocks, which all arms share, and are never searched."),
    ("recipe.schedule.kind: [constant, cosine, step]", "seeds.init: [1]", "f.yaml:26: search.space.all.seeds.init: needs a hyper-parameter, but got 'seeds.init': seeds come from blocks, which all arms share, and are never searched."),
    ("recipe.schedule.kind: [constant, cosine, step]", "data.labelled: declared", "f.yaml:26: search.space.all.data.labelled: needs a name under method, recipe or model, but got 'data.labelled': data and teachers are fixed, and never searched."),
    ("recipe.schedule.kind: [constant, cosine, step]", "teacher.model.width: declared", "f.yaml:26: search.space.all.teacher.model.width: needs a name under method, recipe or model, but got 'teacher.model.width': data and teachers are fixed, and never searched."),
    ("[constant, cosine, step]", "[constant, cosine]\n      recipe.schedule.first: declared", "f.yaml:27: search.space.all.recipe.schedule.first: needs recipe.schedule.kind to be step, but neither slam nor its search ever has that.|f.yaml:27: search.space.all.recipe.schedule.first: needs recipe.schedule.kind to be step, but neither vanilla nor its search ever has that."),
    ("method.k_rule: declared", "method.k_rule: [threshold]", "f.yaml:30: search.space.slam.method.fixed_k: needs method.k_rule to be fixed, but neither slam nor its search ever has that."),
    ("{uniform: [0.0, 0.9]}", "{uniform: [0.0, 1.2]}", "f.yaml:28: search.space.slam.method.lower_bound.uniform[1]: needs a number in [0, 1], but got 1.2."),
    ("{uniform: [0.0, 0.9]}", "{uniform: [0.9, 0.1]}", "f.yaml:28: search.space.slam.method.lower_bound.uniform: Uniform needs finite low < high, but got low=0.9, high=0.1."),
    ("{uniform: [0.0, 0.9]}", "{log_uniform: [0.0, 0.9]}", "f.yaml:28: search.space.slam.method.lower_bound.log_uniform: LogUniform needs finite 0 < low < high, but got low=0.0, high=0.9."),
    ("{uniform: [0.0, 0.9]}", "{uniform: [0.1]}", "f.yaml:28: search.space.slam.method.lower_bound.uniform: needs a list of two bounds, [low, high], but got a list."),
    ("{uniform: [0.0, 0.9]}", "{unifrom: [0.1, 0.2]}", "f.yaml:28: search.space.slam.method.lower_bound.unifrom: needs to be one of uniform, log_uniform, int_uniform, choice, but got 'unifrom'. Did you mean uniform?"),
    ("{uniform: [0.0, 0.9]}", "{int_uniform: [0, 1]}", "f.yaml:28: search.space.slam.method.lower_bound.int_uniform: needs declared, a list of options, or {uniform: [low, high]} or {log_uniform: [low, high]} for lower_bound, which is a real number, but got int_uniform."),
    ("{uniform: [0.0, 0.9]}", "0.5", "f.yaml:28: search.space.slam.method.lower_bound: needs a domain (declared, a list of options, or {uniform: [low, high]} or {log_uniform: [low, high]}), but got 0.5."),
    ("{uniform: [0.0, 0.9]}", "decalred", "f.yaml:28: search.space.slam.method.lower_bound: needs a domain (declared, a list of options, or {uniform: [low, high]} or {log_uniform: [low, high]}), but got 'decalred'. Did you mean declared?"),
    ("{uniform: [0.0, 0.9]}", "[0.1, 2, x]", "f.yaml:28: search.space.slam.method.lower_bound[1]: needs a number in [0, 1], but got 2.|f.yaml:28: search.space.slam.method.lower_bound[2]: needs a finite number, but got 'x'."),
    ("{uniform: [0.0, 0.9]}", "[0, 0.0]", "f.yaml:28: search.space.slam.method.lower_bound: Choice needs distinct options, but got options=(0.0, 0.0)."),
    ("{uniform: [0.0, 0.9]}", "[]", "f.yaml:28: search.space.slam.method.lower_bound: Choice needs at least one option, but got options=()."),
    ("{int_uniform: [2, 10]}", "{uniform: [2, 10]}", "f.yaml:30: search.space.slam.method.fixed_k.uniform: needs declared, a list of options, or {int_uniform: [low, high]} for fixed_k, which is a whole number, but got uniform."),
    ("{int_uniform: [2, 10]}", "{int_uniform: [2, 10.5]}", "f.yaml:30: search.space.slam.method.fixed_k.int_uniform[1]: needs a whole number, but got 10.5."),
    ("{int_uniform: [2, 10]}", "{int_uniform: [0, 10]}", "f.yaml:30: search.space.slam.method.fixed_k.int_uniform[0]: needs a number in [1, inf], but got 0."),
    ("[constant, cosine, step]", "{uniform: [0, 1]}", "f.yaml:26: search.space.all.recipe.schedule.kind.uniform: needs declared, or a list of options for kind, which is one of constant, linear, cosine, exponential, step, but got uniform."),
    ("[constant, cosine, step]", "[constant, cosin]", "f.yaml:26: search.space.all.recipe.schedule.kind[1]: needs one of constant, linear, cosine, exponential, step, but got 'cosin'. Did you mean cosine?"),
    ("{uniform: [0.0, 0.9]}", "{uniform: [0.0, 1.0]}", f"f.yaml:28: search.space.slam.method.lower_bound: {REACH}SLaM needs lower_bound <= upper_bound, but got lower_bound=1.0, upper_bound=0.999."),
    ("method.k_rule: declared", "method.k_rule: declared\n      method.upper_bound: {uniform: [0.5, 1.0]}", f"f.yaml:30: search.space.slam.method.upper_bound: {REACH}SLaM needs lower_bound <= upper_bound, but got lower_bound=0.9, upper_bound=0.5."),
    # confirm
    ("base: slam", "base: slan", "f.yaml:34: confirm.base: needs one of slam, vanilla, but got 'slan'. Did you mean slam?"),
    ("against: [vanilla]", "against: [vanila]", "f.yaml:36: confirm.against[0]: needs one of slam, vanilla, but got 'vanila'. Did you mean vanilla?"),
    ("against: [vanilla]", "against: [vanilla, vanilla]", "f.yaml:36: confirm.against: needs distinct names, none of them slam, but got 'vanilla'."),
    ("against: [vanilla]", "against: [slam]", "f.yaml:36: confirm.against: needs distinct names, none of them slam, but got 'slam'."),
    ("[method.lower_bound, recipe.schedule]", "[recipe.schedule, recipe.schedule]", "f.yaml:35: confirm.leave_one_out: needs distinct names, none of them slam, but got 'recipe.schedule'."),
    ("  blocks: 10", "  blocks: 0", "f.yaml:37: confirm.blocks: needs a whole number from 1 to 100000, but got 0."),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "lines"), FAULTS, ids=[f"{new}".strip()[:50] for _, new, _ in FAULTS])
def test_a_fault_is_one_exact_line(old, new, lines):
    there = {"FAMILIES": "trainables.models", "SOURCES": "trainables.data"}
    for word, package in there.items():
        lines = lines.replace(f"one of {word},", f"one of {', '.join(folder.names(package))},")
    assert faults(edited((old, new))) == lines.split("|")


def off_names(value: Any, prefix: str) -> list[str]:
    found: list[str] = []
    for field in tunables(value):
        found += [prefix + field.name] if field.off is not MISSING else []
        found += off_names(getattr(value, field.name), f"{prefix}{field.name}.") if field.is_nested else []
    return found


OFF = ", ".join([*off_names(SLaM(), "method."), *off_names(Recipe(), "recipe."), *off_names(MLP(), "model.")])


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("method.lower_bond", f"needs a part of slam with an off-value ({OFF}), but got 'method.lower_bond', which slam has not. Did you mean method.lower_bound?"),
        ("lower_bound", f"needs a part of slam with an off-value ({OFF}), but got 'lower_bound', which slam has not. Did you mean method.lower_bound?"),
        ("method.targets", f"needs a part of slam with an off-value ({OFF}), but got 'method.targets', which declares no off-value. Did you mean method.k_rule?"),
        ("method", f"needs a part of slam with an off-value ({OFF}), but got 'method', which slam has not. Did you mean method.mixing?"),
        ("method.accuracy_ramp", "needs a part that slam has, but got 'method.accuracy_ramp', which is off or without effect already."),
    ],
)  # fmt: skip
def test_what_cannot_be_left_out(name, line):
    found = faults(edited(("[method.lower_bound, recipe.schedule]", f"[{name}]")))
    assert [fault.partition(" Did you")[0] for fault in found] == [f"f.yaml:35: confirm.leave_one_out: {line}".partition(" Did you")[0]]
    if "bound" in name or "bond" in name:
        assert found == [f"f.yaml:35: confirm.leave_one_out: {line}"]


def test_a_field_at_fault_does_not_make_the_others_look_wrong():
    assert faults(edited(("lower_bound: 0.4", "lower_bound: x, upper_bound: 0.3"))) == [
        "f.yaml:13: arms.slam.lower_bound: needs a finite number, but got 'x'."
    ]


def test_a_range_does_not_begin_at_an_off_value_outside_the_limits():
    @dataclass(frozen=True)
    class Apart:
        share: float = tunable(0.5, Uniform(0.0, 1.0), "", off=-1.0, low=0.0, high=1.0)

    place = Place(1, 0, "f.yaml:1")
    for kind, expected in (("uniform", ["f.yaml:1: x.uniform[0]: needs a number in [0, 1], but got -1.0."]), ("choice", [])):
        found = Faults()
        bounds = Node((Node(-1.0, place), Node(0.5, place)), place)
        domain = domain_of(found, tunables(Apart)[0], Node({kind: bounds}, place), "x")
        assert found.lines() == expected
        assert domain == (None if expected else Choice((-1.0, 0.5)))


@dataclass(frozen=True)
class Fussy:
    """A value that is not valid with its part off."""

    part: float = tunable(0.5, Uniform(0.0, 1.0), "", off=0.0)
    other: float = tunable(0.4, Uniform(0.0, 1.0), "")

    def __post_init__(self) -> None:
        if self.other > self.part:
            raise ValueError(f"Fussy needs other <= part, but got other={self.other}, part={self.part}.")


def test_what_is_not_valid_without_a_part_cannot_leave_it_out():
    found = Faults()
    method: Any = Fussy()
    check_left_out(found, Draft("x", method, Recipe(), None), "method.part", Node("method.part", Place(1, 0, "f.yaml:1")), "left")
    message = "needs a part that can be turned off, but without method.part there is a fault: "
    assert found.lines() == [f"f.yaml:1: left: {message}Fussy needs other <= part, but got other=0.4, part=0.0."]


@dataclass(frozen=True)
class Sealed(Source):
    """A source that has too few rows, and that says so over two lines."""

    rows: int = tunable(3, IntUniform(1, 9), "")

    def load(self, split: int, opens_test: bool) -> Splits:
        assert not opens_test
        if self.rows > 5:
            raise FileNotFoundError("There is no\n file.")
        raise ValueError(f"Sealed needs rows >= 5, but got rows={self.rows}.")


@pytest.mark.parametrize(("rows", "message"), [(3, "Sealed needs rows >= 5, but got rows=3."), (6, "There is no file.")])
def test_a_source_from_which_no_block_can_be_drawn_is_a_fault_and_the_test_split_stays_sealed(rows, message):
    assert _misfit(Sealed(rows)) == message
    assert _misfit(Digits()) is None


def test_the_tiny_study_is_valid(tiny_study_text):
    found = study(tiny_study_text)
    assert len(found.warnings) == 1
    assert "confirm.blocks: needs at least 7 blocks" in found.warnings[0]
    assert found.run.wandb == "off"


def test_a_message_cannot_move_the_cursor():
    found = faults(edited(("  vanilla: {method", '  "van\\u001b[2J\\nilla": {method')))
    assert found[0] == f"f.yaml:14: arms.'van\\x1b[2J\\nilla': needs {NAMES}, other than all, but got 'van\\x1b[2J\\nilla'."
    assert all(line.isprintable() for line in found)
    assert "slam, van\\x1b[2J\\nilla" in found[1]


def test_something_must_be_trained():
    assert faults(TEXT, "search=null", "confirm=null") == [
        "f.yaml:1: search: needs to be given, or confirm, or both, but got neither: there is nothing to train."
    ]


@pytest.mark.parametrize("space", ["{}", "{all: {}}", "{all: {}, slam: {}}"])
def test_something_must_be_searched(space):
    assert faults(TEXT, f"search.space={space}", "confirm=null") == [
        f"--set search.space={space}: search.space: needs at least one name that is searched, but got {'an empty map' if space == '{}' else 'a map'}."
    ]


def test_an_exponential_schedule_needs_an_end_that_is_searched_above_zero():
    found = faults(edited(("[constant, cosine, step]", "[constant, exponential]")))
    complaint = "An exponential Schedule needs start and end above 0, but got start=1.0, end=0.0."
    place = "f.yaml:26: search.space.all.recipe.schedule.kind: needs valid values throughout, but reaches this with"
    assert found == [f"{place} slam: {complaint}", f"{place} vanilla: {complaint}"]
    ends = "{kind: [constant, exponential], end: {log_uniform: [0.001, 0.5]}}"
    content = yaml.safe_load(TEXT)
    content["search"]["space"]["all"] = {f"recipe.schedule.{key}": domain for key, domain in yaml.safe_load(ends).items()}
    assert study(yaml.safe_dump(content)).search is not None


def test_all_faults_come_at_once_in_the_order_of_the_file_then_of_overrides_and_options():
    text = edited(
        ("study: mini", "study: ''"), ("select: validation.accuracy, report: test.accuracy", "report: x, select: y"), ("labelled: 60", "labelled: x"),
        ("width: 32", "width: x"), ("epochs: 60", "epochs: x"), ("method: slam", "method: x"), ("targets: soft", "targets: x"), ("trials: 24", "trials: x"),
        ("rungs: [0.25, 0.5]", "rungs: [x, y]"), ("[0.003, 1.0]", "[0.003, x]"), ("method.temperature: declared", "method.temperature: x"),
        ("base: slam", "base: x"), ("lanes: 2", "lanes: x"), ("retries: 1}", "retries: 1, retries: 2}"),
    )  # fmt: skip
    found = faults(text, "data.test=x", "serch=1", "nonsense", lanes=0)
    assert [line.partition(": needs")[0] for line in found] == [
        "f.yaml:1: study", "f.yaml:4: metric.report", "f.yaml:4: metric.select", "f.yaml:5: data.labelled", "f.yaml:7: teacher.model.width",
        "f.yaml:8: teacher.recipe.epochs", "f.yaml:13: arms.slam.method", "f.yaml:14: arms.vanilla.targets", "f.yaml:16: search.trials",
        "f.yaml:20: search.rungs[0]", "f.yaml:20: search.rungs[1]", "f.yaml:25: search.space.all.recipe.learning_rate.log_uniform[1]",
        "f.yaml:32: search.space.vanilla.method.temperature", "f.yaml:34: confirm.base", "f.yaml:38: run.retries", "--set data.test=x: data.test",
        "--set serch=1: serch", "--set nonsense", "--lanes 0: run.lanes",
    ]  # fmt: skip


def test_metrics_are_only_compared_where_each_is_one():
    metric = "{select: validation.acuracy, report: test.nll, goal: down}"
    text = edited(("{select: validation.accuracy, report: test.accuracy, goal: maximise}", metric))
    assert [line.partition(": needs")[0] for line in faults(text)] == ["f.yaml:4: metric.select", "f.yaml:4: metric.goal"]


# Overrides and options


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("student.recipe.epoch=5", f"--set student.recipe.epoch=5: student.recipe.epoch: needs to be one of {RECIPE_FIELDS}, but got 'epoch'. Did you mean epochs?"),
        ("studnt.recipe.epochs=5", f"--set studnt.recipe.epochs=5: studnt: needs to be one of {KEYS}, but got 'studnt'. Did you mean student?"),
        ("student.recipe.epochs=five", "--set student.recipe.epochs=five: student.recipe.epochs: needs a whole number, but got 'five'."),
        ("search.rungs=[0.5", "--set search.rungs=[0.5: needs valid YAML, but got this: while parsing a flow sequence expected ',' or ']', but got '<stream end>'."),
        ("seed=!!python/name:os.system", "--set seed=!!python/name:os.system: seed: needs plain values without tags, but got tag:yaml.org,2002:python/name:os.system."),
        ("seed", "--set seed: needs the form key.path=value, but got 'seed'."),
        ("=3", "--set =3: needs the form key.path=value, but got '=3'."),
        ("data..labelled=3", "--set data..labelled=3: needs the form key.path=value, but got 'data..labelled=3'."),
        ("seed.x=3", "--set seed.x=3: seed: needs to be a map so that 'x' can be set in it, but got 3."),
        ("search.space.slam.method.lowr_bound=declared", "--set search.space.slam.method.lowr_bound=declared: search.space.slam.method.lowr_bound: needs a field of slam under method, recipe or model, but got 'method.lowr_bound'. Did you mean method.lower_bound?"),
        ("study=a\nb", f"--set study=a b: study: needs {NAMES}, but got 'a b'."),
    ],
)  # fmt: skip
def test_a_fault_of_an_override_is_one_exact_line(override, line):
    assert faults(TEXT, override) == [line]


def test_overrides_replace_add_and_take_out():
    found = study(
        TEXT, "student.recipe.epochs=7", "student.recipe.learning_rate=1e-2", "arms.slam.model.depth=1", "arms.new={method: vanilla}",
        "search.space.slam.method.max_k=declared", "search.space.all={recipe.batch: [32, 64]}", "student.recipe.epochs=8",
        "confirm.leave_one_out=[method.lower_bound]",
    )  # fmt: skip
    assert (found.arms["slam"].recipe.epochs, found.arms["slam"].recipe.learning_rate) == (8, 0.01)
    assert found.arms["slam"].model == MLP(width=16, depth=1)
    assert list(found.arms) == ["slam", "vanilla", "new"]
    assert found.search is not None
    assert found.search.spaces["slam"].names == ("method.lower_bound", "method.k_rule", "method.max_k", "method.fixed_k", "recipe.batch")
    assert found.search.spaces["new"].names == ("recipe.batch",)


def test_the_text_that_is_kept_has_the_overrides_and_is_the_same_study():
    found = study(TEXT, "student.recipe.epochs=7", "question='off: 1e-3'", "search.rungs=[]", lanes=3, storage=None, wandb="off")
    assert (found.run.lanes, found.run.wandb, found.run.storage) == (3, "off", "kdsweep-results")
    again = study(found.text)
    assert again.text == found.text
    assert (again.fingerprint, again.run, again.question) == (found.fingerprint, found.run, "off: 1e-3")


# Lanes


@pytest.mark.parametrize(
    ("given", "lanes", "workers"),
    [
        ("", 2, 1),
        ("lane: any", 2, 1),
        ("lane: any, topology: ''", 2, 1),
        ("lane: chip, topology: 2x2x1", 4, 1),
        ("lane: chip, topology: 2x2x2", 8, 1),
        ("lane: host, topology: 2x2x4", 4, 1),
        ("lane: slice, topology: 2x2x4", 1, 4),
        ("lane: slice, topology: 2x2x1", 1, 1),
        # What is given stays.
        ("lane: chip, topology: 2x2x1, lanes: 3, workers: 0", 3, 0),
        ("lane: host, topology: 2x2x4, lanes: 8, workers: 1", 8, 1),
        ("lane: slice, topology: 2x2x4, lanes: 2, workers: 4", 2, 4),
        ("lanes: 7, workers: 3", 7, 3),
    ],
)
def test_lanes_and_workers_follow_from_the_place_of_a_lane(given, lanes, workers):
    run = study(edited(("lanes: 2, workers: 1, ", f"{given}, " if given else ""))).run
    assert (run.lanes, run.workers) == (lanes, workers)
    assert (run.placement.kind, run.placement.topology) == (run.lane, run.topology)
    assert run.lane == (given.partition("lane: ")[2].partition(",")[0] or "any")


@pytest.mark.parametrize(
    ("device", "lane", "name"),
    [("auto", "any", "auto"), ("cpu", "any", "cpu"), ("auto", "chip", "xla"), ("auto", "host", "xla"), ("auto", "slice", "xla"),
     ("cpu", "chip", "cpu"), ("xla", "chip", "xla"), ("xla", "any", "xla")],
)  # fmt: skip
def test_a_lane_of_a_slice_trains_with_xla_unless_it_is_told_otherwise(device, lane, name):
    place = "" if lane == "any" else "topology: 2x2x1, "
    assert study(edited(("lanes: 2, workers: 1, device: auto", f"lane: {lane}, {place}device: {device}"))).run.lane_device == name


def test_how_long_a_training_takes_may_be_whole_and_is_a_float():
    seconds = study(TEXT, "run.training_seconds=30").run.training_seconds
    assert (seconds, type(seconds)) == (30.0, float)
    assert study().run.training_seconds is None


def test_options_of_the_command_line_place_the_lanes_and_are_kept():
    text = edited(("lanes: 2, workers: 1, ", ""))
    found = study(text, lane="slice", topology="2x2x4", device="cpu")
    assert (found.run.lanes, found.run.workers, found.run.lane_device, found.run.placement.chips) == (1, 4, "cpu", 16)
    assert study(found.text).run == found.run
    assert found.fingerprint == study(text).fingerprint
    assert faults(text, lane="slice", topology="2x2x4", workers=2, lanes=0) == [
        "--workers 2: run.workers: needs 4 for a slice of 2x2x4, one for each host, or to be left out, but got 2.",
        "--lanes 0: run.lanes: needs a whole number from 1 to 100000, but got 0.",
    ]


# Warnings


@pytest.mark.parametrize(("comparisons", "blocks"), [(1, 6), (2, 7), (4, 8), (8, 9), (16, 10)])
def test_blocks_that_an_exact_test_needs(comparisons, blocks):
    assert blocks_needed(comparisons) == blocks == next(n for n in itertools.count(1) if comparisons * 2 / 2**n <= 0.05)


def test_blocks_that_any_number_of_comparisons_needs():
    for m in range(1, 65):
        assert blocks_needed(m) == next(n for n in itertools.count(1) if m * 2 / 2**n <= 0.05)


def test_too_few_blocks_are_a_warning():
    assert study(edited(("  blocks: 10", "  blocks: 6"))).warnings == (
        "f.yaml:37: confirm.blocks: needs at least 7 blocks for any of 3 comparisons to reach p <= 0.05 after Holm's correction, but got 6.",
    )
    assert study(edited(("  blocks: 10", "  blocks: 7"))).warnings == ()


def test_rivals_that_are_not_tuned_and_arms_that_are_not_reported_are_warnings():
    text = edited(
        ("    all:\n      recipe.learning_rate: {log_uniform: [0.003, 1.0]}\n      recipe.schedule.kind: [constant, cosine, step]\n", "")
    )
    text = edited(("    vanilla:\n      method.temperature: declared\n", ""), ("[method.lower_bound, recipe.schedule]", "[]"), text=text)
    assert study(text, "arms.more={method: vanilla}").warnings == (
        "f.yaml:14: arms.vanilla: needs a search as large as that of the arms it is compared with, but got none.",
        "--set arms.more={method: vanilla}: arms.more: needs a place in confirm, as base or in against, but got none: it is not reported.",
    )


def test_fields_that_can_never_have_an_effect_are_warnings():
    idle = "needs other fields that give it an effect, but got"
    text = edited(("optimiser: adam", "optimiser: adam, momentum: 0.5"), ("optimiser: sgd", "optimiser: sgd, schedule: {every: 0.3}"))
    # Searching schedule.kind gives it an effect, and leaving out k_rule would give one to fixed_k.
    text = edited(("lower_bound: 0.4", "fixed_k: 3, accuracy_ramp: {end: 0.5}"), text=text)
    assert study(text).warnings == (
        f"f.yaml:8: teacher.recipe.momentum: {idle} 0.5 where it has none.",
        f"f.yaml:13: arms.slam.accuracy_ramp.end: {idle} 0.5 where it has none.",
    )
    found = study(text, "search.space={all: {recipe.batch: declared}}", "confirm.leave_one_out=[method.k_rule]").warnings
    assert found == (
        f"f.yaml:8: teacher.recipe.momentum: {idle} 0.5 where it has none.",
        f"f.yaml:11: student.recipe.schedule.every: {idle} 0.3 where it has none.",
        f"f.yaml:13: arms.slam.accuracy_ramp.end: {idle} 0.5 where it has none.",
    )


# Files


def test_a_file_is_read(tmp_path):
    path = tmp_path / "mini.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("Does it read?", "Naïve?").replace("\n", "\r\n").encode())
    assert read_study(path, ["seed=5"], {"lanes": 7}).run.lanes == 7
    assert read_study(path).question == "Naïve?"
    path.write_text(edited(("seed: 3", "sed: 3")))
    with pytest.raises(StudyError) as caught:
        read_study(path)
    assert caught.value.faults[0].startswith(f"{path}:3: sed: needs")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.yaml", None, "needs to be a file that can be read, but got this: No such file or directory."),
        (".", None, "needs to be a file that can be read, but got this: Is a directory."),
        ("nul\0.yaml", None, "needs to be a file that can be read, but got this: embedded null byte."),
        ("latin.yaml", b"study: na\xefve", "needs to be text in UTF-8, but got 'utf-8' codec can't decode byte 0xef in position 9: invalid continuation byte."),
        ("large.yaml", b"#" * 900_000, "needs at most 200000 characters, but got 800001."),
        ("long.yaml", b"#" * 300_000, "needs at most 200000 characters, but got 300000."),
        ("empty.yaml", b"", f"needs a map with the keys {KEYS}, but got null."),
        ("list.yaml", b"- 1", f"needs a map with the keys {KEYS}, but got a list."),
        ("tabs.yaml", b"study: x\n\tseed: 1", "needs valid YAML, but got this: "),
    ],
)  # fmt: skip
def test_what_is_no_study_file_is_a_fault(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StudyError) as caught:
        read_study(path)
    assert len(caught.value.faults) == 1
    assert message in caught.value.faults[0]


STUDIES = sorted((Path(__file__).parent.parent / "search_spaces" / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_of_the_package_is_valid_and_has_no_warnings(path):
    study = read_study(path)
    assert study.name == path.stem.replace("_", "-")
    # A paper's number of seeds is often too few for any test to show anything, and the study says so.
    few = [warning for warning in study.warnings if "confirm.blocks: needs at least" in warning]
    assert len(study.warnings) == len(few)
    assert not few or study.published is not None


def test_reading_a_study_starts_nothing(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(edited(("base: slam", "base: slan")))
    code = (
        "import os, sys\n"
        "from orchestrator.errors import StudyError\n"
        "from orchestrator.reading import read_study\n"
        "try:\n    read_study(sys.argv[1])\n"
        "except StudyError as error:\n    print(error)\n"
        "print(sorted({'ray', 'optuna', 'wandb'} & set(sys.modules)) + os.listdir('.'))\n"
    )
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{path}:34: confirm.base: needs one of slam, vanilla")
    assert lines[1] == "['bad.yaml']"


# Anything at all


CONTENT = yaml.safe_load(TEXT)
Path_ = tuple[str | int, ...]


def paths(value: Any, before: Path_ = ()) -> list[Path_]:
    """Of everything in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [before, *(path for key, below in inner for path in paths(below, (*before, key)))]


names = st.one_of(
    st.text(max_size=8),
    st.sampled_from(sorted({str(part) for path in paths(CONTENT) for part in path})),
    st.sampled_from([
        "slam", "declared", "cnn", "cosine", "exponential", "seed", "test.accuracy", "method.lower_bound", "method.accuracy_ramp.end",
        "recipe.momentum", "recipe.schedule.end", "recipe.schedule", "model.depth", "method", "method.", ".", "..", "choice", "1e-3", "null", "a\nb",
    ]),
)  # fmt: skip
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-2, 30), st.sampled_from([10**400, 2**62, -(2**70)]), st.floats(), st.floats(0, 1), names
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)), max_leaves=6
)
where = st.sampled_from(paths(CONTENT)[1:])
mutations = st.lists(
    st.one_of(
        st.tuples(st.just("drop"), where), st.tuples(st.just("rename"), where, names), st.tuples(st.just("replace"), where, values),
        st.tuples(st.just("add"), where, names, values), st.tuples(st.just("move"), where, where),
    ),
    min_size=1, max_size=3,
)  # fmt: skip


def at(document: Any, path: Path_) -> Any:
    for part in path:
        document = document[part]
    return document


def mutated(changes: list[Any]) -> Any:
    """The valid document with changes, those left out that have lost their place."""
    document = copy.deepcopy(CONTENT)
    for kind, path, *arguments in changes:
        with contextlib.suppress(LookupError, TypeError):
            holder, last = at(document, path[:-1]), path[-1]
            if kind == "drop":
                del holder[last]
            elif kind == "rename" and isinstance(holder, dict):
                holder[arguments[0]] = holder.pop(last)
            elif kind == "replace":
                holder[last] = arguments[0]
            elif kind == "add" and isinstance(holder[last], dict):
                holder[last][arguments[0]] = arguments[1]
            elif kind == "move":
                holder[last] = copy.deepcopy(at(document, arguments[0]))
    return document


def check(text: str, *overrides: str) -> Study | None:
    """The study of a text, all that follows from it tried; or None if it has faults, each on one line."""
    found: Study | None = None
    lines: list[str] = []
    try:
        found = study(text, *overrides)
    except StudyError as error:
        lines = error.faults
    assert all(line and line.isprintable() for line in lines)
    if found is None:
        assert lines
        return None
    assert study(found.text).fingerprint == found.fingerprint
    json.dumps(found.skeleton_json())
    columns = {parameter["name"] for parameter in found.parameters}
    rng = random.Random(0)
    for name, arm in found.arms.items():
        space = found.search.spaces.get(name) if found.search else None
        points = [space.draw(rng) for _ in range(5)] if space else [{}]
        for point in points:
            tuned = arm.changed(point)
            trial = tuned.trial(found, found.block(CONFIRM, 0), opens_test=True)
            assert len(trial.id) == 16
            assert columns >= set(trial.config())
            if found.confirm and name == found.confirm.base:
                for part in found.confirm.leave_one_out:
                    without(tuned, part.fields)
    return found


@SETTINGS
@given(mutations)
def test_a_mutated_study_is_a_study_or_has_faults(changes):
    check(yaml.safe_dump(mutated(changes), sort_keys=False))


@SETTINGS
@given(st.data())
def test_a_study_with_damaged_text_is_a_study_or_has_faults(data):
    text = TEXT
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.integers(0, 12))
        pieces = st.one_of(
            st.text(max_size=5),
            st.text(alphabet="{}[]:,-&*!|>%@`'\"\\#?~.\n\t 01e", max_size=5),
            st.sampled_from(["&a ", "*a", "!!int ", "<<: ", "---\n"]),
        )
        text = text[:start] + data.draw(pieces) + text[end:]
    check(text)


@SETTINGS
@given(where.map(lambda path: ".".join(map(str, path))), st.one_of(names, values.map(json.dumps), st.text(max_size=6)))
def test_an_override_gives_a_study_or_faults(key, value):
    check(TEXT, f"{key}={value}")


@SETTINGS
@given(st.binary(max_size=60), st.integers(0, len(TEXT)))
def test_bytes_of_any_kind_are_a_study_or_faults(tmp_path_factory, data, position):
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    raw = TEXT.encode()
    path.write_bytes(raw[:position] + data + raw[position + len(data) :])
    with contextlib.suppress(StudyError):
        read_study(path)


def test_the_valid_document_is_valid_before_it_is_mutated():
    assert check(yaml.safe_dump(mutated([]), sort_keys=False)) is not None
