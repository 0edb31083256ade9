"""Reports: from synthetic journals, whose numbers are known, to Markdown, HTML, JSON and the terminal."""

from __future__ import annotations

import html as html_of
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from orchestrator import report
from orchestrator.analysis.facts import StudyFacts
from orchestrator.analysis.frames import Frames, frames_of
from orchestrator.errors import StorageError
from orchestrator.events import Event
from orchestrator.journal import Journal
from orchestrator.sections import sections

TIME = "2026-03-01T10:00:00.000000+00:00"
TEXT = """\
study: margins
question: Does the lower bound of SLaM matter?
run:
  lanes: 4
"""
SEARCHED = ("slam", "vanilla")
METRICS = ["validation.accuracy", "test.accuracy", "test.teacher_accuracy", "parameters.student", "parameters.method"]


def launched(**other: Any) -> Event:
    event = {"event": "study", "time": TIME, "study": "margins", "fingerprint": "f00d", "text": TEXT, "seed": 3}
    event |= {"question": "Does the lower bound of SLaM matter?", "base": "slam", "mode": "generations", "schema_version": 1}
    event |= {"metric": {"select": "validation.accuracy", "report": "test.accuracy", "goal": "maximise"}}
    event |= {
        "versions": {"kdsweep": "0.1.0", "torch": "2.13.0"},
        "code_commit": "c0ffee",
        "lock_hash": "10c4",
        "space_fingerprint": "5face",
    }
    return event | {"parameters": [{"name": "recipe.epochs", "column": "int64"}], "metrics": METRICS} | other


def planned(cell: str, stage: str, arm: str, block: int, **other: Any) -> Event:
    offset = {"search": 100, "confirm": 200, "teacher": 300}[stage]
    seeds = {source: 1000 * place + offset + block for place, source in enumerate(("split", "teacher", "init", "order"))}
    config = {"data.source": "digits", "teacher.model.family": "cnn", "model.family": "mlp", "recipe.epochs": 12, "method.name": arm}
    event = {"event": "cell", "time": TIME, "cell": cell, "attempt": 1, "stage": stage, "arm": arm, "method": arm, "block": block}
    event |= {"seeds": seeds, "generation": None, "number": None, "proposed_by": "design", "needs": [], "config": config}
    return event | other


def came(cell: str, status: str = "ok", metrics: Mapping[str, float] | None = None, **other: Any) -> Event:
    event = {
        "event": "row",
        "time": TIME,
        "cell": cell,
        "attempt": 1,
        "status": status,
        "progress": 1.0,
        "steps": 40,
        "metrics": metrics or {},
    }
    event |= {"reports": [], "seconds": 2.0, "device_seconds": 2.0, "message": "", "trace": ""}
    return event | {"where": {"host": "lane-host", "pid": "7", "device": "cpu", "workers": "1"}} | other


def searched(arm: str, trials: int = 4) -> Iterator[Event]:
    for number in range(trials):
        cell = f"{arm}/search/{number}"
        yield planned(cell, "search", arm, 0, number=number, generation=0, proposed_by="random" if number < 2 else "tpe")
        if number == 3:
            yield came(cell, "stopped", {"validation.accuracy": 0.5}, progress=0.25, steps=10)
        else:
            yield came(cell, "ok", {"validation.accuracy": 0.8 + number / 100})
    skipped = [["slam, hard_weight=0", "the tuned slam already has hard_weight off"]] if arm == "slam" else []
    yield {
        "event": "choice",
        "time": TIME,
        "arm": arm,
        "number": 2,
        "score": 0.82,
        "config": {"recipe.learning_rate": 0.0312345},
        "skipped": skipped,
    }


def confirmed(scores: Mapping[str, Sequence[float | str | None]]) -> Iterator[Event]:
    """A number is a score, a word a failing status, None a cell that has not come back."""
    for block in range(len(next(iter(scores.values())))):
        for arm in scores:
            yield planned(f"{arm}/{block}", "confirm", arm, block)
        for arm, values in scores.items():
            value = values[block]
            if isinstance(value, str):
                yield came(f"{arm}/{block}", value, message="loss is nan\nat step 3")
            elif value is not None:
                yield came(f"{arm}/{block}", "ok", {"test.accuracy": value, "test.teacher_accuracy": 0.95 + block / 1000})


