"""DiffKD: a diffusion model that learns to denoise the teacher's features cleans the student's before the two are compared.

Huang, Zhang, Zheng, You, Wang, Qian, Xu, "Knowledge Diffusion for Distillation", NeurIPS 2023, https://arxiv.org/abs/2305.15712,
section 3 (its eq. numbers were not at hand). The refining steps are those of Song, Meng, Ermon, "Denoising Diffusion Implicit Models",
ICLR 2021, https://arxiv.org/abs/2010.02502, eq. (12) without added noise.

Two taps, the last feature map and the logits. At each, with z the teacher's side (of the map: its code by a linear auto-encoder; of the
logits: themselves), a_t the product of 1 - beta_1, ..., 1 - beta_t for beta even from 1e-4 to 0.02 in 1000 steps, and e a network,

    denoiser         ||e(sqrt(a_t) z + sqrt(1 - a_t) noise, t) - noise||^2  at a random t of every row
    noise adapter    x = g s + (1 - g) noise, with s the student's side, projected to the width of z, and g in (0, 1) read off s
    refining         x <- sqrt(a_u) (x - sqrt(1 - a_t) e(x, t)) / sqrt(a_t) + sqrt(1 - a_u) e(x, t)  for t = 400, 300, ..., 0 and
                     u = t - 100, where a_u = 1 behind the last step; then a 1x1 convolution and batch normalisation

Terms: ``feature``, the mean squared difference of refined and z; ``logits``, T^2 KL of the refined logits from the teacher's; ``denoiser``,
summed over both taps; ``reconstruction``, that of the auto-encoder; ``truth``. z is cut off from the auto-encoder in all but its own. All
squares are means over channels and positions, too. All weights are 1, as in the paper.

How sure this is: taps, layers, schedule, the linear mix of noise, the five steps over the lower half of the schedule, losses, T = 1 and the
absence of an auto-encoder at the logits were read in the authors' code (hunto/image_classification_sota). There the denoiser sees t of
the whole schedule, refining only its lower half. No settings for CIFAR were released; for ImageNet ``latent_width`` is 1024, which is
twice the teacher's width in its first setting. The default 64 is ours, for small networks.

Departure: a row without a true label has the teacher's most likely class in ``truth`` (``unlabelled`` = pseudo); the paper has labels for all.
It needs them: the projections of the logits' tap learn, so that ``logits`` does not tell the student which of its outputs is which class.
On the digits, 60 of 1047 rows labelled, students were right about .04 (MLP) and .70 (CNN) of the held-out rows with skip, about .76 and .84
with pseudo; one seed, ten epochs.
Departure: where student and teacher differ in height and width, the student's map is resized; the authors' code needs them equal.
Departure: where one of them is a vector, or both are, both are taken as vectors (a map's mean over positions), with the layers of the logits' tap.
Departure: a convolution in front of a batch normalisation has no offset, which would be taken out again.
Departure: a batch less than half of which is there, as the last of an epoch may be, counts for ``truth`` alone; the authors' loader leaves
every incomplete batch out. Over two rows the chain of batch normalisations was seen to have gradients of 1e4 and more.
Departure: 1000 embeddings of time; the authors' code has 1280, of which it uses 1000.
Departure: adapter off starts refining from the student's side itself, without noise.

Cost: ddim_steps + 1 passes of each denoiser a batch, with gradient. The denoisers, projectors, adapters and the auto-encoder learn with the
student and are left behind after training.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search_spaces import Choice, IntUniform, LogUniform, Uniform, tunable
from trainables.distiller import Batch, Distiller, Facts, Needs, Outputs
from trainables.losses import PSEUDO, UNLABELLED, divergence, given_class, has_class, label_cross_entropy
from trainables.network import LAST
from trainables.projectors import BatchNorm, pooled, resized

TIMES = 1000
"""Steps of the schedule of noise."""


def kept_shares() -> tuple[float, ...]:
    """a_t for t = 0, ..., 999: how much of the variance is left of what was there."""
    rates = (1e-4 + (0.02 - 1e-4) * t / (TIMES - 1) for t in range(TIMES))
    return tuple(itertools.accumulate((1.0 - rate for rate in rates), lambda a, b: a * b))


class _Layers(nn.Module):
    """1x1 or wider convolutions (linear maps, of vectors), each followed, where marked, by a norm and by a rectifier."""

    def __init__(self, is_map: bool, widths: tuple[int, ...], norms: str, rectifiers: str, kernels: str = "") -> None:
        """``norms`` and ``rectifiers``: "1" or "0" a layer. ``kernels``: a digit a layer, all 1 if left out."""
        super().__init__()
        sizes = [int(k) for k in kernels or "1" * len(norms)]
        self.norms = nn.ModuleList(
            BatchNorm(width) if mark == "1" else nn.Identity() for width, mark in zip(widths[1:], norms, strict=True)
        )
        self.rectifies = [mark == "1" for mark in rectifiers]
        biases = [mark == "0" for mark in norms]
        shapes = zip(itertools.pairwise(widths), sizes, biases, strict=True)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, size, padding=size // 2, bias=bias) if is_map else nn.Linear(a, b, bias=bias) for (a, b), size, bias in shapes
        )

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        for layer, norm, rectifies in zip(self.layers, self.norms, self.rectifies, strict=True):
            x = layer(x)
            x = norm(x, weight) if isinstance(norm, BatchNorm) else x
            x = x.relu() if rectifies else x
        return x


class _Bottleneck(nn.Module):
    """Around a 3x3 convolution on fewer channels."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        narrow = max(1, width // reduction)
        self.within = _Layers(True, (width, narrow, narrow, width), "111", "110", "131")

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        change: Tensor = self.within(x, weight)
        return x + change


