"""What a paired design can show at all, before anything runs. Standard library only: checking a study loads no statistics."""

from __future__ import annotations

ALPHA = 0.05


def smallest_p(blocks: int) -> float:
    """The smallest two-sided p that the exact sign-flip test can give with so many blocks: 2 / 2^n."""
    return min(1.0, 2.0 / 2.0**blocks)


def blocks_needed(comparisons: int, alpha: float = ALPHA) -> int:
    """The fewest blocks with which one of so many comparisons can survive Holm's correction: 6, 8, 9, 10 for 1, 4, 8, 16.

    Raises:
        ValueError: no comparison, or alpha outside (0, 1).
    """
    if comparisons < 1 or not 0.0 < alpha < 1.0:
        raise ValueError(f"Blocks need comparisons >= 1 and alpha in (0, 1), but got comparisons={comparisons}, alpha={alpha}.")
    blocks = 1
    while comparisons * smallest_p(blocks) >= alpha:
        blocks += 1
    return blocks
