"""Published numbers: their three forms agree, names are known, and ours are joined to those of the same setting alone."""

from __future__ import annotations

import csv
from dataclasses import fields, replace
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks import published as builder
from orchestrator import report
from orchestrator.analysis.effects import ArmSummary
from orchestrator.analysis.frames import SMOKE, frames_of
from orchestrator.citations import paper_of
from orchestrator.errors import StudyError
from orchestrator.published import COLUMNS, PAPERS, SOURCE, SURE, Number, Published, held, numbers, of_setting, share_of
from orchestrator.reading import study_of
from orchestrator.record import record_of
from orchestrator.sections.published import beside_published
from orchestrator.table import trials_frame
from search_spaces import tunables
from trainables import folder
from trainables.distiller import Distiller

BUDGETS = {"longer training", "extra views", "own teacher", "own schedule", "tuned per pair"}


# The three forms


def test_the_parquet_is_made_of_the_source() -> None:
    assert pq.read_table(builder.TABLE).equals(builder.table(numbers())), "run python -m benchmarks.published"


def test_the_page_is_made_of_the_source() -> None:
    assert builder.PAGE.read_text(encoding="utf-8") == builder.page(numbers()), "run python -m benchmarks.published"


def test_the_parquet_has_what_the_source_says_to_the_letter() -> None:
    with SOURCE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(builder.TABLE).to_pylist()
    assert len(rows) == len(table) > 300
    for row, other in zip(rows, table, strict=True):
        for name, text in row.items():
            got = other[name]
            if isinstance(got, float | int):
                assert float(text) == got
            else:
                assert text == (got or "")


def test_every_number_is_on_the_page_under_who_reports_it() -> None:
    page = builder.PAGE.read_text(encoding="utf-8")
    of_paper = {section.partition("\n")[0]: section for section in page.split("\n## ")[1:]}
    assert set(of_paper) == {each.paper for each in numbers()}
    for each in numbers():
        if each.value is not None:
            assert f"{each.value:g}" in of_paper[each.paper]


# What the rows say


def test_rows_say_only_what_they_can() -> None:
    assert tuple(field.name for field in fields(Number)) == COLUMNS
    for each in numbers():
        assert each.paper in PAPERS
        assert each.sure in SURE
        assert (each.value is None) == (each.sure == "not found"), each
        assert each.read_from
        assert each.spread is None or each.value is not None
        assert {part.strip() for part in (each.budget or "").split(";") if part.strip()} <= BUDGETS, each.budget
        assert each.unit in ("%", "")


def test_a_recalled_number_says_so_and_is_never_called_read() -> None:
    recalled = [each for each in numbers() if "recalled" in each.read_from]
    assert len(recalled) == 6
    assert all(each.sure == "memory" and "checked" in (each.note or "") for each in recalled)


def test_papers_have_citations_and_methods_are_ours_with_such_fields() -> None:
    for method in PAPERS.values():
        assert not method or paper_of(method) is not None
    for each in numbers():
        if each.method is not None:
            kind: type[Any] = folder.load("trainables.methods", each.method, Distiller)  # type: ignore[type-abstract]
            known = {field.name for field in tunables(kind)}
            for pair in (each.fields or "").split(";"):
                assert not pair or pair.partition("=")[0] in known, each


def test_no_row_stands_twice() -> None:
    keys = [tuple(getattr(each, name) for name in COLUMNS if name not in ("value", "spread", "note", "n")) for each in numbers()]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("teacher", "student", "label", "value"),
    [
        ("ResNet-32x4", "ResNet-8x4", "KD", 73.33),
        ("ResNet-50", "MobileNetV2", "FitNet", 63.16),
        ("ResNet-32x4", "ShuffleNetV2", "SSKD", 78.61),
        ("WRN-40-2", "WRN-16-2", "DKD", 76.24),
        ("ResNet-56", "ResNet-20", "Student", 69.06),
    ],
)
def test_some_cells_of_the_table_of_pairs(teacher: str, student: str, label: str, value: float) -> None:
    found = [each for each in numbers() if (each.dataset, each.teacher, each.student, each.label) == ("cifar100", teacher, student, label)]
    assert [each.value for each in found] == [value]


def test_a_cell_of_the_tables_of_temperatures() -> None:
    found = [
        each.value
        for each in numbers()
        if (each.dataset, each.student, each.temperature, each.smoothing, each.metric)
        == ("cub200", "ResNet-18", 64.0, 0.1, "top-1 accuracy")
    ]
    assert found == [67.161]


# The join


def summary(arm: str, mean: float, ok: int = 3, sd: float | None = 0.01) -> ArmSummary:
    made = ArmSummary(arm, "test.accuracy", ok, ok, 0, 0, (), (), *[None] * 5, 1.0)
    return replace(made, ok=ok, mean=mean, sd=sd)


