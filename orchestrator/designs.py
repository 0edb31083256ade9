"""Two-level designs: full factorials and regular fractions, their defining relation, aliases and resolution. Pure.

A regular 2^(k-p) fraction takes the settings of p factors from products of the others (Box, Hunter and Hunter, Statistics
for experimenters, 2nd ed. 2005, chapter 6). Where a resolution is asked for, the fewest runs that reach it are taken, and
among their fractions one of minimum aberration (Fries and Hunter, Technometrics 1980): as few words of the defining relation
as possible of length 3, then of length 4, and so on. Factors are grown one at a time from distinct word-length and letter
patterns, as in Chen, Sun and Wu (International Statistical Review 1993).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

LETTERS = "ABCDEFGHJKLM"
"""Of factors in their order, without I, which is the identity."""
MOST_FACTORS = len(LETTERS)
MOST_RUNS = 128
_LISTED = 3
"""Aliases up to this order are told: those beyond are rarely believed to be there."""
_ROMAN = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")

Effect = tuple[str, ...]
"""Factors whose product of levels is meant, in their order."""


@dataclass(frozen=True)
class Word:
    """A product of factors, with a sign."""

    factors: Effect
    sign: int = 1

    def __str__(self) -> str:
        return ("-" if self.sign < 0 else "") + "*".join(self.factors)

    def to_json(self) -> dict[str, Any]:
        return {"factors": list(self.factors), "sign": self.sign}


@dataclass(frozen=True)
class Generator:
    """The levels of one factor as the product of those of others, times a sign."""

    factor: str
    of: Effect
    sign: int = 1

    def __str__(self) -> str:
        return f"{self.factor} = {Word(self.of, self.sign)}"

    def to_json(self) -> dict[str, Any]:
        return {"factor": self.factor, "of": list(self.of), "sign": self.sign}


@dataclass(frozen=True)
class Design:
    """A two-level factorial of named factors: all 2^k combinations, or the fraction that generators leave of them.

    Raises:
        ValueError: no factor or too many of them; names that are not distinct; a generator of or from what it cannot be.
    """

    factors: tuple[str, ...]
    generators: tuple[Generator, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.factors) <= MOST_FACTORS or len(set(self.factors)) < len(self.factors):
            raise ValueError(f"A two-level design needs 1 to {MOST_FACTORS} distinct factors, but got {', '.join(self.factors) or 'none'}.")
        made = [generator.factor for generator in self.generators]
        for generator in self.generators:
            if made.count(generator.factor) > 1 or generator.factor not in self.factors:
                raise ValueError(f"A generator needs a factor that no other one makes ({', '.join(self.factors)}), but got {generator}.")
            free = [name for name in self.factors if name not in made]
            if len(set(generator.of)) < len(generator.of) or len(generator.of) < 2 or not set(generator.of) <= set(free):
                raise ValueError(
                    f"A generator needs two or more distinct factors that no generator makes ({', '.join(free) or 'none'}) on its right "
                    f"side, but got {generator}."
                )
        if self.resolution is not None and self.resolution < 3:
            raise ValueError(
                f"A fraction needs resolution III, or main effects are aliased with each other, but got I = {self.defining[0]}."
            )

    @property
    def free(self) -> tuple[str, ...]:
        """Factors that no generator makes."""
        made = {generator.factor for generator in self.generators}
        return tuple(name for name in self.factors if name not in made)

    @property
    def runs(self) -> int:
        """How many combinations there are."""
        return int(2 ** len(self.free))

    @cached_property
    def rows(self) -> tuple[dict[str, int], ...]:
        """Levels of every run, -1 or 1, in the standard order: the first free factor changes fastest."""
        found = []
        for levels in itertools.product((-1, 1), repeat=len(self.free)):
            row = dict(zip(self.free, reversed(levels), strict=True))
            row |= {each.factor: each.sign * prod(row[name] for name in each.of) for each in self.generators}
            found.append({name: row[name] for name in self.factors})
        return tuple(found)

    @cached_property
    def defining(self) -> tuple[Word, ...]:
        """Words whose product is 1 in every run, shortest first: each generator's, and all products of them."""
        found = []
        for size in range(1, len(self.generators) + 1):
            for chosen in itertools.combinations(self.generators, size):
                word = frozenset[str]()
                for each in chosen:
                    word ^= {each.factor, *each.of}
                found.append(self._word(word, prod(each.sign for each in chosen)))
        return tuple(sorted(found, key=self._order))

    @property
    def resolution(self) -> int | None:
        """Length of the shortest word of the defining relation; None for a full factorial, which has none."""
        return min((len(word.factors) for word in self.defining), default=None)

    @property
    def word_lengths(self) -> tuple[int, ...]:
        """How many words have length 3, 4, ... up to the number of factors."""
        lengths = [len(word.factors) for word in self.defining]
        return tuple(lengths.count(length) for length in range(3, len(self.factors) + 1))

    def aliases(self, effect: Sequence[str], order: int = MOST_FACTORS) -> tuple[Word, ...]:
        """Effects of at most that order which the contrast of an effect estimates as well, with the sign that they have in it.

        Raises:
            ValueError: no factor, or an unknown one.
        """
        unknown = [name for name in effect if name not in self.factors]
        if unknown or not effect:
            raise ValueError(f"An effect needs factors out of {', '.join(self.factors)}, but got {'*'.join(effect) or 'none'}.")
        found = [self._word(frozenset(word.factors) ^ frozenset(effect), word.sign) for word in self.defining]
        return tuple(sorted((word for word in found if 0 < len(word.factors) <= order), key=self._order))

    @cached_property
    def effects(self) -> tuple[Effect, ...]:
        """What is estimated and tested: main effects, then two-way interactions that are no alias of one before."""
        found: list[Effect] = []
        covered: set[Effect] = set()
        for size in (1, 2):
            for effect in itertools.combinations(self.factors, size):
                if effect not in covered:
                    found.append(effect)
                    covered |= {effect, *(word.factors for word in self.aliases(effect, 2))}
        return tuple(found)

    @property
    def confounded(self) -> tuple[Effect, ...]:
        """Main effects that two-way interactions are aliased with."""
        return tuple(effect for effect in self.effects if len(effect) == 1 and self.aliases(effect, 2))

    @property
    def title(self) -> str:
        """As in ``2^(5-1), resolution V``."""
        if self.resolution is None:
            return f"2^{len(self.factors)}, full"
        return f"2^({len(self.factors)}-{len(self.generators)}), resolution {roman(self.resolution)}"

    def alias_lines(self) -> list[str]:
        """The defining relation and what is aliased with what, up to effects of third order, in the names of the factors."""
        if not self.generators:
            return ["no effect is aliased with another"]
        found = ["I = " + " = ".join(str(word) for word in self.defining)]
        for effect in self.effects:
            # Where nothing of second order is aliased with it, what comes next is worth telling.
            near = self.aliases(effect, 2) or self.aliases(effect, _LISTED)
            if near:
                found.append(" = ".join(("*".join(effect), *map(str, near))))
        return found

    def to_json(self) -> dict[str, Any]:
        """Generators, defining relation, resolution and effects with their aliases up to third order."""
        return {
            "resolution": self.resolution,
            "generators": [each.to_json() for each in self.generators],
            "defining": [word.to_json() for word in self.defining],
            "effects": [
                {"factors": list(effect), "aliases": [word.to_json() for word in self.aliases(effect, _LISTED)]} for effect in self.effects
            ],
        }

    def _word(self, factors: frozenset[str], sign: int) -> Word:
        return Word(tuple(name for name in self.factors if name in factors), sign)

    def _order(self, word: Word) -> tuple[int, list[int]]:
        return len(word.factors), [self.factors.index(name) for name in word.factors]


