"""The contract of a data source: a frozen dataclass that loads the splits of one block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from search_spaces import check
from trainables.form import Form

if TYPE_CHECKING:
    from trainables.rows import Rows

NO_AUGMENTATION = "none"


@dataclass(frozen=True)
class Scaling:
    """How uint8 pixels become what a network reads: (x / 255 - mean) / std, channel by channel, on the device when a batch is made."""

    mean: tuple[float, ...]
    """One per channel, with pixels in [0, 1]."""
    std: tuple[float, ...]
    """One per channel, above 0, in the same unit."""

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std) or min(self.std) <= 0.0:
            raise ValueError(f"Scaling needs a mean and a std above 0 for every channel, but got mean={self.mean}, std={self.std}.")


@dataclass(frozen=True)
class Splits:
    """One draw of the data. Training rows are the labelled part A followed by the unlabelled part U, which may be empty.

    Inputs of all parts have one dtype and one form: float32 (N, C, H, W), ready for a network; uint8 (N, C, H, W) pictures, which
    ``scaling`` makes ready, in memory or read by row number; or int64 (N, L) token ids, 0 where a text is shorter.
    """

    inputs: Tensor | Rows
    """(N, C, H, W) float32 or uint8, Rows of them, or (N, L) int64."""
    labels: Tensor
    """(N,) int64; -1 for unlabelled rows, whose truth is not loaded."""
    labelled: int
    """Rows of A: the first ``labelled`` of N. The teacher is trained on these alone."""
    holdout_inputs: Tensor | Rows
    """(M, ...): the labelled part V that calibrates and selects."""
    holdout_labels: Tensor
    """(M,) int64."""
    test_inputs: Tensor | Rows | None
    """(T, ...), or None while the test split is sealed."""
    test_labels: Tensor | None
    classes: int
    scaling: Scaling | None = None
    """Of uint8 inputs; None for others."""
    augmentation: str = NO_AUGMENTATION
    """What training shows instead of the plain rows; never V, nor the test split."""


@dataclass(frozen=True)
class Extent:
    """How much there is to train on, as far as it is known before any of it is read."""

    labelled: int
    """Rows of A."""
    rows: int
    """Rows of A and U."""
    is_augmented: bool = False
    """Whether training shows something else than the plain rows."""


@dataclass(frozen=True)
class Stock:
    """What a look at a machine's data told."""

    remarks: tuple[str, ...] = ()
    """What is going to be fetched, for one."""
    vocabulary: int | None = None
    """Token ids lie below it, where there is a tokenizer that tells."""


@dataclass(frozen=True)
class Source(ABC):
    """A data source as a value: its fields are the sizes of the parts."""

    extra: ClassVar[str] = ""
    """Which extra of kdsweep it needs, if any."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages of it, by the names that they are imported by."""

    def __post_init__(self) -> None:
        check(self)

    @property
    def form(self) -> Form | None:
        """What networks are given, as far as the fields tell; None where they do not."""
        return None

    @property
    def extent(self) -> Extent | None:
        """How much there is by what was published, copies and all; None where that is not known.

        Raises:
            ValueError: the sizes are not for what was published, but for a copy elsewhere.
        """
        return None

    def fits(self) -> None:
        """Whatever a study file alone tells of a source, by which it is read: of data that lie elsewhere nothing is looked at.

        Raises:
            ValueError: the sizes do not fit the data.
        """
        self.load(0, opens_test=False)

    def found(self) -> None:  # noqa: B027 # what comes with a package is always there
        """Look whether the place that the data are read from is on this machine, in moments. The hub is not asked.

        Raises:
            ValueError: it is not, or lacks a split.
            OSError: it cannot be read.
        """

    def stocked(self) -> Stock:
        """Look whether this machine has all that ``load`` reads, or can fetch it, without decoding or fetching it.

        Raises:
            ValueError: it has not, or what it has does not fit.
            OSError: it cannot be read.
            ImportError: the extra is not installed.
        """
        self.found()
        return Stock()

    @abstractmethod
    def load(self, split: int, opens_test: bool) -> Splits:
        """The splits that the seed ``split`` draws, on the CPU. Test rows are given only if ``opens_test``.

        Which rows are test rows does not depend on the seed: a row that is test in one block is test in all.

        Raises:
            ValueError: if the sizes do not fit the data.
        """
