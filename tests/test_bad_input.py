"""Bad input: generated study files, overrides, options, journals and orders. Whatever comes in, an answer comes out, never a trace.

10,000 inputs by default (some 45 s of one core), the same on every machine: ``KDSWEEP_INPUTS=100000`` draws more, and ``KDSWEEP_SEED=7`` others.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from orchestrator import report
from orchestrator.__main__ import app
from orchestrator.board import board
from orchestrator.errors import KdsweepError, StorageError, StudyError
from orchestrator.journal import Journal, record_of
from orchestrator.located import plain, read
from orchestrator.orders import Inbox
from orchestrator.reading import read_study, study_of
from orchestrator.standing import standing_of
from orchestrator.table import reports_frame, studies_frame, trials_frame
from tests.conftest import _TINY
from tests.mutations import Raw, as_yaml, journals, mutated, places, spelled, values

pytestmark = pytest.mark.slow

SHARES = {
    "studies": 1000,
    "texts": 3000,
    "bytes": 1000,
    "overrides": 1200,
    "options": 300,
    "journals": 2000,
    "orders": 1440,
    "reports": 20,
    "commands": 40,
}
"""Of 10,000: by what one costs, between a tenth of a millisecond and a second."""
_SCALE = int(os.environ.get("KDSWEEP_INPUTS", "10000")) / 10_000
_FAULT = re.compile(r"(?:f\.yaml(?::[0-9]+)?|--.*): (?:.*: )?.*\bneeds?\b.*")
TINY = plain(read(_TINY, "tiny")[0])  # type: ignore[arg-type] # it can be read
SMALL = {key: TINY[key] for key in ("study", "data", "teacher", "student", "arms")} | {
    "confirm": {"base": "slam", "against": ["vanilla"], "blocks": 2}
}  # type: ignore[index] # it is a map
"""What a refused study costs follows from what there is of it."""


def inputs(kind: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """As many generated inputs as the kind has a share of."""
    told = os.environ.get("KDSWEEP_SEED")

    def marked(test: Callable[..., None]) -> Callable[..., None]:
        health = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
        count = max(1, round(SHARES[kind] * _SCALE))
        settled = settings(max_examples=count, derandomize=told is None, deadline=None, database=None, suppress_health_check=health)
        return settled(test if told is None else seed(int(told))(test))

    return marked


def test_the_shares_are_of_ten_thousand() -> None:
    assert sum(SHARES.values()) == 10_000


def answered(text: str, overrides: list[str] | None = None, options: dict[str, Any] | None = None) -> bool:
    """Whether a study is valid; that it is refused line by line, each with place and need, or is one that can be told."""
    study, error = None, StudyError([])
    try:
        study = study_of(text, overrides or (), "f.yaml", options or {})
    except StudyError as found:
        error = found
    if study is None:
        assert error.faults
        for line in str(error).split("\n"):
            assert _FAULT.fullmatch(line), line
            assert line.isprintable()
            assert len(line) < 2000
        return False
    json.dumps(study.skeleton_json(), allow_nan=False)
    assert study_of(study.text).fingerprint == study.fingerprint
    return True


@inputs("studies")
@given(mutated(TINY) | mutated(SMALL) | mutated(SMALL, most=1))
def test_a_mutated_study_is_valid_or_refused_by_place_and_need(document: Any) -> None:
    answered(as_yaml(document))


@st.composite
def torn(draw: st.DrawFn) -> str:
    """The text of a study with a piece cut out, and something else in its place."""
    start = draw(st.integers(0, len(_TINY)))
    piece = draw(
        st.text(max_size=12)
        | st.sampled_from(("\t", "\r\n", "\ufeff", "\x00", "\x85", "\u2028", "%", "---\n", "...\n", "- ", ": ", "&a ", "*a ", "!!x "))
    )
    return _TINY[:start] + piece + _TINY[start + draw(st.sampled_from((0, 1, 5, 40, 400))) :]


@inputs("texts")
@given(
    st.text(max_size=60)
    | values.map(spelled)
    | st.text(alphabet="ab01.: \n\t-[]{},&*!|>%@`'\"\\#?=~_\r\ufeff\x00\x85é", max_size=80)
    | torn()
)
def test_any_text_is_a_study_or_refused_by_place_and_need(text: str) -> None:
    answered(text)


@inputs("bytes")
@given(
    st.binary(max_size=60)
    | st.sampled_from(["utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"]).map(
        lambda name: _TINY.replace("?", "ß").encode(name, "replace")
    )
    | torn().map(lambda text: text.replace("\n", "\r\n").encode("utf-8", "replace"))
)
def test_any_file_is_a_study_or_refused_by_place_and_need(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(data)
    faults: list[str] = []
    try:
        read_study(path)
    except StudyError as error:
        faults = error.faults
    assert all(line.startswith(str(path)) and "need" in line and line.isprintable() for line in faults)
    assert os.listdir(tmp_path) == ["f.yaml"]


PATHS = [".".join(str(key) for key in path) for path in places(TINY) if path]


@inputs("overrides")
@given(
    st.lists(
        st.text(max_size=30)
        | st.builds(
            lambda key, value: f"{key}={value}", st.sampled_from(PATHS) | st.text(max_size=8), values.map(spelled) | st.text(max_size=12)
        ),
        min_size=1,
        max_size=2,
    )
)
def test_any_override_is_taken_or_refused_by_place_and_need(overrides: list[str]) -> None:
    answered(as_yaml(SMALL), overrides)


@inputs("options")
@given(
    st.dictionaries(
        st.sampled_from(["lanes", "workers", "lane", "topology", "device", "wandb", "storage"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=10)
        | st.sampled_from(["chip", "slice", "2x2x1", "4x4", "cpu", "s3://u:p@b"]),
    )
)
def test_any_option_is_taken_or_refused_by_place_and_need(options: dict[str, Any]) -> None:
    answered(as_yaml(SMALL), options=options)


# Journals and orders

TIME = "2026-01-02T12:00:00.000000+00:00"
SEEDS = {"split": 1, "teacher": 2, "init": 3, "order": 4}
METRICS = ["validation.accuracy", "test.accuracy"]


def _cell(name: str, stage: str, arm: str, block: int, **other: Any) -> dict[str, Any]:
    facts = {"event": "cell", "time": TIME, "cell": name, "attempt": 1, "stage": stage, "arm": arm, "block": block, "seeds": SEEDS}
    facts |= {"method": None if stage == "teacher" else "slam", "generation": None, "number": None, "proposed_by": "design", "needs": []}
    return facts | {"config": {"recipe.epochs": 2, "model.family": "mlp", "recipe.learning_rate": 0.1}} | other


def _row(name: str, status: str, progress: float, **other: Any) -> dict[str, Any]:
    metrics = {"validation.accuracy": 0.5, "test.accuracy": 0.25} if name.startswith("c") else {"validation.accuracy": 0.5}
    facts = {
        "event": "row",
        "time": TIME,
        "cell": name,
        "attempt": 1,
        "status": status,
        "progress": progress,
        "steps": 4,
        "metrics": metrics,
    }
    facts |= {"reports": [{"step": 2, "progress": 0.5, "metrics": {"validation.accuracy": 0.25}}], "seconds": 1.5, "device_seconds": 1.5}
    return facts | {"message": "", "trace": "", "where": {"host": "h", "pid": "1", "device": "cpu", "workers": "1"}} | other


EVENTS: list[dict[str, Any]] = [
    {
        "event": "study", "time": TIME, "study": "tiny", "fingerprint": "f00d", "text": _TINY, "seed": 0, "question": "Why?", "base": "slam",
        "metric": {"select": "validation.accuracy", "report": "test.accuracy", "goal": "maximise"}, "versions": {"kdsweep": "0.1.0"},
        "code_commit": None, "lock_hash": "10c4", "schema_version": 1, "space_fingerprint": "5face", "metrics": METRICS, "mode": "generations",
        "parameters": [{"name": "recipe.epochs", "column": "int64"}, {"name": "model.family", "column": "string"}, {"name": "recipe.learning_rate", "column": "float64"}],
        "blocks": 2, "lanes": 1, "machine": {"cores": 2},
    },
    _cell("t0", "teacher", "teacher", 0),
    _row("t0", "ok", 1.0),
    _cell("s0", "search", "slam", 0, number=0, generation=0, proposed_by="random", point={"recipe.learning_rate": 0.1}),
    _row("s0", "running", 0.5),
    _row("s0", "ok", 1.0),
    {"event": "choice", "time": TIME, "arm": "slam", "number": 0, "score": 0.5, "config": {"recipe.learning_rate": 0.1}, "skipped": [["slam, x=0", "the same"]]},
    {
        "event": "design", "time": TIME, "hash": "ab" * 32, "blocks": 2, "base": "slam", "late": False, "factorial": None, "path": None,
        "arms": [{"arm": "slam", "kinds": ["base"], "cell": "c0"}, {"arm": "vanilla", "kinds": ["rival"], "cell": "c2"}],
        "comparisons": [{"arm": "vanilla", "against": "slam", "kind": "rival"}], "skipped": [],
        "proofs": [{"arm": "vanilla", "against": "slam", "differs": True, "reason": "weights"}],
    },
    *(_cell(f"c{2 * place + block}", "confirm", arm, block) for place, arm in enumerate(("slam", "vanilla")) for block in range(2)),
    *(_row(f"c{number}", "ok", 1.0) for number in range(3)),
    _row("c3", "failed", 0.5, message="ValueError: no", trace="Traceback"),
    {"event": "extension", "time": TIME, "name": "extension 1", "before": 2, "blocks": 3, "hash": "cd" * 32, "design": "ab" * 32},
    {"event": "order", "time": TIME, "order": "pause", "token": "0" * 32, "by": "me@here", "cells": []},
    {"event": "end", "time": TIME, "status": "complete", "counts": {"ok": 5, "failed": 1}},
]  # fmt: skip


def told(act: Callable[[], Any]) -> Any:
    """What it returns; None where it is refused in words that a user can act on."""
    try:
        return act()
    except StorageError as error:
        refused = str(error)
    assert "need" in refused or "holds" in refused, refused
    return None


def looked_at(folder: Path, data: bytes) -> Any:
    (folder / "journal.jsonl").write_bytes(data)
    events = told(Journal(folder).read)
    record = None if events is None else told(lambda: record_of(events))
    assert (folder / "journal.jsonl").read_bytes() == data
    return record


@inputs("journals")
@given(
    journals(EVENTS)
    | st.binary(max_size=80)
    | st.lists(values.map(spelled), max_size=3).map(lambda lines: "\n".join(lines).encode("utf-8", "replace"))
)
def test_any_journal_is_read_and_shown_or_refused(tmp_path: Path, data: bytes) -> None:
    record = looked_at(tmp_path, data)
    if record is None:
        return
    for frame in (trials_frame, reports_frame, studies_frame):
        told(lambda: frame(record))  # noqa: B023 # called at once
    standing = told(lambda: standing_of(str(tmp_path), Journal(tmp_path)))
    if standing is not None:
        json.dumps(standing.to_json())
        str(board(standing))


@inputs("reports")
@given(journals(EVENTS, most=1))
def test_any_journal_is_reported_or_refused(tmp_path: Path, data: bytes) -> None:
    if looked_at(tmp_path, data) is not None:
        frames = told(lambda: report.frames(tmp_path))
        if frames is not None:
            json.loads(report.to_json(frames))
            report.markdown(frames).encode()
            report.tables_in_latex(frames).encode()


ORDER = {"kind": "retry", "token": "0" * 32, "by": "me@here", "cells": ["0123456789abcdef"]}


@inputs("orders")
@given(st.binary(max_size=60) | mutated(ORDER).map(spelled).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_order_is_taken_or_thrown_away(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "orders").mkdir(exist_ok=True)
    (tmp_path / "orders" / f"20260102T120000.000000Z-{'0' * 32}.json").write_bytes(data)
    for order in Inbox(tmp_path).poll():
        assert order.kind in ("pause", "resume", "stop", "cancel", "retry")
        assert all(re.fullmatch("[A-Za-z0-9_-]+", cell) for cell in order.cells)


# The command itself


@inputs("commands")
@given(mutated(TINY, most=1), st.sampled_from(["validate", "plan", "run"]))
def test_a_refused_study_leaves_nothing_behind(tmp_path: Path, document: Any, verb: str) -> None:
    """Through the command line as users have it, results folder and working directory looked at afterwards."""
    study, storage = tmp_path / "f.yaml", tmp_path / "results"
    study.write_bytes(as_yaml(document).encode("utf-8", "surrogatepass"))
    storage.mkdir(exist_ok=True)
    try:
        read_study(study)
        verb = "validate"  # a valid one would be trained
    except KdsweepError:
        pass
    done = CliRunner().invoke(
        app, [verb, str(study), *([] if verb == "validate" else ["--storage", str(storage)]), *(["--in-process"] if verb == "run" else [])]
    )
    assert isinstance(done.exception, KdsweepError | SystemExit | None), done.exception
    assert list(storage.iterdir()) == []
    assert sorted(os.listdir(tmp_path)) == ["f.yaml", "results"]


def test_the_command_prints_faults_and_no_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.__main__ import main

    (tmp_path / "f.yaml").write_text(as_yaml(TINY | {"seed": "x", "arms": Raw("[")}))  # type: ignore[operator] # it is a map
    monkeypatch.setattr(sys, "argv", ["kdsweep", "run", str(tmp_path / "f.yaml"), "--storage", str(tmp_path / "results")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert (out, "Traceback" in err) == ("", False)
    assert err.startswith(f"{tmp_path}/f.yaml:")
    assert not (tmp_path / "results").exists()
