"""SLaM: cross-entropy of the teacher's label with a *mixed* student prediction that allows for the teacher being wrong.

Kontonis, Iliopoulos, Trinh, Baykal, Menghani, Vee, "SLaM: Student-Label Mixing for Distillation with Unlabeled Examples",
NeurIPS 2023, https://arxiv.org/abs/2302.03806: Algorithm 1 (training), Algorithm 2 (estimating alpha and k), Remark B.1.

Noise model: at x the teacher is right with probability alpha(x); if not, its label is uniform over the other k(x) - 1 of its
top-k(x) classes. With student softmax f, teacher label y and top(y; k) the 0/1 mark of the teacher's k likeliest classes,

    unnormalised   mix = alpha f + (1 - alpha) (1 - f) * top(y; k)              Remark B.1: "used in our experimental evaluation"
    normalised     mix = alpha f + (1 - alpha) (1 - f) * top(y; k) / (k - 1)    the noise model itself
    renormalised   mix = unnormalised, divided by its sum over classes

and an unlabelled row costs CE(y, mix) = - sum_c y_c log mix_c. Prediction at test time is plain f.

What the mixing does (s is the student's mass within the top-k):
* unnormalised is no distribution; its sum is alpha + (1 - alpha)(k - s). At s = 1 it is, up to a constant, the normalised loss at
  the odds alpha / (1 - alpha) / (k - 1): a much noisier teacher.
* In the top-k its slope in f is 2 alpha - 1: above alpha = 1/2 the student learns the teacher's hard label, at 1/2 the row is ignored,
  below 1/2 the student is *pushed away* from the label. For normalised that switch is at alpha = 1/k. A lower bound of 0 therefore
  lets rows with a poor estimate teach the opposite; 1/2 (unnormalised) and 1/k (normalised) are the lowest bounds that never do.
  Between 1/k and 1/2 the minimiser of unnormalised is wrong even if the noise model holds exactly; that of normalised is right.
* A hard label (which is in the top-k) costs at most -log(1 - alpha) if unnormalised: confident disagreement saturates. The share of a
  soft label outside the top-k has no such bound: there mix is alpha f.
* k = 1 is taken as mix = f. With two classes k is always 2, and all three mixings are one.

How sure this is: the normaliser k - 1, the unnormalised variant and the floor 1/2 are quoted from the paper. The full text was not
available: the margin as covariate, correctness as its target and the mixing formulas are as recalled, and the noise model forces the
last; the threshold rule for k with 0.9 and its cap are weakly sourced, as is alpha = 1 on labelled rows.

Departure: accuracies are clipped from above at 0.999, since isotonic regression gives exactly 1 on its top block of a small split.
Departure: accuracies below 2^-20 (1e-6) count as that, which keeps the loss finite where a lower bound of 0 meets an estimate of 0.
Departure: renormalised stands for Keras's categorical_crossentropy on the unnormalised mix, without its clip to [1e-7, 1 - 1e-7].
Departure: constant accuracy, the confidence covariate, fixed k and accuracy_ramp are ours, for ablation; the paper's alpha is static.
Departure: the floor is one number; for normalised the paper's argument would give 1/k(x) at each row.
Departure: the held-out rows only calibrate; whether the paper also trains on them was not readable.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search_spaces import Choice, IntUniform, Schedule, Uniform, nested, tunable
from trainables import isotonic
from trainables.distiller import Batch, Distiller, Facts, Needs, Outputs, Probe
from trainables.losses import SOFT, TARGETS, cross_entropy, label_cross_entropy, log_add, log_complement, margin, pseudo_label, ranks

UNNORMALISED, NORMALISED, RENORMALISED = "unnormalised", "normalised", "renormalised"
ISOTONIC, CONSTANT = "isotonic", "constant"
MARGIN, CONFIDENCE = "margin", "confidence"
THRESHOLD, FIXED = "threshold", "fixed"

SMALLEST_ACCURACY = 2.0**-20
"""What an estimated accuracy of 0 counts as, so that its log is finite. A power of two: one minus it is exact in float32."""

STATIC = Schedule(end=1.0)
"""The estimate as it is, throughout: the paper. Its ``end`` is where a ramp that is not constant arrives."""


class _State(nn.Module):
    """What ``prepare`` finds out about the N training rows."""

    accuracy: Tensor
    k: Tensor

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        if facts.classes < 2 or facts.holdout_rows < 1:
            raise ValueError(
                "SLaM needs two classes or more and held-out rows to estimate the teacher's accuracy on, "
                f"but got classes={facts.classes}, holdout_rows={facts.holdout_rows}."
            )
        self.classes = facts.classes
        self.register_buffer("accuracy", torch.ones(facts.rows))  # (N,), before the bounds
        self.register_buffer("k", torch.full((facts.rows,), 2))  # (N,) int64


@dataclass(frozen=True)
class SLaM(Distiller[_State]):
    """Student-label mixing."""

    needs = Needs(holdout=True)

    mixing: str = tunable(
        UNNORMALISED, Choice((UNNORMALISED, NORMALISED, RENORMALISED)), "what becomes of the mix over classes, Remark B.1", off=NORMALISED
    )
    targets: str = tunable(SOFT, Choice(TARGETS), "teacher's label y: its probabilities, or its most likely class alone")
    accuracy_rule: str = tunable(
        ISOTONIC, Choice((ISOTONIC, CONSTANT)), "alpha(x): regression on the covariate, or one number, the held-out accuracy", off=CONSTANT
    )
    covariate: str = tunable(MARGIN, Choice((MARGIN, CONFIDENCE)), "of the teacher: first minus second probability, or the first alone")
    lower_bound: float = tunable(
        0.5, Uniform(0.0, 0.9), "floor of alpha(x), Algorithm 2; below 1/2 (normalised: 1/k) rows repel", off=0.0, low=0.0, high=1.0
    )
    upper_bound: float = tunable(0.999, Uniform(0.9, 0.9999), "ceiling of alpha(x)", off=1.0, low=0.0, high=1.0)
    k_rule: str = tunable(
        THRESHOLD, Choice((THRESHOLD, FIXED)), "k(x): smallest with enough estimated top-k accuracy, or one number", off=FIXED
    )
    k_threshold: float = tunable(
        0.9, Uniform(0.5, 0.99), "top-k accuracy that is enough, read once by prepare", only_if={"k_rule": (THRESHOLD,)}, low=0.0, high=1.0
    )
    max_k: int = tunable(
        10, IntUniform(2, 20), "largest k(x), itself at most the number of classes", only_if={"k_rule": (THRESHOLD,)}, low=2
    )
    fixed_k: int = tunable(5, IntUniform(2, 20), "k for every row, at most the number of classes", only_if={"k_rule": (FIXED,)}, low=1)
    accuracy_ramp: Schedule = nested(
        STATIC, "share s of the doubt 1 - alpha(x) that is brought in: 1 is the paper, 0 plain cross-entropy", off=STATIC
    )
    mixed_weight: float = tunable(1.0, Uniform(0.0, 2.0), "weight of unlabelled rows", off=0.0, low=0.0)
    labelled_weight: float = tunable(1.0, Uniform(0.0, 2.0), "weight of labelled rows", off=0.0, low=0.0)

    def validate(self) -> None:
        if self.lower_bound > self.upper_bound:
            raise ValueError(
                f"SLaM needs lower_bound <= upper_bound, but got lower_bound={self.lower_bound}, upper_bound={self.upper_bound}."
            )
        ramp = self.accuracy_ramp
        if ramp.start > 1 or ramp.end > 1:
            raise ValueError(
                f"SLaM needs accuracy_ramp.start and accuracy_ramp.end in [0, 1], but got start={ramp.start}, end={ramp.end}: "
                "the share of an estimate cannot exceed the whole."
            )

    def state(self, facts: Facts) -> _State:
        return _State(facts)

    def prepare(self, state: _State, probe: Probe) -> None:
        """Algorithm 2: regress the teacher's correctness on its covariate over the held-out rows, then tabulate over training rows."""
        covariates: list[Tensor] = []
        truths: list[Tensor] = []
        for batch, teacher in probe.holdout():
            real = batch.weight > 0
            logits, label = teacher.logits[real].detach(), batch.label[real]
            covariates.append(self._covariate(logits.softmax(dim=-1)).cpu())
            truths.append(ranks(logits).gather(1, label.unsqueeze(1)).squeeze(1).cpu())
        covariate, rank_of_truth = torch.cat(covariates).numpy(), torch.cat(truths).numpy()  # (M,), (M,)

        # One function per k: row by row, top-k accuracy as a function of the covariate. Index 0 is alpha itself.
        most = min(state.classes, self.max_k)
        sizes = range(2, most) if self.k_rule == THRESHOLD else range(0)
        enough = {k: isotonic.fit(covariate, rank_of_truth < k) for k in sizes}
        accuracy = isotonic.fit(covariate, rank_of_truth < 1)
        constant = float((rank_of_truth < 1).mean())

        for batch, teacher in probe.train():
            real = batch.weight > 0
            at = self._covariate(teacher.logits[real].detach().softmax(dim=-1)).cpu()
            estimate = accuracy.tensor(at) if self.accuracy_rule == ISOTONIC else torch.full_like(at, constant)
            k = torch.full(at.shape, most if self.k_rule == THRESHOLD else min(state.classes, self.fixed_k))
            for size in reversed(sizes):
                k = torch.where(enough[size].tensor(at) >= self.k_threshold, size, k)
            row = batch.row[real]
            state.accuracy[row] = estimate.to(state.accuracy)
            state.k[row] = (k if state.classes > 2 else torch.full_like(k, 2)).to(state.k)

    def _covariate(self, probabilities: Tensor) -> Tensor:
        """(B, K) -> (B,)."""
        return margin(probabilities) if self.covariate == MARGIN else probabilities.amax(dim=-1)

    def terms(self, state: _State, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        accuracy, k = state.accuracy[batch.row], state.k[batch.row]  # (B,), (B,)
        # In terms of 1 - alpha, which keeps its digits where alpha is near 1. Equals 1 - (1 + s (alpha - 1)).
        error = self.accuracy_ramp.now * (1 - accuracy.clamp(self.lower_bound, self.upper_bound))
        top = ranks(teacher.logits.detach()) < k.unsqueeze(1)  # (B, K)
        log_prediction = log_mix(student.logits.log_softmax(dim=-1), error, k, top, self.mixing)
        mixed = cross_entropy(pseudo_label(teacher.logits, self.targets), log_prediction)  # (B,)
        labelled = label_cross_entropy(student.logits, batch.label)
        return {"mixed": batch.mean(mixed * (1 - batch.is_labelled)), "labelled": batch.mean(labelled * batch.is_labelled)}


def log_mix(log_probability: Tensor, error: Tensor, k: Tensor, top: Tensor, mixing: str) -> Tensor:
    """Log of the mixed prediction, Algorithm 1 and Remark B.1; ``error`` is 1 - alpha and ``top`` marks the k classes.

    In logs throughout, so that neither a probability that underflows nor one that rounds to 1 loses its gradient.

    (B, K), (B,), (B,), (B, K) bool -> (B, K)
    """
    error = torch.where(k > 1, error, 0.0).clamp(max=1 - SMALLEST_ACCURACY).unsqueeze(1)  # (B, 1)
    log_share = error.log()  # minus infinity where nothing is mixed in
    if mixing == NORMALISED:
        log_share = log_share - (k - 1).clamp(min=1).to(log_probability).log().unsqueeze(1)
    others = torch.where(top, log_share + log_complement(log_probability), -torch.inf)
    mixed = log_add(torch.log1p(-error) + log_probability, others)
    return mixed - mixed.logsumexp(dim=-1, keepdim=True) if mixing == RENORMALISED else mixed
