"""Evaluators: the importance of parameters as Optuna computes it, for given points and any scores.

The one file beside ``orchestrator.search`` that imports optuna: it needs Optuna's evaluators and nothing of its samplers, and
importing it costs half a second, so ``orchestrator.analysis.importance`` does so only where there is enough to evaluate.

PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023, https://arxiv.org/abs/2304.10255; with conditional parameters, Kaito and
others, KDD 2026, https://arxiv.org/abs/2601.20800): how much the distribution of a parameter among the best trials differs
from that among all. fANOVA (Hutter, Hoos and Leyton-Brown, ICML 2014, http://proceedings.mlr.press/v32/hutter14.html): the
share of a random forest's variance over the space that a parameter explains alone.

Departure: numbers are told as their rank among the points that have them, scaled to [0, 1], or as whole numbers where few
differ, and Optuna takes them as they are. So importance does not hang on how wide a domain was declared or on its scale; and Optuna's fANOVA, which averages over
a logarithmic domain as if it were linear, averages over it as it was drawn.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.trial import TrialState, create_trial
from scipy import stats

Floats = NDArray[np.float64]
FEW_VALUES = 10
"""Numbers with no more different values are told as their place among these: told as a continuum, equal values would make
peaks so narrow that PED-ANOVA takes them for the largest of differences."""


@final
class Evaluator:
    """Importances of the parameters of some points. Scores come with every call, so that they can be shuffled."""

    def __init__(self, points: Sequence[Mapping[str, Any]]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.names = tuple(dict.fromkeys(name for point in points for name in point))
        """Of all parameters that a point has, in order of appearance."""
        columns = {name: _column([point.get(name) for point in points]) for name in self.names}
        self._study = optuna.create_study()
        self._study.add_trials(
            [
                create_trial(
                    state=TrialState.COMPLETE,
                    params={name: columns[name][1][place] for name in point},
                    distributions={name: columns[name][0] for name in point},
                    value=0.0,
                )
                for place, point in enumerate(points)
            ]
        )

    @property
    def everywhere(self) -> tuple[str, ...]:
        """Parameters that every point has: those that fANOVA can tell of."""
        trials = self._study.get_trials(deepcopy=False)
        return tuple(name for name in self.names if all(name in trial.params for trial in trials))

    def ped_anova(self, losses: Floats, share: float) -> Floats:
        """One number per name: the divergence that the best ``share`` of points shows; 0 is none. Less loss is better."""
        return self._evaluated(PedAnovaImportanceEvaluator(target_quantile=share), losses)

    def fanova(self, losses: Floats, trees: int, seed: int) -> Floats:
        """One number per name: the share of variance; 0 for a name that some points lack. Losses must not all be equal."""
        return self._evaluated(FanovaImportanceEvaluator(n_trees=trees, seed=seed), losses)

    def _evaluated(self, evaluator: BaseImportanceEvaluator, losses: Floats) -> Floats:
        with warnings.catch_warnings():
            # That a target is minimised, which is meant; that few trials have a parameter, which the null has as well.
            warnings.simplefilter("ignore", UserWarning)
            found = evaluator.evaluate(self._study, target=lambda trial: float(losses[trial.number]))
        return np.array([found.get(name, 0.0) for name in self.names])


def _column(values: Sequence[Any]) -> tuple[BaseDistribution, list[Any]]:
    """What Optuna is told of a parameter: its distribution, and a value per point, None where it does not exist."""
    known = [place for place, value in enumerate(values) if value is not None]
    told: list[Any] = [None] * len(values)
    if all(isinstance(values[place], int | float) and not isinstance(values[place], bool) for place in known):
        different = sorted({values[place] for place in known})
        if len(different) <= FEW_VALUES:
            for place in known:
                told[place] = different.index(values[place])
            return IntDistribution(0, len(different) - 1), told
        scaled = (stats.rankdata([values[place] for place in known]) - 0.5) / len(known)
        for place, rank in zip(known, scaled, strict=True):
            told[place] = float(rank)
        return FloatDistribution(0.0, 1.0), told
    # Positions, because Optuna takes 1, 1.0 and True for one choice.
    options = sorted({repr(values[place]) for place in known})
    for place in known:
        told[place] = options.index(repr(values[place]))
    return CategoricalDistribution(range(len(options))), told
