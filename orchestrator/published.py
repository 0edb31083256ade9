"""Published numbers: what papers and their repositories report, one row each, and which of them a study can be held against.

The rows stand in ``published.csv`` beside this file, with where each was read and how sure it is; ``docs/published.md`` and
``docs/published.parquet`` are made of it by ``python -m benchmarks.published``. A row without a value says that there is a
number which could not be read. Nothing here is imported by what trains.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.events import CONFIRM

if TYPE_CHECKING:
    from orchestrator.analysis.effects import ArmSummary
    from orchestrator.analysis.facts import StudyFacts

SOURCE = Path(__file__).with_name("published.csv")
ACCURACY = "top-1 accuracy"
"""What they call ``test.accuracy``, in percent."""
SURE: Mapping[str, str] = {
    "read": "read in the place named",
    "secondary": "from a second hand, or two that agree",
    "weak": "from one weak source",
    "memory": "recalled, not read: to be checked before it is used",
    "not found": "no value: looked for, and not found",
}
"""How sure a number can be, and what that means."""
PAPERS: Mapping[str, str] = {
    "slam2023": "slam",
    "borup2021": "selfdistillation",
    "chandrasegaran2022": "lskd",
    "peng2024": "auxvar",
    "hinton2015": "kd",
    "tian2020": "crd",
    "chen2021wcord": "wcord",
    "chen2021review": "reviewkd",
    "zhao2022": "dkd",
    "huang2022": "dist",
    "yang2021srrl": "srrl",
    "liu2023": "norm",
    "fu2023": "cocord",
    "jin2023": "mld",
    "yang2023nkd": "nkd",
    "huang2023": "diffkd",
    "zhou2021": "wsld",
    "niu2022": "ipwd",
    "xu2020": "sskd",
    "kim2021": "pskd",
    "yuan2020": "tfkd_self",
    "torchdistill": "",
}
"""Key of a paper to a method of it, whose file has the citation; empty for what is no paper."""
ROWS: Mapping[str, int] = {"cifar10": 50_000, "cifar100": 50_000, "celeba": 162_770, "imagenet": 1_281_167, "imdb": 25_000}
"""Training rows of data sets whose labelled part is published as a share of them."""
_TEACHER, _WITHOUT = "Teacher", "Student"
WITHOUT_TEACHER = "labels"
"""Name of the arm that is the student without a teacher."""
_LIKE = 0.05
"""How far apart, relatively, two labelled shares may be and still count as one."""


@dataclass(frozen=True)
class Number:
    """One published number with its setting. None where it does not apply or is not stated."""

    paper: str
    """Key of who reports it."""
    table: str
    """As the paper or repository calls it, or in words."""
    dataset: str
    """Name of our source, where there is one."""
    teacher: str | None
    student: str | None
    label: str
    """Of the row, as printed."""
    method: str | None
    """Our name."""
    fields: str | None
    """Fields of the method that tell variants apart, as in ``soft_weight=0.0``."""
    labelled: float | None
    """Share of the training rows that have labels."""
    temperature: float | None
    smoothing: float | None
    """Of the teacher's labels."""
    metric: str
    value: float | None
    spread: float | None
    """As printed behind ±; of what, papers seldom say."""
    n: int | None
    """Trainings behind it, where that is stated."""
    unit: str
    budget: str | None
    """What it had beyond the common budget: longer training, extra views, own teacher, own schedule, tuned per pair."""
    read_from: str
    sure: str
    note: str | None


COLUMNS = tuple(field.name for field in fields(Number))
_FLOATS = ("labelled", "temperature", "smoothing", "value", "spread")
_TEXTS = ("paper", "table", "dataset", "label", "metric", "unit", "read_from", "sure")


@functools.cache
def numbers() -> tuple[Number, ...]:
    """All of them, in the order of the file."""
    with SOURCE.open(encoding="utf-8", newline="") as file:
        return tuple(map(_number, csv.DictReader(file)))


def _number(row: Mapping[str, str]) -> Number:
    read: dict[str, Any] = {name: text if name in _TEXTS else (text or None) for name, text in row.items()}
    read |= {name: float(row[name]) if row[name] else None for name in _FLOATS}
    return Number(**{**read, "n": int(row["n"]) if row["n"] else None})


@dataclass(frozen=True)
class Published:
    """The published table that a study is to be held against, and whose rows of it: those of one teacher and one student."""

    paper: str
    table: str
    teacher: str | None = None
    student: str | None = None