PAIR = Published("peng2024", "Table 1", "ResNet-32x4", "ResNet-8x4")


def config(method: str, **more: Any) -> dict[str, Any]:
    return {"data.source": "cifar100", "method.name": method, "teacher.recipe.smoothing": 0.0} | more


def test_an_arm_meets_the_numbers_of_its_method_in_its_setting() -> None:
    configs = {
        "kd": config("kd"),
        "crd": config("crd", **{"method.soft_weight": 0.0}),
        "crd-kd": config("crd", **{"method.soft_weight": 1.0}),
    }
    found = held(PAIR, configs, [summary("kd", 0.74), summary("crd", 0.75), summary("crd-kd", 0.76)], [], "kd")
    got = {(each.arm, each.number.label): each.difference for each in found if each.number.label != "Teacher"}
    assert got == {("kd", "KD"): pytest.approx(0.67), ("crd", "CRD"): pytest.approx(-0.51), ("crd-kd", "CRD+KD"): pytest.approx(0.54)}
    assert {each.n for each in found if each.arm} == {3}
    assert all(each.sd == pytest.approx(1.0) for each in found if each.arm)


def test_the_arm_without_a_teacher_meets_the_student_and_is_no_kd() -> None:
    found = held(PAIR, {"labels": config("kd", **{"method.soft_weight": 0.0})}, [summary("labels", 0.725)], [], "labels")
    assert [(each.arm, each.number.label) for each in found] == [("labels", "Student"), (None, "Teacher")]
    assert found[0].difference == pytest.approx(0.0)


def test_the_teacher_is_the_mean_of_the_teachers_of_the_base() -> None:
    (found,) = held(PAIR, {"kd": config("vanilla")}, [summary("kd", 0.5)], [0.79, 0.80], "kd")
    assert (found.arm, found.number.value, found.n) == (None, 79.42, 2)
    assert found.mean == pytest.approx(79.5)
    assert found.sd == pytest.approx(2**0.5 / 2)


def test_temperatures_and_smoothing_must_agree() -> None:
    asked = Published("chandrasegaran2022", "CUB200-2011", "ResNet-50", "ResNet-18")
    made = {"data.source": "cub200", "method.name": "lskd", "method.temperature": 2.0, "teacher.recipe.smoothing": 0.1}
    found = held(asked, {"a": made}, [summary("a", 0.8)], [0.82], "a")
    assert [(each.arm, each.number.value) for each in found] == [("a", 80.428), (None, 82.068)]
    assert not held(asked, {"a": made | {"method.temperature": 5.0}}, [summary("a", 0.8)], [], None)


@pytest.mark.parametrize(("labelled", "share"), [(2500, 0.05), (0.05, 0.05), (1, 2e-5)])
def test_a_labelled_share_is_one_or_rows(labelled: float, share: float) -> None:
    assert share_of({"data.source": "cifar10", "data.labelled": labelled}) == pytest.approx(share)


def test_a_labelled_share_of_other_data_is_not_known() -> None:
    assert share_of({"data.source": "digits", "data.labelled": 40}) is None
    assert share_of({"data.source": "cifar10"}) is None


def test_numbers_of_another_labelled_share_are_not_joined() -> None:
    asked = Published("slam2023", "rebuttal, small labelled sets")
    made = {"data.source": "cifar10", "method.name": "vanilla", "data.labelled": 2500}
    assert [each.number.value for each in held(asked, {"v": made}, [summary("v", 0.55)], [], None)] == [54.2]
    assert not held(asked, {"v": made | {"data.labelled": 5000}}, [summary("v", 0.55)], [], None)


def test_the_table_that_is_asked_for_comes_first_and_no_other_pair_with_it() -> None:
    found = of_setting(PAIR, "cifar100")
    assert (found[0].paper, found[0].table) == ("peng2024", "Table 1")
    assert {each.teacher for each in found} == {"ResNet-32x4"}
    assert {each.student for each in found} == {"ResNet-8x4", None} or {each.student for each in found} == {"ResNet-8x4"}


# The key of a study


STUDY = """\
study: mini
data: {source: digits}
teacher: {model: {family: mlp}}
student: {model: {family: mlp}}
arms: {kd: {method: kd}, vanilla: {method: vanilla}}
confirm: {base: kd, against: [vanilla], blocks: 6}
"""


