"""Facts: what the journal of a study says beside the rows of its cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from orchestrator.errors import StorageError
from orchestrator.events import CONFIRM, SEARCH
from orchestrator.located import plain, read
from orchestrator.published import Published


@dataclass(frozen=True)
class StudyFacts:
    """What the journal says of a study beside the rows of its cells."""

    launches: tuple[Mapping[str, Any], ...]
    """Study events; the first one fixed what was asked, the last one is what ran last."""
    cells: tuple[Mapping[str, Any], ...]
    """Cell events in plan order, one per cell."""
    choices: tuple[Mapping[str, Any], ...] = ()
    """Choice events, one per ended search."""
    ended: str | None = None
    """How the last launch ended: complete or interrupted; None if it has not said so."""
    design: Mapping[str, Any] | None = None
    """The design event; None where stage two is not open, or was opened by a version that wrote none."""
    extensions: tuple[Mapping[str, Any], ...] = ()
    """Extension events: blocks that were added to the fixed design."""
    rows: tuple[tuple[int, Mapping[str, Any]], ...] = ()
    """Row events in the order in which they came, each with the index of its launch."""

    def __post_init__(self) -> None:
        if not self.launches:
            raise StorageError("A report needs a study that was launched, but got a journal without a study event. Run the study first.")

    @property
    def study(self) -> Mapping[str, Any]:
        """The first study event."""
        return self.launches[0]

    @property
    def name(self) -> str:
        """Of the study."""
        return str(self.study["study"])

    @property
    def base(self) -> str | None:
        """The arm that others are compared to; None where the study ends with tuning."""
        return self.study.get("base")

    @property
    def metric(self) -> Mapping[str, str]:
        """select, report and goal."""
        return dict(self.study["metric"])

    @property
    def planned_blocks(self) -> dict[str, list[int]]:
        """Arm of the confirm stage to its blocks, base first."""
        found: dict[str, list[int]] = {}
        for cell in self.cells:
            if cell["stage"] == CONFIRM:
                found.setdefault(cell["arm"], []).append(cell["block"])
        if self.design is not None:
            # Its cells follow it in the journal: after a crash between the two it stands alone until the next launch.
            for arm in self.design["arms"]:
                found[arm["arm"]] = sorted({*found.get(arm["arm"], ()), *range(self.design["blocks"])})
        return {arm: found[arm] for arm in sorted(found, key=lambda arm: arm != self.base)}

    @property
    def planned_search(self) -> dict[str, list[Mapping[str, Any]]]:
        """Searched arm to its cells."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for cell in self.cells:
            if cell["stage"] == SEARCH:
                found.setdefault(cell["arm"], []).append(cell)
        return found

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(arm, what it is compared with) of every planned comparison: Holm's family."""
        if self.design is not None:
            return tuple((str(pair["arm"]), str(pair["against"])) for pair in self.design["comparisons"])
        return tuple((arm, self.base) for arm in self.planned_blocks if self.base is not None and arm != self.base)

    @property
    def kinds(self) -> dict[str, tuple[str, ...]]:
        """Arm to what it is in the fixed design: base, leave_one_out, reference, add_one_in, one_factor, factorial, rival."""
        return {} if self.design is None else {str(arm["arm"]): tuple(arm["kinds"]) for arm in self.design["arms"]}

    @property
    def fixed_blocks(self) -> int | None:
        """How many blocks the fixed design has; later ones belong to its extensions."""
        return None if self.design is None else int(self.design["blocks"])

    @property
    def fixed_plan(self) -> dict[str, list[int]]:
        """As ``planned_blocks``, without those of extensions."""
        fixed = self.fixed_blocks
        return {arm: [block for block in blocks if fixed is None or block < fixed] for arm, blocks in self.planned_blocks.items()}

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(variant, reason) of variants that were not trained."""
        if self.design is not None:
            return tuple((str(label), str(reason)) for label, reason in self.design["skipped"])
        return tuple((str(label), str(reason)) for choice in self.choices for label, reason in choice.get("skipped", ()))

    @property
    def proofs(self) -> tuple[tuple[str, str, bool, str], ...]:
        """(arm, what it was rehearsed beside, whether they differ, in what) of pairs that are compared, and of arms refused as no-ops."""
        told = () if self.design is None else self.design.get("proofs", ())
        return tuple((str(each["arm"]), str(each["against"]), bool(each["differs"]), str(each["reason"])) for each in told)

    @property
    def path(self) -> Mapping[str, Any] | None:
        """The ablation path: start, blocks, steps, and its arms from the start to the base; None where the design has none."""
        return None if self.design is None else self.design.get("path")

    @property
    def is_smoke(self) -> bool:
        """Whether it was run with ``--smoke``: on data that are made up, and hardly trained."""
        run = self.asked.get("run")
        return isinstance(run, dict) and run.get("smoke") is True

    @property
    def published(self) -> Published | None:
        """The published table that the study names; None where it names none."""
        named = self.asked.get("published")
        if not isinstance(named, dict) or not {"paper", "table"} <= named.keys():
            return None
        paper, table, teacher, student = (named.get(key) for key in ("paper", "table", "teacher", "student"))
        return Published(str(paper), str(table), teacher, student)

    @cached_property
    def asked(self) -> Mapping[str, Any]:
        """The study file; empty where it cannot be read."""
        # By the reader of study files: YAML of another version would read words as other values, and knows no bounds.
        node, _ = read(str(self.study.get("text") or ""), "study.yaml")
        found = {} if node is None else plain(node)
        return found if isinstance(found, dict) else {}
