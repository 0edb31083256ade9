"""Measures of a finished or unfinished network: accuracy, likelihood, calibration and agreement with the teacher.

The measures are pure functions of logits on the host, in float64; ``outputs_over`` and ``logits_over`` get the logits there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor, nn

from trainables.device import Device
from trainables.distiller import Outputs
from trainables.network import Network, outputs_of
from trainables.pixels import Inputs, in_turn
from trainables.recipe import FLOAT32
from trainables.views import PLAIN, shown

BATCH = 1024
"""Most rows that go through a network at once where no gradient is needed, and their numbers come to at most this many:"""
_NUMBERS = 2**25
BINS = 15


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest logit is that of the true class: (B, K), (B,) -> [0, 1]."""
    return float((logits.argmax(dim=-1) == labels).double().mean())


def nll(logits: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood of the true class in nats: (B, K), (B,) -> [0, inf)."""
    return float(-logits.double().log_softmax(dim=-1).gather(1, labels.unsqueeze(1)).mean())


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Expected calibration error over 15 bins of confidence of equal width: (B, K), (B,) -> [0, 1].

    Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599,
    eq. (3): the mean over rows of |accuracy - mean confidence| of the row's bin. Bin m is ((m - 1)/15, m/15].
    """
    confidence, predicted = logits.double().softmax(dim=-1).max(dim=-1)
    gap = (predicted == labels).double() - confidence
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1  # (B,)
    # |accuracy - confidence| times the share of rows is |sum of gaps| over all rows.
    return float(torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, gap).abs().sum() / len(labels))


def agreement(logits: Tensor, others: Tensor) -> float:
    """Share of rows in which two networks predict the same class: (B, K), (B, K) -> [0, 1]."""
    return float((logits.argmax(dim=-1) == others.argmax(dim=-1)).double().mean())


def sizes(student: nn.Module, state: nn.Module) -> dict[str, float]:
    """How many parameters were trained: the student's, and what the method trained beside it (projectors and the like; no buffers)."""
    counted = {"student": student, "method": state}
    return {f"parameters.{name}": float(sum(p.numel() for p in module.parameters())) for name, module in counted.items()}


def measures(prefix: str, logits: Tensor, labels: Tensor, teacher_logits: Tensor | None = None) -> dict[str, float]:
    """``prefix``.accuracy, .nll, .ece and, given what the teacher says, .agreement."""
    found = {
        f"{prefix}.accuracy": accuracy(logits, labels),
        f"{prefix}.nll": nll(logits, labels),
        f"{prefix}.ece": calibration_error(logits, labels),
    }
    if teacher_logits is not None:
        found[f"{prefix}.agreement"] = agreement(logits, teacher_logits)
    return found


def padded(rows: int, batch: int = BATCH, pieces: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """(row numbers, weight) of batches in row order: all of one length, a multiple of ``pieces``, the last filled up with its first row at weight 0."""
    length = -(-min(rows, batch) // pieces) * pieces
    for start in range(0, rows, length):
        numbers = torch.arange(start, start + length)  # (B,)
        real = numbers < rows
        yield torch.where(real, numbers, start), real.float()


def rows_at_once(inputs: Inputs) -> int:
    """Most rows of these inputs that go through a network at once where no gradient is needed."""
    return max(1, min(BATCH, _NUMBERS // max(1, prod(inputs.shape[1:]))))


@torch.no_grad()
def outputs_over(
    network: Network,
    inputs: Inputs,
    device: Device,
    features: Sequence[str] = (),
    precision: str = FLOAT32,
    view: str = PLAIN,
    only: Tensor | None = None,
) -> Outputs:
    """What the network returns for all rows in a view that does not change, in evaluation mode: (N, ...) -> (N, K) logits and (N, ...) maps.

    ``only``: (N,) row numbers on the host, where not all are wanted.
    """
    count = len(inputs) if only is None else len(only)
    chosen = [rows if only is None else only[rows] for rows, _ in padded(count, rows_at_once(inputs), device.pieces)]
    training = network.training
    network.eval()
    parts = []
    for batch in in_turn(inputs, chosen):
        found = outputs_of(network, device.spread(shown(view, batch)), features, precision)
        parts.append(Outputs(device.everywhere(found.logits), {name: device.everywhere(value) for name, value in found.features.items()}))
        device.boundary()  # one graph a batch, not one for all of them
    network.train(training)
    logits = torch.cat([part.logits for part in parts])[:count]
    maps = {name: torch.cat([part.features[name] for part in parts])[:count] for name in features}
    return Outputs(logits, maps)


def logits_over(network: Network, inputs: Inputs, device: Device, precision: str = FLOAT32) -> Tensor:
    """(N, ...) -> (N, K) on the host. Workers take a stretch of rows each, of equal length, and share the result."""
    length = -(-len(inputs) // device.size)
    rows = torch.arange(device.rank * length, (device.rank + 1) * length).clamp(max=len(inputs) - 1)
    mine = outputs_over(network, inputs, device, precision=precision, only=None if device.size == 1 else rows)
    return device.all_gather(mine.logits)[: len(inputs)].cpu()
