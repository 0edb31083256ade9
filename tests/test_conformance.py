"""What holds for every method in the folder. There is no list of exceptions."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import pickle
import random
from dataclasses import MISSING
from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from orchestrator.drafts import OF_ARM
from search_spaces import Choice, IntUniform, Schedule, changed, flat, switches, tunables, without
from tests.toy import ROWS, Toy, detached, outputs, take, toy
from trainables.distiller import Distiller, Outputs, term_names
from trainables.folder import load, name_of, names

PACKAGE = "trainables.methods"
NAMES = names(PACKAGE)
MOVING = Schedule(kind="linear", start=0.2, end=0.9, warmup=0.1)


def cls(name: str) -> type[Distiller]:
    return load(PACKAGE, name, Distiller)


def static_changes(method: Distiller) -> list[dict[str, object]]:
    """Every value of every static choice, and the ends of every whole-number field, with what makes the field exist."""
    found: list[dict[str, object]] = []
    for field in tunables(method):
        if isinstance(field.default, Schedule | float) or not isinstance(field.domain, Choice | IntUniform):
            continue
        # A field may exist only under a choice: it is made to exist first.
        needed = {sibling: allowed[0] for sibling, allowed in field.only_if}
        values = field.domain.options if isinstance(field.domain, Choice) else (field.domain.low, field.domain.high)
        found += [{**needed, field.name: value} for value in values]
    return found


def static_variants() -> dict[str, Distiller]:
    """Every method as it is, and with one static change at a time."""
    found = {}
    for name in NAMES:
        default = found[name] = cls(name)()
        for changes in static_changes(default):
            variant = changed(default, changes)
            if variant not in found.values():
                field, value = list(changes.items())[-1]
                found[f"{name}, {field}={value}"] = variant
    return found


def covering_variants() -> dict[str, Distiller]:
    """Fewer: static changes made together where they agree, so that each is in one of them. For what is slow."""
    found = {}
    for name in NAMES:
        default = cls(name)()
        together: list[dict[str, object]] = [{}]
        for changes in static_changes(default):
            if changed(default, changes) == default:
                continue
            for group in together:
                if all(group.get(field, value) == value for field, value in changes.items()) and _exists(default, {**group, **changes}):
                    group.update(changes)
                    break
            else:
                together.append(dict(changes))
        found.update({f"{name} {number}": changed(default, group) for number, group in enumerate(together)})
    return found


def _exists(default: Distiller, changes: dict[str, object]) -> bool:
    try:
        flat_now = flat(changed(default, changes))
    except ValueError:
        return False
    return changes.items() <= flat_now.items()


def off_variants() -> dict[str, Distiller]:
    """Every method with one part off."""
    found = {}
    for name in NAMES:
        default = cls(name)()
        found.update({f"{name} without {part}": without(default, [part]) for part in switches(default)})
    return found


STATIC, COVERING, OFF = static_variants(), covering_variants(), off_variants()
every = pytest.mark.parametrize("name", NAMES)
every_static = pytest.mark.parametrize("method", STATIC.values(), ids=STATIC.keys())
every_covering = pytest.mark.parametrize("method", COVERING.values(), ids=COVERING.keys())
every_variant = pytest.mark.parametrize("method", {**STATIC, **OFF}.values(), ids={**STATIC, **OFF}.keys())


def redrawn(method: Distiller, seed: int) -> Distiller:
    """The same static part with every float redrawn from its domain and every schedule moving."""
    rng = random.Random(seed)
    changes = {
        f.name: MOVING if isinstance(f.default, Schedule) else f.domain.draw(rng) for f in tunables(method) if f.name in method.traced_names
    }
    return dataclasses.replace(method, **changes)


def prepared(method: Distiller, stage: Toy):
    torch.manual_seed(0)
    state = method.state(stage.facts)
    method.prepare(state, stage.probe)
    return state


def terms(method: Distiller, state, batch, student, teacher, seed: int = 1):
    """The terms with every source of randomness at the same point, and schedules at the progress of the batch."""
    schedules = [value for value in (getattr(method, name) for name in method.traced_names) if isinstance(value, Schedule)]
    if any(schedule != Schedule(start=schedule.start) for schedule in schedules if isinstance(schedule.start, float)):
        method = method.frozen(float(batch.progress))
    torch.manual_seed(seed)
    return method.terms(state, batch, student, teacher)


def at(stage: Toy, row: torch.Tensor):
    """(batch, student, teacher) for some rows, from fresh leaves."""
    student = take(stage.student, row, len(stage.needs.views))
    leaves = Outputs(student.logits.detach().requires_grad_(), {n: v.detach().requires_grad_() for n, v in student.features.items()})
    return stage.batch(row), leaves, detached(take(stage.teacher, row, len(stage.needs.views)))


MIXED_ROWS = torch.tensor([3, 60, 20, 31, 40, 9, 63, 25])
"""Labelled (below 24) and unlabelled rows in no order."""


def test_the_folder_is_read():
    assert {"slam", "vanilla"} <= set(NAMES)


@every
def test_file(name):
    module = importlib.import_module(f"{PACKAGE}.{name}")
    source = Path(module.__file__).read_text(encoding="utf-8")
    doc = inspect.getdoc(module) or ""
    assert "https://" in doc
    assert any(word in doc for word in ("eq.", "Algorithm", "Remark"))
    assert len(source.splitlines()) < 300
    for node in ast.walk(ast.parse(source)):
        imported = (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        assert not any(target.startswith(PACKAGE) for target in imported), f"imports {imported}: methods do not import methods"
        if isinstance(node, ast.ImportFrom) and node.module == "trainables":
            assert "methods" not in [alias.name for alias in node.names]


@every
def test_class(name):
    kind = cls(name)
    assert name_of(kind()) == name
    assert kind.__name__.lower() == name.replace("_", "")
    assert kind.__dataclass_params__.frozen
    assert not [other for other in kind.__subclasses__() if other.__module__.startswith("trainables")]
    assert inspect.getdoc(kind)
    for final in ("loss", "lift", "lifted", "floats", "frozen", "signature", "traced_names"):
        assert final not in vars(kind), f"{final} belongs to the contract"


@every
def test_fields(name):
    kind = cls(name)
    declared = {field.name: field for field in tunables(kind)}
    for field in dataclasses.fields(kind):
        assert field.name in declared, f"{field.name} is not tunable"
        assert field.type in ({"float": float, "int": int, "str": str, "bool": bool, "Schedule": Schedule}), field.type
        kind_of_default = type(declared[field.name].default).__name__
        assert field.type == kind_of_default, f"{field.name}: the annotation decides what is traced, and the default must agree"
    for field in declared.values():
        assert field.doc
        assert field.name not in OF_ARM
        assert not any(letter in field.name.split("_") for letter in ("alpha", "beta", "gamma"))
        assert field.is_nested or field.domain.contains(field.default)
        if field.off is not MISSING:
            dataclasses.replace(kind(), **{field.name: field.off})


@every
def test_terms_and_weights_are_the_same_names(name):
    method = cls(name)()
    stage = toy(method.needs)
    found = terms(method, prepared(method, stage), *at(stage, MIXED_ROWS))
    assert found.keys() == set(term_names(method))
    assert found
    for field in tunables(method):
        if field.name.endswith("_weight"):
            assert field.off == 0.0
            assert isinstance(field.off, float)
            assert isinstance(field.default, float)


@every_variant
def test_value(method):
    twin = dataclasses.replace(method)
    assert twin == method
    assert hash(twin) == hash(method)
    assert redrawn(method, seed=2) != method
    assert pickle.loads(pickle.dumps(method)) == method
    view = json.loads(json.dumps(flat(method)))
    assert flat(changed(type(method)(), view)) == flat(method)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.anything = 1


@every_variant
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_terms_and_gradients_are_finite(method, scale):
    """Two rows, one of each kind, and a student that is as sure as float32 allows: of the teacher's class, of another, of nothing."""
    stage = toy(method.needs)
    state = prepared(method, stage)
    row = torch.tensor([0, ROWS - 1])
    for seed in range(4):
        student = outputs(method.needs, dict(stage.facts.student_shapes), 2, seed, scale)
        teacher = outputs(method.needs, dict(stage.facts.teacher_shapes), 2, seed + seed % 2, scale)
        found = terms(method, state, stage.batch(row), student, teacher)
        for name, term in found.items():
            assert term.shape == (), name
            assert term.dtype == torch.float32, name
            assert torch.isfinite(term), name
        sum(found.values()).backward()
        assert teacher.logits.grad is None
        assert all(value.grad is None for value in teacher.features.values())
        reached = [value.grad for value in (student.logits, *student.features.values()) if value.grad is not None]
        assert reached
        assert all(torch.isfinite(grad).all() for grad in reached)


