"""Outlook: how many cells are certain to come, at most, that are not in the plan yet."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from orchestrator import chains, variants
from orchestrator import path as ablation
from orchestrator.path import Walk
from orchestrator.study import Study
from orchestrator.tuning import Tuning


class Outlook:
    """Of one study. What of it does not change is computed once."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def of_search(self, tunings: Mapping[str, Tuning]) -> int:
        """Of the search of each arm, the students that they need among them."""
        search = self._study.search
        if search is None:
            return 0
        return sum(
            (search.trials - len(tuning.candidates)) * search.blocks * (1 + self._students_before[name])
            for name, tuning in tunings.items()
            if not tuning.all_proposed
        )

    def of_confirm(self, walk: Walk | None) -> int:
        """Of stage two, the path before it among them; ``walk`` is how far that has come."""
        confirm = self._study.confirm
        if confirm is None:
            return 0
        count = self._cells_of_confirm * confirm.blocks
        if confirm.path is not None:
            steps = ablation.bound(confirm.path) if walk is None else walk.to_come
            count += steps * confirm.path.blocks * (1 + self._students_of_base)
        return count

    @cached_property
    def _students_before(self) -> Mapping[str, int]:
        study = self._study
        return {} if study.search is None else {name: chains.students_at_most(study, study.arms[name]) for name in study.search.spaces}

    @cached_property
    def _students_of_base(self) -> int:
        confirm = self._study.confirm
        return chains.students_at_most(self._study, self._study.arms[confirm.base]) if confirm else 0

    @cached_property
    def _cells_of_confirm(self) -> int:
        """On one block, the students that they need among them, at most."""
        study, confirm = self._study, self._study.confirm
        return len(variants.distinct(study, confirm)) + chains.students_of_confirm(study, confirm) if confirm else 0
