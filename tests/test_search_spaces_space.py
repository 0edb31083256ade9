"""Spaces: conditions, draws, listing, counting, narrowing, fingerprints, and the space over a value."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest

from search_spaces import Choice, Condition, IntUniform, Parameter, Schedule, Space, Uniform, changed, nested, space_of, tunable, value_at

KIND = Parameter("kind", Choice(("plain", "deep")))
DEPTH = Parameter("depth", IntUniform(1, 3), (Condition("kind", ("deep",)),))
WIDE = Parameter("wide", Choice((True, False)), (Condition("kind", ("deep",)), Condition("depth", (2, 3))))
SPACE = Space((KIND, DEPTH, WIDE))

POINTS = [
    {"kind": "plain"},
    {"kind": "deep", "depth": 1},
    {"kind": "deep", "depth": 2, "wide": True},
    {"kind": "deep", "depth": 2, "wide": False},
    {"kind": "deep", "depth": 3, "wide": True},
    {"kind": "deep", "depth": 3, "wide": False},
]


def test_every_point_once_and_in_order():
    assert list(SPACE.points()) == POINTS
    assert SPACE.count() == 6


def test_contains_exactly_its_points():
    assert all(SPACE.contains(point) for point in POINTS)
    for wrong in (
        {},
        {"kind": "plain", "depth": 1},
        {"kind": "deep"},
        {"kind": "deep", "depth": 4},
        {"kind": "deep", "depth": 1, "wide": True},
        {"kind": "other"},
    ):
        assert not SPACE.contains(wrong)


def test_draws_are_points_and_reach_all():
    rng = random.Random(0)
    drawn = [SPACE.draw(rng) for _ in range(300)]
    assert all(point in POINTS for point in drawn)
    assert all(point in drawn for point in POINTS)
    assert SPACE.draw(random.Random(5)) == SPACE.draw(random.Random(5))


def test_a_continuum_cannot_be_listed():
    space = Space((KIND, Parameter("rate", Uniform(0.0, 1.0))))
    assert space.count() == math.inf
    with pytest.raises(ValueError, match=r"Listing a space needs finite domains, but rate is a number in \[0, 1\]"):
        list(space.points())


def test_fix_and_narrow():
    assert list(SPACE.fix("kind", "plain").points()) == POINTS[:1]
    assert list(SPACE.narrow("depth", IntUniform(1, 2)).points()) == POINTS[:4]
    assert SPACE.fix("kind", "deep").parameter("depth") == DEPTH
    assert SPACE.count() == 6  # the space itself is as it was
    with pytest.raises(KeyError, match=r"The space has no dept. Did you mean depth?"):
        SPACE.fix("dept", 1)
    with pytest.raises(KeyError, match=r"The space has no kin. Did you mean kind?"):
        SPACE.narrow("kin", Choice(("plain",)))


def test_names_must_be_distinct_and_conditions_known():
    with pytest.raises(ValueError, match="needs distinct names, but got kind twice"):
        Space((KIND, KIND))
    with pytest.raises(ValueError, match="needs kind before depth"):
        Space((DEPTH, KIND))


def test_fingerprint_changes_with_everything_and_nothing_else():
    prints = {
        space.fingerprint
        for space in (
            SPACE,
            Space((KIND, DEPTH)),
            SPACE.narrow("depth", IntUniform(1, 2)),
            Space((KIND, Parameter("depth", DEPTH.domain), WIDE)),
            Space((KIND, Parameter("depths", DEPTH.domain, DEPTH.conditions))),
            SPACE.fix("kind", "deep"),
        )
    }
    assert len(prints) == 6
    assert SPACE.fingerprint == Space((KIND, DEPTH, WIDE)).fingerprint
    assert all(len(p) == 16 and int(p, 16) >= 0 for p in prints)


@dataclass(frozen=True)
class Head:
    kind: str = tunable("linear", Choice(("linear", "deep")), "kind")
    depth: int = tunable(2, IntUniform(1, 3), "depth", only_if={"kind": ("deep",)})


@dataclass(frozen=True)
class Model:
    head: Head = nested(Head(), "head")
    rate: float = tunable(0.5, Uniform(0.0, 1.0), "rate")
    ramp: Schedule = nested(Schedule(), "ramp")


def test_space_over_all_fields():
    space = space_of(Model(), prefix="method.")
    assert space.names == (
        "method.head.kind", "method.head.depth", "method.rate",
        "method.ramp.kind", "method.ramp.start", "method.ramp.end", "method.ramp.first", "method.ramp.every", "method.ramp.factor", "method.ramp.warmup",
    )  # fmt: skip
    assert space.parameter("method.head.depth").conditions == (Condition("method.head.kind", ("deep",)),)
    assert space.parameter("method.rate").domain == Uniform(0.0, 1.0)


def test_points_of_a_space_change_its_value():
    space, rng = space_of(Model(), {"head.kind": None, "head.depth": None, "rate": None}), random.Random(1)
    for _ in range(20):
        point = space.draw(rng)
        value = changed(Model(), point)
        assert {name: value_at(value, name) for name in point} == point


def test_selected_names_with_their_own_or_another_domain():
    space = space_of(Model(), {"rate": Uniform(0.2, 0.4), "head.kind": None})
    assert space.names == ("head.kind", "rate")  # in the order of declaration
    assert space.parameter("rate").domain == Uniform(0.2, 0.4)
    assert space.parameter("head.kind").domain == Choice(("linear", "deep"))


def test_conditions_on_what_is_not_searched_are_settled_by_the_value():
    deep = Model(head=Head("deep"))
    assert space_of(deep, {"head.depth": None}).parameter("head.depth").conditions == ()
    with pytest.raises(ValueError, match=r"Searching head.depth needs head.kind in \['deep'\], but the study never gives it that"):
        space_of(Model(), {"head.depth": None})


def test_conditions_that_a_searched_field_never_meets_are_refused():
    only_linear = {"head.kind": Choice(("linear",)), "head.depth": None}
    with pytest.raises(ValueError, match=r"Searching head.depth needs head.kind in \['deep'\]"):
        space_of(Model(), only_linear)
    moving = {"ramp.kind": Choice(("constant", "linear")), "ramp.end": None, "ramp.factor": None}
    with pytest.raises(ValueError, match=r"Searching ramp.factor needs ramp.kind in \['step'\]"):
        space_of(Model(), moving)


def test_unknown_names_and_groups_are_refused():
    with pytest.raises(KeyError, match=r"has no field rat. Did you mean rate?"):
        space_of(Model(), {"rat": None})
    with pytest.raises(ValueError, match="ramp is a group of fields: name them one by one"):
        space_of(Model(), {"ramp": None})
