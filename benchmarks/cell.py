"""What one cell costs beside its network: a CIFAR ResNet on synthetic 32x32 pictures, by the loop and by hand.

    python -m benchmarks.cell [--repeats 7] [--steps 12] [--depth 8] [--batch 64] [--rows 50000]

First, side by side in one process, taking turns: a training step of ours and of a plain PyTorch loop over the same network,
batch, rows, augmentation and update (uint8 in memory, random crop and mirror image, cross-entropy with a teacher that is
asked at every step); by processor time too, which other processes on the machine disturb less. Then the share of our step that is outside of forward, backward and update. Last, memory: the
proportional set size (PSS) of 1 and of 4 processes that train on one set, which counts shared pages once.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces import IntUniform, Text, tunable
from trainables import nodecache
from trainables.batches import resident
from trainables.device import Cpu
from trainables.loop import Training
from trainables.methods.kd import KD
from trainables.models.resnet import ResNet
from trainables.network import Network
from trainables.pictures import Mapped
from trainables.recipe import Recipe
from trainables.rows import Chosen
from trainables.source import Scaling, Source, Splits
from trainables.teachers import FrozenTeacher
from trainables.trial import Block, Teacher, Trial

CLASSES, HELD_OUT = 100, 1000
SCALING = Scaling((0.507, 0.487, 0.441), (0.267, 0.256, 0.276))
AUGMENTATION = "crop_flip"
LANES = 4


@dataclass(frozen=True)
class Noise(Source):
    """Pictures of noise in a mapped file, as those of a published set are."""

    rows: int = tunable(50_000, IntUniform(1, 100_000), "all of them labelled")
    file: str = tunable("", Text(), "where they are")

    def load(self, split: int, opens_test: bool) -> Splits:
        """A permutation of the rows: every split is another one of the same file."""
        del opens_test
        pictures = Mapped(nodecache.tensor(Path(self.file)))
        order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(split))
        labels = torch.arange(self.rows) % CLASSES
        held = torch.arange(HELD_OUT)
        return Splits(
            Chosen(pictures, order),
            labels,
            self.rows,
            Chosen(pictures, held),
            labels[:HELD_OUT],
            None,
            None,
            CLASSES,
            SCALING,
            AUGMENTATION,
        )


def written(folder: str, rows: int) -> str:
    """A file of noise: (rows, 3, 32, 32) uint8."""
    rng = np.random.default_rng(0)
    file = Path(folder) / "rows.npy"
    parts = (rng.integers(0, 256, (1000, 3, 32, 32), dtype=np.uint8) for _ in range(-(-rows // 1000)))
    nodecache.write_array(file, (-(-rows // 1000) * 1000, 3, 32, 32), np.dtype(np.uint8), parts)
    return str(file)


def trial_of(file: str, rows: int, depth: int, batch: int) -> Trial:
    """A student and a teacher of one size."""
    recipe, family = Recipe(batch=batch, epochs=10, learning_rate=0.05), ResNet(depth=depth)
    return Trial(Noise(rows, file), Block(0, 0, 0, 0), family, recipe, KD(), Teacher(family, recipe))


def training_of(trial: Trial) -> Training:
    """Ours, with a teacher that learned nothing."""
    device = Cpu()
    device.settle()
    torch.manual_seed(0)
    teacher = FrozenTeacher(trial.model.build((3, 32, 32), CLASSES), device)
    return Training(trial, resident(trial.data.load(0, opens_test=False), device), teacher, device)


class ByHand:
    """What one would write for this network alone: the rows in memory as uint8, nothing that can be asked, saved or measured."""

    def __init__(self, trial: Trial) -> None:
        splits = trial.data.load(0, opens_test=False)
        self.pictures = splits.inputs.fetch(torch.arange(len(splits.inputs)))
        self.labels = splits.labels
        torch.manual_seed(0)
        self.student: Network = trial.model.build((3, 32, 32), CLASSES)
        self.teacher: Network = trial.model.build((3, 32, 32), CLASSES).eval().requires_grad_(False)
        self.batch, recipe = trial.recipe.batch, trial.recipe
        self.optimiser = torch.optim.SGD(
            self.student.parameters(), recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )
        mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (SCALING.mean, SCALING.std))
        self.mean, self.std = mean, std
        self.order: Tensor = torch.randperm(len(self.pictures))
        self.at = 0

    def steps(self, count: int) -> None:
        """Train on so many batches."""
        self.student.train()
        for _ in range(count):
            if self.at + self.batch > len(self.order):
                self.order, self.at = torch.randperm(len(self.pictures)), 0
            rows = self.order[self.at : self.at + self.batch]
            self.at += self.batch
            inputs = (self.augmented(self.pictures[rows]).float() / 255 - self.mean) / self.std
            with torch.no_grad():
                wanted = self.teacher(inputs).logits
            logits = self.student(inputs).logits
            soft = F.kl_div((logits / 4).log_softmax(1), (wanted / 4).softmax(1), reduction="batchmean") * 16
            loss = 0.9 * soft + 0.1 * F.cross_entropy(logits, self.labels[rows])
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()

    @staticmethod
    def augmented(pictures: Tensor) -> Tensor:
        """Padded by four, cropped, and mirrored half of the time."""
        count = len(pictures)
        padded = F.pad(pictures, (4, 4, 4, 4))
        across, down = torch.randint(9, (count,)), torch.randint(9, (count,))
        place = torch.arange(32)
        column = torch.where((torch.rand(count) < 0.5).unsqueeze(1), 31 - place, place) + across.unsqueeze(1)
        row = place + down.unsqueeze(1)
        return padded[torch.arange(count)[:, None, None], :, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)


class Clocked:
    """Seconds within some calls, while others go on outside of them."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def around(self, call: Callable[..., object]) -> Callable[..., object]:
        """The same call, measured; one within another counts once."""

        def measured(*given: object, **named: object) -> object:
            started = time.perf_counter()
            self._depth += 1
            try:
                return call(*given, **named)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.perf_counter() - started

        return measured


