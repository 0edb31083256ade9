from __future__ import annotations

import os
import stat
import uuid
from pathlib import Path

import pytest

from trainables.store import Store


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    return str(tmp_path / "artifacts") if request.param == "local" else f"memory://{uuid.uuid4().hex}/artifacts"


def test_round_trip(root):
    store = Store(root)
    assert store.read("teachers/a.pt") is None
    assert not store.exists("teachers/a.pt")
    store.write("teachers/a.pt", b"one")
    assert store.read("teachers/a.pt") == b"one"
    assert store.exists("teachers/a.pt")
    store.write("teachers/a.pt", b"")
    assert store.read("teachers/a.pt") == b""
    assert Store(root).exists("teachers/a.pt")


def test_names_below_a_prefix_in_order(root):
    store = Store(root)
    assert store.names() == ()
    for name in ("teachers/b.pt", "checkpoints/c.pt", "teachers/a.pt", "top"):
        store.write(name, b"x")
    assert store.names() == ("checkpoints/c.pt", "teachers/a.pt", "teachers/b.pt", "top")
    assert store.names("teachers/") == ("teachers/a.pt", "teachers/b.pt")
    assert store.names("nothing/") == ()


def test_remove_twice(root):
    store = Store(root)
    store.write("a", b"x")
    store.remove("a")
    store.remove("a")
    assert store.read("a") is None
    assert store.names() == ()


def test_a_folder_is_not_an_artefact(root):
    store = Store(root)
    store.write("teachers/a.pt", b"x")
    assert not store.exists("teachers")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a", "a/../../b", "a//b", "./a", "a/", ".hidden", "a\\b", "gs://bucket/a", "a\0b"])
def test_names_stay_below_the_root(root, name):
    store = Store(root)
    for use in (store.read, store.exists, store.remove, lambda n: store.write(n, b"x")):
        with pytest.raises(ValueError, match="stay below its root"):
            use(name)


def test_a_write_that_breaks_off_leaves_what_was_there(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    store.write("a", b"old")

    def breaks(source, target):
        assert Path(source).read_bytes() == b"new"  # complete before it takes the name
        raise OSError("disk gone")

    monkeypatch.setattr(os, "replace", breaks)
    with pytest.raises(OSError, match="disk gone"):
        store.write("a", b"new")
    assert store.read("a") == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_bytes_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: (calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"), fsync(handle))
    )
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("name"), replace(a, b)))
    Store(str(tmp_path)).write("a", b"x")
    assert calls == ["file", "name", "folder"]


def test_what_a_crash_left_behind_is_no_artefact(tmp_path):
    store = Store(str(tmp_path))
    store.write("a", b"x")
    (tmp_path / ".a.0123").write_bytes(b"half")
    assert store.names() == ("a",)


def test_others_may_read(tmp_path):
    Store(str(tmp_path)).write("a", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_root_that_nothing_opens():
    with pytest.raises(ValueError, match="Store needs a local path or a URL that fsspec can open, but got root='nosuch://x'"):
        Store("nosuch://x")