def drawn(blocks: int = 12) -> dict[str, list[float | str | None]]:
    rng = np.random.default_rng(8)
    level = 0.9 + 0.01 * rng.standard_normal(blocks)
    shifts = {"slam": 0.0, "slam, lower_bound=0": -0.021, "slam, mixing=normalised": -0.001, "kd": -0.006, "vanilla": 0.008}
    return {arm: (level + shift + 0.005 * rng.standard_normal(blocks)).tolist() for arm, shift in shifts.items()}


def whole(scores: Mapping[str, Sequence[float | str | None]] | None = None, ended: str | None = "complete", **study: Any) -> list[Event]:
    events = [launched(**study), planned("teacher/0", "teacher", "teacher", 0, method=None), came("teacher/0")]
    for arm in SEARCHED:
        events += searched(arm)
    events += confirmed(drawn() if scores is None else scores)
    return events if ended is None else [*events, {"event": "end", "time": TIME, "status": ended, "counts": {}}]


def kept(folder: Path, events: Sequence[Event]) -> Path:
    Journal(folder).append(events)
    return folder


def test_the_three_forms_give_the_numbers_that_scipy_gives(tmp_path: Path) -> None:
    scores = drawn()
    paths = report.write(kept(tmp_path, whole(scores)))
    text, page, content = (Path(paths[form]).read_text(encoding="utf-8") for form in ("md", "html", "json"))
    found = {each["arm"]: each for each in json.loads(content)["comparisons"]}
    assert list(found) == [arm for arm in scores if arm != "slam"]
    cells = [re.sub(r"<[^>]+>", " ", html_of.unescape(row)) for row in re.findall(r"<tr>.*?</tr>", page)]
    for arm, each in found.items():
        differences = np.array(scores[arm]) - np.array(scores["slam"])
        interval = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
        exact = stats.permutation_test((differences,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
        assert [each["difference"], each["t_low"], each["t_high"], each["p"]] == pytest.approx([differences.mean(), *interval, exact])
        shown = f"{100 * differences.mean():+.1f}".replace("-", "−")
        limits = f"{100 * interval.low:.1f} to {100 * interval.high:.1f}".replace("-", "−")
        row = f"| {arm} | 12 of 12 | {shown} | {limits} |"
        assert row in text
        assert any(arm in cell and shown in cell and limits in cell for cell in cells)
    mean, sd = np.mean(scores["slam"]), np.std(scores["slam"], ddof=1)
    assert f"| slam | 12 | 0 | 0 | {100 * mean:.1f} | {100 * sd:.1f} |" in text
    arms = {each["arm"]: each for each in json.loads(content)["arms"]}
    assert [arms["slam"]["mean"], arms["slam"]["sd"]] == pytest.approx([mean, sd])


def test_the_base_comes_first_wherever_it_stands_in_the_plan(tmp_path: Path) -> None:
    scores = drawn(6)
    found = report.frames(kept(tmp_path, whole({"kd": scores["kd"], "slam": scores["slam"]})))
    assert [each.arm for each in found.summaries] == ["slam", "kd"]
    assert list(found.scores.columns) == ["slam", "kd"]


def test_claims_are_the_same_sentences_in_every_form(tmp_path: Path) -> None:
    paths = report.write(kept(tmp_path, whole()))
    claims = report.frames(tmp_path).claims
    assert len(claims) == 4
    assert claims[0].startswith("slam, lower_bound=0: accuracy falls by ")
    assert claims[0].endswith(": the lower bound matters here.")
    assert claims[3].startswith("vanilla is better than slam by ")
    text, page = (Path(paths[form]).read_text(encoding="utf-8") for form in ("md", "html"))
    for claim in claims:
        assert f"- {claim}" in text
        assert f"<li>{html_of.escape(claim, quote=False)}</li>" in page.replace("\u00a0", " ")
    assert [each["sentence"] for each in json.loads(Path(paths["json"]).read_text(encoding="utf-8"))["comparisons"]] == list(claims)


def test_tuning_failures_teachers_and_limits_are_told(tmp_path: Path) -> None:
    scores = drawn()
    scores["kd"][4] = "diverged"
    text = report.markdown(report.frames(kept(tmp_path, whole(scores))))
    # Two searched arms of four cells of 2 device-seconds each.
    assert "Each of 2 arms was tuned with 4 trials and 8.0 device-seconds." in text
    assert "| slam | 2 random, 2 tpe | 4 | 4 | 3 | 1 | 0 | 0 | 3.2 | 8.0 | 0.8200 |" in text
    assert "| slam | 2 | recipe.learning_rate=0.03123 |" in text
    assert "| slam, hard_weight=0 | the tuned slam already has hard_weight off |" in text
    assert "| confirm | kd | 4 | kd/4 | 1 | diverged | loss is nan |" in text
    assert "| kd | 11 | 1 | 0 |" in text
    assert "kd: block 4 diverged." in text
    wins = sum(a > b for place, (a, b) in enumerate(zip(drawn()["kd"], drawn()["slam"], strict=True)) if place != 4)
    counted = f"P(better) is {wins / 11:.2f} without, and {wins / 12:.2f} where cells that failed lose."
    assert f"Left out: block 4 (kd: diverged); {counted}" in text
    # 0.950 to 0.961 over twelve blocks.
    assert "Teachers: mean test accuracy 95.5 %, from 95.0 % to 96.1 %, over 12 of 12 blocks." in text
    for limit in ("One data set: digits.", "One teacher family: cnn.", "One student family: mlp.", "One length of training: 12 epochs."):
        assert limit in text
    assert "Not tuned, but run as declared: kd." in text
    assert "Variants of slam keep its tuned values" in text
    assert "| lanes | 4 |" in text
    assert "Complete: 69 of 69 planned cells are in, 1 of them failed." in text
    assert "| confirm | 60 | 59 | 0 | 1 | 0 | 120 |" in text
    assert text.rstrip().endswith(f"```yaml\n{TEXT.rstrip()}\n```")


def test_an_unfinished_study_says_what_is_missing(tmp_path: Path) -> None:
    scores = drawn(8)
    scores["vanilla"][6:] = [None, None]
    paths = report.write(kept(tmp_path, whole(scores, ended="interrupted")))
    text = Path(paths["md"]).read_text(encoding="utf-8")
    assert "Unfinished: 47 of 49 planned cells are in, 0 of them failed." in text
    assert "47 of 49 cells planned so far are in" in text
    assert "vanilla: blocks 6 and 7 missing." in text
    assert "Interim, 6 of 8 blocks: " in text
    assert not json.loads(Path(paths["json"]).read_text(encoding="utf-8"))["is_complete"]


def test_a_launch_that_never_said_it_ended_is_unfinished(tmp_path: Path) -> None:
    assert report.frames(kept(tmp_path / "a", whole(ended="complete"))).is_complete
    assert not report.frames(kept(tmp_path / "b", whole(ended=None))).is_complete
    assert not report.frames(kept(tmp_path / "c", [*whole(ended="complete"), launched()])).is_complete


def test_a_study_that_has_only_begun_is_reported(tmp_path: Path) -> None:
    events = [launched(), *(event for arm in SEARCHED for event in searched(arm) if event["event"] == "cell")]
    paths = report.write(kept(tmp_path, events))
    assert sorted(paths) == ["html", "json", "md", "tex"]
    text = Path(paths["md"]).read_text(encoding="utf-8")
    assert "0 of 8 cells planned so far are in" in text
    assert "The confirm stage has not begun: nothing is compared yet." in text


def test_a_study_without_a_confirm_stage_reports_tuning_alone(tmp_path: Path) -> None:
    events = [
        launched(base=None),
        *searched("slam"),
        *searched("vanilla"),
        {"event": "end", "time": TIME, "status": "complete", "counts": {}},
    ]
    paths = report.write(kept(tmp_path, events))
    text = Path(paths["md"]).read_text(encoding="utf-8")
    assert "No arms were compared: this study has no confirm stage." in text
    assert "## Tuning" in text
    assert "Differences to" not in text
    assert printed(report.frames(tmp_path)).startswith("margins: tuning")


def test_a_folder_without_a_study_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no results of a study"):
        report.frames(tmp_path)
    with pytest.raises(StorageError, match="was launched"):
        StudyFacts((), ())


@pytest.mark.parametrize(("stage", "cell"), [("search", "slam/search/0"), ("teacher", "teacher/0")])
def test_a_test_score_outside_the_confirm_stage_is_refused(tmp_path: Path, stage: str, cell: str) -> None:
    events = [
        event | {"metrics": {"test.accuracy": 0.9}} if event.get("cell") == cell and event["event"] == "row" else event for event in whole()
    ]
    with pytest.raises(StorageError, match=f"cell={cell} of stage={stage}"):
        report.frames(kept(tmp_path, events))


def test_arms_that_do_not_share_their_blocks_are_told(tmp_path: Path) -> None:
    events = whole()
    torn = next(event for event in events if event["event"] == "cell" and event["cell"] == "kd/3")
    torn["seeds"] = torn["seeds"] | {"order": 1}
    assert "Comparisons are not paired: arms have different seeds in block 3." in report.frames(kept(tmp_path / "a", events)).notices
    torn["seeds"] = torn["seeds"] | {"order": 3203, "split": 100}  # the split of the tuning block
    assert any("Tuning has seen data splits that are reported" in notice for notice in report.frames(kept(tmp_path / "b", events)).notices)


def test_variants_that_vanished_from_the_plan_are_told(tmp_path: Path) -> None:
    def notices(folder: str, left_out: str) -> tuple[str, ...]:
        # Four others are planned, and a choice names one as skipped.
        return report.frames(
            kept(tmp_path / folder, whole(text=f"confirm: {{leave_one_out: [{left_out}], against: [kd, vanilla]}}"))
        ).notices

    assert notices("all", "a, b, c") == ()
    assert notices("fewer", "a, b, c, d")[0].startswith("1 of the variants and rivals asked for are not in the plan")


def test_launches_under_other_versions_are_told(tmp_path: Path) -> None:
    events = [launched(versions={"torch": "2.12.0"}), *whole()]
    assert any("Launches differed in versions" in notice for notice in report.frames(kept(tmp_path, events)).notices)


class Outline(HTMLParser):
    """What a page would load or run, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)
        for name, value in attrs:
            is_within = name in ("href", "xlink:href") and (value or "").startswith("#")
            if name.startswith("on") or (name in ("src", "href", "xlink:href", "data", "action", "srcset") and not is_within):
                self.loads.append(f"{tag} {name}={value}")
            if "url(" in (value or "") and "url(#" not in (value or ""):
                self.loads.append(f"{tag} {name}={value}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(page: str) -> Outline:
    found = Outline()
    found.feed(page)
    found.close()
    assert found.open == []
    return found


def pictures(frames: Frames) -> list[str]:
    return [picture.name for section in sections(frames) for picture in section.pictures]


def test_the_page_loads_and_runs_nothing(tmp_path: Path) -> None:
    frames = report.frames(kept(tmp_path, whole()))
    page = report.html(frames)
    found = outline(page)
    assert found.loads == []
    assert not {"script", "link", "iframe", "object", "embed", "img"} & set(found.tags)
    assert found.tags.count("svg") == len(pictures(frames)) > 0
    assert "@import" not in page
    assert "url(http" not in page


def test_the_page_lists_its_sections_and_each_entry_leads_to_one(tmp_path: Path) -> None:
    frames = report.frames(kept(tmp_path, whole()))
    page = report.html(frames)
    entries = re.findall(r'<a href="#(s\d+)">(.*?)</a>', page)
    headings = re.findall(r'<section id="(s\d+)"[^>]*>\s*<h2>(.*?)</h2>', page)
    assert entries == headings
    assert [html_of.unescape(title) for _, title in entries] == [section.title for section in sections(frames)]


HOSTILE = "<script>alert(1)</script> $x_1$ a|b [red] *c* `d`"


def test_names_and_messages_cannot_inject_anything(tmp_path: Path) -> None:
    scores = {HOSTILE if arm == "kd" else arm: values for arm, values in drawn(6).items()}
    scores[HOSTILE][2] = "failed"
    events = whole(scores, study=HOSTILE, question=HOSTILE, text=f"study: '{HOSTILE}' # ```")
    for event in events:
        event |= {"message": HOSTILE} if event["event"] == "row" else {}
    found = report.frames(kept(tmp_path, events))
    page, text = report.html(found), report.markdown(found)
    assert "script" not in outline(page).tags
    assert html_of.escape("<script>alert(1)</script>") in page
    body, _, code = text.partition("````yaml\n")
    assert "<script>" not in body
    assert "\\|b \\[red\\] \\*c\\*" in body
    assert code.rstrip().endswith("# ```\n````")
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("| ") and "script" in line]
    assert set(cells) <= {len(columns) + 1 for columns in ([0] * n for n in range(2, 14))}
    assert printed(found).count("[red]") == 2  # in the title and in its row
    assert HOSTILE in "".join(ElementTree.parse(report.write(tmp_path)["effects.svg"]).getroot().itertext())


def test_the_same_journal_gives_the_same_files(tmp_path: Path) -> None:
    first = {what: Path(path).read_bytes() for what, path in report.write(kept(tmp_path, whole())).items()}
    second = {what: Path(path).read_bytes() for what, path in report.write(tmp_path).items()}
    assert first == second
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    drawings = {f"figures/{name}.{kind}" for name in pictures(report.frames(tmp_path)) for kind in ("png", "svg")}
    assert "figures/effects.svg" in drawings
    tables = {".lock", "reports.parquet", "studies.parquet", "trials.parquet"}  # which were missing, and are made again
    assert there == {"journal.jsonl", "report.html", "report.json", "report.md", "report.tex"} | tables | drawings


def test_reports_go_to_an_object_store() -> None:
    place = "memory://reports/margins"
    Journal(place).append(whole())  # type: ignore[arg-type]
    paths = report.write(place)
    assert paths["effects.svg"] == "memory://reports/margins/figures/effects.svg"
    assert len(report.frames(place).comparisons) == 4


def test_the_figure_is_an_image_with_every_arm_and_a_dot_per_block(tmp_path: Path) -> None:
    paths = report.write(kept(tmp_path, whole()))
    root = ElementTree.parse(paths["effects.svg"]).getroot()
    words = "".join(root.itertext())
    for arm in list(drawn())[1:]:
        assert arm in words
    assert "difference in accuracy to slam, points" in words
    assert "← worse" in words
    uses = root.iter("{http://www.w3.org/2000/svg}use")
    # Twelve faint dots and one mean for each of four arms; the rest are ticks.
    assert sum(float(element.get("y", "0")) < 190.0 for element in uses) == 4 * 13
    assert Path(paths["effects.png"]).read_bytes().startswith(b"\x89PNG")


def test_where_less_is_better_worse_is_on_the_right(tmp_path: Path) -> None:
    metric = {"select": "validation.accuracy", "report": "test.accuracy", "goal": "minimise"}
    words = "".join(ElementTree.parse(report.write(kept(tmp_path, whole(metric=metric)))["effects.svg"]).getroot().itertext())
    assert "← better" in words
    assert "worse →" in words


def test_an_arm_without_scores_is_drawn_and_told_as_such(tmp_path: Path) -> None:
    scores = drawn(8)
    scores["kd"] = ["failed"] * 8
    paths = report.write(kept(tmp_path, whole(scores)))
    assert "no pair of scores" in Path(paths["effects.svg"]).read_text(encoding="utf-8")
    text = Path(paths["md"]).read_text(encoding="utf-8")
    assert "kd: nothing can be said, since no block has a score for both it and slam." in text
    assert "| kd | 0 of 8 | – | – | – | – | – | – | 0.00 | – | – |" in text


def test_arms_are_ranked_block_by_block(tmp_path: Path) -> None:
    scores = {"slam": [0.90, 0.91, 0.92, 0.90], "kd": [0.90, 0.89, 0.93, 0.80], "vanilla": [0.80, "diverged", 0.94, 0.85]}
    events = whole(scores)
    for event in events:
        if event["event"] == "row" and event["cell"].startswith("kd/"):
            event["metrics"] |= {"parameters.student": 2000.0, "parameters.method": 500.0}
    content = report.write(kept(tmp_path, events))
    found = json.loads(Path(content["json"]).read_text(encoding="utf-8"))["ranking"]
    # By block: (1.5, 1.5, 3), (1, 2, failed: 3), (3, 2, 1), (1, 3, 2).
    assert [(each["arm"], each["rank"]) for each in found["places"]] == [("slam", 1.625), ("kd", 2.125), ("vanilla", 2.25)]
    assert found["blocks"] == [0, 1, 2, 3]
    first, second, third = found["places"]
    # Student's: 2.125 -+ 3.18245 * 0.629153 / 2; for slam 1.625 -+ 1.506, cut at the first place and the last.
    assert [second["rank_low"], second["rank_high"]] == pytest.approx([1.12388, 3.0], abs=1e-5)
    assert [first["rank_low"], first["rank_high"]] == [1.0, 3.0]
    assert (second["student"], second["extra"], first["extra"]) == (2000, 500, None)
    assert third["mean"] == pytest.approx((0.80 + 0.94 + 0.85) / 3)
    assert first["seconds"] == 2.0
    # Without the tie 12 / (4 * 3 * 4) * (6.5^2 + 8.5^2 + 9^2) - 3 * 4 * 4 = 0.875; with it divided by 1 - 6 / (4 * 24).
    assert found["p"] == pytest.approx(stats.chi2.sf(0.875 / (1 - 6 / 96), 2))
    text = Path(content["md"]).read_text(encoding="utf-8")
    assert "| kd | 2.1 |" in text
    assert "| 2.00 | 2,000 | 500 (25 %) |" in text
    assert "Ranks among 3 arms, 1 the best, over the 4 blocks in which all of them came to an end" in text


def test_blocks_that_are_not_complete_are_not_ranked(tmp_path: Path) -> None:
    scores: dict[str, list[float | str | None]] = {"slam": [0.9, 0.8, 0.7], "kd": [0.8, 0.7, 0.9], "vanilla": [0.7, 0.9, None]}
    found = report.frames(kept(tmp_path / "a", whole(scores, ended=None))).ranking
    assert found is not None
    assert found.blocks == (0, 1)
    assert [(each.arm, each.rank) for each in found.places] == [("slam", 1.5), ("vanilla", 2.0), ("kd", 2.5)]
    none: dict[str, list[float | str | None]] = {"slam": [0.9], "kd": [0.8], "vanilla": [None]}
    assert report.frames(kept(tmp_path / "b", whole(none, ended=None))).ranking is None
    two: dict[str, list[float | str | None]] = {"slam": [0.9], "kd": [0.8]}
    assert report.frames(kept(tmp_path / "c", whole(two))).ranking is None


def test_ranks_follow_the_goal(tmp_path: Path) -> None:
    scores: dict[str, list[float | str | None]] = {"slam": [0.9, 0.8], "kd": [0.8, 0.7], "vanilla": ["diverged", 0.9]}
    metric = {"select": "validation.accuracy", "report": "test.accuracy", "goal": "minimise"}
    found = report.frames(kept(tmp_path, whole(scores, metric=metric))).ranking
    assert found is not None
    assert [(each.arm, each.rank) for each in found.places] == [("kd", 1.0), ("slam", 2.0), ("vanilla", 3.0)]


def designed(base: str, *rivals: str) -> Event:
    """Three blocks."""
    pairs = [{"arm": arm, "against": base, "kind": "rival"} for arm in rivals]
    arms = [{"arm": arm, "kinds": ["base" if arm == base else "rival"], "cell": f"{arm}/0"} for arm in (base, *rivals)]
    design = {"event": "design", "time": TIME, "hash": "ab" * 32, "blocks": 3, "base": base, "arms": arms, "comparisons": pairs}
    return design | {"factorial": None, "skipped": [], "late": False}


def test_a_design_without_its_cells_is_a_plan_of_which_all_is_missing(tmp_path: Path) -> None:
    scores: dict[str, list[float | str | None]] = {"slam": [0.9], "kd": [0.8]}
    events = whole(scores, ended=None)
    first = next(place for place, event in enumerate(events) if event.get("stage") == "confirm")
    # Torn off after the design, and then after one arm's cells.
    for place, kept_rows in ((first, 0), (first + 1, 0)):
        folder = tmp_path / str(place)
        found = report.frames(kept(folder, [*events[:first], designed("slam", "kd"), *events[first:place]]))
        assert [(each.arm, each.n, each.planned) for each in found.comparisons] == [("kd", kept_rows, 3)]
        assert "| kd | 0 of 3 |" in Path(report.write(folder)["md"]).read_text(encoding="utf-8")


def test_claims_rest_on_the_fixed_design_and_blocks_added_later_stand_apart(tmp_path: Path) -> None:
    scores: dict[str, list[float | str | None]] = {
        "slam": [0.9, 0.8, 0.85, 0.6],
        "kd": [0.8, 0.75, 0.8, 0.9],
        "vanilla": [0.7, 0.7, 0.9, 0.5],
    }
    *events, end = whole(scores)
    first = next(place for place, event in enumerate(events) if event.get("stage") == "confirm")
    events.insert(first, designed("slam", "kd", "vanilla"))
    extension = {
        "event": "extension",
        "time": TIME,
        "name": "extension 1",
        "before": 3,
        "blocks": 4,
        "hash": "cd" * 32,
        "design": "ab" * 32,
    }
    paths = report.write(kept(tmp_path, [*events, extension, end]))
    found = json.loads(Path(paths["json"]).read_text(encoding="utf-8"))
    assert [(each["arm"], each["n"], each["planned"]) for each in found["comparisons"]] == [("kd", 3, 3), ("vanilla", 3, 3)]
    assert [each["difference"] for each in found["comparisons"]] == pytest.approx([-0.2 / 3, -0.25 / 3])
    assert [len(each["blocks"]) for each in found["extended"]] == [4, 4]
    assert [each["difference"] for each in found["extended"]] == pytest.approx([0.025, -0.35 / 4])
    text = Path(paths["md"]).read_text(encoding="utf-8")
    assert "- extension 1: blocks 3 to 3, added to the 3 before them." in text
    row = next(line for line in text.splitlines() if line.startswith("| kd | slam | 3 of 3 |"))
    assert "−6.7 (" in row
    assert "| 4 of 4 | +2.5 (" in row
    # Two of eight patterns reach the sum of three differences of one sign; of four, the largest alone outweighs them.
    assert "| .25 | 4 of 4 |" in row


def test_the_longer_side_of_the_table_by_block_goes_down_the_page(tmp_path: Path) -> None:
    few: dict[str, list[float | str | None]] = {"slam": [0.9, 0.8], "kd": [0.8, 0.7], "vanilla": [0.7, 0.9]}
    text = report.markdown(report.frames(kept(tmp_path, whole(few))))
    assert "| block | 0 | 1 |" in text
    assert "| vanilla | 70.0 | 90.0 |" in text
    assert "| teacher's accuracy (%) | 95.0 | 95.1 |" in text


def printed(frames: Frames) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(report.effect_table(frames))
    return console.file.getvalue()


def test_the_terminal_table_has_a_row_per_comparison(tmp_path: Path) -> None:
    scores = {"slam": [0.90, 0.91, 0.92, 0.93, 0.90, 0.91, 0.92, 0.93], "kd": [0.88, 0.90, 0.89, 0.91, 0.88, 0.90, 0.89, 0.91]}
    shown = printed(report.frames(kept(tmp_path, whole(scores))))
    assert shown.startswith("margins: accuracy, difference to slam in points")
    row = next(line for line in shown.splitlines() if "kd" in line)
    # Mean -2, half-width 2.36462 * sqrt(4 / 7 / 8) = 0.632, p = 2 / 2^8.
    assert re.split(r"\s\s+", row.strip()) == ["kd", "8/8", "−2.0", "−2.6 to −1.4", ".008", ".008"]
    assert "Complete: 25 of 25 planned cells are in" in shown


def test_frames_are_a_function_of_facts_and_table(tmp_path: Path) -> None:
    from orchestrator.record import record_of
    from orchestrator.table import trials_frame

    events = whole()
    record = record_of(events)
    trials = trials_frame(record).to_pandas()
    before = trials.copy(deep=True)
    facts = report.facts_of(events, record)
    assert frames_of(facts, trials).comparisons == frames_of(facts, trials.sample(frac=1.0, random_state=1)).comparisons
    assert trials.equals(before)