def advance(training: Training, steps: int) -> float:
    """Seconds of so many steps, without the evaluation at their end."""
    started = time.perf_counter()
    training._train_to(training.steps + steps, lambda: False)
    return time.perf_counter() - started


def share_outside(trial: Trial, steps: int) -> float:
    """The share of our steps that is in none of: forward of student and teacher, terms, backward, update."""
    training, clock = training_of(trial), Clocked()
    advance(training, 2)
    step = training._step
    assert training._teacher is not None
    step.student.forward = clock.around(step.student.forward)  # type: ignore[method-assign,assignment]
    training._teacher.network.forward = clock.around(training._teacher.network.forward)  # type: ignore[method-assign,assignment]
    step.optimiser.step = clock.around(step.optimiser.step)  # type: ignore[method-assign,assignment]
    backward = Tensor.backward
    Tensor.backward = clock.around(backward)  # type: ignore[method-assign,assignment]
    try:
        whole = advance(training, steps)
    finally:
        Tensor.backward = backward  # type: ignore[method-assign]
    return 1 - clock.seconds / whole


def pss_bytes(pid: int) -> int:
    """Proportional set size of a process: pages that several have count in shares."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{pid}/smaps_rollup says nothing of Pss.")


def memory(given: argparse.Namespace, file: str, lanes: int) -> tuple[int, int]:
    """Bytes of PSS of all lanes together, and those of their private pages; every lane has seen every row."""
    command = [sys.executable, "-m", "benchmarks.cell", "--lane", file, "--rows", str(given.rows), "--depth", str(given.depth)]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(lanes)]
    try:
        for lane in running:
            assert lane.stdout is not None
            if lane.stdout.readline() != "ready\n":
                raise OSError("A lane ended before it was measured.")
        return sum(pss_bytes(lane.pid) for lane in running), sum(private_bytes(lane.pid) for lane in running)
    finally:
        for lane in running:
            lane.communicate("", timeout=60)


def private_bytes(pid: int) -> int:
    """Pages that a process has for itself."""
    found = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            found += int(line.split()[1]) * 1024
    return found


def lane(given: argparse.Namespace) -> None:
    """Train a little, look at every row, and wait."""
    training = training_of(trial_of(given.lane, given.rows, given.depth, 16))
    advance(training, 2)
    for rows in torch.arange(given.rows).split(1000):
        training.data.inputs.pixels(rows)  # type: ignore[union-attr]
    print("ready", flush=True)
    sys.stdin.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--lane", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.lane:
        lane(given)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        file = written(folder, given.rows)
        trial = trial_of(file, given.rows, given.depth, given.batch)
        ours, plain = training_of(trial), ByHand(trial)
        advance(ours, 2)
        plain.steps(2)
        ratios: dict[str, list[float]] = {"wall": [], "processor": []}
        rates = []
        for repeat in range(given.repeats):
            wall, processor = {}, {}
            for who in ("ours", "by hand") if repeat % 2 else ("by hand", "ours"):
                started, worked = time.perf_counter(), time.process_time()
                advance(ours, given.steps) if who == "ours" else plain.steps(given.steps)
                wall[who], processor[who] = time.perf_counter() - started, time.process_time() - worked
            for name, seconds in (("wall", wall), ("processor", processor)):
                ratios[name].append(seconds["by hand"] / seconds["ours"])
            rates.append({who: given.batch * given.steps / took for who, took in wall.items()})
        shares = [share_outside(trial, given.steps) for _ in range(max(1, given.repeats // 2))]
        size = os.path.getsize(file)
        del ours, plain
        alone, several = memory(given, file, 1), memory(given, file, LANES)
    print(f"resnet{given.depth}, batches of {given.batch}, {given.rows:,} pictures of 32x32, {AUGMENTATION}, live teacher, 1 thread")
    for who in ("ours", "by hand"):
        print(f"  {who:8} {statistics.median(rate[who] for rate in rates):7.0f} pictures/s (median of {given.repeats})")
    for name, found in ratios.items():
        told = f"{statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f})"
        print(f"  throughput beside the loop by hand, by {name} time: {told}; target 0.95")
    print(
        f"  outside of forward, backward and update: {statistics.median(shares):.1%} ({min(shares):.1%} to {max(shares):.1%}); target below 10 %"
    )
    for lanes, (pss, private) in ((1, alone), (LANES, several)):
        print(f"  {lanes} lane{'s' if lanes > 1 else ''}: {pss / 1e6:,.0f} MB together (PSS), of which {private / 1e6:,.0f} MB are private")
    print(f"  the set takes {size / 1e6:,.0f} MB; a copy in each of {LANES} lanes would be {LANES * size / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
