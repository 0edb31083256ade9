"""The report as a W&B run: once for each content, with its tables, figures and Parquet, offline and online, and bounded in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import report, table
from orchestrator.journal import Journal, record_of
from orchestrator.mirror import mirror_report, report_id
from tests.test_report import drawn, kept, whole
from tests.wandb_offline import OfflineRun, read_run
from tests.wandb_server import HANG, FakeServer, ServerArtifact, ServerRun

PROJECT = "kd"
ARMS = ("slam", "kd")
KEY = "feedfacecafebeef" * 3


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    (tmp_path / "home").mkdir()
    return {**kept, "HOME": str(tmp_path / "home"), "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": KEY}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Results with a report, without search cells, so that there is little to mirror beside it."""
    events = [event for event in whole({arm: drawn()[arm][:2] for arm in ARMS}) if event.get("cell", "").count("/") < 2]
    for event in events:
        event |= {"generation": None} if event["event"] == "cell" else {}
    folder = kept(tmp_path / "study", [event for event in events if event["event"] != "choice"])
    report.write(folder)
    table.write(record_of(Journal(folder).read()), folder)
    return folder


def offline(study: Path) -> list[OfflineRun]:
    """Runs of job type report, as ``wandb sync`` would send them."""
    runs = [read_run(path) for path in sorted(study.glob("wandb/offline-run-*/*.wandb"))]
    return [run for run in runs if run.job_type == "report"]


def reports(server: FakeServer) -> list[ServerRun]:
    return [run for run in server.runs.values() if run.job_type == "report"]


def tables(server: FakeServer) -> list[ServerArtifact]:
    return [artifact for artifact in server.artifacts if artifact.type == "table"]


def logged(server: FakeServer, run: ServerRun, name: str) -> dict[str, Any]:
    """The table of that name, as it was uploaded."""
    found: dict[str, Any] = json.loads(server.files[f"{run.id}/{run.summary[name]['path']}"])
    return found


def test_online_the_report_is_one_run_with_tables_figures_and_the_parquet(study: Path, server: FakeServer, environ: dict[str, str]) -> None:
    online = {**environ, "WANDB_BASE_URL": server.url}

    said = mirror_report(study, "online", PROJECT, timeout_s=60.0, environ=online)

    assert said == f"W&B: 5 of 5 cells and the report mirrored to {server.url}/tester/{PROJECT}"
    (run,) = reports(server)
    assert (run.name, run.group, run.project) == ("margins / report", "report", PROJECT)
    assert (run.tags, run.exit_code) == (("margins", "report", "complete"), 0)
    content = json.loads((study / "report.json").read_text(encoding="utf-8"))
    effects = logged(server, run, "effects")
    rows = [dict(zip(effects["columns"], row, strict=True)) for row in effects["data"]]
    assert [row["arm"] for row in rows] == ["kd"]
    for row, each in zip(rows, content["comparisons"], strict=True):
        assert row == {name: each[name] for name in row}
        assert {"difference", "t_low", "t_high", "p", "p_holm", "n", "sentence"} <= set(row)
    assert [row[0] for row in logged(server, run, "scores")["data"]] == list(ARMS)
    figure = run.summary["figures/effects"]["path"]
    assert server.files[f"{run.id}/{figure}"] == (study / "figures" / "effects.png").read_bytes()
    assert run.summary["mean/slam"] == content["arms"][0]["mean"]
    assert run.config["ran"]["value"]["fingerprint"] == "f00d"
    (artifact,) = tables(server)
    assert (artifact.name, artifact.run, artifact.is_committed) == ("margins-table", run.id, True)
    assert sorted(artifact.files) == ["report.json", "reports.parquet", "studies.parquet", "trials.parquet"]
    assert artifact.files["trials.parquet"] == (study / "trials.parquet").read_bytes()
    # Runs of cells are grouped by arm, so that a dashboard shows the mean and range of an arm over its blocks.
    groups = {(other.group, other.name) for other in server.runs.values() if other.job_type == "confirm"}
    assert groups == {(arm, f"{arm} / block {block}") for arm in ARMS for block in range(2)}
    # Nothing is left behind, and nothing is sent again.
    assert not list((study / "wandb").glob("run-*")) + list((study / "wandb").glob("report-*"))
    assert not (study / "wandb" / "data").exists()
    requests = len(server.requests)
    assert mirror_report(study, "online", PROJECT, environ=online) is None
    assert len(server.requests) == requests


def test_offline_the_report_waits_for_an_upload_and_another_content_is_another_run(
    study: Path, server: FakeServer, environ: dict[str, str]
) -> None:
    said = mirror_report(study, "offline", PROJECT, timeout_s=60.0, environ=environ)

    assert said is not None
    assert said.startswith("W&B: 5 of 5 cells and the report mirrored offline in ")
    (run,) = offline(study)
    assert (run.name, run.group, run.tags) == ("margins / report", "report", ("margins", "report", "complete"))
    assert {"effects", "scores", "figures/effects"} <= {name.partition(".")[0] for name in run.history[0]}
    assert mirror_report(study, "offline", PROJECT, environ=environ) is None

    # The study goes on: its report is interim again, and a run of its own. What was there stays.
    Journal(study).append([whole()[0]])
    report.write(study)
    mirror_report(study, "offline", PROJECT, timeout_s=60.0, environ=environ)
    assert {(found.name, found.tags[-1]) for found in offline(study)} == {
        ("margins / report", "complete"),
        ("margins / report (interim)", "interim"),
    }
    assert len({found.id for found in offline(study)}) == 2

    command = [sys.executable, "-m", "wandb", "sync", *map(str, study.glob("wandb/offline-run-*"))]
    done = subprocess.run(
        command, env={**environ, "WANDB_BASE_URL": server.url}, cwd=study, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(run.name for run in reports(server)) == ["margins / report", "margins / report (interim)"]
    assert all(artifact.is_committed and "trials.parquet" in artifact.files for artifact in tables(server))
    assert len(tables(server)) == 2


def test_a_server_that_hangs_costs_no_more_than_was_allowed_and_the_next_call_makes_up_for_it(
    study: Path, server: FakeServer, environ: dict[str, str]
) -> None:
    online = {**environ, "WANDB_BASE_URL": server.url}
    server.mode = HANG
    began = time.monotonic()

    said = mirror_report(study, "online", PROJECT, timeout_s=2.0, environ=online)

    assert time.monotonic() - began < 2.0 + 1.0 + 2.0
    assert said is not None
    assert "the report is not; `kdsweep mirror" in said
    assert reports(server) == []
    server.mode = "ok"
    assert "and the report mirrored" in (mirror_report(study, "online", PROJECT, timeout_s=60.0, environ=online) or "")
    assert len(reports(server)) == len(tables(server)) == 1


def test_without_a_report_or_with_the_mirror_off_nothing_starts(study: Path, tmp_path: Path, environ: dict[str, str]) -> None:
    assert mirror_report(study, "off", PROJECT, environ=environ) is None
    (study / "report.json").unlink()
    assert report_id(study) is None
    assert mirror_report(study, "offline", PROJECT, environ=environ) is None
    assert not (study / "wandb").exists()


def test_the_id_of_a_report_follows_from_its_content(study: Path) -> None:
    first = report_id(study)
    report.write(study)
    assert report_id(study) == first
    Journal(study).append([whole()[0]])
    report.write(study)
    assert report_id(study) not in (None, first)
    assert sum(1 for _ in study.glob("wandb/*")) == 0
