"""Learning curves: means and intervals by hand and by scipy, cells that are left out, and panels that are drawn."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import image
from scipy import stats

from orchestrator import report
from orchestrator.analysis.learning import Curve, learning
from orchestrator.analysis.wording import Unit
from orchestrator.figures import drawing
from orchestrator.figures.learning import hidden, parts
from orchestrator.figures.learning import learning as drawn
from orchestrator.sections.blocks import absences, named
from tests.test_report import kept, whole

METRIC = "validation.accuracy"
TOLD = {0: [0.5, 0.7, 0.8], 1: [0.4, 0.8, 0.9], 2: [0.6, 0.9, 0.7]}


def trials(rows: Sequence[tuple[str, int, str, int]]) -> pd.DataFrame:
    """(arm, block, status, attempt) of the confirm stage."""
    columns = ["arm", "block", "status", "attempt"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(stage="confirm", cell=[f"{arm}/{block}" for arm, block in zip(frame["arm"], frame["block"], strict=True)])


def reports(told: Mapping[tuple[str, int], Mapping[int, float]], steps: int = 40, metric: str = METRIC) -> pd.DataFrame:
    """(cell, attempt) to values by step."""
    rows = [
        (cell, attempt, step, step / steps, metric, value) for (cell, attempt), values in told.items() for step, value in values.items()
    ]
    return pd.DataFrame(rows, columns=["cell", "attempt", "step", "progress", "metric", "value"])


def slam() -> tuple[pd.DataFrame, pd.DataFrame]:
    told = {(f"slam/{block}", 1): dict(zip((10, 20, 40), values, strict=True)) for block, values in TOLD.items()}
    return trials([("slam", block, "ok", 1) for block in TOLD]), reports(told)


def test_a_point_is_the_mean_over_blocks_with_students_interval() -> None:
    (curve,) = learning(*slam(), METRIC, {"slam": [0, 1, 2]})
    assert (curve.progress, curve.n, curve.left_out) == ((0.25, 0.5, 1.0), (3, 3, 3), ())
    assert curve.mean == pytest.approx([0.5, 0.8, 0.8])
    for place in range(3):
        values = [TOLD[block][place] for block in TOLD]
        expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert [curve.low[place], curve.high[place]] == pytest.approx([expected.low, expected.high], abs=1e-12)
    # By hand: 0.8 -+ 4.302653 * 0.1 / sqrt(3).
    assert curve.low[1] == pytest.approx(0.8 - 4.302653 * 0.1 / np.sqrt(3), abs=1e-6)
    assert [curve.at(share) for share in (0.1, 0.25, 0.6, 1.0)] == [None, 0, 1, 2]


def test_cells_that_did_not_finish_are_in_no_point_and_are_named() -> None:
    table, told = slam()
    table.loc[table["block"] == 1, "status"] = "diverged"
    (curve,) = learning(table, told, METRIC, {"slam": [0, 1, 2, 3], "kd": [0, 1]})
    assert curve.left_out == ((1, "diverged"), (3, "missing"))
    assert curve.n == (2, 2, 2)
    assert curve.mean == pytest.approx([0.55, 0.8, 0.75])


def test_a_single_block_has_no_interval_and_other_metrics_and_stages_do_not_count() -> None:
    table, told = slam()
    table.loc[table["block"] > 0, "stage"] = "search"
    other = pd.concat([told, reports({("slam/0", 1): {10: 9.0}}, metric="test.accuracy")])
    (curve,) = learning(table, other, METRIC, {"slam": [0]})
    assert curve.mean == (0.5, 0.7, 0.8)
    assert curve.low == curve.high == (None, None, None)


def test_an_attempt_that_went_on_from_a_checkpoint_keeps_what_was_told_before_it() -> None:
    told = reports({("slam/0", 1): {10: 0.1, 20: 0.2, 30: 0.0}, ("slam/0", 2): {30: 0.3, 40: 0.4}})
    (curve,) = learning(trials([("slam", 0, "failed", 1), ("slam", 0, "ok", 2)]), told, METRIC, {"slam": [0]})
    assert curve.mean == (0.1, 0.2, 0.3, 0.4)


def test_values_that_are_no_numbers_are_in_no_mean() -> None:
    told = reports({("slam/0", 1): {20: float("nan"), 40: 0.4}, ("slam/1", 1): {20: 0.2, 40: 0.6}})
    (curve,) = learning(trials([("slam", 0, "ok", 1), ("slam", 1, "ok", 1)]), told, METRIC, {"slam": [0, 1]})
    assert curve.n == (1, 2)
    assert curve.mean == pytest.approx([0.2, 0.5])


def test_blocks_in_words() -> None:
    assert named([(2, "missing"), (3, "missing"), (4, "missing"), (0, "diverged")]) == "block 0 diverged, blocks 2 to 4 missing"
    assert named([(1, "missing"), (2, "missing"), (5, "missing"), (7, "failed")]) == "blocks 1, 2 and 5 missing, block 7 failed"
    assert named([(6, "missing"), (7, "missing")]) == "blocks 6 and 7 missing"
    assert absences({"a": [(1, "failed")], "b": [], "c": [(1, "failed")]}) == [("a; c", "block 1 failed")]


def curve(arm: str, mean: Sequence[float], low: Sequence[float | None] | None = None, high: Sequence[float | None] | None = None) -> Curve:
    nothing = (None,) * len(mean)
    grid = tuple((place + 1) / len(mean) for place in range(len(mean)))
    return Curve(arm, METRIC, grid, (12,) * len(mean), tuple(mean), tuple(low or nothing), tuple(high or nothing), ())


def test_every_arm_has_a_panel_with_the_base_behind_it() -> None:
    base, bands = "kd", ([0.1, 0.5, 0.7, 0.8], [0.3, 0.7, 0.9, 1.0])
    curves = [curve(base, (0.2, 0.6, 0.8, 0.9), *bands), *(curve(f"arm-{place}", (0.1, 0.6, 0.7, 0.8), *bands) for place in range(30))]
    figures = [drawn(curves, base, Unit(100.0, 1), part) for part in range(len(parts(curves, base)))]
    panels = [axes for figure in figures for axes in figure.axes]
    assert [axes.texts[0].get_text() for axes in panels] == [f"arm-{place}" for place in range(30)]
    assert [len(figure.axes) for figure in figures] == [15, 15]
    assert len({axes.get_ylim() for axes in panels}) == 1
    assert all(figure.get_figheight() < 8.5 for figure in figures), "a figure fits on a page"
    for axes in panels:
        behind, own = axes.lines
        assert list(own.get_ydata()) == pytest.approx([10.0, 60.0, 70.0, 80.0])
        assert (behind.get_linestyle(), list(behind.get_ydata())) == ("--", pytest.approx([20.0, 60.0, 80.0, 90.0]))
        assert len(axes.collections) == 2
        assert axes.get_ylim()[0] > 20.0, "the steep start does not press the rest flat"
    assert hidden(curves, Unit(100.0, 1))
    pixels = image.imread(io.BytesIO(drawing.png(figures[0])))
    assert pixels.shape[1] == pytest.approx(drawing.WIDTH * 200, abs=1)


def test_a_band_breaks_where_there_is_no_interval() -> None:
    figure = drawn([curve("slam", (0.5, 0.6, 0.7), (0.4, None, 0.6), (0.6, None, 0.8))], None, Unit())
    (band,) = figure.axes[0].collections
    assert not any(0.4 < x < 0.9 for path in band.get_paths() for x in path.vertices[:, 0])
    assert not hidden([curve("slam", (0.5, 0.6))], Unit())


def test_the_report_shows_curves_with_their_n_and_says_that_bands_are_pointwise(tmp_path: Path) -> None:
    scores: dict[str, list[float | str | None]] = {"slam": [0.9, 0.8, 0.7], "kd": [0.8, "diverged", 0.9]}
    events = whole(scores)
    for event in events:
        if event["event"] == "row" and event["cell"] in ("slam/0", "slam/1", "slam/2", "kd/0", "kd/1", "kd/2"):
            block = int(event["cell"][-1])
            told = zip((10, 20, 40), TOLD[block], strict=True)
            event["reports"] = [{"step": step, "progress": step / 40, "metrics": {METRIC: value}} for step, value in told]
    paths = report.write(kept(tmp_path, events))
    text = Path(paths["md"]).read_text(encoding="utf-8")
    assert "## Learning curves: accuracy (%)" in text
    # 4.302653 * 10 / sqrt(3) = 24.8; at three quarters the last evaluation is that at one half.
    assert "| slam | 3 | 50.0 ± 24.8 | 80.0 ± 24.8 | 80.0 ± 24.8 | 80.0 ± 24.8 |" in text
    assert "| kd | 2 | 55.0 ± 63.5 |" in text
    assert "Not in the curve of kd: block 1 diverged." in text
    assert "Intervals are pointwise" in text
    assert Path(paths["learning.png"]).read_bytes().startswith(b"\x89PNG")
    found = json.loads(Path(paths["json"]).read_text(encoding="utf-8"))["learning"]
    assert [(each["arm"], each["n"]) for each in found] == [("slam", [3, 3, 3]), ("kd", [2, 2, 2])]
