"""The doctor's look at this machine: each check with the fault that it is for, and none that breaks, hangs, leaves or tells anything."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest

from orchestrator import checkmachine, checkservices, checkstorage, pins
from orchestrator.checkup import CHECKS, Check, examine
from orchestrator.doctor import Finding, Findings, Severity
from orchestrator.events import utc_now
from orchestrator.journal import Journal
from orchestrator.premises import Premises, at
from orchestrator.study import Run
from tests.gcs_server import Server
from tests.wandb_server import HANG, FakeServer

ROOT = Path(__file__).parents[1]
KEY = "b3cc3ab5" * 5
SLOW_S = 5.0


def look(check: Callable[[Findings, Premises], None], premises: Premises) -> list[Finding]:
    findings = Findings()
    check(findings, premises)
    return findings.found


def judged(judge: Callable[..., None], *told: Any) -> Finding:
    findings = Findings()
    judge(findings, *told)
    (found,) = findings.found
    return found


def stored(folder: str | Path, **premises: Any) -> dict[str, Finding]:
    return {found.place.label: found for found in look(checkstorage.check_storage, Premises(run=Run(storage=str(folder)), **premises))}


def levels(findings: list[Finding] | dict[str, Finding]) -> list[Severity]:
    return [found.severity for found in (findings.values() if isinstance(findings, dict) else findings)]


def run(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "orchestrator", "doctor", *arguments]
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environ}
    return subprocess.run(command, cwd=cwd, env=settings, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home folder and what is above it, as most people have it: others may look in."""
    found = Path(tempfile.mkdtemp(prefix="home-", dir="/tmp"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found)


# Storage on disk


def test_a_folder_that_is_not_there_is_tried_and_is_not_there_afterwards(tmp_path: Path) -> None:
    found = stored(tmp_path / "a" / "b")
    assert levels(found) == [Severity.OK, Severity.OK]
    assert list(found) == ["storage", "clock"]
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_study_that_exists_is_the_one_that_is_tried(tmp_path: Path) -> None:
    (tmp_path / "results" / "s").mkdir(parents=True)
    found = stored(tmp_path / "results", name="s")
    assert f"removed in {tmp_path}/results/s;" in found["storage"].message
    assert list((tmp_path / "results" / "s").iterdir()) == []


def test_a_file_where_the_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("not a folder")
    found = stored(tmp_path / "results")
    assert levels(found) == [Severity.ERROR]
    assert "needs a folder that can be written, but got NotADirectoryError" in found["storage"].message
    assert (tmp_path / "results").read_text() == "not a folder"


def test_a_disk_that_takes_no_more_is_told_and_left_as_it_was(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from orchestrator.checkstorage import check_storage; from orchestrator.doctor import Findings\n"
        "from orchestrator.premises import Premises; from orchestrator.study import Run\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); found = Findings()\n"
        "check_storage(found, Premises(run=Run(storage=sys.argv[1]))); [print(each) for each in found.found]"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "r")], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("storage: error: run.storage: Writing needs permission and space for ")
    assert "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_little_room_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=999_000_000))
    found = stored(tmp_path)["storage"]
    assert found.severity is Severity.WARNING
    assert "needs 1 GB free, but got 999 MB" in found.message


def test_a_file_system_that_gives_a_lock_twice_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    found = stored(tmp_path)["storage"]
    assert found.severity is Severity.ERROR
    assert "gives a lock to two at a time" in found.message