@every_static
def test_gradient_reaches_student_and_state(method):
    stage = toy(method.needs)
    state = prepared(method, stage)
    batch, student, teacher = at(stage, MIXED_ROWS)
    leaves = (student.logits, *student.features.values(), *state.parameters())
    found = terms(method, state, batch, student, teacher)
    for name, term in found.items():
        reached = torch.autograd.grad(term, leaves, retain_graph=True, allow_unused=True)
        assert any(grad is not None and grad.abs().sum() > 0 for grad in reached), f"{name} teaches nothing"
    sum(found.values()).backward()
    assert any(value.grad is not None and value.grad.abs().sum() > 0 for value in (student.logits, *student.features.values()))
    assert all(parameter.grad is not None for parameter in state.parameters())


@every_static
def test_terms_are_pure(method):
    stage = toy(method.needs)
    state = prepared(method, stage)
    before = {name: value.clone() for name, value in state.state_dict().items()}
    arguments = at(stage, MIXED_ROWS)
    first, second = terms(method, state, *arguments), terms(method, state, *arguments)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(value, before[name]) for name, value in state.state_dict().items())


@every_static
def test_observe_changes_only_rows_of_the_batch(method):
    stage = toy(method.needs)
    state = prepared(method, stage)
    before = {name: value.clone() for name, value in state.state_dict().items()}
    memories = {name for name, _ in state.named_buffers()}
    batch, student, teacher = at(stage, MIXED_ROWS)
    with torch.no_grad():
        assert method.observe(state, batch, detached(student), teacher) is None
    elsewhere = torch.ones(ROWS, dtype=torch.bool)
    elsewhere[MIXED_ROWS] = False
    for name, value in state.state_dict().items():
        if name not in memories:
            assert torch.equal(value, before[name]), name
        elif value.shape[:1] == (ROWS,):
            assert torch.equal(value[elsewhere], before[name][elsewhere]), name


