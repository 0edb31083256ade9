"""Any confirm section at all is a study whose every arm can be trained, or has faults, each on one line."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import variants
from orchestrator.errors import StudyError
from orchestrator.outline import outline
from orchestrator.reading import study_of
from orchestrator.study import Study

TEXT = """\
study: designs
data: {source: digits, labelled: 60, validation: 300, test: 400}
teacher:
  model: {family: mlp, width: 32}
  recipe: {optimiser: adam, learning_rate: 0.01, epochs: 6, batch: 32}
student:
  model: {family: mlp, width: 16}
  recipe: {optimiser: sgd, epochs: 3, batch: 128}
arms:
  slam: {method: slam, lower_bound: 0.4}
  vanilla: {method: vanilla}
search:
  trials: 4
  space:
    all: {recipe.learning_rate: {log_uniform: [0.003, 1.0]}, recipe.schedule.kind: [constant, cosine, exponential], recipe.schedule.end: [0.1]}
    slam: {method.k_rule: declared, method.fixed_k: {int_uniform: [2, 9]}}
confirm:
  base: slam
  leave_one_out: [method.mixing, {bounds: [method.lower_bound, method.upper_bound]}]
  add_one_in: [method.k_rule, recipe.schedule, {weights: [method.mixed_weight, method.labelled_weight]}]
  one_factor:
    method.lower_bound: [off, 0.2]
    recipe.schedule: [cosine, {kind: step, first: 0.4}]
    teacher.model.width: [8, 64]
    data.labelled: [20]
    method: [kd, {method: vanilla, temperature: 2.0}]
    arm: [vanilla]
  factorial:
    factors:
      mix: {method.mixing: off}
      teacher: {teacher.model.width: [8, 32]}
      labels: {data.labelled: [20, 60]}
      long: {recipe.epochs: [1, tuned], recipe.schedule: [constant, tuned]}
    fraction: {generators: [D=ABC]}
  against: [vanilla]
  blocks: 12
"""
CONTENT = yaml.safe_load(TEXT)
SETTINGS = settings(max_examples=120, derandomize=True, deadline=None, database=None)
Path_ = tuple[str | int, ...]


def paths(value: Any, before: Path_ = ()) -> list[Path_]:
    """Of everything in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [before, *(path for key, below in inner for path in paths(below, (*before, key)))]


HERE = [path for path in paths(CONTENT) if path[:1] == ("confirm",)]
names = st.one_of(
    st.text(max_size=6),
    st.sampled_from(sorted({str(part) for path in HERE for part in path})),
    st.sampled_from(["off", "tuned", "resolution", "slam", "D=AB", "D = mix*labels", "a=-BC", "=", "I", "cnn", "exponential", "recipe.smoothing", "seed",
                     "recipe", "teacher", "data", "model", "model.width", "method.fixed_k", "recipe.schedule.end", "recipe.schedule.kind", "."]),
)  # fmt: skip
scalars = st.one_of(st.none(), st.booleans(), st.integers(-2, 70), st.sampled_from([10**30, 0.5, 1.0]), st.floats(), names)
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)), max_leaves=6
)
where = st.sampled_from(HERE)
mutations = st.lists(
    st.one_of(
        st.tuples(st.just("drop"), where), st.tuples(st.just("rename"), where, names), st.tuples(st.just("replace"), where, values),
        st.tuples(st.just("add"), where, names, values), st.tuples(st.just("move"), where, where), st.tuples(st.just("grow"), where, values),
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
        try:
            holder, last = at(document, path[:-1]), path[-1]
            found = holder[last]
        except (LookupError, TypeError):
            continue
        if kind == "drop":
            del holder[last]
        elif kind == "rename" and isinstance(holder, dict):
            holder[arguments[0]] = holder.pop(last)
        elif kind == "replace":
            holder[last] = arguments[0]
        elif kind == "add" and isinstance(found, dict):
            found[arguments[0]] = arguments[1]
        elif kind == "grow" and isinstance(found, list):
            found.append(arguments[0])
        elif kind == "move":
            try:
                holder[last] = copy.deepcopy(at(document, arguments[0]))
            except (LookupError, TypeError):
                continue
    return document


def check(text: str) -> Study | None:
    """The study of a text, with all that follows from it tried; or None if it has faults, each on one line."""
    found: Study | None = None
    lines: list[str] = []
    try:
        found = study_of(text)
    except StudyError as error:
        lines = error.faults
    assert all(line and line.isprintable() for line in lines)
    if found is None:
        assert lines
        return None
    assert study_of(found.text).fingerprint == found.fingerprint
    json.dumps(found.skeleton_json())
    plan = outline(found)
    if found.confirm is None:
        return found
    columns = {parameter["name"] for parameter in found.parameters}
    rng = random.Random(0)
    spaces = found.search.spaces if found.search else {}
    for _ in range(2):
        tuned = {name: arm.changed(spaces[name].draw(rng)) if name in spaces else arm for name, arm in found.arms.items()}
        result = variants.variants(found, found.confirm, tuned)
        assert len(result.arms) <= plan.confirm_arms
        assert len(result.comparisons) <= plan.comparisons
        assert len({arm.trial(found, found.block("confirm", 0), True).id for arm in result.arms.values()}) == len(result.arms)
        for arm in result.arms.values():
            trial = arm.trial(found, found.block("confirm", 0), True)
            assert all(columns >= set(each.config()) for each in (trial, *trial.needed))
        assert not [reason for _, reason in result.skipped if "no valid configuration" in reason]
        assert {name for pair in result.comparisons for name in pair[:2]} <= set(result.arms)
        json.dumps(result.event(found, found.confirm))
    return found


def test_the_document_is_a_study_before_it_is_mutated() -> None:
    found = check(TEXT)
    assert found is not None
    # slam; 2 left out; all off and 3 alone; ten levels, of which the arm vanilla is the rival; 8 runs less slam itself.
    assert outline(found).confirm_arms == 1 + 2 + 4 + 10 + 7
    assert outline(found).comparisons == 2 + 3 + 10


def test_the_section_that_the_readme_shows_is_valid() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    shown = readme.partition("## Designs\n")[2].partition("```yaml\n")[2].partition("```")[0]
    found = check(TEXT[: TEXT.index("confirm:")] + shown)
    assert found is not None
    assert found.confirm is not None
    assert {name for name, value in vars(found.confirm).items() if value} >= {
        "leave_one_out",
        "add_one_in",
        "one_factor",
        "factorial",
        "against",
    }


@SETTINGS
@given(mutations)
def test_a_mutated_design_is_a_study_or_has_faults(changes: list[Any]) -> None:
    check(yaml.safe_dump(mutated(changes), sort_keys=False))