@pytest.mark.parametrize(("seconds", "said"), [(3600, "3600 s ahead of"), (-40, "40 s behind")])
def test_a_clock_that_is_apart_from_the_storages_is_a_warning(
    seconds: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "installed"
    installed.touch()
    os.utime(installed, (0, 0))
    monkeypatch.setattr(checkstorage, "__file__", str(installed))
    found = stored(tmp_path, clock=lambda: utc_now() + timedelta(seconds=seconds))["clock"]
    assert found.severity is Severity.WARNING
    assert said in found.message
    assert stored(tmp_path, clock=lambda: utc_now() + timedelta(seconds=20))["clock"].severity is Severity.OK


def test_a_clock_of_before_the_installation_is_a_warning(tmp_path: Path) -> None:
    found = stored(tmp_path, clock=lambda: datetime(2001, 9, 9, tzinfo=UTC))["clock"]
    assert found.severity is Severity.WARNING
    assert "got 2001-09-09 00:00 UTC, before kdsweep was installed" in found.message


# Storage in a bucket


@contextmanager
def memory() -> Iterator[str]:
    url = f"memory://{uuid4().hex}"
    files, path = fsspec.core.url_to_fs(url)
    files.makedirs(path)
    yield url
    assert files.find(path) == []
    assert files.ls(path) == []
    files.rmdir(path)


def test_a_store_that_refuses_what_exists_is_ok() -> None:
    with memory() as url:
        found = stored(url)
    assert levels(found) == [Severity.OK, Severity.OK]
    assert f"refused where it exists, replaced and removed in {url};" in found["storage"].message


def test_a_store_that_overwrites_what_exists_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    memory_files = fsspec.get_filesystem_class("memory")
    write = memory_files.pipe_file
    monkeypatch.setattr(
        memory_files, "pipe_file", lambda self, path, value, mode="overwrite", **more: write(self, path, value, "overwrite")
    )
    with memory() as url:
        found = stored(url)["storage"]
    assert found.severity is Severity.ERROR
    assert "needs to refuse a conditional write of an object that exists" in found.message


IN_A_BUCKET = """
import sys
from orchestrator.checkup import CHECKS, Check, examine
from orchestrator.premises import Premises
from orchestrator.study import Run
checks = [Check(each.name, each.look, float(sys.argv[2])) for each in CHECKS if each.name == "storage"]
print("\\n".join(examine(Premises(run=Run(storage=sys.argv[1])), "s", checks=checks).lines()))
"""


def in_a_bucket(server: str, folder: Path, seconds: float, bucket: str = "b") -> tuple[list[str], float]:
    account = folder / "account.json"
    account.write_text(json.dumps({"type": "authorized_user", "client_id": "i", "client_secret": KEY, "refresh_token": KEY}))
    environ = {**os.environ, "STORAGE_EMULATOR_HOST": server, "GOOGLE_APPLICATION_CREDENTIALS": str(account), "FSSPEC_GS_TOKEN": "anon"}
    begun = time.monotonic()
    command = [sys.executable, "-c", IN_A_BUCKET, f"gs://{bucket}/studies", str(seconds)]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True, timeout=60)
    assert KEY not in done.stdout + done.stderr
    return done.stdout.splitlines(), time.monotonic() - begun


def test_a_bucket_is_tried_left_empty_and_its_clock_compared(tmp_path: Path) -> None:
    pytest.importorskip("gcsfs")
    server = Server()
    server.buckets["b"] = {}
    try:
        (storage, clock, _), _ = in_a_bucket(server.url, tmp_path, 30.0)
    finally:
        server.stop()
    assert storage.startswith("storage: ok: run.storage: written, read, listed, refused where it exists")
    assert server.buckets["b"] == {}
    # The server dates everything so.
    ahead = (utc_now() - datetime(2026, 1, 2, 12, tzinfo=UTC)).total_seconds()
    found = re.search(r"clock: warning: .* but got it (\d+) s ahead of it", clock)
    assert found is not None
    assert abs(int(found[1]) - ahead) < 60


def test_a_bucket_that_is_not_there_is_told(tmp_path: Path) -> None:
    pytest.importorskip("gcsfs")
    server = Server()
    try:
        (storage, _), _ = in_a_bucket(server.url, tmp_path, 30.0)
    finally:
        server.stop()
    assert storage.startswith("storage: error: run.storage: Writing gs://b/studies/.kdsweep-doctor-")
    assert "no such bucket or folder" in storage


