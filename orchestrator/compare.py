"""Compare: two studies side by side. What differs in what was asked and in how it was run, and the scores of arms both have.

Two studies are not one design. So nothing here is a claim: differences of arms stand beside everything else that differs, are
paired only where blocks have the same four seeds on the same data, and are not formed at all where two studies measure
different things.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from orchestrator import markdown as markdowns
from orchestrator.analysis.effects import ArmSummary, Comparison, holm, sign_flip_p, t_interval
from orchestrator.analysis.frames import SOURCES, Frames
from orchestrator.events import CONFIRM
from orchestrator.journal import Journal
from orchestrator.record import record_of
from orchestrator.sections.compared import compared, title_of
from orchestrator.table import same, trials_frame

_SOURCE = "data.source"
COMPARE_VERSION = 1
"""Of the form of the JSON."""
Seeds = tuple[int, ...]
"""Of a block, in the order of SOURCES."""


@dataclass(frozen=True)
class Difference:
    """One setting, version or fact that is not the same in both."""

    name: str
    a: Any
    b: Any
    """None where that study has none of that name."""


@dataclass(frozen=True)
class Shared:
    """An arm that both studies have, under one name."""

    arm: str
    a: ArmSummary
    b: ArmSummary
    configured: tuple[Difference, ...]
    """What is not the same in their configurations, tuned values included."""
    is_paired: bool
    pairs: int
    """Blocks with a score in both and the same seeds."""
    difference: float | None
    """Mean of B minus A: over pairs, or of the two means; None where no difference is formed."""
    low: float | None
    high: float | None
    """Student's interval over pairs, Welch's where unpaired."""
    p: float | None
    """Sign flips of the pairs, Welch's test where unpaired."""
    p_holm: float | None
    """Adjusted for all arms whose difference is formed."""
    to_base_a: Comparison | None
    to_base_b: Comparison | None
    """Difference to the base within each study, where both have the same base."""