@every_static
def test_the_label_of_an_unlabelled_row_is_not_read(method):
    stage = toy(method.needs)
    state = prepared(method, stage)
    batch, student, teacher = at(stage, MIXED_ROWS)
    other = batch._replace(label=torch.where(batch.is_labelled > 0, batch.label, 3))
    first, second = terms(method, state, batch, student, teacher), terms(method, state, other, student, teacher)
    assert all(torch.equal(first[name], second[name]) for name in first)


def draws_by_place(method: Distiller, state, stage: Toy) -> bool:
    """Whether the terms draw something for each place in the batch: then they are functions of the order, too."""
    arguments = at(stage, MIXED_ROWS)
    first, second = terms(method, state, *arguments), terms(method, state, *arguments, seed=2)
    return any(not torch.equal(first[name], second[name]) for name in first)


@every_static
def test_the_order_of_a_batch_does_not_matter(method):
    stage = toy(method.needs)
    state = prepared(method, stage)
    if draws_by_place(method, state, stage):
        return
    order = torch.tensor([5, 2, 7, 0, 1, 6, 3, 4])
    first, second = terms(method, state, *at(stage, MIXED_ROWS)), terms(method, state, *at(stage, MIXED_ROWS[order]))
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=1e-6, atol=1e-6)


@every_static
def test_padding_changes_nothing(method):
    stage = toy(method.needs)
    state = prepared(method, stage)
    if draws_by_place(method, state, stage):
        return
    batch, student, teacher = at(stage, MIXED_ROWS)
    padded_row = torch.cat([MIXED_ROWS, torch.tensor([0, 0, 0])])
    weight = torch.cat([torch.ones(8), torch.zeros(3)])
    padded, wide_student, wide_teacher = at(stage, padded_row)
    padded = padded._replace(weight=weight, total=weight.sum())
    with torch.no_grad():
        wide_student.logits[..., 8:, :] = 55.0 * torch.randn(wide_student.logits[..., 8:, :].shape)
        for value in wide_student.features.values():
            (value if len(method.needs.views) == 1 else value.transpose(0, 1))[8:] = 9.0
    first, second = terms(method, state, batch, student, teacher), terms(method, state, padded, wide_student, wide_teacher)
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=1e-6, atol=1e-7)


