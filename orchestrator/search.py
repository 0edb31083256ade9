"""Optuna behind one pure function: proposals from a space, the finished proposals, and a seed. The only file that knows Optuna's samplers.

A fresh in-memory Optuna study is built for every call, so a proposal is a function of its arguments alone: nothing is
lost in a restart, and no number of lanes changes what is proposed. Finished trainings are told COMPLETE, early-stopped
ones PRUNED with their values at the rungs, and failed ones FAIL; none is left running, whatever its value.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from search_spaces import Choice, Domain, IntUniform, LogUniform, Point, Space, Uniform, Value

TPE, RANDOM = "tpe", "random"
SAMPLERS = (TPE, RANDOM)

_TRIES = 20
"""Asks before a duplicate is replaced by a draw of our own."""


@dataclass(frozen=True)
class Proposal:
    """A point and how it came about."""

    point: Point
    proposed_by: str


@dataclass(frozen=True)
class Past:
    """An earlier proposal. ``score`` is its value at the end, or None where it was stopped early, failed or still runs."""

    point: Point
    score: float | None = None
    rungs: Mapping[float, float] = field(default_factory=dict)
    """Values at the rungs it reached."""
    is_running: bool = False
    """Counted as a bad value nearby (constant liar), so that proposals made at one time spread out."""


def seed_of(*parts: object) -> int:
    """A 31-bit seed that depends on every part."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def propose(space: Space, past: Sequence[Past], count: int, seed: int, *, maximise: bool, sampler: str, startup: int) -> list[Proposal]:
    """Up to ``count`` new points, each different from the others and from every past one; fewer only where the space is used up.

    Points are random until ``startup`` past proposals have a value, then, with sampler "tpe", Optuna's multivariate TPE.
    """
    scored = sum(1 for p in past if p.score is not None or p.rungs)
    by = RANDOM if sampler == RANDOM or scored < startup else TPE
    taken = {_key(p.point) for p in past}
    study = _study(space, past, seed, maximise, by)
    rng = random.Random(seed)
    proposals: list[Proposal] = []
    for _ in range(count):
        point = _fresh(study, space, taken, rng)
        if point is None:
            break
        taken.add(_key(point[0]))
        proposals.append(Proposal(point[0], by if point[1] else RANDOM))
    return proposals


def _key(point: Mapping[str, Value]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in point.items()))


def _sampler(by: str, seed: int) -> BaseSampler:
    if by == RANDOM:
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        # group=True, which a conditional space needs, is still marked experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=0)


def _study(space: Space, past: Sequence[Past], seed: int, maximise: bool, by: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if maximise else "minimize", sampler=_sampler(by, seed))
    for p in past:
        values = {i: v for i, (_, v) in enumerate(sorted(p.rungs.items())) if math.isfinite(v)}
        finite = p.score is not None and math.isfinite(p.score)
        if p.is_running:
            state = TrialState.RUNNING
        elif finite:
            state = TrialState.COMPLETE
        else:
            state = TrialState.PRUNED if values and p.score is None else TrialState.FAIL
        study.add_trial(
            create_trial(
                state=state,
                params={name: _coded(space.parameter(name).domain, value) for name, value in p.point.items()},
                distributions={name: _distribution(space.parameter(name).domain) for name in p.point},
                value=p.score if finite else None,
                intermediate_values=values,
            )
        )
    return study


def _fresh(study: optuna.Study, space: Space, taken: set[tuple[tuple[str, str], ...]], rng: random.Random) -> tuple[Point, bool] | None:
    """A point not taken yet and whether the sampler proposed it; None where there is none left."""
    for _ in range(_TRIES):
        trial = study.ask()
        point: Point = {}
        for parameter in space.parameters:
            if parameter.exists(point):
                point[parameter.name] = _suggest(trial, parameter.name, parameter.domain)
        if _key(point) not in taken:
            return point, True
        study.tell(trial, state=TrialState.FAIL)
    for _ in range(_TRIES):
        point = space.draw(rng)
        if _key(point) not in taken:
            return point, False
    if any(parameter.domain.size is None for parameter in space.parameters):
        return None
    left = [p for p in itertools.islice(space.points(), 100_000) if _key(p) not in taken]
    return (rng.choice(left), False) if left else None


def _coded(domain: Domain, value: Value) -> Value:
    """What Optuna is told for a value: the position of a choice, because Optuna takes 1, 1.0 and True for one choice."""
    return [repr(option) for option in domain.options].index(repr(value)) if isinstance(domain, Choice) else value


def _suggest(trial: optuna.Trial, name: str, domain: Domain) -> Value:
    match domain:
        case Uniform(low, high):
            return trial.suggest_float(name, low, high)
        case LogUniform(low, high):
            return trial.suggest_float(name, low, high, log=True)
        case IntUniform(low, high):
            return trial.suggest_int(name, low, high)
        case Choice(options):
            return options[trial.suggest_categorical(name, range(len(options)))]
        case _:
            raise TypeError(f"Optuna needs one of the four domains, but got {domain!r}.")


def _distribution(domain: Domain) -> BaseDistribution:
    match domain:
        case Uniform(low, high):
            return FloatDistribution(low, high)
        case LogUniform(low, high):
            return FloatDistribution(low, high, log=True)
        case IntUniform(low, high):
            return IntDistribution(low, high)
        case Choice(options):
            return CategoricalDistribution(range(len(options)))
        case _:
            raise TypeError(f"Optuna needs one of the four domains, but got {domain!r}.")
