"""No secret in anything that is written: planted ones are looked for in every byte that a study leaves behind."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console
from torch import Tensor, nn

from orchestrator import report
from orchestrator.driver import Launch, drive
from orchestrator.errors import StorageError, StudyError
from orchestrator.events import row_event
from orchestrator.journal import Journal
from orchestrator.reading import study_of
from orchestrator.replay import in_our_words
from orchestrator.table import TABLES, export
from trainables import remote
from trainables.distiller import Batch, Outputs
from trainables.methods.vanilla import Vanilla
from trainables.redaction import redacted
from trainables.trial import Row

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED00",
    "AWS_SECRET_ACCESS_KEY": "/wJalrXUtnFEMI/K7MDENG+bPxRfiCYPLANTED",
    "HF_TOKEN": "hf_plantedplantedplantedplanted",
    "RAY_AUTH_TOKEN": "ray-planted-token-42",
    "DB_PASSWORD": "correcthorsebattery",
}
NETRC = "netrc-planted-password"
GOOGLE = "-----BEGIN PRIVATE KEY-----\nMIIEvPLANTEDPLANTEDPLANTEDPLANTED\nPLANTEDSECONDLINEPLANTED==\n-----END PRIVATE KEY-----\n"
LOGIN = "s3://AKIAOTHER:url/planted@bucket/folder"
PLANTED = (*SECRETS.values(), NETRC, "MIIEvPLANTEDPLANTEDPLANTEDPLANTED", "PLANTEDSECONDLINEPLANTED==", "url/planted")


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A machine full of secrets; what an exception says that quotes them all."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").write_text(f"machine api.wandb.ai login user password {NETRC}\n")
    (home / ".netrc").chmod(0o600)
    (home / "google.json").write_text(json.dumps({"type": "service_account", "private_key": GOOGLE, "client_email": "me@project"}))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(home / "google.json"))
    monkeypatch.delenv("NETRC", raising=False)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return (
        f"no answer from {LOGIN} with {dict(SECRETS)!r} and {NETRC}; {GOOGLE!r}; {GOOGLE}; "
        f"Authorization: Bearer {SECRETS['HF_TOKEN']}; https://h/?X-Amz-Signature={SECRETS['HF_TOKEN']}"
    )


def telling(method: Vanilla, state: nn.Module, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
    """Terms of a method whose training fails, and says what it was told."""
    raise RuntimeError(os.environ["KDSWEEP_TOLD"])


def left_behind(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, tables as text as well."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in [name for name in found if name.endswith(".parquet")]:
        found[f"{name}, decoded"] = json.dumps(pq.read_table(folder / name).to_pylist(), default=str).encode()
    return found


def assert_clean(written: Mapping[str, bytes]) -> None:
    for name, data in written.items():
        for secret in PLANTED:
            forms = (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1])
            assert not any(form.encode() in data for form in forms), f"{secret} stands in {name}"


@pytest.mark.parametrize("mode", ["off", "offline"])
def test_a_study_writes_no_secret(
    mode: str, planted: str, tiny_study_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KDSWEEP_TOLD", planted)
    monkeypatch.setattr(Vanilla, "terms", telling)
    results = tmp_path / "results"
    study = study_of(tiny_study_text, [f"run.storage={json.dumps(str(results))}", f"run.wandb={json.dumps(mode)}", "run.give_up_after=0"])
    said = io.StringIO()
    outcome = drive(study, Launch(in_process=True), Console(file=said))
    folder = results / "tiny"
    report.write(folder, report.frames(folder))
    export(folder, "csv", results / "csv")
    out, err = capfd.readouterr()
    told = "\n".join((*outcome.problems, outcome.mirrored, said.getvalue(), out, err))
    written = left_behind(results)
    assert {f"tiny/{name}.parquet" for name in TABLES} | {"tiny/journal.jsonl", "tiny/report.html", "csv/trials.csv"} <= set(written)
    assert_clean({**written, "terminal": told.encode()})
    failed = [event for event in Journal(folder).read() if event["event"] == "row" and event["status"] == "failed"]
    assert failed
    assert all("<WANDB_API_KEY>" in event["message"] and "<login>@bucket" in event["message"] for event in failed)
    assert all("RuntimeError" in event["trace"] for event in failed)


def test_what_tells_of_a_dead_lane_is_redacted_where_it_is_written(planted: str) -> None:
    event = row_event("c", 1, Row("c", "failed", 0.0, 0, {}, message=planted, trace=f"Traceback\n{planted}"))
    assert_clean({"row": json.dumps(event).encode(), "message": event["message"].encode(), "trace": event["trace"].encode()})


class UsageError(Exception):
    """As wandb calls it where a login is refused: the mirror repeats its words."""


def test_what_a_bucket_or_wandb_says_is_redacted(planted: str) -> None:
    for fault in (UsageError(planted), ValueError(planted), TimeoutError(planted)):
        assert_clean({"bucket": remote.told(fault).encode(), "wandb": in_our_words(fault).encode()})
    assert "<WANDB_API_KEY>" in in_our_words(UsageError(planted))


@pytest.mark.parametrize(
    "url", ["s3://key:planted-pw@bucket/x", "s3://key:planted/pw@bucket/x", "https://planted-token@host/x", "gs://:planted-pw@b"]
)
def test_a_login_in_the_storage_is_refused_before_anything_is_written(
    url: str, tiny_study_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((StorageError, StudyError), match="login in a URL") as refused:
        drive(study_of(tiny_study_text, [f"run.storage={json.dumps(url)}"]), Launch(in_process=True), Console(file=io.StringIO()))
    assert "planted" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


NOTHING = {"HOME": "/nonexistent"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("WANDB_API_KEY", "0123456789abcdef"),
            ("MY_SECRET", "correcthorse"),
            ("GITHUB_PAT", "ghp_abcdef012345"),
            ("api_key", "abc12345"),
        ),
        *(("SERVICE_CREDENTIALS", '{"private_key": "x1"}'), ("PGPASSWORD_TOKEN", "12ab34cd"), ("X_AUTH", "a1b2c3d4e5")),
    ],
)
def test_a_value_with_the_name_of_a_secret_is_replaced_by_that_name(name: str, value: str) -> None:
    assert redacted(f"a {value} b", {**NOTHING, name: value}) == f"a <{name}> b"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("TOKENIZERS_PARALLELISM", "falsefalse"), ("KEYBOARD", "qwertzuiop"), ("RAY_AUTH_MODE", "disabled"), ("MAX_TOKENS", "100000000")),
        *(("LICENSE_KEY", "on_premise"), ("AUTH_BACKEND", "kerberos"), ("PWD", "/work/study"), ("TOKEN_FILE", "/run/token.txt")),
        *(
            ("OAUTH_TOKEN_URL", "https://host/token"),
            ("SSH_AUTH_SOCK", "/tmp/agent.1"),
            ("API_KEY", "short"),
            ("PLAIN", "0123456789abcdef"),
        ),
    ],
)
def test_an_ordinary_value_stays(name: str, value: str) -> None:
    assert redacted(f"a {value} b", {**NOTHING, name: value}) == f"a {value} b"


def test_redacting_twice_changes_nothing(planted: str) -> None:
    once = redacted(planted)
    assert redacted(once) == once
    assert redacted("") == ""
    assert redacted("basic distillation, bearer of a@b.c at https://h/x") == "basic distillation, bearer of a@b.c at https://h/x"