@every_static
def test_two_workers_are_one(method):
    """Terms and gradients, put together as the step does it, for two workers that have every second row each."""
    stage = toy(method.needs)
    state = prepared(method, stage)
    batch, student, teacher = at(stage, MIXED_ROWS)
    whole = terms(method, state, batch, student, teacher)
    leaves = (student.logits, *student.features.values())
    expected = torch.autograd.grad(method.loss(whole), leaves, allow_unused=True)
    found = [torch.zeros_like(leaf) for leaf in leaves]
    shares = []
    for worker in range(2):
        mine = torch.arange(8) % 2 == worker
        if method.needs.whole_batch:
            share = terms(method, state, batch, _attached(student, mine, len(method.needs.views)), teacher)
            shares.append({name: term / 2 for name, term in share.items()})
        else:
            part = batch._replace(**{n: getattr(batch, n)[mine] for n in ("label", "is_labelled", "row", "weight")})
            rows = mine.nonzero().squeeze(1)
            share = terms(method, state, part, take(student, rows, len(method.needs.views)), take(teacher, rows, len(method.needs.views)))
            shares.append(share)
        for total, grad in zip(found, torch.autograd.grad(method.loss(share), leaves, allow_unused=True), strict=True):
            total += 0 if grad is None else grad
    for name in whole:
        torch.testing.assert_close(shares[0][name] + shares[1][name], whole[name], rtol=1e-6, atol=1e-7)
    for total, grad in zip(found, expected, strict=True):
        torch.testing.assert_close(total, torch.zeros_like(total) if grad is None else grad, rtol=1e-5, atol=1e-7)


def _attached(student: Outputs, mine: torch.Tensor, views: int) -> Outputs:
    """The student's outputs for all rows, with gradient to some."""

    def part(value: torch.Tensor) -> torch.Tensor:
        shape = [1] * value.dim()
        shape[1 if views > 1 else 0] = len(mine)
        return torch.where(mine.reshape(shape), value, value.detach())

    return Outputs(part(student.logits), {name: part(value) for name, value in student.features.items()})


@every
def test_weights_weigh(name):
    method = cls(name)()
    stage = toy(method.needs)
    found = terms(method, prepared(method, stage), *at(stage, MIXED_ROWS))
    weights = [f"{term}_weight" for term in found]
    off = dataclasses.replace(method, **dict.fromkeys(weights, 0.0))
    assert off.loss(found).item() == 0.0
    for term, weight in zip(found, weights, strict=True):
        assert found[term].item() != 0, "the toy must exercise every term"
        for level in (1.0, 2.0):
            assert dataclasses.replace(off, **{weight: level}).loss(found).item() == level * found[term].item()


@every_static
@pytest.mark.parametrize("progress", [0.0, 0.05, 0.6, 1.0])
def test_lifted_equals_plain(method, progress):
    method = redrawn(method, seed=3)
    stage = toy(method.needs)
    state = prepared(method, stage)
    arguments = at(stage, MIXED_ROWS)
    plain = method.frozen(progress)
    values, lift = method.lifted("cpu", progress)
    traced = lift(values)
    assert values.shape == (len(method.traced_names),)
    expected, found = terms(plain, state, *arguments), terms(traced, state, *arguments)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(traced.loss(found), plain.loss(expected), rtol=1e-6, atol=1e-7)