class _Denoiser(nn.Module):
    """e(x, t): the noise in x."""

    def __init__(self, is_map: bool, width: int) -> None:
        super().__init__()
        self.time = nn.Embedding(TIMES, width)
        blocks = [_Bottleneck(width, 4), _Bottleneck(width, 4), _Layers(True, (width, width), "1", "0")]
        wide = 4 * width
        self.blocks = nn.ModuleList(blocks if is_map else [_Layers(False, (width, wide, width, wide, width), "1110", "1010")])

    def forward(self, x: Tensor, t: Tensor, weight: Tensor) -> Tensor:
        """(B, C, ...), t (B,) int64 -> (B, C, ...)."""
        x = x + _wide(self.time(t), x)
        for block in self.blocks:
            x = block(x, weight)
        return x


class _Adapter(nn.Module):
    """g: how much of the student's side is kept when noise is mixed in."""

    def __init__(self, is_map: bool, width: int) -> None:
        super().__init__()
        self.within: nn.Module = _Bottleneck(width, 8) if is_map else _Layers(False, (width, 2 * width, width), "11", "10")
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """(B, C, ...) -> (B,)."""
        share: Tensor = self.head(pooled(self.within(x, weight))).softmax(dim=-1)[:, 0]
        return share


class _Tap(nn.Module):
    """What one tap learns: projection, denoiser, adapter and the last layer."""

    kept: Tensor

    def __init__(self, is_map: bool, student: int, width: int, steps: int, adapts: bool) -> None:
        super().__init__()
        self.project = _Layers(is_map, (student, width), "0", "0")
        self.denoiser = _Denoiser(is_map, width)
        self.adapter = _Adapter(is_map, width) if adapts else None
        self.last = _Layers(is_map, (width, width), "1", "0")
        self.register_buffer("kept", torch.tensor(kept_shares()))  # (1000,)
        stride = TIMES // (2 * steps)
        self.times = tuple(stride * k for k in reversed(range(steps)))
        """Over the lower half of the schedule, down to 0; each step leads to the next time, and the last to no noise."""

    def refined(self, x: Tensor, weight: Tensor) -> Tensor:
        """The student's side, denoised: (B, S, ...) -> (B, C, ...)."""
        x = self.project(x, weight)
        if self.adapter is not None:
            share = _wide(self.adapter(x, weight), x)
            x = share * x + (1 - share) * torch.randn(x.shape, device=x.device)
        for t, after in zip(self.times, (*self.times[1:], None), strict=True):
            noise = self.denoiser(x, torch.full((len(x),), t, device=x.device), weight)
            left = self.kept[t]
            clean = (x - (1 - left).sqrt() * noise) / left.sqrt()
            x = clean if after is None else self.kept[after].sqrt() * clean + (1 - self.kept[after]).sqrt() * noise
        found: Tensor = self.last(x, weight)
        return found

    def misjudged(self, z: Tensor, weight: Tensor) -> Tensor:
        """Squared error of the denoiser about the teacher's side: (B, C, ...) -> (B,)."""
        noise, t = torch.randn(z.shape, device=z.device), torch.randint(TIMES, (len(z),), device=z.device)
        left = _wide(self.kept[t], z)
        return _squares(self.denoiser(left.sqrt() * z + (1 - left).sqrt() * noise, t, weight) - noise)


