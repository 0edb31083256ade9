"""Pseudo-label distillation: cross-entropy with the teacher's label where the truth is unknown, with the truth where it is known.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, https://arxiv.org/abs/1503.02531, eq. (1) for the
temperature and section 2 for the factor T^2; as the baseline "Vanilla" of Kontonis et al., "SLaM: Student-Label Mixing for
Distillation with Unlabeled Examples", NeurIPS 2023, https://arxiv.org/abs/2302.03806.

With both weights 1 and temperature 1 the loss is the plain mean over the whole batch, labelled and unlabelled rows alike.

Departure: Hinton et al. add the cross-entropy with the truth to the same rows; here a row has one of the two labels, never both.
Defaults: temperature 1 is ours; what the SLaM paper used for its baseline was not readable.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from search_spaces import Choice, LogUniform, Uniform, tunable
from trainables.distiller import Batch, Distiller, Needs, Outputs
from trainables.losses import SOFT, TARGETS, cross_entropy, label_cross_entropy, pseudo_label


@dataclass(frozen=True)
class Vanilla(Distiller[nn.Module]):
    """Pseudo-label distillation."""

    needs = Needs()

    targets: str = tunable(SOFT, Choice(TARGETS), "teacher's label: its probabilities, or its most likely class alone")
    temperature: float = tunable(
        1.0, LogUniform(1.0, 10.0), "T: divides the logits of student and teacher on unlabelled rows, whose loss is multiplied by T^2",
        off=1.0, only_if={"targets": (SOFT,)}, low=0.01, high=1000.0,
    )  # fmt: skip
    pseudo_weight: float = tunable(1.0, Uniform(0.0, 2.0), "weight of unlabelled rows", off=0.0, low=0.0)
    labelled_weight: float = tunable(1.0, Uniform(0.0, 2.0), "weight of labelled rows", off=0.0, low=0.0)

    def terms(self, state: nn.Module, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        # A hard label has no temperature: the student is then asked for the class at T = 1.
        temperature = self.temperature if self.targets == SOFT else 1.0
        target = pseudo_label(teacher.logits / temperature, self.targets)  # (B, K)
        log_prediction = (student.logits / temperature).log_softmax(dim=-1)
        pseudo = temperature**2 * cross_entropy(target, log_prediction)  # (B,)
        labelled = label_cross_entropy(student.logits, batch.label)
        return {"pseudo": batch.mean(pseudo * (1 - batch.is_labelled)), "labelled": batch.mean(labelled * batch.is_labelled)}
