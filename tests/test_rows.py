"""Rows that are read along the way: order, bounds, whose rows are read, and what a broken picture says."""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch

from tests.small_pictures import READ, Kept, Photos
from tests.small_trials import Plain, student_trial
from tests.test_batches import _worker
from trainables import rows
from trainables.batches import Order, resident
from trainables.device import Cpu
from trainables.distiller import Needs
from trainables.exposure import Exposure
from trainables.rows import Chosen, Unreadable, ahead, all_of, resident_bytes
from trainables.runner import Runner
from trainables.trial import Leg

PICTURES = torch.arange(40 * 3 * 2 * 2).reshape(40, 3, 2, 2).to(torch.uint8)
BATCHES = [torch.tensor([7, 3, 3]), torch.tensor([0, 39, 7]), torch.tensor([11, 12, 13])]


@pytest.mark.parametrize("mapped", [False, True])
def test_batches_come_in_their_order(mapped):
    source = Kept(PICTURES, mapped=mapped)
    found = list(ahead(source, BATCHES))
    assert all(torch.equal(part, PICTURES[numbers]) for part, numbers in zip(found, BATCHES, strict=True))
    assert sorted(source.asked) == [0, 3, 7, 7, 11, 12, 13, 39], "what fills up a batch is read once"
    assert list(ahead(source, [])) == []


def test_what_is_read_before_it_is_used_is_bounded(monkeypatch):
    monkeypatch.setattr(rows, "_THREADS", 2)
    source = Kept(PICTURES)
    found = ahead(source, torch.arange(40).split(2))
    next(found)
    limit, end = 2 * (3 + 1), time.monotonic() + 10
    while len(source.asked) < limit and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(0.02)
    assert len(source.asked) == limit, "the batch in use, and one for each thread and one more"
    found.close()
    time.sleep(0.02)
    assert len(source.asked) == limit
    monkeypatch.setattr(rows, "_WAITING_BYTES", 1)
    few = Kept(PICTURES)
    found = ahead(few, torch.arange(40).split(2))
    next(found)
    time.sleep(0.02)
    assert len(few.asked) <= 2 * 3


def test_a_broken_picture_is_named_when_it_is_due():
    source = Kept(PICTURES, broken=12)
    found = ahead(source, BATCHES)
    assert torch.equal(next(found), PICTURES[BATCHES[0]])
    assert torch.equal(next(found), PICTURES[BATCHES[1]])
    with pytest.raises(Unreadable, match=r"but got OSError for cats/012\.png: broken data stream\. Replace or remove it"):
        next(found)
    with pytest.raises(Unreadable, match=r"cats/012\.png"):
        all_of(source)


def test_rows_have_one_form():
    class Wrong(Kept):
        def fetch(self, numbers):
            return super().fetch(numbers).float()

    with pytest.raises(Unreadable, match=r"Wrong needs fetch to return uint8 \(3, 3, 2, 2\), but got torch.float32 \(3, 3, 2, 2\)"):
        next(ahead(Wrong(PICTURES), BATCHES[1:]))


def test_all_of_them_and_some_of_them():
    source = Kept(PICTURES, broken=1)
    few = Chosen(source, torch.tensor([5, 39, 2]))
    assert torch.equal(all_of(few), PICTURES[[5, 39, 2]])
    assert (len(few), few.shape, few.name(1), few.is_mapped) == (3, (3, 2, 2), "cats/039.png", False)
    assert Chosen(Kept(PICTURES, mapped=True), torch.tensor([1])).is_mapped


@pytest.mark.parametrize(("given", "expected"), [("", 4 * 2**30), ("0", 0), ("0.5", 2**29)])
def test_the_bound_is_set_by_the_environment(given, expected, monkeypatch):
    monkeypatch.setenv("KDSWEEP_RESIDENT_GIB", given)
    assert resident_bytes() == expected


@pytest.mark.parametrize("given", ["-1", "much", "nan", "inf"])
def test_a_bound_that_is_none(given, monkeypatch):
    monkeypatch.setenv("KDSWEEP_RESIDENT_GIB", given)
    with pytest.raises(ValueError, match=f"KDSWEEP_RESIDENT_GIB needs a number of GiB from 0 on, but got .*{given}"):
        resident_bytes()


@pytest.mark.parametrize("kinds", [("plain",), ("plain", "partner")])
def test_each_worker_reads_its_own_rows_alone(kinds, monkeypatch):
    monkeypatch.setenv("KDSWEEP_RESIDENT_GIB", "0")

    data = resident(Photos(lies=READ).load(0, opens_test=False), Cpu())
    epoch = Order(50, 16, 1, 0).epoch(0, _worker(1, 2))
    exposure = Exposure(Needs(teacher=False, views=kinds), data, 50, None, 0, Cpu())
    exposure.start(0, epoch.numbers)
    shown = [exposure.of(numbers)[0] for numbers in epoch.rows]
    mine = set(torch.cat(epoch.numbers).tolist())
    asked = set(data.inputs.stored.asked)
    assert mine <= asked if len(kinds) == 2 else mine == asked
    assert len(mine) == 26, "25, and the row that fills up its last batch"
    monkeypatch.setenv("KDSWEEP_RESIDENT_GIB", "1")
    here = Exposure(Needs(teacher=False, views=kinds), resident(Photos().load(0, opens_test=False), Cpu()), 50, None, 0, Cpu())
    here.start(0)
    assert all(torch.equal(found, here.of(numbers)[0]) for found, numbers in zip(shown, epoch.rows, strict=True))


def test_a_broken_picture_fails_its_cell_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("KDSWEEP_RESIDENT_GIB", "0")
    trial = student_trial(Plain(), data=Photos(lies=READ, broken=40))
    runner = Runner(str(tmp_path), "cpu")
    assert runner.run(Leg(trial.teacher_trial, 1.0)).status == "ok", "it never sees row 40"
    row = runner.run(Leg(trial, 1.0))
    assert row.status == "failed"
    assert "OSError for cats/040.png: broken data stream. Replace or remove it." in row.message
    whole = dataclasses.replace(trial, data=Photos(lies=READ))
    assert runner.run(Leg(whole.teacher_trial, 1.0)).status == runner.run(Leg(whole, 1.0)).status == "ok"