def test_a_bucket_that_hangs_costs_its_seconds_and_no_more(tmp_path: Path) -> None:
    pytest.importorskip("gcsfs")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (storage, _), took_s = in_a_bucket(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path, 2.0)
    assert storage.startswith("storage: error: needs an answer within 2 s, but got none.")
    assert took_s < 2.0 + 15.0  # the interpreter and gcsfs have to start


# Results


def test_results_from_the_future_say_that_the_clock_was_set_back(tmp_path: Path) -> None:
    Journal(tmp_path / "s").append([{"event": "end", "time": utc_now().isoformat(), "status": "complete"}])
    premises = Premises("s", Run(storage=str(tmp_path)))
    assert levels(look(checkstorage.check_results, premises)) == [Severity.OK]
    (found,) = look(checkstorage.check_results, Premises("s", Run(storage=str(tmp_path)), clock=lambda: utc_now() - timedelta(seconds=100)))
    assert found.severity is Severity.WARNING
    assert re.search(r"events (99|100) s in the future", found.message)


def test_a_journal_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "s" / "journal.jsonl").mkdir(parents=True)
    assert levels(look(checkstorage.check_results, Premises("s", Run(storage=str(tmp_path))))) == [Severity.ERROR]


# Versions


def locked(folder: Path, text: str) -> Path:
    path = folder / "constraints.txt"
    path.write_text(text)
    return path


def test_the_shipped_lock_is_found_and_fits() -> None:
    path = checkmachine.lock_file(pins.CONSTRAINTS)
    assert path == ROOT / "constraints.txt"


def test_versions_of_the_lock_are_ok_whatever_they_were_built_for(tmp_path: Path) -> None:
    lock = locked(tmp_path, "# comment\nTorch==2.13.0\nnot_here==1.0\n")
    findings = Findings()
    checkmachine.compare(findings, {**checkmachine.installed(), "torch": "2.13.0+cpu"}, lock, "constraints.txt")
    (found,) = findings.found
    assert found.severity is Severity.OK
    assert found.message.startswith("1 of the 2 packages of constraints.txt are installed")


def test_other_versions_than_the_locks_are_named(tmp_path: Path) -> None:
    here = checkmachine.installed()
    lock = locked(tmp_path, "NumPy==1.0\nsix==0.1\n")
    found = judged(checkmachine.compare, here, lock, "constraints.txt")
    assert found.severity is Severity.WARNING
    assert f"but got numpy {here['numpy']} (1.0), six {here['six']} (0.1). `pip install --constraint constraints.txt" in found.message


def test_a_package_that_is_missing_or_too_old_is_an_error(tmp_path: Path) -> None:
    here = {name: version for name, version in checkmachine.installed().items() if name != "optuna"} | {"pyarrow": "1.0"}
    findings = Findings()
    checkmachine.compare(findings, here, None, "constraints.txt")
    assert levels(findings.found) == [Severity.ERROR, Severity.ERROR]
    assert [str(found).partition(" `")[0] for found in findings.found] == [
        "packages: error: needs optuna<6,>=5.0, but got none.",
        "packages: error: needs pyarrow>=26, but got 1.0.",
    ]


def test_without_a_lock_nobody_can_tell() -> None:
    assert judged(checkmachine.compare, checkmachine.installed(), None, "constraints.txt").severity is Severity.WARNING


@pytest.mark.parametrize(
    ("torch", "xla", "severity"),
    [("2.13.0", None, "ok"), ("2.9.0+cpu", "2.9.0", "ok"), ("2.13.0", "2.9.0", "error"), (None, None, "error")],
)
def test_torch_and_torch_xla_are_a_pair(torch: str | None, xla: str | None, severity: str) -> None:
    assert judged(checkmachine.compare_torch, torch, xla).severity == severity


