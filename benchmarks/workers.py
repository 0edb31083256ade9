"""What workers that share a batch pay for one batch norm: a step of a CIFAR ResNet with it, and with one for each worker.

    python -m benchmarks.workers [--repeats 7] [--steps 6] [--depth 20] [--batch 64] [--workers 2]

Side by side in one process group over gloo, taking turns, a thread for each worker: steps of a training as it is, and of the same one
whose layers normalise over each worker's own rows, which is not what one worker does. By processor time of the first worker too, which
other processes on the machine disturb less. Afterwards one worker alone, on the whole batch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import torch
from torch import multiprocessing, nn

from benchmarks.cell import AUGMENTATION, advance, trial_of, written
from trainables.batches import resident
from trainables.device import Cpu
from trainables.loop import Training
from trainables.network import batch_norms
from trainables.synchronised import Synchronised
from trainables.trial import Trial

TOGETHER, APART = "one batch norm for all workers", "one for each worker"


def training_of(given: argparse.Namespace, file: str, together: bool) -> Training:
    """A teacher's training, so that a step has one network; two steps of it are done."""
    trial, device = trial_of(file, given.rows, given.depth, given.batch), Cpu()
    trial = Trial(trial.data, trial.block, trial.model, trial.recipe)
    device.settle()
    training = Training(trial, resident(trial.data.load(0, opens_test=False), device), None, device)
    if not together:
        for name, module in list(training.student.named_modules()):
            if isinstance(module, Synchronised):
                training.student.set_submodule(name, apart(module))
    advance(training, 2)
    return training


def apart(norm: Synchronised) -> nn.BatchNorm2d:
    """The layer of torch in its place, over the same parameters."""
    found = nn.BatchNorm2d(norm.num_features)
    found.weight, found.bias = norm.weight, norm.bias
    return found


def work(rank: int, given: argparse.Namespace, file: str, folder: str) -> None:
    """One worker; the first one tells."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=given.workers)
    trainings = {name: training_of(given, file, name == TOGETHER) for name in (TOGETHER, APART)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in trainings}
    for repeat in range(given.repeats):
        for name in (TOGETHER, APART) if repeat % 2 else (APART, TOGETHER):
            torch.distributed.barrier()
            found[name].append(timed(trainings[name], given.steps))
    layers = len(batch_norms(trainings[TOGETHER].student))
    torch.distributed.destroy_process_group()
    if rank == 0:
        torch.save({"seconds": found, "layers": layers}, f"{folder}/found.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = written(folder, given.rows)
        multiprocessing.spawn(work, (given, file, folder), nprocs=given.workers)
        told = torch.load(f"{folder}/found.pt", weights_only=True)
        alone = training_of(given, file, together=True)
        seconds = {**told["seconds"], "one worker alone, afterwards": [timed(alone, given.steps) for _ in range(given.repeats)]}
    print(
        f"resnet{given.depth}, {told['layers']} batch norms, batches of {given.batch} over {given.workers} workers of 1 thread, "
        f"{AUGMENTATION}, ms a step (median of {given.repeats}, range):"
    )
    for name, times in seconds.items():
        print(f"  {name:31} {_told([1e3 * wall for wall, _ in times], 0)}, of a processor {_told([1e3 * own for _, own in times], 0)}")
    for what, column in (("time", 0), ("processor time", 1)):
        ratios = [a[column] / b[column] for a, b in zip(seconds[TOGETHER], seconds[APART], strict=True)]
        print(f"  {what} of the first over the second, turn by turn: {_told(ratios, 2)}")


def timed(training: Training, steps: int) -> tuple[float, float]:
    """Seconds a step, and seconds of this process."""
    worked = time.process_time()
    return advance(training, steps) / steps, (time.process_time() - worked) / steps


def _told(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
