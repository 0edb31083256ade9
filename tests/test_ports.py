"""Ray as a launch on this machine starts it: every socket that listens is on loopback, and the doctor that starts one leaves nothing."""

from __future__ import annotations

import ipaddress
import os
import shutil
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import __main__, checkservices, driver, loopback

_LISTENS = "0A"
"""State of a socket in /proc/net/tcp."""


@pytest.fixture
def home() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="h-", dir="/tmp"))
    yield found
    shutil.rmtree(found)


def listening() -> dict[str, str]:
    """Addresses of listening TCP sockets of this machine, by inode."""
    lines = [line.split() for family in ("tcp", "tcp6") for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]]
    return {fields[9]: _address(fields[1].partition(":")[0]) for fields in lines if fields[3] == _LISTENS}


def _address(text: str) -> str:
    """The kernel writes words of 32 bits in the order of the machine's bytes: 0100007F is 127.0.0.1."""
    raw = b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    found = ipaddress.ip_address(raw)
    return str(getattr(found, "ipv4_mapped", None) or found)


def sockets_below(pid: int) -> set[tuple[str, str]]:
    """Name and address of every listening socket of the processes that descend from one."""
    children = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            children[int((folder / "stat").read_text().rpartition(")")[2].split()[1])].append(int(folder.name))
        except OSError:
            continue
    below, found, known = list(children[pid]), set(), listening()
    while below:
        each = below.pop()
        below += children[each]
        try:
            name = Path(f"/proc/{each}/comm").read_text().strip()
            links = [os.readlink(link) for link in Path(f"/proc/{each}/fd").iterdir()]
        except OSError:
            continue
        found |= {(name, known[inode]) for link in links if (inode := link.removeprefix("socket:[").rstrip("]")) in known}
    return found


def test_addresses_are_read_as_the_kernel_writes_them() -> None:
    assert _address("0100007F") == "127.0.0.1"
    assert _address("00000000") == "0.0.0.0"
    assert _address("0000000000000000FFFF00000100007F") == "127.0.0.1"
    assert _address("00000000000000000000000001000000") == "::1"
    assert _address("0" * 32) == "::"


def test_a_local_ray_listens_on_loopback_alone_and_the_doctor_leaves_nothing_of_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1"}
    for name in (loopback.SWITCH, "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        environ.pop(name, None)
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    seen: set[tuple[str, str]] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            seen.update(sockets_below(os.getpid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        told = checkservices.ask(None, environ, checkservices.RAY_S)
    finally:
        over.set()
        watcher.join()
    assert "problem" not in told, told
    assert [machine["address"] for machine in told["machines"]] == ["127.0.0.1"]
    assert told["machines"][0]["versions"] == told["here"]
    assert told["authentication"] == "token"
    assert {"gcs_server", "raylet"} <= {name for name, _ in seen}
    assert {address for _, address in seen} == {"127.0.0.1"}
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize(
    ("options", "switched"),
    [([], "0"), (["--address", "10.0.0.1:6379"], None), (["--in-process"], None)],
    ids=["local", "joins", "in-process"],
)
def test_a_launch_that_starts_ray_has_it_listen_here_alone(
    options: list[str], switched: str | None, tmp_path: Path, tiny_study_text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(loopback.SWITCH, "")
    monkeypatch.delenv(loopback.SWITCH)  # and what the launch sets is gone behind the test
    path = tmp_path / "study.yaml"
    path.write_text(tiny_study_text)
    found: list[str | None] = []

    def drive(*_: Any) -> None:
        found.append(os.environ.get(loopback.SWITCH))
        raise SystemExit(0)

    monkeypatch.setattr(driver, "drive", drive)
    monkeypatch.setattr("sys.argv", ["kdsweep", "run", str(path), *options])
    with pytest.raises(SystemExit):
        __main__.main()
    assert found == [switched]


def test_what_the_user_has_set_stays() -> None:
    environ = {loopback.SWITCH: "1"}
    loopback.only_here(environ)
    assert environ == {loopback.SWITCH: "1"}