def roman(number: int) -> str:
    """A resolution as it is usually written."""
    return _ROMAN[number]


def fraction_of(factors: Sequence[str], resolution: int) -> Design:
    """The smallest design of these factors, of minimum aberration, with at least a resolution; all combinations where no fraction has it.

    Raises:
        ValueError: as ``Design``; or a resolution below 3, or one that takes more than ``MOST_RUNS`` runs.
    """
    whole = Design(tuple(factors))
    if resolution < 3:
        raise ValueError(f"A fraction needs resolution >= 3, or main effects are aliased with each other, but got resolution={resolution}.")
    for free in range(1, len(whole.factors)):
        if 2**free <= MOST_RUNS and (columns := _least_aberration(free, len(whole.factors), resolution)) is not None:
            return Design(whole.factors, tuple(_generators(whole.factors, free, columns)))
    if whole.runs <= MOST_RUNS:
        return whole
    raise ValueError(
        f"A fraction of {len(whole.factors)} factors needs a resolution that {MOST_RUNS} runs can have, but got resolution={resolution}."
    )


def _generators(factors: Sequence[str], free: int, columns: Sequence[int]) -> Iterator[Generator]:
    for place, column in enumerate(columns, free):
        yield Generator(factors[place], tuple(factors[bit] for bit in range(free) if column >> bit & 1))


def _least_aberration(free: int, factors: int, resolution: int) -> tuple[int, ...] | None:
    """Of the added factors, which free ones (as bits) each is the product of; None where no fraction has the resolution.

    Adding a factor adds words and takes none away, so a fraction that lacks the resolution need not be grown.
    """
    candidates = sorted(
        (column for column in range(1, 2**free) if column.bit_count() >= resolution - 1), key=lambda column: (column.bit_count(), column)
    )
    grown: dict[Any, tuple[tuple[int, ...], frozenset[int]]] = {(): ((), frozenset({0}))}
    for place in range(free, factors):
        wider: dict[Any, tuple[tuple[int, ...], frozenset[int]]] = {}
        for columns, words in grown.values():
            for column in candidates:
                # Neither the order in which factors were added nor their names count, so the pattern is looked at instead.
                new = frozenset(word ^ column ^ 1 << place for word in words)
                if min(word.bit_count() for word in new) >= resolution:
                    more = words | new
                    wider.setdefault(_pattern(more, place + 1), ((*columns, column), more))
        grown = wider
    if not grown:
        return None
    return grown[min(grown)][0]


def _pattern(words: frozenset[int], factors: int) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """How many words have each length, which aberration is about, and in how many of each length every factor is."""
    lengths = [0] * (factors + 1)
    letters = [[0] * (factors + 1) for _ in range(factors)]
    for word in words:
        size = word.bit_count()
        lengths[size] += 1
        for bit in range(factors):
            letters[bit][size] += word >> bit & 1
    return tuple(lengths[3:]), tuple(sorted(map(tuple, letters)))
