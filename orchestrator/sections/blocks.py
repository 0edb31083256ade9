"""Blocks in words: which ones are absent and why, runs of them as a range."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def named(outcomes: Iterable[tuple[int, str]]) -> str:
    """(block, why) in words, as in ``block 3 diverged, blocks 5 to 9 missing``, by the first block of each reason."""
    by: dict[str, list[int]] = {}
    for block, why in sorted(outcomes):
        by.setdefault(why, []).append(block)
    return ", ".join(f"{'block' if len(blocks) == 1 else 'blocks'} {_runs(blocks)} {why}" for why, blocks in by.items())


def absences(outcomes: Mapping[str, Sequence[tuple[int, str]]]) -> list[tuple[str, str]]:
    """(arms, blocks) in words for all arms that lack any; arms that lack the same ones are named together."""
    lacking: dict[str, list[str]] = {}
    for arm, absent in outcomes.items():
        if absent:
            lacking.setdefault(named(absent), []).append(arm)
    return [("; ".join(arms), what) for what, arms in lacking.items()]


def _runs(blocks: Sequence[int]) -> str:
    """Numbers in order; three or more in a row as a range."""
    said: list[str] = []
    start = 0
    for place in range(1, len(blocks) + 1):
        if place < len(blocks) and blocks[place] == blocks[place - 1] + 1:
            continue
        run = blocks[start:place]
        said += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run)
        start = place
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
