"""Two studies side by side: what differs, what can be paired, and what is not compared at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from orchestrator import compare, report
from orchestrator.__main__ import app
from orchestrator.compare import Versus, versus
from tests.test_report import kept, whole

Scores = Mapping[str, Sequence[float | str | None]]
A: Scores = {"slam": [0.90, 0.91, 0.92, 0.93], "kd": [0.88, 0.90, 0.89, 0.91]}
B: Scores = {"slam": [0.91, 0.93, 0.92, 0.96], "kd": [0.90, 0.90, 0.90, 0.92], "vanilla": [0.8, 0.8, 0.8, 0.81]}


def study(folder: Path, scores: Scores, config: Mapping[str, Any] | None = None, shift: int = 0, **launch: Any) -> Path:
    """A study of the report's tests, with settings of its cells changed and seeds of its confirm blocks shifted."""
    events = whole(scores, **launch)
    for event in events:
        if event["event"] == "cell":
            event["config"] = {**event["config"], **(config or {})}
            if event["stage"] == "confirm":
                event["seeds"] = {source: seed + shift for source, seed in event["seeds"].items()}
    return kept(folder, events)


def both(a: Path, b: Path) -> Versus:
    return compare.read((a, b), (report.frames(a), report.frames(b)))


def test_blocks_with_the_same_seeds_are_paired(tmp_path: Path) -> None:
    found = both(study(tmp_path / "a", A), study(tmp_path / "b", B, fingerprint="beef"))
    assert [each.arm for each in found.shared] == ["slam", "kd"]
    assert (found.only_a, found.only_b, found.shared_blocks) == ((), ("vanilla",), 4)
    slam, kd = found.shared
    for each, arm in ((slam, "slam"), (kd, "kd")):
        differences = np.array(B[arm]) - np.array(A[arm])
        tested = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
        exact = stats.permutation_test((differences,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
        assert (each.is_paired, each.pairs) == (True, 4)
        assert [each.difference, each.low, each.high, each.p] == pytest.approx([differences.mean(), *tested, exact])
    # Holm of .25 and .25: both doubled.
    assert [slam.p_holm, kd.p_holm] == pytest.approx([0.5, 0.5])
    text = compare.markdown(found)
    assert "4 blocks of the two plans have all four seeds in common: differences are paired over them." in text
    # 1, 2, 0 and 3 points: 1.5 -+ 3.18245 * 1.290994 / 2 = 2.054.
    assert "| slam | 4 of 4 | 91.5 ± 1.3 | 4 of 4 | 93.0 ± 2.2 | +1.5 | −0.6 to 3.6 | 4 pairs | .25 | .50 |" in text
    assert "It is no claim." in text


def test_other_seeds_are_unpaired_by_welch_and_said_so(tmp_path: Path) -> None:
    found = both(study(tmp_path / "a", A), study(tmp_path / "b", B, shift=7, fingerprint="beef"))
    slam = found.shared[0]
    tested = stats.ttest_ind(B["slam"], A["slam"], equal_var=False)
    interval = tested.confidence_interval(0.95)
    assert (slam.is_paired, slam.pairs) == (False, 0)
    assert [slam.difference, slam.low, slam.high, slam.p] == pytest.approx([0.015, interval.low, interval.high, tested.pvalue])
    text = compare.markdown(found)
    assert "Differences are unpaired: no block of one has the seeds of a block of the other." in text
    assert "| unpaired |" in text


def test_seeds_alone_do_not_pair_where_data_differ(tmp_path: Path) -> None:
    found = both(study(tmp_path / "a", A), study(tmp_path / "b", B, {"data.labelled": 7}, fingerprint="beef"))
    assert [(each.is_paired, each.difference is None) for each in found.shared] == [(False, False), (False, False)]
    assert "Differences are unpaired: their data differ." in compare.markdown(found)


def test_a_block_that_failed_in_one_is_no_pair(tmp_path: Path) -> None:
    short = {**A, "kd": [0.88, "diverged", 0.89, None]}
    found = both(study(tmp_path / "a", short), study(tmp_path / "b", B, fingerprint="beef"))
    kd = found.shared[1]
    assert kd.pairs == 2
    assert kd.difference == pytest.approx((0.02 + 0.01) / 2)
    text = compare.markdown(found)
    assert "| kd | 2 of 4 |" in text
    assert "kd: 1 failed and 1 missing in A." in text


@pytest.mark.parametrize(
    ("launch", "config", "why"),
    [
        (
            {"metric": {"select": "validation.accuracy", "report": "test.teacher_accuracy", "goal": "maximise"}},
            {},
            "they report different metrics: test.accuracy, to maximise, and test.teacher_accuracy, to maximise",
        ),
        ({}, {"data.source": "cifar"}, "they are of different data: digits and cifar"),
    ],
)
def test_what_measures_different_things_is_not_subtracted(
    tmp_path: Path, launch: Mapping[str, Any], config: Mapping[str, Any], why: str
) -> None:
    found = both(study(tmp_path / "a", A), study(tmp_path / "b", B, config, fingerprint="beef", **launch))
    assert [each.difference for each in found.shared] == [None, None]
    text = compare.markdown(found)
    assert f"Scores are not compared: {why}." in text
    assert "B − A" not in text


def test_what_was_asked_and_how_it_was_run_is_listed(tmp_path: Path) -> None:
    text = "study: other\nquestion: Why?\nsearch:\n  trials: 12\nrun:\n  lanes: 8\n"
    versions = {"kdsweep": "0.1.0", "torch": "2.14.0"}
    b = study(tmp_path / "b", B, text=text, versions=versions, seed=4, fingerprint="beef", study="other", machine={"cores": 8})
    found = both(study(tmp_path / "a", A), b)
    assert [(each.name, each.a, each.b) for each in found.asked] == [
        ("question", "Does the lower bound of SLaM matter?", "Why?"),
        ("search.trials", None, 12),
    ]
    ran = {each.name: (each.a, each.b) for each in found.ran}
    assert ran["version of torch"] == ("2.13.0", "2.14.0")
    assert ran["seed of the study"] == (3, 4)
    assert ran["lanes"] == (4, 8)
    assert ran["machine.cores"] == (None, 8)
    assert "version of kdsweep" not in ran
    shown = compare.markdown(found)
    assert "# margins (A) and other (B)" in shown
    assert "| search.trials | – | 12 |" in shown
    assert "| version of torch | 2.13.0 | 2.14.0 |" in shown


def test_studies_without_a_common_arm_are_compared_in_what_they_asked(tmp_path: Path) -> None:
    texts = ["arms:\n  slam: {method: slam, targets: hard}\n  x: {method: kd}\n", "arms:\n  slam: {method: slam}\n  y: {method: kd}\n"]
    a, b = (study(tmp_path / arm, {arm: [0.9, 0.8]}, base=arm, text=text, fingerprint=arm) for arm, text in zip("xy", texts, strict=True))
    found = both(a, b)
    assert found.obstacle == "they have no arm in common"
    assert [(each.name, each.a, each.b) for each in found.asked] == [
        ("arms.slam.targets", "hard", None),
        ("arms.x", "declared", None),
        ("arms.y", None, "declared"),
    ]


def test_settings_of_an_arm_that_differ_are_named(tmp_path: Path) -> None:
    found = both(study(tmp_path / "a", A), study(tmp_path / "b", B, {"recipe.epochs": 24}, fingerprint="beef"))
    assert [(each.name, each.a, each.b) for each in found.shared[0].configured] == [("recipe.epochs", 12, 24)]
    assert "| slam | recipe.epochs | 12 | 24 |" in compare.markdown(found)


def test_effects_within_each_study_stand_side_by_side_only_for_one_base(tmp_path: Path) -> None:
    a = study(tmp_path / "a", A)
    text = compare.markdown(both(a, study(tmp_path / "b", B, fingerprint="beef")))
    assert "## Differences to slam in each study" in text
    # -2, -1, -3, -2: -2 -+ 3.18245 * 0.816497 / 2 = 1.299; -1, -3, -2, -4: -2.5 -+ 2.054.
    row = next(line for line in text.partition("in each study")[2].splitlines() if line.startswith("| kd |"))
    assert row == "| kd | −2.0 | −3.3 to −0.7 | 4 of 4 | .13 | −2.5 | −4.6 to −0.4 | 4 of 4 | .25 |"
    other = compare.markdown(both(a, study(tmp_path / "c", B, base="kd", fingerprint="beef")))
    assert "in each study" not in other


def test_one_study_run_twice_is_held_to_its_table(tmp_path: Path) -> None:
    a, b = study(tmp_path / "a", A), study(tmp_path / "b", A)
    assert both(a, b).table == ()
    assert "One study, run twice: the tables say the same in everything but times and places." in compare.markdown(both(a, b))
    other = both(a, study(tmp_path / "c", {**A, "kd": [0.88, 0.90, 0.89, 0.5]}))
    assert other.table is not None
    assert len(other.table) == 1
    assert "its tables differ in 1 place beside times." in compare.markdown(other)
    assert both(a, study(tmp_path / "d", A, fingerprint="beef")).table is None


def test_a_study_without_a_confirm_stage_is_compared_in_what_it_asked(tmp_path: Path) -> None:
    events = [event for event in whole(A, base=None) if event.get("stage") != "confirm" and "/" in str(event.get("cell", "/"))]
    tuned = [event for event in events if not str(event.get("cell", "")).startswith(("slam/0", "slam/1", "slam/2", "slam/3", "kd/"))]
    found = both(study(tmp_path / "a", A), kept(tmp_path / "b", tuned))
    assert found.obstacle == "one of the studies has no confirm stage yet"
    assert "Arms in both: none. Only in A: slam; kd. Only in B: none." in compare.markdown(found)


def test_the_command_prints_markdown_and_json(tmp_path: Path) -> None:
    a, b = study(tmp_path / "a", A), study(tmp_path / "b", B, fingerprint="beef")
    printed = CliRunner().invoke(app, ["compare", str(a), str(b)])
    assert printed.exit_code == 0, printed.output
    assert printed.output.startswith("# margins (A) and margins (B)\n")
    content = json.loads(CliRunner().invoke(app, ["compare", str(a), str(b), "--json"]).output)
    assert content["shared_blocks"] == 4
    assert content["arms"][0]["difference"] == pytest.approx(0.015)
    assert content["arms_only_in_b"] == ["vanilla"]
    assert versus(report.frames(a), report.frames(b)).table is None
