"""Results in a bucket: a study on gs:// and s3://, what a bucket cannot do, and buckets that are not there, refuse or go away.

Google's side is ``tests.gcs_server``, Amazon's is moto; s3:// is left out where s3fs and moto are not installed.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from rich.console import Console

from orchestrator import lease, report, table
from orchestrator.bucket import RemoteFolder
from orchestrator.cluster import connected
from orchestrator.driver import Launch, Outcome, drive
from orchestrator.errors import Interrupted, StorageError, StudyLocked
from orchestrator.journal import Journal, StudyLock
from orchestrator.mirror import mirror_all
from orchestrator.reading import study_of
from orchestrator.standing import standing_of
from orchestrator.storage import holder_of
from tests.gcs_server import Server
from tests.synthetic import Synthetic, napping
from trainables import remote
from trainables.loop import never
from trainables.runner import Runner
from trainables.store import Store, StoreError
from trainables.trial import Leg, Row

BUCKET = "kdsweep-results"
TOKEN, SECRET = "ya29.access-token-that-nobody-may-see", "secret-key-that-nobody-may-see"


@dataclass
class Google:
    """What the tests need of a provider, for gs://."""

    folder: Path
    scheme: str = "gs"
    server: Server = field(default_factory=Server)

    def environment(self) -> dict[str, str]:
        """A service account whose tokens come from the server."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        about = {"type": "service_account", "project_id": "p", "private_key": private.decode(), "private_key_id": SECRET}
        about |= {"client_email": "kdsweep@p.iam.gserviceaccount.com", "token_uri": f"{self.server.url}/token"}
        path = self.folder / "account.json"
        path.write_text(json.dumps(about))
        self.server.token = self.server.issues = TOKEN
        self.server.buckets[BUCKET] = {}
        return {"STORAGE_EMULATOR_HOST": self.server.url, "GOOGLE_APPLICATION_CREDENTIALS": str(path)}

    def objects(self) -> dict[str, bytes]:
        return {name: stored.data for name, stored in self.server.buckets[BUCKET].items()}

    def put(self, objects: dict[str, bytes]) -> None:
        for name, data in objects.items():
            self.server.put(BUCKET, name, data, only_if_new=False)

    def refuse(self, yes: bool) -> None:
        self.server.token = "another one" if yes else TOKEN

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.stop()


@dataclass
class Amazon:
    """The same for s3://."""

    folder: Path
    scheme: str = "s3"

    def __post_init__(self) -> None:
        self._port = 0
        self.start()

    def environment(self) -> dict[str, str]:
        import boto3

        found = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}", "AWS_DEFAULT_REGION": "us-east-1"}
        found |= {"AWS_ACCESS_KEY_ID": "AKIAKDSWEEP", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
        keys = {"aws_access_key_id": found["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": SECRET}
        self._client = boto3.client("s3", endpoint_url=found["AWS_ENDPOINT_URL"], region_name="us-east-1", **keys)
        self._client.create_bucket(Bucket=BUCKET)
        return found

    def _bucket(self) -> Any:
        from moto.s3.models import s3_backends

        return s3_backends["123456789012"]["aws"]

    def objects(self) -> dict[str, bytes]:
        return {name: key.value for name, key in self._bucket().buckets[BUCKET].keys.items()}

    def put(self, objects: dict[str, bytes]) -> None:
        for name, data in objects.items():
            self._bucket().put_object(BUCKET, name, data)

    def refuse(self, yes: bool) -> None:
        import requests

        said = b"0" if yes else b"inf"  # so many more requests need no known key
        requests.post(f"http://127.0.0.1:{self._port}/moto-api/reset-auth", data=said, timeout=10).raise_for_status()

    def start(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()


Provider = Google | Amazon


@pytest.fixture(scope="module")
def providers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Provider]]:
    """Both endpoints, and the environment in which this process, its children and its lanes find them."""
    folder = tmp_path_factory.mktemp("accounts")
    found: dict[str, Provider] = {"gs": Google(folder), "s3": Amazon(folder)}
    with pytest.MonkeyPatch.context() as patch:
        for provider in found.values():
            for name, value in provider.environment().items():
                patch.setenv(name, value)
        yield found
        for provider in found.values():
            provider.stop()


@pytest.fixture(params=["gs", "s3"])
def provider(request: pytest.FixtureRequest, providers: dict[str, Provider]) -> Provider:
    return providers[request.param]


@pytest.fixture
def storage(provider: Provider) -> str:
    """A place of its own in the bucket."""
    return f"{provider.scheme}://{BUCKET}/{uuid4().hex}"


@pytest.fixture
def google(providers: dict[str, Provider]) -> Server:
    found = providers["gs"]
    assert isinstance(found, Google)
    return found.server


@pytest.fixture(scope="module")
def one_ray(providers: dict[str, Provider]) -> Iterator[None]:
    with connected(3):
        yield


@pytest.fixture
def quick_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewed often. Nobody is taken for dead sooner, however busy this machine is."""
    monkeypatch.setattr(lease, "_RENEW_S", 0.1)


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which nobody holds a lock while another one looks at it."""
    monkeypatch.setattr(lease, "_RENEW_S", 0.4)
    monkeypatch.setattr(lease, "_STALE_S", 1.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "ANSWER_S", 1.0)


SYNTHETIC = Launch(in_process=True, make_runner=lambda _: Synthetic())


def run(text: str, storage: str | Path, launch: Launch = SYNTHETIC, *overrides: str) -> Outcome:
    return drive(study_of(text, overrides, options={"storage": str(storage)}), launch, Console(quiet=True))


def below(provider: Provider, storage: str) -> dict[str, bytes]:
    """Objects of the study, by their names in its folder."""
    start = storage.partition(f"{BUCKET}/")[2] + "/tiny/"
    return {name.removeprefix(start): data for name, data in provider.objects().items() if name.startswith(start)}


def equal(one: str | Path, other: str | Path) -> bool:
    trials = table.same(table.read_trials(f"{one}/tiny"), table.read_trials(f"{other}/tiny")) == []
    return trials and table.read_reports(f"{one}/tiny").equals(table.read_reports(f"{other}/tiny"))


class Then(Synthetic):
    """Does something right before its n-th leg."""

    def __init__(self, number: int, does: Callable[[], object], inner: Any = None) -> None:
        super().__init__()
        self.left, self.does, self.inner = number, does, inner

    def run(self, leg: Leg, halt: Callable[[], bool] = never) -> Row:
        self.left -= 1
        if self.left == 0:
            self.does()
        return super().run(leg) if self.inner is None else self.inner.run(leg)


def behind(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that were being handled when it was raised."""
    while error is not None:
        yield error
        error = error.__context__


def stopped_by_the_user() -> None:
    raise KeyboardInterrupt


# A study


def test_a_study_in_a_bucket_is_the_local_one(tiny_study_text: str, provider: Provider, storage: str, tmp_path: Path) -> None:
    real = Launch(in_process=True)
    run(tiny_study_text, tmp_path, real)
    assert run(tiny_study_text, storage, real).exit_code == 0
    assert equal(tmp_path, storage)
    kept = below(provider, storage)
    assert kept["journal/00000001.jsonl"].startswith(b'{"event":"study"')
    assert sorted(name for name in kept if name.startswith("artifacts/")) == sorted(
        f"artifacts/{path.relative_to(tmp_path / 'tiny/artifacts')}" for path in (tmp_path / "tiny/artifacts").rglob("*.pt")
    )
    assert ".lock" not in kept

    events = len(Journal(f"{storage}/tiny").read())
    assert run(tiny_study_text, storage, real).trained == 0
    assert len(Journal(f"{storage}/tiny").read()) == events

    here, there = standing_of(str(tmp_path / "tiny")), standing_of(f"{storage}/tiny")
    assert (there.cells, there.best, there.end, there.driver) == (here.cells, here.best, "complete", None)
    assert table.export(f"{storage}/tiny", "csv", tmp_path / "csv")
    assert (tmp_path / "csv/trials.csv").read_text().count("\n") == 18
    paths = report.write(f"{storage}/tiny")
    assert paths["effects.png"] == f"{storage}/tiny/figures/effects.png"
    assert {"report.md", "report.html", "report.json", "figures/effects.svg"} <= set(below(provider, storage))


@pytest.mark.cluster
def test_lanes_find_teachers_and_checkpoints_in_the_bucket(
    tiny_study_text: str, provider: Provider, storage: str, tmp_path: Path, one_ray: None
) -> None:
    run(tiny_study_text, tmp_path, Launch(in_process=True))
    run(tiny_study_text, storage, Launch(), "run.lanes=2", "run.workers=0")
    assert equal(tmp_path, storage)
    rows = [event for event in Journal(f"{storage}/tiny").read() if event["event"] == "row" and event["where"]]
    assert str(os.getpid()) not in {event["where"]["pid"] for event in rows}
    assert not [name for name in below(provider, storage) if name.startswith("artifacts/checkpoints/")]


def test_a_driver_that_was_stopped_goes_on_from_the_checkpoints(
    tiny_study_text: str, provider: Provider, storage: str, tmp_path: Path
) -> None:
    run(tiny_study_text, tmp_path, Launch(in_process=True))
    for legs in (4, 8):
        runner = Then(legs, stopped_by_the_user, Runner(f"{storage}/tiny/artifacts", "cpu"))
        with pytest.raises(Interrupted):
            run(tiny_study_text, storage, Launch(in_process=True, make_runner=lambda _, runner=runner: runner))  # type: ignore[misc]
        assert [name for name in below(provider, storage) if name.startswith("artifacts/checkpoints/")]
        assert standing_of(f"{storage}/tiny").end == "interrupted"
    run(tiny_study_text, storage, Launch(in_process=True))
    assert equal(tmp_path, storage)


def test_the_mirror_reads_the_journal_of_a_bucket(
    tiny_study_text: str, google: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = f"gs://{BUCKET}/{uuid4().hex}"
    without_search = tiny_study_text[: tiny_study_text.index("search:")] + tiny_study_text[tiny_study_text.index("confirm:") :]
    run(without_search, storage, SYNTHETIC, "confirm.leave_one_out=[]", "confirm.blocks=1")
    said = mirror_all(f"{storage}/tiny", "offline", "p", timeout_s=60)
    assert said.startswith("W&B: 3 of 3 cells mirrored offline"), said
    assert len(list((tmp_path / "kdsweep-results/tiny/wandb").glob("offline-run-*"))) == 3


# What a bucket cannot do by itself


def test_of_many_who_create_an_object_one_succeeds(provider: Provider, storage: str) -> None:
    folder, created = RemoteFolder(storage), []

    def create(number: int) -> None:
        created.append((folder.create("one", str(number).encode()), str(number).encode()))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [data for is_mine, data in created if is_mine]
    assert len(created) == 8
    assert folder.read("one") == winner


def test_creating_asks_the_store_to_refuse(google: Server) -> None:
    folder = RemoteFolder(f"gs://{BUCKET}/{uuid4().hex}")
    assert folder.create("one", b"1")
    method, path = google.requests[-1]
    assert method == "POST"
    assert "ifGenerationMatch=0" in path
    folder.replace("one", b"2")
    assert "ifGenerationMatch" not in google.requests[-1][1]


def test_an_append_whose_answer_was_lost_is_no_rival(google: Server) -> None:
    journal = Journal(f"gs://{BUCKET}/{uuid4().hex}")
    journal.append([{"event": "said", "number": 0}])
    google.lost_answers = 1
    journal.append([{"event": "said", "number": 1}])
    journal.append([{"event": "said", "number": 2}])
    assert [event["number"] for event in journal.read()] == [0, 1, 2]


def test_who_decided_by_an_old_journal_cannot_write_behind_a_new_one(provider: Provider, storage: str) -> None:
    first, second = Journal(storage), Journal(storage)
    first.append([{"event": "said", "number": 0}])
    assert len(second.read()) == 1
    first.append([{"event": "said", "number": 1}])
    with pytest.raises(StorageError, match=r"00000002\.jsonl needs to be the only writer"):
        second.append([{"event": "said", "number": 2}])
    assert [event["number"] for event in Journal(storage).read()] == [0, 1]


def test_the_second_of_two_drivers_is_refused_and_the_first_goes_on(
    tiny_study_text: str, provider: Provider, storage: str, tmp_path: Path, quick_lease: None
) -> None:
    run(tiny_study_text, tmp_path)
    begun = threading.Event()
    naps = Launch(in_process=True, make_runner=lambda _: Then(1, begun.set, napping(0.05, 1)))
    ended: list[Outcome] = []
    first = threading.Thread(target=lambda: ended.append(run(tiny_study_text, storage, naps)))
    first.start()
    assert begun.wait(60)
    with pytest.raises(StudyLocked, match=rf"{storage}/tiny in use by process {os.getpid()} on .* since 20") as caught:
        run(tiny_study_text, storage)
    assert "Wait for it, or stop it" in str(caught.value)
    assert f"process {os.getpid()}" in str(standing_of(f"{storage}/tiny").driver)
    first.join(60)
    assert ended[0].exit_code == 0
    assert equal(tmp_path, storage)
    assert standing_of(f"{storage}/tiny").driver is None


def test_the_lock_of_a_dead_driver_holds_for_a_while(provider: Provider, storage: str, short_lease: None) -> None:
    folder = RemoteFolder(storage)
    told = {"host": "away", "pid": 7, "since": "then", "token": "other"}
    now = datetime.now(UTC)
    folder.replace(".lock", json.dumps({**told, "renewed": now.isoformat()}).encode())
    assert holder_of(storage) == "process 7 on away since then"
    start = time.monotonic()
    with StudyLock(storage):
        assert time.monotonic() - start >= 1.0
        assert str(os.getpid()) in str(holder_of(storage))
    assert folder.read(".lock") is None
    # However long ago that was, or will be: clocks go back. Only in words is nobody at work.
    for minutes in (-3, 3):
        folder.replace(".lock", json.dumps({**told, "renewed": (now + timedelta(minutes=minutes)).isoformat()}).encode())
        assert holder_of(storage) is None
        start = time.monotonic()
        with StudyLock(storage):
            assert time.monotonic() - start >= 1.0


def test_a_lock_that_another_one_took_over_is_left_alone(provider: Provider, storage: str, quick_lease: None) -> None:
    folder = RemoteFolder(storage)
    with StudyLock(storage):
        mine = folder.read(".lock")
        for _ in range(400):
            if folder.read(".lock") != mine:
                break
            time.sleep(0.05)
        else:
            pytest.fail("the lock is not renewed")
        for _ in range(20):
            folder.replace(".lock", b'{"token": "another"}')
            time.sleep(0.5)
            if folder.read(".lock") == b'{"token": "another"}':
                break  # else a renewal was under way
    assert folder.read(".lock") == b'{"token": "another"}'


def test_a_store_without_conditional_writes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe_file = MemoryFileSystem.pipe_file
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", lambda self, path, value, mode="overwrite": pipe_file(self, path, value))
    place = f"memory://{uuid4().hex}"
    with pytest.raises(StorageError, match=f"refuse a conditional write .* got {place}, which replaced it"), StudyLock(place):
        pass
    assert RemoteFolder(place).read(".lock") is None


def test_a_conflict_without_a_name_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # Stores other than Amazon's say 412 without the condition that failed, which s3fs raises as an invalid argument.
    folder = RemoteFolder(f"memory://{uuid4().hex}")
    folder.replace("there", b"theirs")

    def refuses(self: object, path: str, value: bytes, mode: str) -> None:
        raise OSError(errno.EINVAL, "At least one of the pre-conditions you specified did not hold")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuses)
    assert folder.create("there", b"mine") is False
    assert folder.create("there", b"theirs") is True
    with pytest.raises(StorageError, match="pre-conditions"):
        folder.create("not there", b"mine")


# Other machines


def test_a_listing_longer_than_a_page_is_whole(provider: Provider, storage: str, google: Server) -> None:
    start = storage.partition(f"{BUCKET}/")[2]
    provider.put({f"{start}/journal/{n:08d}.jsonl": b"" for n in range(1, 2_051)})
    google.requests.clear()
    assert RemoteFolder(storage).names("journal") == tuple(f"{n:08d}.jsonl" for n in range(1, 2_051))
    if provider.scheme == "gs":
        assert len(google.requests) == 3


def test_events_that_another_machine_writes_are_seen_and_each_is_read_once(provider: Provider, storage: str, google: Server) -> None:
    start, reader = storage.partition(f"{BUCKET}/")[2], Journal(storage)
    assert reader.read() == ()
    provider.put({f"{start}/journal/00000001.jsonl": b'{"event":"said"}\n'})
    assert len(reader.read()) == 1
    provider.put({f"{start}/journal/00000002.jsonl": b'{"event":"said"}\n{"event":"said"}\n'})
    google.requests.clear()
    assert len(reader.read()) == 3
    if provider.scheme == "gs":
        assert not [path for _, path in google.requests if "00000001" in path], "a segment never changes"


def test_artefacts_that_another_machine_writes_are_seen(provider: Provider, storage: str) -> None:
    start, store = storage.partition(f"{BUCKET}/")[2], Store(f"{storage}/artifacts")
    assert (store.names(), store.exists("teachers/a.pt")) == ((), False)
    provider.put({f"{start}/artifacts/teachers/a.pt": b"x"})
    assert (store.names(), store.names("teachers/")) == (("teachers/a.pt",), ("teachers/a.pt",))
    provider.put({f"{start}/artifacts/teachers/b.pt": b"y"})
    assert (store.exists("teachers/b.pt"), store.exists("teachers"), store.read("teachers/b.pt")) == (True, False, b"y")
    provider.put({f"{start}/artifacts/teachers/c.pt": b"z"})
    assert store.names("teachers/") == ("teachers/a.pt", "teachers/b.pt", "teachers/c.pt")


# What goes wrong


@pytest.mark.parametrize("verb", ["run", "read"])
def test_a_bucket_that_is_not_there_is_said(verb: str, tiny_study_text: str, provider: Provider, tmp_path: Path) -> None:
    missing = f"{provider.scheme}://kdsweep-nowhere/results"
    if verb == "run":
        with pytest.raises(StorageError, match=rf"Writing {missing}/tiny/\.lock needs a bucket.* but got no such bucket"):
            run(tiny_study_text, missing)
    else:
        with pytest.raises(StorageError, match="holds no results"):
            standing_of(f"{missing}/tiny")


def test_credentials_that_are_refused_are_said(tiny_study_text: str, provider: Provider, storage: str, capfd: Any) -> None:
    run(tiny_study_text, storage)
    provider.refuse(True)
    try:
        with pytest.raises(StorageError, match=r"Writing .* but got no access with these credentials") as writing:
            run(tiny_study_text, storage)
        with pytest.raises(StorageError, match=r"Reading .* but got no access with these credentials") as reading:
            Journal(f"{storage}/tiny").read()
        with pytest.raises(StoreError, match="no access with these credentials"):
            Store(storage).read("a")
        with pytest.raises(StoreError, match="no access with these credentials"):
            Store(storage).exists("a")
    finally:
        provider.refuse(False)
    for said in (str(writing.value), str(reading.value), *capfd.readouterr()):
        assert SECRET not in said
        assert TOKEN not in said
        assert "Traceback" not in said


def test_a_bucket_that_is_somebody_else_s_is_said(google: Server) -> None:
    google.forbids = True
    try:
        with pytest.raises(StorageError, match=r"no access with these credentials \(OSError: Forbidden: .*storage\.objects\.create access"):
            Journal(f"gs://{BUCKET}/{uuid4().hex}").append([{"event": "said"}])
    finally:
        google.forbids = False


def test_the_command_says_it_in_one_line(provider: Provider, storage: str) -> None:
    provider.refuse(True)
    try:
        command = [sys.executable, "-m", "orchestrator", "status", storage]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        provider.refuse(False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Reading {storage}/journal needs access and an answer, but got no access"), done.stderr
    assert done.stderr.count("\n") == 1


def test_an_endpoint_that_is_down_is_said_in_time(tiny_study_text: str, provider: Provider, storage: str, impatient: None) -> None:
    provider.stop()
    try:
        start = time.monotonic()
        with pytest.raises(StorageError, match=r"Writing .*/tiny/\.lock needs .* an answer, but got no answer"):
            run(tiny_study_text, storage)
        with pytest.raises(StorageError, match=r"Reading .*/tiny/journal needs .* an answer, but got no answer"):
            Journal(f"{storage}/tiny").read()
        assert time.monotonic() - start < 20.0
    finally:
        provider.start()


def test_an_endpoint_that_is_away_for_a_moment_costs_nothing_else(
    tiny_study_text: str, provider: Provider, storage: str, tmp_path: Path
) -> None:
    run(tiny_study_text, tmp_path)

    def away() -> None:
        provider.stop()
        threading.Timer(0.7, provider.start).start()

    run(tiny_study_text, storage, Launch(in_process=True, make_runner=lambda _: Then(7, away)))
    assert equal(tmp_path, storage)


def test_a_study_whose_endpoint_stays_away_ends_with_the_reason_and_goes_on_later(
    tiny_study_text: str, provider: Provider, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_lease: None
) -> None:
    run(tiny_study_text, tmp_path)

    def away() -> None:
        monkeypatch.setattr(remote, "ANSWER_S", 1.0)
        provider.stop()

    try:
        start = time.monotonic()
        with pytest.raises(
            StorageError, match=r"Writing .*/journal/[0-9]+\.jsonl .* but got no answer.*finished cells are not repeated"
        ) as caught:
            run(tiny_study_text, storage, Launch(in_process=True, make_runner=lambda _: Then(7, away)))
        assert time.monotonic() - start < 20.0
        assert len([each for each in behind(caught.value) if isinstance(each, StorageError)]) == 1, "it asked again, for as long"
    finally:
        provider.start()
    monkeypatch.setattr(remote, "ANSWER_S", 60.0)
    rest = run(tiny_study_text, storage)
    assert rest.trained == 17 + 4 - 6, "all but the six legs whose rows arrived; four cells have a leg to a rung and one beyond"
    assert equal(tmp_path, storage)


@pytest.mark.cluster
def test_lanes_stop_with_the_reason_where_the_endpoint_stays_away(
    tiny_study_text: str, google: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_lease: None, one_ray: None
) -> None:
    run(tiny_study_text, tmp_path)
    storage = f"gs://{BUCKET}/{uuid4().hex}"
    start = storage.partition(f"{BUCKET}/")[2] + "/tiny/journal/"

    def away() -> None:
        while sum(name.startswith(start) for name in list(google.buckets[BUCKET])) < 6:
            time.sleep(0.05)
        monkeypatch.setattr(remote, "ANSWER_S", 1.0)
        google.stop()

    watch = threading.Thread(target=away, daemon=True)
    watch.start()
    lanes = Launch(make_runner=functools.partial(napping, 0.1))
    try:
        with pytest.raises(StorageError, match=r"Writing .*/journal/[0-9]+\.jsonl .* but got no answer"):
            run(tiny_study_text, storage, lanes, "run.lanes=2", "run.workers=0")
    finally:
        watch.join()
        google.start()
    monkeypatch.setattr(remote, "ANSWER_S", 60.0)
    run(tiny_study_text, storage)
    assert equal(tmp_path, storage)


def test_a_store_that_refuses_is_no_fact_about_a_training(
    tiny_study_text: str, provider: Provider, storage: str, tmp_path: Path, short_lease: None
) -> None:
    run(tiny_study_text, tmp_path, Launch(in_process=True))
    root = f"{storage}/tiny/artifacts"
    runner = Then(4, functools.partial(provider.refuse, True), Runner(root, "cpu"))
    try:
        with pytest.raises(StorageError, match=r"(Reading|Writing) (teachers|checkpoints)/.* but got no access"):
            run(tiny_study_text, storage, Launch(in_process=True, make_runner=lambda _: runner))
    finally:
        provider.refuse(False)
    assert not [event for event in Journal(f"{storage}/tiny").read() if event["event"] == "row" and event["status"] == "failed"]
    run(tiny_study_text, storage, Launch(in_process=True))
    assert equal(tmp_path, storage)


# Around it


@pytest.mark.parametrize(("scheme", "package", "extra"), [("gs", "gcsfs", "gcs"), ("s3", "s3fs", "s3")])
def test_an_extra_that_is_missing_is_named(scheme: str, package: str, extra: str) -> None:
    code = f"""
import sys
sys.modules[{package!r}] = None
from orchestrator.errors import StorageError
from orchestrator.journal import Journal
from trainables.store import Store
for use in (lambda: Journal("{scheme}://b/p").read(), lambda: Store("{scheme}://b/p")):
    try:
        use()
    except (StorageError, ValueError) as fault:
        print(fault)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count(f"pip install 'kdsweep[{extra}]'") == 2, done


def test_backends_are_imported_for_their_urls_alone() -> None:
    code = "import sys, orchestrator.journal, trainables.store; trainables.store.Store('x'); print({'gcsfs', 's3fs', 'aiohttp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_credentials_end_in_no_result(tiny_study_text: str, provider: Provider, storage: str) -> None:
    def fails(trial: object) -> bool:
        return getattr(trial, "opens_test", False)

    run(tiny_study_text, storage, Launch(in_process=True, make_runner=lambda _: Synthetic(fails=fails)))
    report.write(f"{storage}/tiny")
    everything = [*below(provider, storage).values()]
    everything += [
        str(read(f"{storage}/tiny").to_pydict()).encode() for read in (table.read_trials, table.read_reports, table.read_studies)
    ]
    assert len(everything) > 20
    for secret in (TOKEN, SECRET, "AKIAKDSWEEP", "BEGIN PRIVATE KEY"):
        assert not [data for data in everything if secret.encode() in data], secret


@pytest.mark.parametrize("url", [f"s3://AKIAKDSWEEP:{SECRET}@{BUCKET}/results", f"sftp://me:{SECRET}@host/results"])
def test_a_login_in_a_url_is_refused_and_not_repeated(url: str, tiny_study_text: str) -> None:
    for use in (lambda: run(tiny_study_text, url), lambda: Journal(url).read(), lambda: Store(url)):
        with pytest.raises((StorageError, ValueError), match="a login in a URL") as caught:
            use()
        assert SECRET not in str(caught.value)
        assert f"{url.partition('://')[0]}://***@" in str(caught.value)
