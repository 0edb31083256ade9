"""The contract of a data source: a frozen dataclass that loads the splits of one block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from search_spaces import check


@dataclass(frozen=True)
class Splits:
    """One draw of the data. Training rows are the labelled part A followed by the unlabelled part U."""

    inputs: Tensor
    """(N, C, H, W) float32."""
    labels: Tensor
    """(N,) int64; -1 for unlabelled rows, whose truth is not loaded."""
    labelled: int
    """Rows of A: the first ``labelled`` of N. The teacher is trained on these alone."""
    holdout_inputs: Tensor
    """(M, C, H, W): the labelled part V that calibrates and selects."""
    holdout_labels: Tensor
    """(M,) int64."""
    test_inputs: Tensor | None
    """(T, C, H, W), or None while the test split is sealed."""
    test_labels: Tensor | None
    classes: int


@dataclass(frozen=True)
class Source(ABC):
    """A data source as a value: its fields are the sizes of the parts."""

    def __post_init__(self) -> None:
        check(self)

    @abstractmethod
    def load(self, split: int, opens_test: bool) -> Splits:
        """The splits that the seed ``split`` draws, on the CPU. Test rows are given only if ``opens_test``.

        Which rows are test rows does not depend on the seed: a row that is test in one block is test in all.

        Raises:
            ValueError: if the sizes do not fit the data.
        """