@dataclass(frozen=True)
class Held:
    """A published number beside what a study measured in the same setting."""

    number: Number
    arm: str | None
    """Ours; None for the study's teacher."""
    mean: float | None
    """In the unit of the number; None where nothing is finished."""
    sd: float | None
    n: int
    difference: float | None
    """Ours minus theirs. It is no test: neither their blocks nor their spread are known."""


def of_setting(asked: Published, dataset: str) -> tuple[Number, ...]:
    """Numbers of a data set, teacher and student, whoever reports them; those of the table that is asked for come first.

    A number without a student belongs to a teacher alone, and to every student of it.
    """
    found = [
        each
        for each in numbers()
        if each.dataset == dataset
        and each.teacher == asked.teacher
        and (each.student == asked.student or (each.student is None and each.label == _TEACHER))
    ]
    return tuple(sorted(found, key=lambda each: (each.paper, each.table) != (asked.paper, asked.table)))


def beside(facts: StudyFacts, summaries: Sequence[ArmSummary], teachers: Sequence[float]) -> tuple[Held, ...]:
    """As ``held``, of a study's facts; nothing of a study that names no table, reports something else, or was a smoke run."""
    if facts.published is None or facts.is_smoke or facts.metric["report"] != "test.accuracy":
        return ()
    configs = {str(each["arm"]): each["config"] for each in facts.cells if each["stage"] == CONFIRM}
    return held(facts.published, configs, summaries, teachers, facts.base)


def held(
    asked: Published, configs: Mapping[str, Mapping[str, Any]], summaries: Sequence[ArmSummary], teachers: Sequence[float], base: str | None
) -> tuple[Held, ...]:
    """Every published number of the study's setting that one of its arms, or its teacher, can be held against.

    Args:
        asked: what the study names.
        configs: arm to the configuration of one of its cells.
        summaries: of the arms, by test accuracy in [0, 1].
        teachers: test accuracies in [0, 1] of the base's teachers.
        base: the arm whose teachers these are.
    """
    found: list[Held] = []
    by_arm = {each.arm: each for each in summaries}
    for arm, config in configs.items():
        if arm not in by_arm:
            continue
        ours = by_arm[arm]
        for each in of_setting(asked, str(config.get("data.source"))):
            if each.metric == ACCURACY and _is_of(each, arm, config):
                found.append(_held(each, arm, ours.mean, ours.sd, ours.ok))
    if base is not None and base in configs:
        mean = math.fsum(teachers) / len(teachers) if teachers else None
        sd = _sd(teachers)
        for each in of_setting(asked, str(configs[base].get("data.source"))):
            if each.metric == ACCURACY and each.label == _TEACHER and _fits(each, configs[base]):
                found.append(_held(each, None, mean, sd, len(teachers)))
    return tuple(found)


def _sd(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _held(each: Number, arm: str | None, mean: float | None, sd: float | None, n: int) -> Held:
    percent = None if mean is None else 100.0 * mean
    difference = None if percent is None or each.value is None else percent - each.value
    return Held(each, arm, percent, None if sd is None else 100.0 * sd, n, difference)


def _is_of(each: Number, arm: str, config: Mapping[str, Any]) -> bool:
    if each.label == _WITHOUT:
        return arm == WITHOUT_TEACHER
    return each.method is not None and arm != WITHOUT_TEACHER and config.get("method.name") == each.method and _fits(each, config)


def _fits(each: Number, config: Mapping[str, Any]) -> bool:
    """Whether a configuration has the settings that the number states."""
    stated = {"method.temperature": each.temperature if each.method else None, "teacher.recipe.smoothing": each.smoothing}
    for pair in (each.fields or "").split(";"):
        name, equals, value = pair.partition("=")
        if equals:
            stated[f"method.{name.strip()}"] = float(value)
    if any(value is not None and not _is_near(config.get(name), value) for name, value in stated.items()):
        return False
    return each.labelled is None or _is_near(share_of(config), each.labelled, _LIKE)


def _is_near(got: Any, value: float, tolerance: float = 1e-9) -> bool:
    return isinstance(got, int | float) and math.isclose(got, value, rel_tol=tolerance, abs_tol=1e-12)


def share_of(config: Mapping[str, Any]) -> float | None:
    """Labelled share of the training rows in a configuration, which states it as such or as a number of rows; None where nothing tells."""
    labelled, whole = config.get("data.labelled"), ROWS.get(str(config.get("data.source")))
    if not isinstance(labelled, int | float):
        return None
    if isinstance(labelled, float) and labelled <= 1.0:
        return labelled
    return None if whole is None else labelled / whole


def papers_of(found: Iterable[Number]) -> tuple[str, ...]:
    """Keys of who reports them, each once."""
    return tuple(dict.fromkeys(each.paper for each in found))
