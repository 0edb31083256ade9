"""Orders: what one terminal writes, a driver elsewhere reads, in a folder and in a bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest

from orchestrator import orders
from orchestrator.errors import Refused, StorageError
from orchestrator.events import order_event
from orchestrator.journal import Journal
from orchestrator.orders import Inbox, Order, give, sweep_away, waiting
from orchestrator.record import record_of

CELL = "0123456789abcdef"


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "study")
        return
    url = f"memory://{uuid.uuid4().hex}/study"
    yield url
    files, path = fsspec.core.url_to_fs(url)
    if files.exists(path):
        files.rm(path, recursive=True)


def put(folder: str, name: str, data: bytes) -> None:
    files, path = fsspec.core.url_to_fs(f"{folder}/orders")
    files.makedirs(path, exist_ok=True)
    files.pipe_file(f"{path}/{name}", data)


def lying(folder: str) -> list[str]:
    files, path = fsspec.core.url_to_fs(f"{folder}/orders")
    return sorted(found.rpartition("/")[2] for found in files.ls(path, detail=False)) if files.exists(path) else []


def at(second: int) -> datetime:
    return datetime(2026, 1, 2, 3, 4, second, tzinfo=UTC)


def name_of(token: str) -> str:
    return f"20260102T030405.000006Z-{token}.json"


def test_an_order_arrives_once_and_is_removed(folder: str) -> None:
    inbox = Inbox(folder)
    assert inbox.poll() == ()
    given = give(folder, "pause")
    assert inbox.poll() == (given,)
    assert inbox.poll() == (), "it was seen"
    inbox.remove(given)
    assert lying(folder) == []
    assert given.kind == "pause"
    assert given.cells == ()
    assert "@" in given.by


def test_orders_arrive_oldest_first_whatever_their_tokens(folder: str) -> None:
    given = {second: give(folder, "pause", clock=lambda s=second: at(s)) for second in (7, 3, 9, 1, 5, 8, 2, 6, 4)}
    assert Inbox(folder).poll() == tuple(given[second] for second in range(1, 10))


def test_to_remove_one_leaves_the_others(folder: str) -> None:
    first, second = give(folder, "pause"), give(folder, "retry", [CELL])
    Inbox(folder).remove(first)
    assert Inbox(folder).poll() == (second,)
    assert second.cells == (CELL,)


def test_another_process_gives_an_order_and_this_one_has_it(tmp_path: Path) -> None:
    code = "import sys; from orchestrator.orders import give; print(give(sys.argv[1], 'stop').token)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], capture_output=True, text=True, check=True)
    [order] = Inbox(tmp_path / "s").poll()
    assert (order.kind, order.token) == ("stop", done.stdout.strip())


TOKEN = "ab" * 16
GOOD = {"kind": "stop", "token": TOKEN, "by": "me@here", "cells": []}


def test_a_good_order_written_by_hand_is_one(folder: str) -> None:
    put(folder, name_of(TOKEN), json.dumps(GOOD).encode())
    assert Inbox(folder).poll() == (Order("stop", TOKEN, "me@here"),)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"kind": "sto',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"[]",
        b"17",
        b"null",
        json.dumps(GOOD | {"kind": "rm"}).encode(),
        json.dumps(GOOD | {"kind": ["stop"]}).encode(),
        json.dumps(GOOD | {"token": "cd" * 16}).encode(),
        json.dumps(GOOD | {"by": "me\x1b[2J"}).encode(),
        json.dumps(GOOD | {"by": "x" * 1000}).encode(),
        json.dumps(GOOD | {"by": None}).encode(),
        json.dumps(GOOD | {"cells": [CELL]}).encode(),
        json.dumps(GOOD | {"kind": "retry"}).encode(),
        json.dumps(GOOD | {"kind": "retry", "cells": ["../../etc"]}).encode(),
        json.dumps(GOOD | {"kind": "retry", "cells": [7]}).encode(),
        json.dumps(GOOD | {"kind": "retry", "cells": {CELL: 1}}).encode(),
    ],
)
def test_what_is_no_order_is_removed_and_keeps_no_order_back(folder: str, data: bytes) -> None:
    put(folder, name_of(TOKEN), data)
    given = give(folder, "pause")
    assert Inbox(folder).poll() == (given,)
    assert len(lying(folder)) == 1


@pytest.mark.parametrize("name", ["notes.txt", f"{TOKEN}.json", "20260102T030405.000006Z-short.json", "x.pkl"])
def test_what_is_not_named_like_an_order_is_none(folder: str, name: str) -> None:
    put(folder, name, json.dumps(GOOD).encode())
    assert Inbox(folder).poll() == ()
    assert lying(folder) == []


def test_what_is_being_written_is_left_to_its_writer(tmp_path: Path) -> None:
    put(str(tmp_path), f".{name_of(TOKEN)}.77.tmp", b'{"kind"')
    assert Inbox(tmp_path).poll() == ()
    assert sweep_away(tmp_path) == 0
    assert len(lying(str(tmp_path))) == 1


def test_a_folder_a_pipe_and_a_link_are_no_orders(tmp_path: Path) -> None:
    (tmp_path / "orders" / name_of("01" * 16)).mkdir(parents=True)
    os.mkfifo(tmp_path / "orders" / name_of("02" * 16))  # to read it would wait for ever
    secret = tmp_path / "secret"
    secret.write_text(json.dumps(GOOD))
    (tmp_path / "orders" / name_of(TOKEN)).symlink_to(secret)
    assert Inbox(tmp_path).poll() == ()
    assert secret.exists()


def test_orders_of_before_the_launch_are_swept_away(folder: str) -> None:
    assert sweep_away(folder) == 0
    give(folder, "stop")
    put(folder, "notes.txt", b"")
    assert sweep_away(folder) == 2
    assert lying(folder) == []
    later = give(folder, "pause")
    assert Inbox(folder).poll() == (later,)


def test_who_waits_and_since_when(folder: str) -> None:
    assert waiting(folder) == ()
    order = give(folder, "stop", clock=lambda: at(5) + timedelta(microseconds=6))
    put(folder, "notes.txt", b"")
    put(folder, f"20261302T030405.000006Z-{TOKEN}.json", b"")
    (_, first), (name, since) = sorted(waiting(folder), key=lambda found: found[1])
    assert (name, since) == (f"orders/{name_of(order.token)}", at(5) + timedelta(microseconds=6))
    assert first.year == 1970, "the thirteenth month"


@pytest.mark.parametrize(
    ("kind", "cells", "names"), [("halt", [], "halt"), ("retry", [], "retry"), ("stop", [CELL], "stop"), ("retry", ["../x"], "../x")]
)
def test_only_what_makes_sense_is_given(tmp_path: Path, kind: str, cells: list[str], names: str) -> None:
    with pytest.raises((ValueError, Refused), match=r"n [oO]rder needs") as raised:
        give(tmp_path, kind, cells)
    assert names in str(raised.value)
    assert not (tmp_path / "orders").exists()


def test_a_store_that_is_away_gives_no_orders_and_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox, given = Inbox(tmp_path), give(tmp_path, "pause")
    real = orders.LocalFolder.names

    def away(self: orders.LocalFolder, folder: str) -> tuple[str, ...]:
        raise StorageError("away")

    monkeypatch.setattr(orders.LocalFolder, "names", away)
    assert inbox.poll() == ()
    inbox.remove(given)
    monkeypatch.setattr(orders.LocalFolder, "names", real)
    assert inbox.poll() == (given,)


def test_an_order_that_is_closed_to_us_keeps_no_other_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = give(tmp_path, "stop", clock=lambda: at(1))
    given = give(tmp_path, "pause")
    real = orders.LocalFolder.read

    def read(self: orders.LocalFolder, name: str) -> bytes | None:
        if closed.token in name:
            raise StorageError("no permission")
        return real(self, name)

    monkeypatch.setattr(orders.LocalFolder, "read", read)
    assert Inbox(tmp_path).poll() == (given,)


def test_the_journal_and_its_record_know_an_order(folder: str) -> None:
    order = give(folder, "retry", [CELL])
    journal = Journal(folder)
    event = order_event(order=order.kind, token=order.token, by=order.by, cells=order.cells, clock=lambda: at(5))
    journal.append([event])
    assert event == {
        "event": "order", "time": "2026-01-02T03:04:05.000000+00:00", "order": "retry", "token": order.token, "by": order.by, "cells": [CELL],
    }  # fmt: skip
    assert record_of(journal.read()).orders == [event]
