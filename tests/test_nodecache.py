"""What is made once per node: whole or not at all, by one process, checked, and with a word about disks that are full."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables import nodecache

HERE = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("KDSWEEP_CACHE", str(tmp_path / "node"))
    return tmp_path / "node"


def _numbers(folder):
    np.save(folder / "numbers.npy", np.arange(5))


def _never(folder):
    pytest.fail("it stands already")


def test_an_entry_is_made_once(root):
    folder = nodecache.kept("five", 100, _numbers)
    assert folder == root / "five"
    assert nodecache.array(nodecache.kept("five", 100, _never) / "numbers.npy").tolist() == [0, 1, 2, 3, 4]
    assert nodecache.tensor(folder / "numbers.npy").dtype == torch.int64


def test_an_entry_may_have_folders():
    def make(folder):
        _numbers(folder)
        (folder / "more").mkdir()
        (folder / "more" / "text").write_text("x")

    folder = nodecache.kept("nested", 100, make)
    assert nodecache.kept("nested", 100, _never) == folder
    (folder / "more" / "text").write_text("y")
    os.utime(folder / "whole.json", ns=(1, 1))
    assert (nodecache.kept("nested", 100, make) / "more" / "text").read_text() == "x"


def test_writing_to_a_mapped_array_changes_no_file():
    file = nodecache.kept("five", 100, _numbers) / "numbers.npy"
    nodecache.array(file)[:] = 9
    assert nodecache.array(file).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("damage", ["longer", "shorter", "other", "gone", "no list", "a list of nothing"])
def test_what_is_damaged_is_made_again(damage, caplog):
    folder = nodecache.kept("five", 100, _numbers)
    file, listed = folder / "numbers.npy", folder / "whole.json"
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "no list":
        listed.unlink()
    elif damage == "a list of nothing":
        listed.write_text("7")
    else:
        file.write_bytes({"longer": data + b"x", "shorter": data[:-1], "other": data[:-1] + b"\xff"}[damage])
    if listed.exists():
        os.utime(listed, ns=(1, 1))  # as another process finds it, which has not checked it yet
    assert nodecache.array(nodecache.kept("five", 100, _numbers) / "numbers.npy").tolist() == [0, 1, 2, 3, 4]
    assert "five is not whole, and is made again" in caplog.text


def test_what_fails_leaves_nothing_and_the_next_one_makes_it(root):
    def fails(folder):
        _numbers(folder)
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"):
        nodecache.kept("five", 100, fails)
    assert [entry.name for entry in root.iterdir()] == ["five.lock"]
    assert (nodecache.kept("five", 100, _numbers) / "numbers.npy").exists()


def test_what_a_killed_process_left_is_removed(root):
    (root / "five.part-0123").mkdir(parents=True)
    (root / "five.part-0123" / "numbers.npy").write_bytes(b"half")
    nodecache.kept("five", 100, _numbers)
    assert sorted(entry.name for entry in root.iterdir()) == ["five", "five.lock"]


def test_a_disk_without_room_is_said_beforehand(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(nodecache.shutil, "disk_usage", lambda _: usage(10, 9, 1_500_000))
    with pytest.raises(
        OSError, match=r"The cache needs 3 MB in .*node for five, but got: 3 MB are needed and 2 MB are free\. Make room, or set KDSWEEP"
    ):
        nodecache.kept("five", 3_000_000, _never)


def test_a_disk_that_fills_up_is_said_too(root):
    def full(folder):
        (folder / "numbers.npy").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"The cache needs .* but got: No space left on device\. Make room, or set KDSWEEP_CACHE") as raised:
        nodecache.kept("five", 100, full)
    assert raised.value.errno == errno.ENOSPC
    assert [entry.name for entry in root.iterdir()] == ["five.lock"]


def test_a_full_disk_is_an_error_and_no_signal(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    (tmp_path / "full.npy").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        nodecache.write_array(tmp_path / "full.npy", (4, 1 << 20), np.dtype(np.uint8), iter([np.zeros((4, 1 << 20), np.uint8)]))


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KDSWEEP_CACHE", str(tmp_path / "file" / "node"))
    with pytest.raises(OSError, match="Not a directory"):
        nodecache.kept("five", 100, _never)


def test_arrays_come_in_parts(tmp_path):
    whole = np.random.RandomState(0).randint(0, 256, (7, 3, 4), np.uint8)
    nodecache.write_array(tmp_path / "a.npy", (7, 3, 4), np.dtype(np.uint8), iter([whole[:5], whole[5:, :, ::1]]))
    assert np.array_equal(np.load(tmp_path / "a.npy"), whole)


def _slow(folder):
    with (folder.parent / "made").open("a") as told:
        told.write("x")
    time.sleep(0.3)
    _numbers(folder)


def _open(root, found):
    os.environ["KDSWEEP_CACHE"] = str(root)
    found.put(nodecache.array(nodecache.kept("five", 100, _slow) / "numbers.npy").tolist())


def test_of_several_processes_one_makes_it(root):
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    lanes = [context.Process(target=_open, args=(root, found)) for _ in range(3)]
    for lane in lanes:
        lane.start()
    results = [found.get(timeout=30) for _ in lanes]
    for lane in lanes:
        lane.join(30)
    assert results == [[0, 1, 2, 3, 4]] * 3
    assert (root / "made").read_text() == "x"
    assert json.loads((root / "five" / "whole.json").read_text()).keys() == {"numbers.npy"}
