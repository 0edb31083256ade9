"""Profiles over data sets and teachers: against counting by hand, scipy, and the tables of the papers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from orchestrator.analysis.effects import ArmSummary
from orchestrator.analysis.profiles import Profiles, critical_difference, profiles
from orchestrator.analysis.wording import Unit
from orchestrator.sections.profiles import over_settings

NAN = math.nan


def config(method: str, source: str = "digits", teacher: str = "cnn", rate: float = 0.1) -> dict[str, object]:
    return {"method.name": method, "data.source": source, "teacher.model.family": teacher, "recipe.learning_rate": rate}


def made(
    scores: Mapping[str, Sequence[float]],
    configs: Mapping[str, Mapping[str, object]],
    goal: str = "maximise",
    missing: Mapping[str, Sequence[int]] | None = None,
) -> Profiles | None:
    arms = [
        ArmSummary(arm, "test.accuracy", len(values), 0, 0, 0, (), tuple((missing or {}).get(arm, ())), *[None] * 5, 1.0)
        for arm, values in scores.items()
    ]
    return profiles(pd.DataFrame(dict(scores)), configs, arms, goal)


SCORES = {"kd": [0.1, 0.2, 0.3, 0.4], "kd, mnist": [0.5, 0.6, 0.7, 0.8], "slam": [0.2, 0.2, 0.2, 0.9], "slam, mnist": [0.9, 0.9, 0.9, NAN]}
CONFIGS = {"kd": config("kd"), "kd, mnist": config("kd", "mnist"), "slam": config("slam"), "slam, mnist": config("slam", "mnist")}


def test_means_and_profiles_by_hand() -> None:
    found = made(SCORES, CONFIGS)
    assert found is not None
    kd, slam = found.profiles
    assert (found.settings, found.sources, found.blocks) == (("data.source=digits", "data.source=mnist"), ("digits", "mnist"), (4, 4))
    assert (kd.arms, slam.arms) == (("kd", "kd, mnist"), ("slam", "slam, mnist"))
    # Of eight scores the two lowest and the two highest are left out.
    assert kd.iqm == pytest.approx((0.3 + 0.4 + 0.5 + 0.6) / 4)
    assert kd.iqm == pytest.approx(stats.trim_mean([*SCORES["kd"], *SCORES["kd, mnist"]], 0.25))
    # The cell that failed is the lowest: with one 0.2 it is left out, as are two of the four 0.9.
    assert slam.iqm == pytest.approx((0.2 + 0.2 + 0.9 + 0.9) / 4)
    assert (kd.failed, slam.failed, slam.cells) == (0, 1, 8)
    profile = dict(zip(slam.at, slam.above, strict=True))
    assert (profile[0.1], profile[0.2], profile[0.8], profile[0.9]) == (7 / 8, 4 / 8, 4 / 8, 0.0)
    assert (kd.rank, found.critical, found.p) == (None, None, None)


def test_the_interval_is_of_resamples_within_settings() -> None:
    constant = {arm: [0.25 + 0.5 * ("mnist" in arm)] * 4 for arm in SCORES}
    found = made(constant, CONFIGS)
    assert found is not None
    # Without spread inside a setting every resample is the same, however far settings are apart.
    assert [(each.iqm_low, each.iqm, each.iqm_high) for each in found.profiles] == [(0.5, 0.5, 0.5)] * 2
    spread = made(SCORES, CONFIGS)
    assert spread is not None
    rng = np.random.default_rng(5)
    drawn = [stats.trim_mean(np.concatenate([rng.choice(SCORES["kd"], 4), rng.choice(SCORES["kd, mnist"], 4)]), 0.25) for _ in range(4000)]
    assert [spread.profiles[0].iqm_low, spread.profiles[0].iqm_high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.03)


def test_less_is_better_turns_profiles_around() -> None:
    found = made(SCORES, CONFIGS, "minimise")
    assert found is not None
    kd, slam = found.profiles
    profile = dict(zip(kd.at, kd.above, strict=True))
    assert (profile[0.9], profile[0.5], profile[0.1]) == (1.0, 4 / 8, 0.0)
    assert kd.iqm_low is not None
    assert kd.iqm is not None
    assert kd.iqm_high is not None
    assert kd.iqm_low < kd.iqm < kd.iqm_high
    # The one that failed is the worst, and is left out above instead of below: 0.2 0.2 0.2 0.9 0.9 0.9 0.9 failed.
    assert slam.iqm == pytest.approx((0.2 + 0.9 + 0.9 + 0.9) / 4)


def test_more_failures_than_a_quarter_leave_no_mean() -> None:
    found = made(SCORES | {"slam": [NAN, NAN, 0.2, 0.9]}, CONFIGS)
    assert found is not None
    assert found.profiles[1].iqm is None
    assert "slam: more than a quarter of its cells failed" in " ".join(over_settings(found, Unit(100.0, 1), "test.accuracy").notes)


def test_where_every_cell_failed_there_is_no_profile() -> None:
    assert made({arm: [NAN, NAN] for arm in SCORES}, CONFIGS) is None
    found = made({arm: [NAN, NAN] for arm in SCORES} | {"kd": [0.1, NAN]}, CONFIGS)
    assert found is not None
    assert over_settings(found, Unit(100.0, 1), "test.accuracy").pictures[0].draw() is not None


def test_blocks_still_to_come_are_left_out_for_all() -> None:
    found = made(SCORES, CONFIGS, missing={"slam, mnist": [3]})
    assert found is not None
    assert found.blocks == (4, 3)
    assert [each.cells for each in found.profiles] == [7, 7]
    assert found.profiles[1].failed == 0


def test_one_setting_or_one_treatment_is_no_profile() -> None:
    same = {arm: config(arm) for arm in ("kd", "slam")}
    assert made({"kd": [0.1], "slam": [0.2]}, same) is None
    alone = {"kd": config("kd"), "kd, mnist": config("kd", "mnist")}
    assert made({"kd": [0.1], "kd, mnist": [0.2]}, alone) is None
    torn = {arm: config(*arm.split(", ")) for arm in ("kd, digits", "slam, mnist", "slam, digits")}
    assert made({arm: [0.1] for arm in torn}, torn) is None


def test_treatments_that_were_tuned_apart_are_told_by_their_method() -> None:
    configs = {arm: {**each, "recipe.learning_rate": place} for place, (arm, each) in enumerate(CONFIGS.items())}
    found = made(SCORES, configs)
    assert found is not None
    assert [each.treatment for each in found.profiles] == ["kd", "slam"]


def test_variants_of_one_method_are_told_by_their_arms() -> None:
    configs = {
        f"slam{variant}{place}": {**config("slam", source), "method.lower_bound": float(not variant)}
        for variant in ("", ", lower_bound=0")
        for place, source in (("", "digits"), (" on mnist", "mnist"))
    }
    found = made({arm: [0.1, 0.2] for arm in configs}, configs)
    assert found is not None
    assert [each.treatment for each in found.profiles] == ["slam", "slam, lower_bound=0"]


def test_teachers_are_settings_but_no_data_sets() -> None:
    families = ("cnn", "mlp", "resnet", "vit", "lenet", "wide")
    configs = {f"{method}, {family}": config(method, teacher=family) for method in ("kd", "slam") for family in families}
    found = made({arm: [0.1 * place, 0.2] for place, arm in enumerate(configs)}, configs)
    assert found is not None
    assert (len(found.settings), found.sources, found.critical) == (6, ("digits",), None)


def test_six_data_sets_have_ranks_and_a_critical_difference() -> None:
    rng = np.random.default_rng(4)
    sources = [f"set {number}" for number in range(6)]
    configs = {f"{method}, {source}": config(method, source) for method in ("kd", "slam", "vanilla") for source in sources}
    scores = {arm: rng.uniform(size=3).tolist() for arm in configs}
    found = made(scores, configs)
    assert found is not None
    means = np.array([[np.mean(scores[f"{method}, {source}"]) for method in ("kd", "slam", "vanilla")] for source in sources])
    ranks = np.array([[1 + sum(other > mean for other in row) for mean in row] for row in means])
    assert [each.rank for each in found.profiles] == pytest.approx(ranks.mean(axis=0))
    assert found.p == pytest.approx(stats.friedmanchisquare(*ranks.T).pvalue)
    assert found.critical == pytest.approx(2.343 * math.sqrt(3 * 4 / (6 * 6)), abs=1e-3)


@pytest.mark.parametrize(
    ("treatments", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (10, 3.164)]
)
def test_critical_values_are_those_of_demsars_table(treatments: int, q: float) -> None:
    assert critical_difference(treatments, 14) == pytest.approx(q * math.sqrt(treatments * (treatments + 1) / (6 * 14)), abs=6e-4)


def test_the_section_says_what_it_rests_on() -> None:
    found = made(SCORES, CONFIGS)
    assert found is not None
    section = over_settings(found, Unit(100.0, 1), "test.accuracy")
    assert [row[0] for row in section.tables[0].rows] == ["kd", "slam"]
    words = " ".join((*section.paragraphs, *section.notes))
    assert "2 data sets: no critical difference of ranks, which takes 6" in words
    figure = section.pictures[0].draw()
    texts = {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}
    assert {"kd", "slam"} <= texts
    assert min(text.get_fontsize() for text in figure.findobj(lambda artist: hasattr(artist, "get_fontsize"))) >= 9
