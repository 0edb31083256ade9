"""Tunable fields: validity, conditions, flat views, changes, and messages that name the nearest."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from search_spaces import (
    Choice,
    IntUniform,
    LogUniform,
    Schedule,
    Uniform,
    all_names,
    changed,
    check,
    exists,
    field_at,
    flat,
    nearest,
    nested,
    tunable,
    tunables,
    value_at,
)


@dataclass(frozen=True)
class Optimiser:
    kind: str = tunable("sgd", Choice(("sgd", "adam")), "update rule")
    rate: float = tunable(0.1, LogUniform(0.001, 1.0), "learning rate", low=0.0)
    momentum: float = tunable(0.9, Uniform(0.0, 0.99), "momentum", off=0.0, only_if={"kind": ("sgd",)}, low=0.0, high=1.0)
    steps: int = tunable(3, IntUniform(1, 9), "steps", off=0, low=1)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Training:
    optimiser: Optimiser = nested(Optimiser(), "optimiser")
    schedule: Schedule = nested(Schedule(), "schedule", off=Schedule())
    shape: object = tunable("wide", Choice(("wide", 1, 2.5, True)), "mixed choice")
    factor: float = tunable(0.5, Choice((0.5, 1)), "a real and a whole option")
    note: str = "not a hyper-parameter"

    def __post_init__(self) -> None:
        check(self)


def test_tunables_in_order_with_what_was_declared():
    fields = {field.name: field for field in tunables(Optimiser)}
    assert list(fields) == ["kind", "rate", "momentum", "steps"]
    momentum = fields["momentum"]
    assert (momentum.default, momentum.doc, momentum.off, momentum.only_if) == (0.9, "momentum", 0.0, (("kind", ("sgd",)),))
    assert (momentum.low, momentum.high, momentum.is_nested) == (0.0, 1.0, False)
    assert [field.name for field in tunables(Training())] == ["optimiser", "schedule", "shape", "factor"]


def test_columns():
    assert [field.column for field in tunables(Optimiser)] == ["string", "float64", "float64", "int64"]
    with pytest.raises(ValueError, match="optimiser is nested"):
        _ = tunables(Training)[0].column


@pytest.mark.parametrize(("changes", "message"), [
    ({"kind": "lion"}, "Optimiser needs kind to be one of sgd, adam, but got kind='lion'."),
    ({"rate": -0.1}, r"needs rate to be a number in \[0, inf\], but got rate=-0.1"),
    ({"rate": float("nan")}, "needs rate to be a finite number, but got rate=nan"),
    ({"rate": "0.1"}, "needs rate to be a finite number, but got rate='0.1'"),
    ({"rate": True}, "needs rate to be a finite number, but got rate=True"),
    ({"momentum": 1.1}, r"needs momentum to be a number in \[0, 1\], but got momentum=1.1"),
    ({"steps": 2.0}, r"needs steps to be a whole number, but got steps=2\.0"),
    ({"steps": False}, "needs steps to be a whole number, but got steps=False"),
    ({"steps": -1}, r"needs steps to be a number in \[1, inf\], but got steps=-1"),
])  # fmt: skip
def test_invalid_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Optimiser(**changes)


def test_validity_is_wider_than_the_search():
    assert Optimiser(rate=50.0).rate == 50.0  # outside the domain, within the limits
    assert Optimiser(steps=0).steps == 0  # the off-value, outside the limits


def test_nested_values_are_checked_by_class():
    with pytest.raises(ValueError, match="Training needs optimiser to be a Optimiser, but got optimiser='sgd'"):
        Training(optimiser="sgd")


def test_flat_leaves_out_what_has_no_effect():
    assert flat(Optimiser()) == {"kind": "sgd", "rate": 0.1, "momentum": 0.9, "steps": 3}
    assert flat(Optimiser(kind="adam")) == {"kind": "adam", "rate": 0.1, "steps": 3}
    assert flat(Optimiser(kind="adam", momentum=0.1)) == flat(Optimiser(kind="adam"))
    found = flat(Training(schedule=Schedule(kind="cosine")), "recipe.")
    assert found == {
        "recipe.optimiser.kind": "sgd",
        "recipe.optimiser.rate": 0.1,
        "recipe.optimiser.momentum": 0.9,
        "recipe.optimiser.steps": 3,
        "recipe.schedule.kind": "cosine",
        "recipe.schedule.start": 1.0,
        "recipe.schedule.end": 0.0,
        "recipe.schedule.warmup": 0.0,
        "recipe.shape": "wide",
        "recipe.factor": 0.5,
    }


def test_a_whole_number_in_a_real_field_is_the_same_configuration():
    found = flat(Optimiser(rate=1))
    assert type(found["rate"]) is float
    assert repr(found) == repr(flat(Optimiser(rate=1.0)))
    assert type(flat(Training(shape=1))["shape"]) is int  # of a choice the exact option is kept
    assert type(flat(Training(factor=1))["factor"]) is int
    assert type(flat(Training(shape=True))["shape"]) is bool
    assert type(flat(Optimiser())["steps"]) is int


def test_exists_and_names():
    momentum = tunables(Optimiser)[2]
    assert exists(momentum, Optimiser())
    assert not exists(momentum, Optimiser(kind="adam"))
    assert all_names(Training())[:5] == ("optimiser", "optimiser.kind", "optimiser.rate", "optimiser.momentum", "optimiser.steps")
    assert all_names(Optimiser(kind="adam"), "x.") == ("x.kind", "x.rate", "x.momentum", "x.steps")


def test_reading_by_name():
    value = Training()
    assert value_at(value, "optimiser.momentum") == 0.9
    assert value_at(value, "optimiser") == Optimiser()
    assert field_at(value, "schedule.kind").default == "constant"


@pytest.mark.parametrize(("name", "message"), [
    ("optimiser.momentun", "Optimiser has no field momentun. Did you mean momentum?"),
    ("optimizer", "Training has no field optimizer. Did you mean optimiser?"),
    ("shedule.kind", "Training has no field shedule.kind. Did you mean schedule.kind?"),
    ("shape.width", "Training has no field shape.width."),
    ("note", "Training has no field note."),
    ("zzzz", r"Training has no field zzzz\.'$"),
])  # fmt: skip
def test_unknown_names_suggest_the_nearest(name, message):
    for read in (field_at, value_at, lambda value, name: changed(value, {name: 1})):
        with pytest.raises(KeyError, match=message):
            read(Training(), name)


def test_nearest():
    assert nearest("tempersture", ["temperature", "weight"]) == " Did you mean temperature?"
    assert nearest("xyz", ["temperature"]) == ""


def test_changed_at_once():
    value = changed(Training(), {"optimiser.kind": "adam", "schedule.kind": "linear", "optimiser.rate": 0.5, "shape": 2.5})
    assert value == Training(Optimiser("adam", 0.5), Schedule("linear"), 2.5)
    # A whole nested value and one of its fields: the field wins.
    assert changed(Training(), {"schedule.end": 0.5, "schedule": Schedule("cosine")}).schedule == Schedule("cosine", end=0.5)
    # Two changes that are valid only together.
    assert changed(Schedule(), {"kind": "exponential", "end": 0.1}) == Schedule("exponential", end=0.1)
    with pytest.raises(ValueError, match="needs rate to be"):
        changed(Training(), {"optimiser.rate": -1.0})


def test_flat_comes_back():
    value = Training(Optimiser("adam", 0.3, 0.9, 5), Schedule("step", first=0.4))
    assert changed(Training(), flat(value)) == value