@pytest.mark.parametrize(("version", "severity"), [("3.11.0", "ok"), ("3.10.9", "error"), ("3.12.1", "warning")])
def test_the_python_is_that_of_the_lock(version: str, severity: str) -> None:
    assert judged(checkmachine.judge_python, version).severity == severity


# The machine


@pytest.mark.parametrize(("soft", "hard", "severity"), [(1024, 65536, "ok"), (1024, -1, "ok"), (-1, -1, "ok"), (1024, 4096, "warning")])
def test_open_files_count_as_far_as_ray_can_raise_them(soft: int, hard: int, severity: str) -> None:
    assert judged(checkmachine.judge_limits, soft, hard).severity == severity


@pytest.mark.parametrize(
    ("free", "total", "severity"), [(8, 16, "ok"), (1, 16, "warning"), (4, 100, "warning"), (6, 100, "ok"), (None, None, "ok")]
)
def test_memory(free: int | None, total: int | None, severity: str) -> None:
    sizes = [None if size is None else size * 2**30 for size in (free, total)]
    assert judged(checkmachine.judge_memory, *sizes).severity == severity


def test_a_container_with_dockers_shm_is_warned() -> None:
    found = judged(checkmachine.judge_shm, 64 * 2**20)
    assert found.severity is Severity.WARNING
    assert "but got 64 MiB" in found.message
    assert judged(checkmachine.judge_shm, 2**30).severity is Severity.OK


def test_a_device_that_is_not_here_is_an_error_and_the_processor_computes() -> None:
    (found,) = look(checkmachine.check_devices, Premises(run=Run(device="xla" if "torch-xla" not in checkmachine.installed() else "cuda")))
    assert found.severity is Severity.ERROR
    assert look(checkmachine.check_devices, Premises(run=Run(device="cpu")))[0].severity is Severity.OK


def test_devices_of_a_cluster_are_not_looked_for_here() -> None:
    (found,) = look(checkmachine.check_devices, Premises(run=Run(device="cuda"), address="10.0.0.1:6379"))
    assert found.severity is Severity.OK


@pytest.mark.parametrize("name", [".netrc", ".ray/auth_token"])
def test_logins_that_others_can_read_are_an_error(name: str, home: Path) -> None:
    path = home / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(KEY)
    premises = Premises(environ={"HOME": str(home)})
    for mode, severity in ((0o600, Severity.OK), (0o640, Severity.ERROR), (0o604, Severity.ERROR)):
        path.chmod(mode)
        (found,) = look(checkmachine.check_secrets, premises)
        assert (found.severity, KEY in found.message) == (severity, False)
    assert f"chmod 600 {path}" in found.message
    home.chmod(0o700)
    assert levels(look(checkmachine.check_secrets, premises)) == [Severity.WARNING]


# W&B


def wandb(environ: dict[str, str], mode: str = "online") -> Finding:
    (found,) = look(checkservices.check_wandb, Premises(run=Run(wandb=mode), environ=environ))
    return found


@pytest.mark.parametrize("mode", ["off", "offline"])
def test_a_mirror_that_sends_nothing_needs_nothing(mode: str) -> None:
    with FakeServer() as server:
        assert wandb({"HOME": "/nowhere", "WANDB_BASE_URL": server.url}, mode).severity is Severity.OK
    assert server.requests == []