@dataclass(frozen=True)
class Versus:
    """All that there is to say of two studies."""

    a: Frames
    b: Frames
    asked: tuple[Difference, ...]
    ran: tuple[Difference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    shared: tuple[Shared, ...]
    shared_blocks: int
    """Blocks of the confirm stage whose four seeds are in both plans."""
    obstacle: str | None
    """Why scores are not compared; None where they are."""
    table: tuple[str, ...] | None
    """Where one study was run twice: in what the tables differ but for times, one line each; None for two studies."""


def versus(a: Frames, b: Frames, tables: tuple[pa.Table, pa.Table] | None = None) -> Versus:
    """Two studies side by side; ``tables`` are their tables ``trials``."""
    blocks_a, blocks_b = set(_seeds(a).values()), set(_seeds(b).values())
    mine, theirs = ({each.arm: each for each in frames.summaries} for frames in (a, b))
    configs = _configs(a), _configs(b)
    arms = [arm for arm in mine if arm in theirs]
    obstacle = _obstacle(a, b, arms, configs)
    found = [_shared(a, b, mine[arm], theirs[arm], configs, is_formed=obstacle is None) for arm in arms]
    formed = [each for each in found if each.p is not None]
    adjusted = dict(zip((each.arm for each in formed), holm([each.p or 0.0 for each in formed]), strict=True))
    is_one_study = a.facts.study["fingerprint"] == b.facts.study["fingerprint"]
    return Versus(
        a=a,
        b=b,
        asked=_differing(_asked(a, b), _asked(b, a)),
        ran=_differing(_ran(a), _ran(b)),
        only_a=tuple(arm for arm in mine if arm not in theirs),
        only_b=tuple(arm for arm in theirs if arm not in mine),
        shared=tuple(dataclasses.replace(each, p_holm=adjusted.get(each.arm)) for each in found),
        shared_blocks=len(blocks_a & blocks_b),
        obstacle=obstacle,
        table=tuple(same(*tables)) if tables is not None and is_one_study else None,
    )


def read(folders: tuple[str | Path, str | Path], frames: tuple[Frames, Frames]) -> Versus:
    """The same, with the tables of the two folders.

    Raises:
        StorageError: a journal cannot be read.
    """
    tables = [trials_frame(record_of(Journal(folder).read())) for folder in folders]
    return versus(*frames, (tables[0], tables[1]))


def to_json(found: Versus) -> str:
    """The numbers, unrounded. Null is "not defined" or "not known"."""
    content = {
        "compare_version": COMPARE_VERSION,
        **{side: _side(frames) for side, frames in (("a", found.a), ("b", found.b))},
        "asked": [dataclasses.asdict(each) for each in found.asked],
        "ran": [dataclasses.asdict(each) for each in found.ran],
        "arms_only_in_a": found.only_a,
        "arms_only_in_b": found.only_b,
        "shared_blocks": found.shared_blocks,
        "not_compared": found.obstacle,
        "arms": [dataclasses.asdict(each) for each in found.shared],
        "table_differences": found.table,
    }
    return json.dumps(_plain(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _side(frames: Frames) -> dict[str, Any]:
    facts = frames.facts
    return {"study": facts.name, "fingerprint": facts.study["fingerprint"], "is_complete": frames.is_complete, "metric": facts.metric}


def _shared(
    a: Frames,
    b: Frames,
    mine: ArmSummary,
    theirs: ArmSummary,
    configs: tuple[Mapping[str, Mapping[str, Any]], Mapping[str, Mapping[str, Any]]],
    *,
    is_formed: bool,
) -> Shared:
    arm = mine.arm
    scores = [_scores(frames, arm) for frames in (a, b)]
    configured = _differing(*(config.get(arm, {}) for config in configs))
    data = {each.name for each in configured if each.name.startswith("data.")}
    is_formed = is_formed and _SOURCE not in data
    keys = [] if data else sorted(set(scores[0]) & set(scores[1]))
    low = high = difference = p = None
    if is_formed and keys:
        values = np.array([scores[1][key] - scores[0][key] for key in keys])
        difference, p = float(values.mean()), sign_flip_p(values)[0]
        low, high = t_interval(values) or (None, None)
    elif is_formed and scores[0] and scores[1]:
        x, y = (np.array(list(each.values())) for each in scores)
        difference = float(y.mean() - x.mean())
        if min(len(x), len(y)) > 1 and (np.ptp(x) > 0 or np.ptp(y) > 0):
            tested = stats.ttest_ind(y, x, equal_var=False)
            interval = tested.confidence_interval(0.95)
            low, high, p = float(interval.low), float(interval.high), float(tested.pvalue)
    is_one_base = a.facts.base == b.facts.base
    to_base = [next((each for each in frames.comparisons if each.arm == arm), None) if is_one_base else None for frames in (a, b)]
    return Shared(arm, mine, theirs, configured, bool(keys), len(keys), difference, low, high, p, None, to_base[0], to_base[1])


def _obstacle(a: Frames, b: Frames, arms: Sequence[str], configs: Sequence[Mapping[str, Mapping[str, Any]]]) -> str | None:
    if not a.summaries or not b.summaries:
        return "one of the studies has no confirm stage yet"
    if not arms:
        return "they have no arm in common"
    metrics = [(frames.facts.metric["report"], frames.facts.metric["goal"]) for frames in (a, b)]
    if metrics[0] != metrics[1]:
        return f"they report different metrics: {', to '.join(metrics[0])}, and {', to '.join(metrics[1])}"
    sources = [{str(config[arm].get(_SOURCE)) for arm in arms if arm in config} for config in configs]
    if arms and not sources[0] & sources[1]:
        return f"they are of different data: {', '.join(sorted(sources[0]))} and {', '.join(sorted(sources[1]))}"
    return None


def _seeds(frames: Frames) -> dict[int, Seeds]:
    """Block to its seeds."""
    return {int(row["block"]): tuple(int(row[source]) for source in SOURCES) for row in frames.teachers.to_dict("records")}


def _scores(frames: Frames, arm: str) -> dict[Seeds, float]:
    """By the seeds of the block, of the arm's own cell."""
    own = {
        int(cell["block"]): tuple(int(cell["seeds"][source]) for source in SOURCES)
        for cell in frames.facts.cells
        if cell["stage"] == CONFIRM and cell["arm"] == arm
    }
    column = frames.scores[arm]
    return {own[int(block)]: float(value) for block, value in column.items() if int(block) in own and math.isfinite(value)}


def _configs(frames: Frames) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for cell in frames.facts.cells:
        if cell["stage"] == CONFIRM:
            found.setdefault(cell["arm"], cell["config"])
    return found


def _asked(frames: Frames, other: Frames) -> dict[str, Any]:
    """The study file in dotted names, without its name and how it is run; of arms that the other study has not, the name alone."""
    asked = {name: value for name, value in frames.facts.asked.items() if name not in ("study", "run")}
    arms, theirs = asked.get("arms"), other.facts.asked.get("arms")
    if isinstance(arms, Mapping) and isinstance(theirs, Mapping):
        asked["arms"] = {name: arm if name in theirs else "declared" for name, arm in arms.items()}
    return dict(_flat(asked))


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            found += _flat(inner, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", inner))
    return found


def _ran(frames: Frames) -> dict[str, Any]:
    ran = frames.ran
    plain = ("mode", "launches", "lanes", "code_commit", "lock_hash", "first_cell", "last_cell", "device_seconds")
    lists = ("hosts", "devices", "workers")
    seeds = {"seed of the study": ran["seed"], "blocks": len(_seeds(frames)), "complete": frames.is_complete}
    machine = {f"machine.{name}": value for name, value in ran["machine"].items()}
    versions = {f"version of {name}": value for name, value in ran["versions"].items()}
    return {**seeds, **{name: ran[name] for name in plain}, **{name: ", ".join(ran[name]) for name in lists}, **machine, **versions}


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Difference, ...]:
    return tuple(Difference(name, a.get(name), b.get(name)) for name in dict.fromkeys((*a, *b)) if a.get(name) != b.get(name))


def markdown(found: Versus) -> str:
    """The comparison as text."""
    return markdowns.document(title_of(found.a, found.b), (), compared(found), "")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
