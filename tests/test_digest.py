"""In short: few comparisons one by one, many by what was shown of each; references and how to reproduce."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from orchestrator import report
from orchestrator.analysis.effects import Comparison
from orchestrator.analysis.frames import Frames
from orchestrator.analysis.wording import Unit
from orchestrator.figures.effects import MANY, effects, is_sorted
from orchestrator.sections.digest import FEW, in_full, in_short
from tests.test_report import drawn, kept, whole


def comparison(arm: str, difference: float | None = 0.0, p_holm: float | None = 1.0, n: int = 12, **other: Any) -> Comparison:
    limits = {} if difference is None else {"t_low": difference - 0.01, "t_high": difference + 0.01}
    left_out = tuple((block, arm, "diverged") for block in range(n, 12))
    fixed = {"base": "kd", "metric": "test.accuracy", "goal": "maximise", "family": 11, "planned": 12}
    values = {"blocks": tuple(range(n)), "differences": (difference or 0.0,) * n, "left_out": left_out, "difference": difference}
    return Comparison(arm=arm, **{**fixed, **values, "p": p_holm, "p_holm": p_holm, **limits, **other})


def with_many(tmp_path: Path, found: tuple[Comparison, ...]) -> Frames:
    frames = report.frames(kept(tmp_path, whole()))
    return dataclasses.replace(frames, comparisons=found, claims=tuple(f"sentence of {each.arm}." for each in found))


MIXED = (
    comparison("up", 0.02, 0.01),
    comparison("down", -0.03, 0.02, n=11),
    comparison("further-down", -0.05, 0.02),
    *(comparison(f"open-{place}", place / 1000, 1.0) for place in range(7)),
    comparison("mute", None, None, n=0, t_low=None, t_high=None),
    comparison("once", 0.5, 1.0, n=1, t_low=None, t_high=None),
)


def test_few_comparisons_are_told_one_by_one(tmp_path: Path) -> None:
    frames = report.frames(kept(tmp_path, whole()))
    assert len(frames.claims) <= FEW
    assert in_short(frames).points == frames.claims
    assert in_full(frames) is None


def test_many_are_grouped_by_what_was_shown_and_every_one_is_named_once(tmp_path: Path) -> None:
    frames = with_many(tmp_path, MIXED)
    better, worse, rest, mute, where = in_short(frames).points
    unit = frames.unit
    assert (unit.factor, unit.decimals) == (100.0, 1)
    assert better == (
        "1 of 12 arms is better than kd in accuracy, shown after correction for 11 comparisons: "
        "up (+2.0 points, 95 % interval 1.0 to 3.0, n = 12, Holm p = .010)."
    )
    assert worse.startswith(
        "2 of 12 arms are worse than kd in accuracy, shown after correction for 11 comparisons: further-down (−5.0 points,"
    )
    assert worse.endswith("; down (−3.0 points, 95 % interval −4.0 to −2.0, n = 11, Holm p = .020).")
    assert rest == (
        "For 7 of 12 arms no difference to kd was shown, which is not equality: open-0; open-1; open-2; open-3; open-4; open-5; open-6. "
        "Their mean differences lie between 0.0 and +0.6 points, over 12 blocks; "
        "no 95 % interval reaches further from zero than 1.6 points (open-6)."
    )
    assert mute == "With fewer than two paired blocks nothing can be said of mute; once."
    assert where == "Each comparison has a sentence of its own further down."
    full = in_full(frames)
    assert full is not None
    assert full.points == frames.claims


def test_nothing_shown_is_said_and_so_is_that_it_could_not_be(tmp_path: Path) -> None:
    found = tuple(comparison(f"arm-{place}", 0.0, 1.0, n=5, left_out=((5, "kd", "missing"),)) for place in range(11))
    points = in_short(with_many(tmp_path, found)).points
    assert points[:2] == ("Interim: no arm was shown to be better than kd.", "Interim: no arm was shown to be worse than kd.")
    # 2 / 2^n < .05 / 11 from n = 9 on.
    assert points[2].endswith("with 5 blocks none could be shown: 11 comparisons need 9.")
    assert points[2].startswith("Interim: for 11 of 11 arms no difference to kd was shown")


def test_where_less_is_better_the_lower_arm_is_the_better_one(tmp_path: Path) -> None:
    found = tuple(comparison(f"arm-{place}", -0.02, 0.01, goal="minimise") for place in range(11))
    points = in_short(with_many(tmp_path, found)).points
    assert points[0].startswith("11 of 11 arms are better than kd")


def test_the_figure_of_many_arms_is_one_line_each_from_the_best_down() -> None:
    assert not is_sorted(MIXED[:MANY])
    assert is_sorted(MIXED)
    figure = effects(MIXED, Unit(100.0, 1))
    words = [text.get_text() for text in figure.axes[0].texts]
    names = [word for word in words if word in {each.arm for each in MIXED}]
    assert names == ["once", "up", "open-6", "open-5", "open-4", "open-3", "open-2", "open-1", "open-0", "down", "further-down", "mute"]
    assert "+2.0 [1.0, 3.0]" in words
    assert "no pair of scores" in words
    assert figure.get_figheight() < 5.0
    long = dataclasses.replace(MIXED[0], arm="a name that does not fit beside its interval")
    assert not is_sorted((*MIXED[1:], long))


def test_references_are_of_the_methods_in_the_plan_and_of_no_other(tmp_path: Path) -> None:
    text = report.markdown(report.frames(kept(tmp_path, whole(drawn(6)))))
    part = text.partition("## References of the methods used")[2].partition("\n## ")[0]
    assert "- kd, vanilla: Hinton, Vinyals and Dean: Distilling the Knowledge in a Neural Network." in part
    assert "https://arxiv.org/abs/1503.02531" in part
    assert "- slam: Kontonis, Iliopoulos, Trinh, Baykal, Menghani and Vee: SLaM: Student-Label Mixing" in part
    assert "NeurIPS 2023. https://arxiv.org/abs/2302.03806" in part
    assert part.count("https://") == 2
    assert "No paper is known here of slam, lower_bound=0, slam, mixing=normalised" in part


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ({"code_commit": "c0ffee+"}, "at commit c0ffee with changes that were not committed, so that the commit alone does not give it"),
        ({"code_commit": None}, "Code: kdsweep 0.1.0, installed without a checkout."),
        ({"mode": "async"}, "`kdsweep run study.yaml --async` with the study file below"),
        ({"mode": "async"}, "a second run proposes other configurations"),
        ({"machine": {"cores": 2, "processor": "x86_64", "system": "Linux"}}, "the driver's machine: 2 cores, x86_64, Linux."),
        ({}, "cores were not recorded"),
        ({}, "Packages: torch 2.13.0; hash of all packages 10c4."),
        ({}, "everything random follows from the study's seed, 3"),
        # 1 teacher, 8 search cells and 30 of the confirm stage, of 2 device-seconds each.
        ({}, "Cost: 78.0 device-seconds (teacher 2.0, search 16.0, confirm 60.0), attempts that failed among them."),
    ],
)
def test_how_to_reproduce_names_code_packages_seeds_hardware_and_cost(tmp_path: Path, study: dict[str, Any], said: str) -> None:
    text = report.markdown(report.frames(kept(tmp_path, whole(drawn(6), **study))))
    assert said in text.partition("## How to reproduce it")[2]
