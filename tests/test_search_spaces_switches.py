"""Switches: what can be turned off, and the variants that follow."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from search_spaces import Choice, Schedule, Uniform, add_one_in, is_off, leave_one_out, nested, switches, tunable, without


@dataclass(frozen=True)
class Method:
    kind: str = tunable("hint", Choice(("plain", "hint")), "kind", off="plain")
    hint_weight: float = tunable(2.0, Uniform(0.0, 9.0), "weight", off=0.0, only_if={"kind": ("hint",)})
    soft_weight: float = tunable(1.0, Uniform(0.0, 9.0), "weight", off=0.0)
    depth: float = tunable(3.0, Uniform(1.0, 9.0), "cannot be turned off")
    ramp: Schedule = nested(Schedule("linear", warmup=0.1), "ramp", off=Schedule())


def test_switches_are_what_declares_an_off_value_and_exists():
    assert switches(Method()) == {"kind": "plain", "hint_weight": 0.0, "soft_weight": 0.0, "ramp": Schedule(), "ramp.warmup": 0.0}
    assert "hint_weight" not in switches(Method(kind="plain"))
    assert set(switches(Method(), "method.")) == {f"method.{name}" for name in switches(Method())}


def test_without():
    assert without(Method(), ["soft_weight", "ramp.warmup"]) == Method(soft_weight=0.0, ramp=Schedule("linear"))
    assert without(Method(), ["ramp"]).ramp == Schedule()
    assert without(Method(), []) == Method()
    with pytest.raises(
        ValueError, match=r"Turning depth off needs an off-value, but it declares none. What can be turned off: kind, hint_weight"
    ):
        without(Method(), ["depth"])
    with pytest.raises(KeyError, match=r"has no field soft_wight. Did you mean soft_weight?"):
        without(Method(), ["soft_wight"])


def test_is_off_looks_at_effects():
    assert not is_off(Method(), "soft_weight")
    assert is_off(Method(soft_weight=0.0), "soft_weight")
    assert is_off(Method(kind="plain"), "hint_weight")  # without effect, so nothing changes
    assert is_off(Method(ramp=Schedule(end=0.7)), "ramp")  # a constant schedule has no end


def test_leave_one_out_and_add_one_in():
    names = ["hint_weight", "soft_weight", "ramp"]
    assert leave_one_out(Method(), names) == {
        "hint_weight": Method(hint_weight=0.0),
        "soft_weight": Method(soft_weight=0.0),
        "ramp": Method(ramp=Schedule()),
    }
    assert add_one_in(Method(), names) == {
        "hint_weight": Method(soft_weight=0.0, ramp=Schedule()),
        "soft_weight": Method(hint_weight=0.0, ramp=Schedule()),
        "ramp": Method(hint_weight=0.0, soft_weight=0.0),
    }
