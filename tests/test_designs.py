"""Two-level designs against published tables (Box, Hunter and Hunter; Chen, Sun and Wu 1993) and against contrasts computed column by column."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.designs import LETTERS, MOST_RUNS, Design, Generator, Word, fraction_of, roman

SETTINGS = settings(max_examples=60, derandomize=True, deadline=None, database=None)


def design(k: int, *generators: str) -> Design:
    """Of the first k letters, with generators as in the tables: D=ABC."""
    made = []
    for text in generators:
        factor, product = text.split("=")
        made.append(Generator(factor, tuple(product.lstrip("-")), -1 if product.startswith("-") else 1))
    return Design(tuple(LETTERS[:k]), tuple(made))


def words(found: tuple[Word, ...]) -> list[str]:
    return [("-" if word.sign < 0 else "") + "".join(word.factors) for word in found]


def columns(found: Design) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in found.rows]) for name in found.factors}


# Factorials


def test_all_combinations_come_in_standard_order() -> None:
    found = Design(("x", "y", "z"))
    assert [tuple(row.values()) for row in found.rows] == [
        (-1, -1, -1), (1, -1, -1), (-1, 1, -1), (1, 1, -1), (-1, -1, 1), (1, -1, 1), (-1, 1, 1), (1, 1, 1),
    ]  # fmt: skip
    assert (found.runs, found.resolution, found.defining, found.word_lengths) == (8, None, (), (0,))
    assert found.effects == (("x",), ("y",), ("z",), ("x", "y"), ("x", "z"), ("y", "z"))
    assert found.aliases(("x",)) == ()
    assert (found.title, found.alias_lines()) == ("2^3, full", ["no effect is aliased with another"])


# Fractions of the tables


def test_the_saturated_fraction_of_seven_factors() -> None:
    # Box, Hunter and Hunter, table 6.5: 2^(7-4) of resolution III.
    found = design(7, "D=AB", "E=AC", "F=BC", "G=ABC")
    assert (found.runs, found.resolution, found.title) == (8, 3, "2^(7-4), resolution III")
    assert words(found.defining) == [
        "ABD", "ACE", "AFG", "BCF", "BEG", "CDG", "DEF", "ABCG", "ABEF", "ACDF", "ADEG", "BCDE", "BDFG", "CEFG", "ABCDEFG",
    ]  # fmt: skip
    assert found.word_lengths == (7, 7, 0, 0, 1)
    assert words(found.aliases("A", 2)) == ["BD", "CE", "FG"]
    assert words(found.aliases("G", 2)) == ["AF", "BE", "CD"]
    # Every two-way interaction is aliased with a main effect, so seven effects are estimated from eight runs.
    assert found.effects == tuple((letter,) for letter in "ABCDEFG") == found.confounded
    assert found.alias_lines()[1:3] == ["A = B*D = C*E = F*G", "B = A*D = C*F = E*G"]


def test_the_half_fraction_of_five_factors() -> None:
    found = design(5, "E=ABCD")
    assert (found.runs, found.resolution, words(found.defining)) == (16, 5, ["ABCDE"])
    assert len(found.effects) == 5 + 10
    assert found.confounded == ()
    assert words(found.aliases("AB")) == ["CDE"]
    assert (words(found.aliases("A")), words(found.aliases("A", 3))) == (["BCDE"], [])
    assert found.alias_lines() == ["I = A*B*C*D*E", *(
        f"{'*'.join(pair)} = {'*'.join(letter for letter in 'ABCDE' if letter not in pair)}" for pair in itertools.combinations("ABCDE", 2)
    )]  # fmt: skip


def test_the_quarter_fraction_of_six_factors() -> None:
    found = design(6, "E=ABC", "F=BCD")
    assert (found.runs, found.resolution, found.word_lengths) == (16, 4, (0, 3, 0, 0))
    assert words(found.defining) == ["ABCE", "ADEF", "BCDF"]
    pairs = {"AB": ["CE"], "AC": ["BE"], "AD": ["EF"], "AE": ["BC", "DF"], "AF": ["DE"], "BD": ["CF"], "BF": ["CD"]}
    assert {pair: words(found.aliases(pair, 2)) for pair in pairs} == pairs
    assert ["".join(effect) for effect in found.effects] == [*"ABCDEF", *pairs]
    assert found.confounded == ()


def test_a_negative_generator_turns_the_sign_of_its_words() -> None:
    found = design(4, "D=-ABC")
    assert words(found.defining) == ["-ABCD"]
    assert words(found.aliases("AB", 2)) == ["-CD"]
    assert found.alias_lines()[:2] == ["I = -A*B*C*D", "A = -B*C*D"]
    assert all(row["A"] * row["B"] * row["C"] * row["D"] == -1 for row in found.rows)


WORD_LENGTHS = [
    # k, resolution asked, runs, resolution, words of length 3, 4, 5, ... : Chen, Sun and Wu 1993, the first design of each size.
    (3, 3, 4, 3, (1,)),
    (4, 3, 8, 4, (0, 1)),
    (5, 3, 8, 3, (2, 1, 0)),
    (5, 4, 16, 5, (0, 0, 1)),
    (6, 3, 8, 3, (4, 3, 0, 0)),
    (6, 4, 16, 4, (0, 3, 0, 0)),
    (7, 3, 8, 3, (7, 7, 0, 0, 1)),
    (7, 4, 16, 4, (0, 7, 0, 0, 0)),
    (7, 5, 64, 7, (0, 0, 0, 0, 1)),
    (8, 4, 16, 4, (0, 14, 0, 0, 0, 1)),
    (8, 5, 64, 5, (0, 0, 2, 1, 0, 0)),
    (9, 3, 16, 3, (4, 14, 8, 0, 4, 1, 0)),
    (9, 4, 32, 4, (0, 6, 8, 0, 0, 1, 0)),
    (10, 3, 16, 3, (8, 18, 16, 8, 8, 5, 0, 0)),
    (10, 4, 32, 4, (0, 10, 16, 0, 0, 5, 0, 0)),
    (11, 4, 32, 4, (0, 25, 0, 27, 0, 10, 0, 1, 0)),
    (12, 3, 16, 3, (16, 39, 48, 48, 48, 39, 16, 0, 0, 1)),
    (12, 4, 32, 4, (0, 38, 0, 52, 0, 33, 0, 4, 0, 0)),
]


@pytest.mark.parametrize(("k", "asked", "runs", "resolution", "lengths"), WORD_LENGTHS)
def test_the_chosen_fraction_has_minimum_aberration(k: int, asked: int, runs: int, resolution: int, lengths: tuple[int, ...]) -> None:
    found = fraction_of(LETTERS[:k], asked)
    assert (found.runs, found.resolution, found.word_lengths) == (runs, resolution, lengths)


@pytest.mark.parametrize(("k", "free", "resolution"), [(5, 3, 3), (6, 3, 3), (6, 4, 4), (7, 3, 3), (7, 4, 4)])
def test_no_other_choice_of_generators_is_better(k: int, free: int, resolution: int) -> None:
    """All fractions of a size, each by the lengths of words that hold in its columns."""
    base = np.array(list(itertools.product((-1, 1), repeat=free)))
    columns_of = {of: base[:, list(of)].prod(axis=1) for size in range(2, free + 1) for of in itertools.combinations(range(free), size)}
    best = None
    for chosen in itertools.combinations(columns_of, k - free):
        matrix = np.column_stack([base, *(columns_of[of] for of in chosen)])
        lengths = [0] * (k + 1)
        for size in range(1, k + 1):
            for word in itertools.combinations(range(k), size):
                lengths[size] += bool((matrix[:, list(word)].prod(axis=1) == 1).all())
        if min(size for size, count in enumerate(lengths) if count) >= resolution:
            best = lengths[3:] if best is None else min(best, lengths[3:])
    found = fraction_of(LETTERS[:k], resolution)
    assert (found.runs, list(found.word_lengths)) == (2**free, best)


def test_where_no_fraction_has_the_resolution_all_combinations_are_taken() -> None:
    assert fraction_of("AB", 3) == Design(("A", "B"))
    assert fraction_of("ABC", 4) == Design(("A", "B", "C"))
    assert fraction_of("ABCDE", 6).runs == 32
    assert [fraction_of(LETTERS[:k], 3).runs for k in range(2, 13)] == [4, 4, 8, 8, 8, 8, 16, 16, 16, 16, 16]


# Any fraction


@st.composite
def fractions(draw: st.DrawFn) -> Design:
    k = draw(st.integers(3, 8))
    free = draw(st.integers(2, k))
    names = draw(st.permutations([f"f{i}" for i in range(k)]))
    pools = [tuple(of) for size in range(2, free + 1) for of in itertools.combinations(names[:free], size)]
    chosen = draw(st.lists(st.sampled_from(pools), min_size=0, max_size=k - free, unique=True))
    signs = draw(st.lists(st.sampled_from((-1, 1)), min_size=len(chosen), max_size=len(chosen)))
    made = [Generator(name, of, sign) for name, of, sign in zip(names[free:], chosen, signs, strict=False)]
    return Design(tuple(sorted([*names[:free], *(each.factor for each in made)])), tuple(made))


@SETTINGS
@given(fractions())
def test_aliases_are_the_effects_with_the_same_contrast(found: Design) -> None:
    matrix = columns(found)
    for effect in found.effects:
        contrast = np.prod([matrix[name] for name in effect], axis=0)
        same = {}
        for size in range(1, len(found.factors) + 1):
            for other in itertools.combinations(found.factors, size):
                product = np.prod([matrix[name] for name in other], axis=0)
                if other != effect and abs(product @ contrast) == found.runs:
                    same[other] = int(product @ contrast) // found.runs
        assert {word.factors: word.sign for word in found.aliases(effect)} == same
    # Contrasts of different effects are orthogonal, and together they cover main effects and two-way interactions.
    contrasts = np.array([np.prod([matrix[name] for name in effect], axis=0) for effect in found.effects])
    assert np.array_equal(contrasts @ contrasts.T, found.runs * np.eye(len(found.effects)))
    covered = {effect for each in found.effects for effect in (each, *(word.factors for word in found.aliases(each, 2)))}
    assert covered == {other for size in (1, 2) for other in itertools.combinations(found.factors, size)}


@SETTINGS
@given(fractions())
def test_words_hold_in_every_run_and_levels_are_balanced(found: Design) -> None:
    assert len({tuple(row.values()) for row in found.rows}) == found.runs == len(found.rows)
    for word in found.defining:
        assert all(np.prod([row[name] for name in word.factors]) == word.sign for row in found.rows)
    assert len(found.defining) == 2 ** len(found.generators) - 1
    assert all(sum(row[name] for row in found.rows) == 0 for name in found.factors)


def test_a_design_as_data() -> None:
    data = design(4, "D=ABC").to_json()
    assert data["generators"] == [{"factor": "D", "of": ["A", "B", "C"], "sign": 1}]
    assert (data["resolution"], data["defining"]) == (4, [{"factors": ["A", "B", "C", "D"], "sign": 1}])
    assert data["effects"][0] == {"factors": ["A"], "aliases": [{"factors": ["B", "C", "D"], "sign": 1}]}
    assert data["effects"][4] == {"factors": ["A", "B"], "aliases": [{"factors": ["C", "D"], "sign": 1}]}
    assert len(data["effects"]) == 4 + 3


# What is no design


@pytest.mark.parametrize(
    ("k", "generators", "message"),
    [
        (0, [], "needs 1 to 12 distinct factors, but got none"),
        (4, ["E=AB"], "needs a factor that no other one makes"),
        (4, ["D=AB", "D=AC"], "needs a factor that no other one makes"),
        (4, ["D=A"], "needs two or more distinct factors that no generator makes"),
        (4, ["D=AA"], "needs two or more distinct factors that no generator makes"),
        (5, ["D=AB", "E=AD"], "needs two or more distinct factors that no generator makes"),
        (5, ["D=AB", "E=AB"], "needs resolution III, or main effects are aliased with each other, but got I = D\\*E"),
    ],
)
def test_what_is_no_design_is_refused(k: int, generators: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        design(k, *generators)


def test_what_no_fraction_can_be_is_refused() -> None:
    with pytest.raises(ValueError, match="needs resolution >= 3"):
        fraction_of("ABC", 2)
    with pytest.raises(ValueError, match=f"needs a resolution that {MOST_RUNS} runs can have, but got resolution=5"):
        fraction_of(LETTERS, 5)
    with pytest.raises(ValueError, match="distinct factors"):
        fraction_of("AAB", 3)
    with pytest.raises(ValueError, match="An effect needs factors out of A, B, but got C"):
        design(2).aliases("C")
    assert [roman(number) for number in (3, 4, 5, 9, 12)] == ["III", "IV", "V", "IX", "XII"]
