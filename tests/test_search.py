"""Proposals: a function of their arguments, valid, distinct, and honest about how they came about."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from orchestrator.search import Past, Proposal, propose, seed_of
from search_spaces import Choice, Condition, IntUniform, LogUniform, Parameter, Space, Uniform

CONDITIONAL = Space(
    (
        Parameter("rate", LogUniform(1e-3, 1.0)),
        Parameter("kind", Choice(("constant", "step"))),
        Parameter("factor", Uniform(0.1, 0.9), (Condition("kind", ("step",)),)),
        Parameter("steps", IntUniform(1, 4), (Condition("kind", ("step",)),)),
    )
)
SMALL = Space((Parameter("a", IntUniform(1, 8)), Parameter("b", Choice(("x", "y", "z"))), Parameter("c", Choice((1, 2.5, True)))))


def ask(space: Space, past: list[Past], count: int, seed: int = 0, sampler: str = "tpe", startup: int = 4) -> list[Proposal]:
    return propose(space, past, count, seed, maximise=True, sampler=sampler, startup=startup)


def grown(space: Space, rounds: int, sampler: str = "tpe") -> list[Past]:
    past: list[Past] = []
    for number in range(rounds):
        for k, proposal in enumerate(ask(space, past, 4, seed_of(number), sampler)):
            # Of four: one is stopped at a rung, one fails, two are finished.
            value = -abs(math.log(float(proposal.point.get("rate", 1.0))) + 2.0)
            past.append(Past(proposal.point, None if k < 2 else value, {0.5: value} if k != 1 else {}))
    return past


def test_the_same_arguments_give_the_same_proposals_and_another_seed_others() -> None:
    past = grown(CONDITIONAL, 3)
    assert ask(CONDITIONAL, past, 4, 5) == ask(CONDITIONAL, past, 4, 5)
    assert ask(CONDITIONAL, past, 4, 5) != ask(CONDITIONAL, past, 4, 6)


def test_another_process_proposes_the_same() -> None:
    code = (
        "from tests.test_search import CONDITIONAL, ask, grown\n"
        "print([sorted(p.point.items()) for p in ask(CONDITIONAL, grown(CONDITIONAL, 2), 3, 9)])"
    )
    here = str([sorted(p.point.items()) for p in ask(CONDITIONAL, grown(CONDITIONAL, 2), 3, 9)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == here


def test_every_proposal_is_a_point_of_the_conditional_space() -> None:
    for past in grown(CONDITIONAL, 6):
        assert CONDITIONAL.contains(past.point), past.point


def test_points_are_random_until_enough_have_a_value() -> None:
    past = grown(CONDITIONAL, 1)  # three of the four have a value
    assert {p.proposed_by for p in ask(CONDITIONAL, past, 4)} == {"random"}
    assert {p.proposed_by for p in ask(CONDITIONAL, [*past, Past({"rate": 0.5, "kind": "constant"}, 0.1)], 4)} == {"tpe"}
    assert {p.proposed_by for p in ask(CONDITIONAL, grown(CONDITIONAL, 4), 4, sampler="random")} == {"random"}


def test_seventy_two_trials_over_seventy_two_points_are_seventy_two_points() -> None:
    past: list[Past] = []
    while found := ask(SMALL, past, 8, seed_of(len(past))):
        past += [Past(p.point, float(p.point["a"])) for p in found]
    assert len(past) == 72 == SMALL.count()
    assert len({repr(sorted(p.point.items())) for p in past}) == 72


def test_choices_that_are_equal_in_python_stay_apart() -> None:
    space = Space((Parameter("c", Choice((1, 1.0, True))),))
    found = ask(space, [], 3)
    assert sorted(repr(p.point["c"]) for p in found) == ["1", "1.0", "True"]
    past = [Past(p.point, 0.5) for p in found]
    assert ask(space, past, 3) == []


def test_the_sampler_learns() -> None:
    space = Space((Parameter("rate", LogUniform(1e-3, 1.0)),))
    past: list[Past] = []
    for number in range(10):
        for p in ask(space, past, 4, seed_of("learn", number), startup=8):
            past.append(Past(p.point, -abs(math.log(float(p.point["rate"]) / 0.1))))
    early = [abs(p.score or 0.0) for p in past[:8]]
    late = [abs(p.score or 0.0) for p in past[-8:]]
    assert sum(late) < 0.5 * sum(early)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_a_failure_not_an_error(score: float) -> None:
    past = [Past({"rate": 0.1, "kind": "constant"}, score, {0.5: score}), *grown(CONDITIONAL, 2)]
    assert len(ask(CONDITIONAL, past, 4)) == 4


def test_running_proposals_are_taken_into_account() -> None:
    past = [*grown(CONDITIONAL, 2), Past({"rate": 0.2, "kind": "constant"}, is_running=True)]
    found = ask(CONDITIONAL, past, 4)
    assert len(found) == 4
    assert all(p.point != past[-1].point for p in found)


def test_seeds_depend_on_every_part() -> None:
    assert len({seed_of(0, "a", 1), seed_of(0, "a", 2), seed_of(1, "a", 1), seed_of(0, "b", 1), seed_of("0a", 1), seed_of(0, "a1")}) == 6
