"""The command line as a user has it: exit codes, what is printed, and what is imported before it is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.__main__ import main
from orchestrator.placement import KINDS
from trainables.device import NAMES


def kdsweep(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command, in this process."""
    monkeypatch.setattr(sys, "argv", ["kdsweep", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    code = ended.value.code
    assert code is None or isinstance(code, int)
    return code or 0, out, err


@pytest.fixture
def study_file(tiny_study_text: str, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_study_text)
    return path


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["report", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["kdsweep", *{arguments!r}]
from orchestrator.__main__ import main
try:
    main()
finally:
    print(sorted({{"torch", "ray", "optuna", "wandb", "rich", "pandas", "numpy", "pyarrow", "yaml", "matplotlib"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: kdsweep" in done.stdout
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_module_is_the_command() -> None:
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run([sys.executable, "-m", "orchestrator", "methods"], capture_output=True, text=True, check=True, env=environment)
    assert [line.split()[0] for line in done.stdout.splitlines()] == sorted(p.stem for p in Path("trainables/methods").glob("[!_]*.py"))


def test_every_fault_is_printed_and_nothing_is_started(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = study_file.read_text().replace("rungs: [0.5]", "rungs: [1.5]").replace("against: [vanilla]", "against: [vanila]")
    study_file.write_text(text)
    storage = tmp_path / "results"
    code, out, err = kdsweep(capsys, monkeypatch, "run", str(study_file), "--storage", str(storage))
    assert (code, out) == (2, "")
    first, second = err.strip().splitlines()
    assert first.startswith(f"{study_file}:{text[: text.index('rungs')].count(chr(10)) + 1}: search.rungs")
    assert second.startswith(f"{study_file}:{text[: text.index('against')].count(chr(10)) + 1}: confirm.against")
    assert "Did you mean vanilla?" in second
    assert not storage.exists()


def test_a_study_from_plan_to_export(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = ["--storage", str(tmp_path / "results")]
    code, out, _ = kdsweep(capsys, monkeypatch, "plan", str(study_file), *storage, "--json")
    planned = json.loads(out)
    assert code == 0
    # 1 + 2 teachers, 2 arms x 4 trials x 1 block, 3 arms x 2 blocks
    assert [planned[key] for key in ("teachers", "search_cells", "confirm_cells", "cells", "finished")] == [3, 8, 6, 17, 0]
    # Two generations of two: both to .5, one of them on to 1.
    assert planned["search_trainings"] == pytest.approx(2 * 2 * (2 * 0.5 + 0.5))
    assert planned["smallest_p"] == pytest.approx(2 / 2**2)

    code, out, _ = kdsweep(capsys, monkeypatch, "run", str(study_file), *storage, "--in-process")
    assert code == 0
    assert "slam, lower_bound=0" in out
    assert str(tmp_path / "results/tiny/trials.parquet") in out
    code, out, _ = kdsweep(capsys, monkeypatch, "run", str(study_file), *storage, "--in-process")
    assert code == 0
    assert "Nothing to train" in out

    for where in ([str(study_file), *storage], [str(tmp_path / "results/tiny")]):
        code, out, _ = kdsweep(capsys, monkeypatch, "status", *where, "--json")
        status = json.loads(out)
        assert (code, status["ended"]) == (0, "complete")
        assert sum(cells["ok"] + cells["stopped"] for cells in status["cells"]) == 17
    code, out, _ = kdsweep(capsys, monkeypatch, "status", str(tmp_path / "results/tiny"))
    assert "tiny: complete" in out
    code, out, _ = kdsweep(capsys, monkeypatch, "report", str(tmp_path / "results/tiny"))
    assert code == 0
    assert "Does everything fit together?" in out
    code, out, _ = kdsweep(capsys, monkeypatch, "report", str(tmp_path / "results/tiny"), "--format", "json")
    assert json.loads(out)
    code, out, _ = kdsweep(capsys, monkeypatch, "report", str(tmp_path / "results/tiny"), "--format", "latex")
    assert (code, out.count(r"\caption{Differences to slam}")) == (0, 1)
    code, out, _ = kdsweep(capsys, monkeypatch, "compare", str(study_file), str(tmp_path / "results/tiny"), *storage)
    assert (code, "the tables say the same in everything but times and places" in out) == (0, True)
    code, out, _ = kdsweep(capsys, monkeypatch, "report", str(tmp_path / "results/tiny"), "--bib")
    assert code == 0
    assert [line.partition("{")[2] for line in out.splitlines() if line.startswith("@")] == ["hinton2015distilling,", "kontonis2023slam,"]
    code, out, _ = kdsweep(capsys, monkeypatch, "export", str(tmp_path / "results/tiny"), "--format", "csv", "--to", str(tmp_path / "csv"))
    assert code == 0
    assert (tmp_path / "csv/trials.csv").read_text().count("\n") == 18


def test_the_plan_of_lanes_on_a_slice(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(Path(__file__).parents[1] / "search_spaces/studies/slam_digits.yaml")
    storage = ["--storage", str(tmp_path / "results")]
    code, out, _ = kdsweep(capsys, monkeypatch, "plan", file, *storage, "--lane", "chip", "--topology", "2x2x1", "--json")
    planned = json.loads(out)
    assert code == 0
    assert [planned[key] for key in ("lanes", "chips", "workers", "compile_signatures", "compilations")] == [4, 4, 1, 29, 4 * 29]
    assert (planned["device_seconds"], planned["device_seconds_missing"]) == (None, None)
    assert planned["seconds_source"] == "unknown: nothing has finished yet; declare run.training_seconds"
    options = ["--lane", "slice", "--topology", "2x2x4", "--lanes", "2", "--workers", "4", "--set", "run.training_seconds=10"]
    code, out, _ = kdsweep(capsys, monkeypatch, "plan", file, *storage, *options)
    assert "lanes     2, each the whole of a 2x2x4 slice: 32 chips in all" in out
    # 14 teachers, 48 trainings of search and 84 of confirmation on 16 chips each.
    assert "device-seconds: 23,360 in all, 23,360 to come (declared); with 2 lanes that never wait 12:10 in all, 12:10 to come" in out
    assert not (tmp_path / "results").exists()


def test_the_plan_of_a_study_that_is_done_in_part(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = ["--storage", str(tmp_path / "results")]
    assert kdsweep(capsys, monkeypatch, "run", str(study_file), *storage, "--in-process")[0] == 0
    _, out, _ = kdsweep(capsys, monkeypatch, "plan", str(study_file), *storage, "--json")
    done = json.loads(out)
    assert (done["finished"], done["device_seconds_missing"], done["seconds_source"]) == (17, 0.0, "estimated from 17 finished cells")
    assert done["device_seconds"] == done["wall_seconds"] > 0
    journal = tmp_path / "results/tiny/journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:20]))
    _, out, _ = kdsweep(capsys, monkeypatch, "plan", str(study_file), *storage, "--json")
    part = json.loads(out)
    assert 0.0 < part["device_seconds_missing"] < part["device_seconds"]
    # Of another study of that name nothing counts, and it is said.
    code, out, err = kdsweep(capsys, monkeypatch, "plan", str(study_file), *storage, "--set", "seed=1", "--json")
    other = json.loads(out)
    assert (code, other["finished"], other["device_seconds"]) == (0, 0, None)
    assert "tiny holds the results of another study of this name" in err


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_faults_of_lane_options_are_said_together(
    verb: str, study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--lane", "chip", "--topology", "2x2x1", "--workers", "3", "--lanes", "0", "--device", "tpu"]
    code, out, err = kdsweep(capsys, monkeypatch, verb, str(study_file), "--storage", str(tmp_path / "results"), *options)
    assert (code, out) == (2, "")
    assert {line.partition(": needs")[0] for line in err.strip().splitlines()} == {
        "--workers 3: run.workers",
        "--lanes 0: run.lanes",
        "--device tpu: run.device",
    }
    assert "needs 0 or 1 for a lane that is a chip" in err
    code, _, err = kdsweep(capsys, monkeypatch, verb, str(study_file), "--lane", "slce", "--topology", "2x2")
    assert code == 2
    assert "Did you mean slice?" in err
    assert "--topology 2x2: run.topology: A TPU v4 topology needs" in err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_the_help_names_what_lanes_and_devices_there_are(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = kdsweep(capsys, monkeypatch, verb, "--help")
    assert f"--lane {'|'.join(KINDS)}" in out
    assert f"--device {'|'.join(NAMES)}" in out


@pytest.mark.parametrize("verb", ["status", "report", "export", "mirror"])
def test_a_folder_without_results_is_said_to_be_one(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = kdsweep(capsys, monkeypatch, verb, str(tmp_path / "nothing"))
    assert code == 2
    assert "nothing" in err
    assert "Traceback" not in err
    assert not (tmp_path / "nothing").exists()


def test_methods_show_fields_domains_and_citation(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = kdsweep(capsys, monkeypatch, "methods", "slam", "--json")
    (entry,) = json.loads(out)
    assert code == 0
    assert "2302.03806" in entry["url"]
    fields = {f["name"]: f for f in entry["fields"]}
    assert fields["lower_bound"]["off"] == 0.0
    assert fields["k_threshold"]["only_if"] == {"k_rule": ["threshold"]}
    assert entry["needs"] == ["a teacher", "the held-out split, once"]
    code, out, _ = kdsweep(capsys, monkeypatch, "methods", "norm")
    assert "\nNeeds:\n  a teacher\n  features of student and teacher: last, penultimate\n" in out
    assert "its state at evaluation" in out
    code, _, err = kdsweep(capsys, monkeypatch, "methods", "slamm")
    assert code == 2
    assert "Did you mean slam?" in err


def test_an_unknown_option_is_the_users_mistake(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = kdsweep(capsys, monkeypatch, "run", "study.yaml", "--worker", "2")
    assert code == 2
    assert "--workers" in err