@every_static
def test_a_vector_of_values_is_a_batch_of_trials(method):
    stage = toy(method.needs)
    state = prepared(method, stage)
    arguments = at(stage, MIXED_ROWS)

    def total(values):
        traced = method.lift(values)
        return traced.loss(traced.terms(state, *arguments))

    rows = torch.tensor([redrawn(method, seed).floats(0.5) for seed in range(3)] + [method.floats(0.0)])
    torch.manual_seed(1)
    batched = torch.func.vmap(total, randomness="same")(rows)
    looped = []
    for values in rows:
        torch.manual_seed(1)
        looped.append(total(values))
    torch.testing.assert_close(batched, torch.stack(looped), rtol=1e-6, atol=1e-7)


@every_covering
def test_two_trials_share_one_graph(method):
    stage = toy(method.needs)
    state = prepared(method, stage)
    counter = CompileCounterWithBackend("aot_eager")

    def total(traced, batch, student, teacher):
        return traced.loss(traced.terms(state, batch, student, teacher))

    torch._dynamo.reset()
    compiled = torch.compile(total, fullgraph=True, backend=counter)
    weights_off = without(method, [n for n in switches(method) if n.endswith("_weight")])
    for trial in (method, redrawn(method, seed=5), weights_off):
        assert trial.signature() == method.signature()
        for progress in (0.0, 0.5):
            values, lift = trial.lifted("cpu", progress)
            arguments = (lift(values), *at(stage, MIXED_ROWS))
            torch.manual_seed(1)
            found = compiled(*arguments)
            found.backward()
            torch.manual_seed(1)
            torch.testing.assert_close(found, total(*arguments), rtol=1e-6, atol=1e-7)
    assert counter.frame_count == 1


@every_static
def test_state_survives_saving(method, tmp_path):
    stage = toy(method.needs)
    state = prepared(method, stage)
    batch, student, teacher = at(stage, MIXED_ROWS)
    method.observe(state, batch, detached(student), teacher)
    torch.save(state.state_dict(), tmp_path / "state.pt")
    torch.manual_seed(7)
    other = method.state(stage.facts)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    first, second = terms(method, state, batch, student, teacher), terms(method, other, batch, student, teacher)
    assert all(torch.equal(first[name], second[name]) for name in first)


@every_static
def test_prepare_is_deterministic(method):
    stage = toy(method.needs)
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        states.append(method.state(stage.facts))
    for state in states:  # the global generator moves on in between: prepare must not depend on it
        method.prepare(state, stage.probe)
        torch.rand(1)
    first, second = (state.state_dict() for state in states)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@every_static
def test_it_learns(method):
    """Thirty steps of Adam on one free vector of logits (and maps) a row.

    They gain a twentieth of the loss; or, where a loss cannot go below a large entropy, what ten steps like the first would.
    """
    stage = toy(method.needs)
    state = prepared(method, stage)
    everything, student, teacher = stage.batch(torch.arange(ROWS)), stage.student, stage.teacher
    leaves = [student.logits, *student.features.values()]
    learned = [*leaves, *state.parameters()]
    optimiser = torch.optim.Adam(learned, lr=0.05)

    def total(progress):
        at_progress = method.frozen(progress)
        return at_progress.loss(terms(at_progress, state, everything._replace(progress=torch.tensor(progress)), student, teacher))

    start = total(1.0)
    start.backward()
    # The rate of Adam's first step is the same in every direction.
    first = 0.05 * sum(value.grad.abs().sum().item() for value in learned if value.grad is not None)
    for step in range(30):
        optimiser.zero_grad()
        total(step / 30).backward()
        with torch.no_grad():
            method.observe(state, everything, detached(student), teacher)
        optimiser.step()
    assert start.item() - total(1.0).item() > min(0.05 * start.item(), 10 * first)
