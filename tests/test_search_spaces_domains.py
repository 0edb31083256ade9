"""Domains: bounds, membership by exact type, draws, grids, JSON."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from search_spaces import Choice, IntUniform, LogUniform, Text, Uniform, domain_from_json

DOMAINS = [Uniform(-1.0, 2.0), LogUniform(1e-3, 10.0), IntUniform(-2, 5), Choice(("a", "b", "c")), Choice((1, 2.5)), Choice((True, False))]
every = pytest.mark.parametrize("domain", DOMAINS, ids=str)


@every
def test_draws_belong_and_repeat(domain):
    drawn = [domain.draw(random.Random(seed)) for seed in range(200)]
    assert all(domain.contains(value) for value in drawn)
    assert drawn == [domain.draw(random.Random(seed)) for seed in range(200)]
    assert len(set(drawn)) > 1


@every
@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
def test_grids_belong_are_distinct_and_not_too_long(domain, count):
    values = domain.grid(count)
    assert 1 <= len(values) <= count
    assert len(set(values)) == len(values)
    assert all(domain.contains(value) for value in values)


@every
def test_json_round_trip(domain):
    assert domain_from_json(domain.to_json()) == domain


def test_grids_by_hand():
    assert Uniform(0.0, 1.0).grid(5) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert Uniform(0.0, 1.0).grid(1) == (0.5,)
    assert LogUniform(1.0, 100.0).grid(3) == pytest.approx((1.0, 10.0, 100.0))
    assert LogUniform(1.0, 100.0).grid(1) == pytest.approx((10.0,))
    assert LogUniform(0.001, 0.3).grid(4)[::3] == (0.001, 0.3)
    assert IntUniform(2, 10).grid(3) == (2, 6, 10)
    assert IntUniform(2, 4).grid(9) == (2, 3, 4)
    assert IntUniform(2, 4).grid(1) == (3,)
    assert Choice(("a", "b", "c")).grid(2) == ("a", "b")


def test_draws_are_uniform_in_the_scale():
    rng = random.Random(0)
    assert sum(Uniform(0.0, 4.0).draw(rng) < 1.0 for _ in range(4000)) / 4000 == pytest.approx(0.25, abs=0.03)
    assert sum(LogUniform(1e-4, 1.0).draw(rng) < 1e-3 for _ in range(4000)) / 4000 == pytest.approx(0.25, abs=0.03)
    counts = Counter(IntUniform(1, 4).draw(rng) for _ in range(4000))
    assert set(counts) == {1, 2, 3, 4}
    assert min(counts.values()) > 880
    assert Counter(Choice((0, 1, 2, 3)).draw(rng) for _ in range(4000)).keys() == {0, 1, 2, 3}


def test_membership_minds_the_type():
    assert Uniform(0.0, 1.0).contains(1)
    assert not Uniform(0.0, 1.0).contains(True)
    assert not Uniform(0.0, 1.0).contains(1.0001)
    assert not Uniform(0.0, 1.0).contains(math.nan)
    assert not Uniform(0.0, 1.0).contains("0.5")
    assert not LogUniform(0.1, 1.0).contains(0.0)
    assert IntUniform(0, 3).contains(3)
    assert not IntUniform(0, 3).contains(3.0)
    assert not IntUniform(0, 3).contains(False)
    assert not IntUniform(0, 3).contains(4)
    assert Choice((1, 2)).contains(1)
    assert not Choice((1, 2)).contains(1.0)
    assert not Choice((1, 2)).contains(True)
    assert not Choice(("a",)).contains(None)


def test_sizes_and_columns():
    assert [domain.size for domain in DOMAINS] == [None, None, 8, 3, 2, 2]
    assert [domain.column for domain in DOMAINS] == ["float64", "float64", "int64", "string", "float64", "bool"]
    assert Choice((1, 2)).column == "int64"
    assert Choice((1, "a")).column == "string"
    assert Choice((True, 1)).column == "string"


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Uniform(1.0, 1.0), r"Uniform needs finite low < high, but got low=1\.0, high=1\.0"),
    (lambda: Uniform(0.0, math.inf), "high=inf"),
    (lambda: LogUniform(0.0, 1.0), r"LogUniform needs finite 0 < low < high, but got low=0\.0"),
    (lambda: LogUniform(1e-4, "1"), "high='1'"),
    (lambda: IntUniform(3, 2), "IntUniform needs whole low <= high, but got low=3, high=2"),
    (lambda: IntUniform(0, 2.0), r"high=2\.0"),
    (lambda: IntUniform(False, 2), "low=False"),
    (lambda: Choice(()), "at least one option"),
    (lambda: Choice(["a"]), "needs a tuple"),
    (lambda: Choice(("a", "a")), "distinct options"),
    (lambda: Choice((None,)), "option=None"),
])  # fmt: skip
def test_domains_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_equal_looking_options_of_other_types_are_distinct():
    assert Choice((1, 1.0, True)).size == 3


def test_a_plain_list_is_a_choice():
    assert domain_from_json(["a", "b"]) == Choice(("a", "b"))
    assert domain_from_json([0.5]) == Choice((0.5,))


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"uniform": [0, 1, 2]},
        {"uniform": 3},
        {"normal": [0, 1]},
        {"uniform": [0, 1], "choice": ["a"]},
        {"choice": "abc"},
        0.5,
        "a",
        None,
    ],
)
def test_other_forms_are_refused_with_what_was_got(form):
    with pytest.raises(ValueError, match=r"A domain needs the form .* but got ") as caught:
        domain_from_json(form)
    assert repr(form) in str(caught.value)


def test_text_is_one_line_that_is_given_and_never_drawn():
    text = Text(8)
    assert text.column == "string"
    assert text.contains("a/b c-é")
    assert text.contains("")
    assert not any(text.contains(value) for value in ("a\nb", "\x1b[0m", "123456789", 5, None))
    assert text.grid(3) == ()
    assert domain_from_json(text.to_json()) == text
    with pytest.raises(ValueError, match="Text needs a list of options to be drawn from"):
        text.draw(random.Random(0))