class _State(nn.Module):
    """Both taps and the auto-encoder."""

    def __init__(self, facts: Facts, latent: int, steps: int, adapts: bool) -> None:
        super().__init__()
        student, teacher = facts.student_shapes[LAST], facts.teacher_shapes[LAST]
        is_map = len(student) == len(teacher) == 3
        self.size = tuple(teacher[1:]) if is_map else ()
        """(H, W) at which maps are compared; () for vectors."""
        self.encoder = _Layers(is_map, (teacher[0], latent), "1", "0")
        self.decoder = _Layers(is_map, (latent, teacher[0]), "0", "0")
        self.feature = _Tap(is_map, student[0], latent, steps, adapts)
        self.logits = _Tap(False, facts.classes, facts.classes, steps, adapts)

    def matched(self, x: Tensor) -> Tensor:
        """A map in the form in which the two are compared."""
        return resized(x, self.size) if self.size else pooled(x)


@dataclass(frozen=True)
class DiffKD(Distiller[_State]):
    """Knowledge diffusion."""

    needs = Needs(features=(LAST,), whole_batch=True)

    latent_width: int = tunable(64, IntUniform(16, 128), "channels of the auto-encoder's code; 1024 in the paper's code", low=1)
    ddim_steps: int = tunable(5, IntUniform(1, 5), "refining steps over the lower half of the schedule of noise", low=1, high=TIMES // 2)
    adapter: bool = tunable(True, Choice((False, True)), "whether noise is mixed into the student's side, as much as it needs", off=False)
    temperature: float = tunable(
        1.0,
        LogUniform(1.0, 10.0),
        "T: divides the refined logits and the teacher's, whose loss is multiplied by T^2",
        off=1.0,
        low=0.01,
        high=1000.0,
    )
    unlabelled: str = tunable(PSEUDO, Choice(UNLABELLED), "class of a row without label in truth: none, or the teacher's most likely one")
    truth_weight: float = tunable(1.0, Uniform(0.0, 2.0), "weight of the class", off=0.0, low=0.0)
    feature_weight: float = tunable(1.0, Uniform(0.0, 2.0), "weight of refined features", off=0.0, low=0.0)
    logits_weight: float = tunable(1.0, Uniform(0.0, 2.0), "weight of refined logits", off=0.0, low=0.0)
    denoiser_weight: float = tunable(1.0, Uniform(0.0, 2.0), "weight of the denoisers' error", off=0.0, low=0.0)
    reconstruction_weight: float = tunable(1.0, Uniform(0.0, 2.0), "weight of the auto-encoder's error", off=0.0, low=0.0)

    def state(self, facts: Facts) -> _State:
        return _State(facts, self.latent_width, self.ddim_steps, self.adapter)

    def terms(self, state: _State, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        weight, said = batch.weight, teacher.logits.detach()
        theirs = state.matched(teacher.features[LAST].detach())
        code = state.encoder(theirs, weight)
        decoded = state.decoder(code, weight)
        code = code.detach()
        feature = _squares(state.feature.refined(state.matched(student.features[LAST]), weight) - code)
        logits = self.temperature**2 * divergence(said, state.logits.refined(student.logits, weight), self.temperature)
        denoiser = state.feature.misjudged(code, weight) + state.logits.misjudged(said, weight)
        truth = label_cross_entropy(student.logits, given_class(batch.label, batch.is_labelled, said))
        normal = (2 * weight.sum() >= len(weight)).to(weight)  # ()
        return {
            "truth": batch.mean(truth * has_class(batch.is_labelled, self.unlabelled)),
            "feature": normal * batch.mean(feature),
            "logits": normal * batch.mean(logits),
            "denoiser": normal * batch.mean(denoiser),
            "reconstruction": normal * batch.mean(_squares(decoded - theirs)),
        }


def _squares(x: Tensor) -> Tensor:
    """The mean square of a row: (B, ...) -> (B,)."""
    return x.square().flatten(1).mean(dim=1)


def _wide(x: Tensor, like: Tensor) -> Tensor:
    """With axes of length 1 behind: (B, ...) -> as many axes as ``like`` has."""
    return x.reshape(*x.shape, *[1] * (like.dim() - x.dim()))
