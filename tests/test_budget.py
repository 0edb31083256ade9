"""Budget: counted by hand from small tables."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from orchestrator.analysis import budget
from orchestrator.analysis.budget import Tuning, equality, tunings

SELECT = "validation.accuracy"


def row(arm: str, number: int | None, block: int, status: str, score: float = math.nan, **other: Any) -> dict[str, Any]:
    row = {"cell": f"{arm}/{number}/{block}", "attempt": 1, "stage": "search", "arm": arm, "number": number, "block": block}
    row |= {"proposed_by": "random" if number == 0 else "tpe", "status": status, "progress": 1.0, "steps": 40, "device_seconds": 3.0}
    return row | {f"metric.{SELECT}": score} | other


TABLE = pd.DataFrame(
    [
        row("slam", 0, 0, "ok", 0.80),
        row("slam", 0, 1, "ok", 0.90),
        row("slam", 1, 0, "ok", 0.95),
        row("slam", 1, 1, "diverged", progress=0.5, steps=20),
        row("slam", 2, 0, "stopped", 0.99, progress=0.25, steps=10),
        row("slam", 2, 1, "stopped", 0.99, progress=0.25, steps=10),
        row("kd", 0, 0, "failed", attempt=1, progress=0.25, device_seconds=1.0),
        row("kd", 0, 0, "ok", 0.70, attempt=2),
        row("kd", 0, 1, "ok", 0.80),
        row("kd", None, 0, "ok", 0.99, stage="confirm", cell="another", device_seconds=100.0),
    ]
)
CHOICE = {"event": "choice", "arm": "slam", "number": 1, "score": 0.95, "config": {"method.temperature": 2.0}, "skipped": []}


def test_counts_of_a_search_by_hand() -> None:
    slam, kd = tunings(TABLE, SELECT)
    assert (slam.arm, slam.trials, slam.proposed_by, slam.cells) == ("slam", 3, {"random": 1, "tpe": 2}, 6)
    assert (slam.ok, slam.stopped, slam.failed, slam.missing) == (3, 2, 1, 0)
    assert (slam.trainings, slam.steps, slam.device_seconds) == (4.0, 160, 18.0)
    assert (kd.trials, kd.ok, kd.failed, kd.trainings) == (1, 2, 0, 2.0)


def test_every_attempt_costs_but_the_last_one_counts() -> None:
    kd = tunings(TABLE, SELECT)[1]
    assert kd.device_seconds == 7.0
    assert kd.steps == 80


def test_best_is_the_mean_over_blocks_of_configurations_that_finished_on_all() -> None:
    slam, kd = tunings(TABLE, SELECT)
    # Configuration 1 has 0.95 on one block and no score on the other; 2 was stopped.
    assert slam.best == pytest.approx(0.85)
    assert kd.best == pytest.approx(0.75)
    assert (slam.chosen, slam.config) == (None, {})
    worse = pd.concat([TABLE, pd.DataFrame([row("slam", 3, 0, "ok", 0.1), row("slam", 3, 1, "ok", 0.2)])])
    assert tunings(worse, SELECT)[0].best == pytest.approx(0.85)
    assert tunings(worse, SELECT, goal="minimise")[0].best == pytest.approx(0.15)


def test_best_is_what_the_choice_says_once_it_is_made() -> None:
    slam, kd = tunings(TABLE, SELECT, choices=[CHOICE])
    assert (slam.best, slam.chosen, slam.config) == (0.95, 1, {"method.temperature": 2.0})
    assert kd.chosen is None


def test_a_search_without_a_finished_configuration_has_no_best() -> None:
    (found,) = tunings(pd.DataFrame([row("slam", 0, 0, "failed")]), SELECT)
    assert (found.best, found.failed) == (None, 1)
    (found,) = tunings(pd.DataFrame([row("slam", 0, 0, "ok", 0.5)]), "validation.nll")
    assert found.best is None


def test_planned_cells_without_a_row_are_missing() -> None:
    planned = {
        "slam": [{"cell": f"slam/{n}/{b}", "number": n, "proposed_by": "random"} for n in range(4) for b in range(2)],
        "vanilla": [{"cell": "vanilla/0/0", "number": 0, "proposed_by": "default"}],
    }
    slam, vanilla = tunings(TABLE, SELECT, planned=planned)
    assert (slam.trials, slam.cells, slam.missing) == (4, 8, 2)
    assert (vanilla.arm, vanilla.trials, vanilla.missing, vanilla.device_seconds, vanilla.best) == ("vanilla", 1, 1, 0.0, None)


def spent(arm: str, trials: int, seconds: float) -> Tuning:
    return Tuning(arm, trials, {}, trials, trials, 0, 0, 0, float(trials), 1, seconds, None, None, {})


def test_equal_budgets_are_told_with_their_ratio() -> None:
    assert equality([spent("slam", 24, 400.0), spent("kd", 24, 320.0), spent("vanilla", 24, 330.0)]) == (
        "Each of 3 arms was tuned with 24 trials; device-seconds went from 320 (kd) to 400 (slam), a ratio of 1.25."
    )


def test_unequal_budgets_are_told_as_such() -> None:
    assert equality([spent("slam", 24, 1200.0), spent("kd", 1, 300.0)]) == (
        "Tuning was not equal: slam had 24 trials, kd had 1 trial; device-seconds went from 300 (kd) to 1,200 (slam), a ratio of 4.00."
    )


def test_equality_of_one_arm_of_none_and_of_unknown_cost() -> None:
    assert equality([]) == ""
    assert equality([spent("slam", 24, 400.0)]) == "Only slam was tuned: 24 trials, 400 device-seconds."
    assert equality([spent("slam", 2, 9.0), spent("kd", 2, 9.0)]) == "Each of 2 arms was tuned with 2 trials and 9.0 device-seconds."
    assert equality([spent("slam", 2, 0.0), spent("kd", 2, 1.0)]).endswith("device-seconds are not known for slam.")


def test_a_frame_has_a_row_per_arm_and_columns_even_without_any() -> None:
    assert budget.to_frame(tunings(TABLE, SELECT))["arm"].tolist() == ["slam", "kd"]
    assert "device_seconds" in budget.to_frame([])