@pytest.mark.parametrize(
    ("published", "told"),
    [
        ("{paper: peng2023, table: Table 1}", "Did you mean peng2024?"),
        ("{paper: peng2024, table: Table1}", "Did you mean Table 1?"),
        ("{paper: peng2024, table: Table 1}", "needs a table about the study's data, digits, and not about cifar100"),
        ("{paper: peng2024}", "published.table: needs the name of one of its tables there, but got nothing."),
        ("{paper: peng2024, tables: 1}", "Did you mean table?"),
        ("1", "published: needs a map with the keys paper, table, teacher, student, but got 1."),
    ],
)
def test_a_wrong_table_is_a_fault_with_the_nearest_name(published: str, told: str) -> None:
    with pytest.raises(StudyError) as caught:
        study_of(f"{STUDY}published: {published}\n")
    assert told in str(caught.value)


def test_no_table_is_no_fault() -> None:
    assert study_of(STUDY).published is None
    assert study_of(f"{STUDY}published: null\n").published is None


# The section of the report


def reported(text: str, method: str = "lskd") -> str:
    """report.md of a journal of two arms over two blocks, with temperatures 1 and 3 and a smoothed teacher."""
    temperatures = {"low": 1.0, "high": 3.0}
    time = "2026-03-01T10:00:00.000000+00:00"
    metrics = ["validation.accuracy", "test.accuracy", "test.teacher_accuracy"]
    first = {"event": "study", "time": time, "study": "mini", "fingerprint": "f00d", "text": text, "seed": 0, "question": "", "base": "low"}
    first |= {
        "metric": {"select": "validation.accuracy", "report": "test.accuracy", "goal": "maximise"},
        "versions": {},
        "mode": "generations",
    }
    first |= {"code_commit": "c", "lock_hash": "l", "space_fingerprint": "s", "parameters": [], "metrics": metrics, "schema_version": 1}
    events: list[dict[str, Any]] = [first]
    for block in (0, 1):
        seeds = dict.fromkeys(("split", "teacher", "init", "order"), block)
        for arm, temperature in temperatures.items():
            found = {"data.source": "cub200", "method.name": method, "method.temperature": temperature, "teacher.recipe.smoothing": 0.1}
            cell = {"event": "cell", "time": time, "cell": f"{arm}{block}", "attempt": 1, "stage": "confirm", "arm": arm, "method": method}
            events.append(
                cell | {"block": block, "seeds": seeds, "generation": None, "number": None, "proposed_by": "design", "config": found}
            )
            score = {"test.accuracy": 0.80 + 0.01 * block, "test.teacher_accuracy": 0.82}
            row = {"event": "row", "time": time, "cell": f"{arm}{block}", "attempt": 1, "status": "ok", "progress": 1.0, "steps": 1}
            row |= {"metrics": score, "reports": [], "seconds": 1.0, "device_seconds": 1.0, "message": "", "trace": ""}
            events.append(row | {"where": {"host": "h", "pid": "1", "device": "cpu", "workers": "1"}})
    record = record_of(events)
    found_facts = report.facts_of(events, record)
    return report.markdown(frames_of(found_facts, trials_frame(record).to_pandas()))


NAMED = "study: mini\npublished: {paper: chandrasegaran2022, table: CUB200-2011, teacher: ResNet-50, student: ResNet-18}\n"


def test_the_report_has_theirs_beside_ours() -> None:
    text = reported(NAMED)
    section = text.partition("## Beside published numbers")[2].partition("\n## ")[0]
    # Ours is 80.5 on average of 80 and 81; theirs 80.946 and 78.196.
    assert "| low | T=1, smoothing 0.1 | 80.50 ± 0.71 | 2 | 80.95 | −0.45 | chandrasegaran2022, CUB200-2011 | read |" in section
    assert "| high | T=3, smoothing 0.1 | 80.50 ± 0.71 | 2 | 78.20 | +2.30 |" in section
    assert "| teacher | Teacher | 82.00 ± 0.00 | 2 | 82.07 | −0.07 |" in section
    assert "The difference is no test" in section


def test_a_study_that_names_no_table_has_none() -> None:
    assert "Beside published" not in reported("study: mini\n")


def test_a_smoke_run_is_held_against_nothing_and_says_so_first() -> None:
    text = reported(f"{NAMED}run: {{smoke: true}}\n")
    assert "Beside published" not in text
    lines = [line for line in text.splitlines() if line and not line.startswith("# ")]
    assert lines[0] == f"**{SMOKE}**"
    assert "Smoke run, unfinished" in text


def test_budgets_are_marked_and_what_could_not_be_read_is_named() -> None:
    found = held(PAIR, {"a": config("mld"), "b": config("ipwd")}, [summary("a", 0.77), summary("b", 0.7)], [], None)
    section = beside_published(found)
    assert section is not None
    (row,) = section.tables[0].rows
    assert row[:2] == ("a", "MLD")
    assert row[4] == "77.08†‡"
    assert "† longer training: not under the budget of the others." in section.notes
    assert any(
        note.startswith("No number could be read of IPWD (niu2022, CIFAR-100 pairs: no table could be read") for note in section.notes
    )
