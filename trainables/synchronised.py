"""Batch norm over the whole batch where several workers share it, so that they train as one worker would.

Ioffe and Szegedy, "Batch Normalization", ICML 2015, https://arxiv.org/abs/1502.03167, Algorithm 1, with means over the rows of all
workers. Each tells the others its mean and its sum of squares around it, which are joined without loss of digits (Chan, Golub and
LeVeque, "Algorithms for computing the sample variance", The American Statistician 1983, equation 1.5); in the backward pass the sums
that a gradient consists of are added up. That is a message forth and one back per layer and step, of two numbers a channel.

Not ``torch.nn.SyncBatchNorm``, which has no form for a processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.device import Device
from trainables.network import batch_norms


@final
@dataclass(frozen=True)
class Shares:
    """How a batch is dealt out: worker r of W has every W-th row, from the r-th on, and one that fills its share up where rows are too few."""

    device: Device
    length: int
    """Rows of the whole batch, without those that fill shares up. One worker never sees the latter: they are not part of any mean."""

    @property
    def wide(self) -> int:
        """Rows that each worker is handed."""
        return -(-self.length // self.device.size)

    @property
    def real(self) -> tuple[int, ...]:
        """How many of them are the batch's, worker by worker; these come first."""
        return tuple(-(-(self.length - rank) // self.device.size) for rank in range(self.device.size))

    def views(self, rows: int) -> int:
        """How often a share is shown in so many rows. ValueError if not a whole number of times."""
        if rows % self.wide:
            raise ValueError(
                f"A layer that workers normalise in together needs rows of whole shares of {self.wide}, but got rows={rows}. "
                "In training, show the network each row of the share equally often, and use eval() otherwise."
            )
        return rows // self.wide

    def of_batch(self, x: Tensor) -> Tensor:
        """(V * B, ...) with the views of this worker's share one after the other -> the rows that are the batch's."""
        real = self.real[self.device.rank]
        return x if real == self.wide else x.reshape(-1, self.wide, *x.shape[1:])[:, :real].flatten(0, 1)

    def clear_filling(self, x: Tensor) -> None:
        """Zeros, in place, in the rows that only fill up."""
        real = self.real[self.device.rank]
        if real < self.wide:
            x.view(-1, self.wide, *x.shape[1:])[:, real:] = 0


@final
class Synchronised(nn.modules.batchnorm._BatchNorm):
    """In the place of a batch norm, with its parameters and what it remembers under the same names. In evaluation mode the same layer."""

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm, shares: Shares) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, affine=False, track_running_stats=False)
        self.affine, self.track_running_stats = norm.affine, norm.track_running_stats
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.shares = shares
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """(V * B, C, ...) -> (V * B, C, ...), normalised over the rows of all workers."""
        if not self.training:
            return super().forward(input)
        mean, variance, count = self._moments(input)
        if self.running_mean is not None and self.running_var is not None:
            self._remember(mean, variance * (count / (count - 1)))
        weight = torch.ones_like(mean) if self.weight is None else self.weight
        bias = torch.zeros_like(mean) if self.bias is None else self.bias
        normalised: Tensor = _Normalise.apply(input, weight, bias, mean, variance, count, self.eps, self.shares)  # type: ignore[no-untyped-call]
        return normalised

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"Batch norm needs inputs (B, C, ...), but got {input.dim()} axes.")

    @torch.no_grad()
    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        """Mean and biased variance, (C,) each, over the batch, and the number of values a channel."""
        shares, device = self.shares, self.shares.device
        each = shares.views(len(x)) * x[0, 0].numel()
        counts = [rows * each for rows in shares.real]
        count = sum(counts)
        if count < 2:
            raise ValueError(f"Batch norm needs more than one value per channel in training, but got {count} over all workers.")
        mine = _precise(shares.of_batch(x))
        if len(mine) > 0:
            mean = mine.mean(_axes(x))
            spread = (mine - _wide(mean, x)).square_().sum(_axes(x))
        else:
            mean = spread = mine.new_zeros(x.shape[1])
        means, spreads = device.all_gather(torch.cat([mean, spread]).unsqueeze(0)).chunk(2, dim=1)  # (W, C)
        size = torch.tensor(counts, dtype=mean.dtype, device=mean.device).unsqueeze(1)  # (W, 1)
        mean = (means * (size / count)).sum(0)
        variance = (spreads + (means - mean).square() * size).sum(0) / count
        return mean, variance, count

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.mul_(1 - share).add_(mean, alpha=share)
        self.running_var.mul_(1 - share).add_(variance, alpha=share)


class _Normalise(torch.autograd.Function):
    """Normalised by moments that all workers have, with the gradient through the moments of a loss that is the sum of theirs."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, count: int, epsilon: float, shares: Shares
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.count, ctx.epsilon, ctx.shares = count, epsilon, shares
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=epsilon)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        scale = (variance + ctx.epsilon).rsqrt()  # (C,)
        g, centred = _precise(gradient), _precise(x) - _wide(mean, x)
        offset = g.sum(_axes(x))
        gain = (g * centred).sum(_axes(x)) * scale
        whole = torch.stack([offset, gain])
        ctx.shares.device.all_reduce_sum([whole])
        # scale * weight * (g - mean of g - x_hat * mean of g x_hat), in few passes over what is large.
        factor = scale * weight
        slope, shift = -factor * scale * whole[1] / ctx.count, -factor * whole[0] / ctx.count
        to_x = centred.mul_(_wide(slope, x)).add_(_wide(shift, x))
        # The rows of the batch are in its moments; those that only fill up are not.
        ctx.shares.clear_filling(to_x)
        to_x = to_x.addcmul_(g, _wide(factor, x)).to(x.dtype)
        # Of weight and bias each worker has its part: they are added up with all other parameters.
        return to_x, gain.to(weight.dtype), offset.to(weight.dtype), None, None, None, None, None


def synchronise(network: nn.Module, device: Device, length: int) -> None:
    """Let the batch norms within a network normalise over the whole batch of ``length`` rows that the workers of a device share.

    Parameters, memories and their names stay. With one worker nothing is done.
    """
    if device.size == 1:
        return
    shares = Shares(device, length)
    made = {norm: Synchronised(norm, shares) for norm in batch_norms(network)}
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            network.set_submodule(name, made[module])


def _precise(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _axes(x: Tensor) -> list[int]:
    return [axis for axis in range(x.dim()) if axis != 1]


def _wide(of_channel: Tensor, x: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...), as many axes as x."""
    return of_channel.reshape(1, -1, *[1] * (x.dim() - 2))