def test_a_server_that_answers_is_ok_and_is_not_told_the_key() -> None:
    with FakeServer() as server:
        found = wandb({"HOME": "/nowhere", "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY})
    assert found.severity is Severity.OK
    assert server.requests == ["GET /healthz"]
    assert KEY not in found.message


def test_without_a_login_online_cannot_be(tmp_path: Path) -> None:
    found = wandb({"HOME": str(tmp_path), "WANDB_BASE_URL": "http://127.0.0.1:9"})
    assert found.severity is Severity.ERROR
    assert "wandb login" in found.message


@pytest.mark.parametrize("mode", [HANG, 503])
def test_a_server_that_hangs_or_fails_costs_seconds_and_is_a_warning(mode: str | int) -> None:
    begun = time.monotonic()
    with FakeServer() as server:
        server.mode = mode
        found = wandb({"HOME": "/nowhere", "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY})
        took_s = time.monotonic() - begun
    assert found.severity is Severity.WARNING
    assert ("timed out" if mode == HANG else "status 503") in found.message
    assert took_s < 5.0 + SLOW_S


def test_a_server_that_is_not_there_is_a_warning() -> None:
    found = wandb({"HOME": "/nowhere", "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": KEY})
    assert found.severity is Severity.WARNING
    assert "Connection refused" in found.message


# Ray


def machine(**changes: Any) -> dict[str, Any]:
    resources = {"CPU": 4.0, "GPU": 0.0, "TPU": 4.0}
    versions = {"python": "3.11.7", "ray": "2.60.0", "kdsweep": "0.1.0", "torch": "2.9.0"}
    return {"host": "h", "address": "10.0.0.2", "resources": resources, "versions": versions} | changes


def told(*machines: dict[str, Any], authentication: str = "token") -> dict[str, Any]:
    return {"seconds": 1.25, "machines": list(machines), "here": machine()["versions"], "authentication": authentication}


def versions(**changes: str | None) -> dict[str, Any]:
    return machine(versions=machine()["versions"] | changes)


@pytest.mark.parametrize(
    ("answer", "severity", "said"),
    [
        (told(machine(), machine()), "ok", "2 machines, 8 CPUs, 0 GPUs, 8 TPUs"),
        (told(machine(), versions(python="3.12.0")), "error", "needs python 3.11.7 on h, as here, but got 3.12.0"),
        (told(versions(kdsweep=None)), "error", "needs kdsweep 0.1.0 on h, as here, but got none"),
        (told(versions(torch="2.13.0")), "warning", "numbers may differ"),
        (told(machine(versions=None)), "warning", "got no answer from h"),
        (told(machine(), authentication="disabled"), "warning", "can run code on every machine"),
        (told(machine(address="127.0.0.1"), authentication="disabled"), "ok", "authentication disabled"),
        ({"problem": "No connection to a Ray cluster"}, "error", "No connection"),
    ],
)
def test_what_ray_says_is_judged(answer: dict[str, Any], severity: str, said: str) -> None:
    found = judged(checkservices.judge_ray, answer, "10.0.0.1:6379")
    assert found.severity == severity
    assert said in found.message


def test_an_address_where_nobody_listens_is_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    found = checkservices.ask(address, os.environ, 60.0)
    assert found["problem"].startswith(f"No connection to a Ray cluster at --address={address}: ")


@contextmanager
def module(folder: Path, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """A program in the place of the one that asks Ray."""
    (folder / "asked.py").write_text(text)
    yield "asked", {**os.environ, "PYTHONPATH": str(folder)}


def test_a_ray_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    text = (
        "import os, pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(tmp_path / 'pids')!r}).write_text(f'{{os.getpid()}} {{child.pid}} {{os.environ[\"RAY_TMPDIR\"]}}')\n"
        "time.sleep(600)\n"
    )
    with module(tmp_path, text) as (program, environ):
        begun = time.monotonic()
        found = checkservices.ask(None, environ, 3.0, program)
        assert time.monotonic() - begun < 3.0 + SLOW_S
    assert found == {"problem": "needs an answer within 3 s, but got none."}
    pid, child, folder = (tmp_path / "pids").read_text().split()
    until = time.monotonic() + SLOW_S
    while any(_lives(int(each)) for each in (pid, child)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(_lives(int(each)) for each in (pid, child))
    assert not Path(folder).exists()


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_ray_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    with module(tmp_path, "raise SystemExit('no such thing')") as (program, environ):
        found = checkservices.ask(None, environ, 30.0, program)
    assert found == {"problem": "needs Ray to start, but got exit code 1: no such thing"}


def test_a_token_that_is_refused_is_told_though_ray_only_logs_it(tmp_path: Path) -> None:
    text = """print("W 1 gcs: InvalidAuthToken: Authentication token is missing or incorrect"); print('{"problem": "Nothing."}')"""
    with module(tmp_path, text) as (program, environ):
        found = checkservices.ask("10.0.0.1:6379", environ, 30.0, program)
    assert found == {"problem": "Nothing. Ray says: Authentication token is missing or incorrect."}


# All of them


def breaks(findings: Findings, premises: Premises) -> None:
    findings.ok(at("first"), "", "so far.")
    raise RuntimeError(f"broken by {premises.environ['SOME_TOKEN']}")


def test_a_check_that_breaks_is_a_finding_and_tells_no_secret() -> None:
    found = examine(Premises(environ={"SOME_TOKEN": KEY, "HOME": "/nowhere"}), "s", checks=[Check("broken", breaks)])
    assert found.lines() == [
        "first: ok: so far.",
        "broken: error: needs to be looked at, but got this on the way: RuntimeError: broken by <SOME_TOKEN>",
        "s: 1 error, no warnings.",
    ]


def test_a_check_that_hangs_costs_its_seconds_while_others_go_on() -> None:
    over = threading.Event()

    def hangs(findings: Findings, premises: Premises) -> None:
        over.wait(60.0)

    def other(findings: Findings, premises: Premises) -> None:
        findings.ok(at("other"), "", "fine.")

    begun = time.monotonic()
    checks = [Check("slow", hangs, 1.5), Check("slower", hangs, 1.6), Check("slowest", hangs, 1.7), Check("other", other)]
    try:
        found = examine(Premises(environ={}), "s", checks=checks)
        assert time.monotonic() - begun < 4.0  # one after another they would take 4.8 s
    finally:
        over.set()
    assert [finding.place.label for finding in found.findings] == ["slow", "slower", "slowest", "other"]
    assert found.errors == 3


def test_the_command_looks_at_everything_and_leaves_nothing(tmp_path: Path, home: Path, tiny_study_text: str) -> None:
    (tmp_path / "study.yaml").write_text(tiny_study_text)
    done = run("study.yaml", "--quick", "--json", cwd=tmp_path, HOME=str(home), TMPDIR=str(home), WANDB_API_KEY=KEY)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["errors"], done.stderr) == (0, 0, "")
    places = ["study", *(check.name for check in CHECKS)]
    places[places.index("results") : places.index("results")] = ["clock"]
    places[places.index("memory") + 1 : places.index("memory") + 1] = ["/dev/shm"]
    assert [finding["place"] for finding in answer["findings"]] == places
    assert {finding["severity"] for finding in answer["findings"]} <= {"ok", "warning"}
    assert KEY not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]
    assert list(home.rglob("*")) == []


def test_a_study_with_mistakes_is_a_finding_and_all_else_is_looked_at(tmp_path: Path, home: Path, tiny_study_text: str) -> None:
    (tmp_path / "study.yaml").write_text(tiny_study_text.replace("seed: 0", "seeed: 0"))
    (tmp_path / "results").write_text("a file")
    done = run("study.yaml", "--quick", "--storage", "results", cwd=tmp_path, HOME=str(home))
    assert done.returncode == 2
    assert "study: error: study.yaml:3: " in done.stdout
    assert "python: ok: " in done.stdout
    assert "storage: error: run.storage: needs a folder that can be written" in done.stdout
    assert re.fullmatch(r"study\.yaml: [23] errors, (no|[0-9]+) warnings?\.", done.stdout.splitlines()[-1])


def test_every_line_of_the_locks_is_one_exact_version() -> None:
    for name in (pins.CONSTRAINTS, pins.TPU_CONSTRAINTS):
        lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
        assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.]*", line)] == []
        assert len(lines) > 100
        names = [re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines]
        assert len(set(names)) == len(names)
