"""Proof of difference: before stage two, whether two arms are different trainings at all, or one is a silent no-op.

A field can differ in the configuration and do nothing in the setting at hand: the temperature of a term whose weight is 0, the
lower bound of an estimate that lies above it everywhere. Such an arm would be reported as "no difference was shown", which
reads like a finding. So both are rehearsed (``trainables.rehearsal``) and compared by what comes out.

The rule. Two arms are different where they train on other rows, for another number of steps, in other batches or at another
learning rate: that needs no rehearsal. Otherwise they are different where the number of their parameters differs, or the
rehearsed student, in a single bit. Arms that are equal in a first rehearsal are rehearsed again with a teacher trained further,
then with more rows, each with further seeds, since a part may act only where a teacher is sure, or on few rows; only what is
equal in all of them is a no-op. Small networks stand in for large ones. What cannot be rehearsed, or has a
schedule that differs only at steps which no rehearsal reaches, is not refused. A loss that reads differently but trains the same student, bit for bit, makes no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.events import CONFIRM, SEARCH, Event
from orchestrator.record import Record
from orchestrator.study import Arm, Study
from trainables.rehearsal import BRIEF, SHORT, SURE, WIDE, Conditions, Rehearsal, Stage
from trainables.trial import Trial

Prove = Callable[[Arm, Arm], "Proof"]
Rehearse = Callable[[Trial, Conditions], Rehearsal]

CONDITIONS = (SHORT, SURE, WIDE)
"""In the order in which arms are rehearsed; the later ones where the earlier ones showed nothing."""
_STOOD_IN = "with small networks in place of its own"
_MOST_NAMED = 4
"""Names of differing settings in one sentence."""


@dataclass(frozen=True)
class Proof:
    """What was found out about two arms."""

    differs: bool
    """Whether they are to be compared. True as well where nothing could be found out."""
    reason: str
    """How they differ, or why they are the same training: a sentence without full stop."""


class Recorded:
    """What an earlier launch found out, from the design event: a design that is fixed does not depend on a second rehearsal."""

    def __init__(self, design: Event) -> None:
        told = design.get("proofs", ())
        self._known = {(str(each["arm"]), str(each["against"])): Proof(bool(each["differs"]), str(each["reason"])) for each in told}

    def prove(self, arm: Arm, other: Arm) -> Proof:
        """As found then. Every arm that was another one under another name is told, so what is not told differs."""
        return self._known.get((arm.name, other.name), Proof(True, ""))


class Prover:
    """Compares arms of one study. Every arm is rehearsed when it is first asked for, and once under each condition."""

    def __init__(self, study: Study, rehearse: Rehearse | None = None) -> None:
        """``rehearse``: another way to do so, for tests. In a smoke run a look is all there is, and no arm is refused."""
        self._study = study
        self._conditions = (BRIEF,) if study.run.smoke else CONDITIONS
        self._rehearse = rehearse
        self._known: dict[tuple[str, Conditions], Rehearsal] = {}

    def prove(self, arm: Arm, other: Arm) -> Proof:
        """Whether an arm is another training than the one it is compared with."""
        pairs: list[tuple[Rehearsal, Rehearsal]] = []
        for conditions in self._conditions:
            pair = self._rehearsal(arm, conditions), self._rehearsal(other, conditions)
            found = difference(*pair)
            if found is not None:
                under = [*([] if conditions is self._conditions[0] else [conditions.name]), *([_STOOD_IN] if pair[0].stood_in else [])]
                return Proof(True, ": ".join([", ".join(under), found] if under else [found]))
            problem = pair[0].problem or pair[1].problem
            if problem:
                return Proof(True, f"not shown, since it could not be rehearsed: {problem}")
            pairs.append(pair)
        if self._study.run.smoke:
            return Proof(True, "not told apart in the few steps of a smoke run")
        hidden = hidden_schedules(*pairs[-1])
        if hidden:
            return Proof(True, f"{_listed(hidden)} differs at steps that a rehearsal does not reach; where it does, nothing differs")
        return Proof(False, _refusal(pairs, settings_apart(self._trial(arm, SHORT), self._trial(other, SHORT))))

    def _trial(self, arm: Arm, conditions: Conditions) -> Trial:
        # Blocks of tuning: those of the report are not looked at before its design is fixed.
        return arm.trial(self._study, self._study.block(SEARCH, conditions.block), opens_test=False)

    def _rehearsal(self, arm: Arm, conditions: Conditions) -> Rehearsal:
        trial = self._trial(arm, conditions)
        key = trial.id, conditions
        if key not in self._known:
            if self._rehearse is None:
                self._rehearse = Stage().rehearse
            self._known[key] = self._rehearse(trial, conditions)
        return self._known[key]


def prover(study: Study, record: Record) -> Prove:
    """What tells of two arms whether they differ: rehearsals, but what an earlier launch found where stage two is open already."""
    is_open = record.design is not None or any(attempt.plan["stage"] == CONFIRM for attempt in record.cells.values())
    return Recorded(record.design or {}).prove if is_open else Prover(study).prove


def twin_of(arm: Arm, others: Mapping[str, Arm], prove: Prove) -> tuple[str, Proof] | None:
    """The first of the others, by name, that is the same training as the arm; None where it differs from all."""
    for name, other in others.items():
        found = prove(arm, other)
        if not found.differs:
            return name, found
    return None


def difference(first: Rehearsal, second: Rehearsal) -> str | None:
    """In what two trainings differ, as rehearsed under one condition; None where in nothing, or in nothing that is known."""
    found = []
    if first.rows != second.rows:
        found.append("other training rows")
    if first.steps != second.steps:
        found.append(f"{first.steps:,} steps against {second.steps:,}")
    if first.batch != second.batch:
        found.append(f"{first.batch:,} rows a step against {second.batch:,}")
    if first.rates != second.rates:
        found.append("another learning rate")
    if first.problem or second.problem:
        # What went wrong later takes nothing back of a first step.
        if first.losses and second.losses and first.gradient != second.gradient:
            found.append(_first_step(first, second))
        return "; ".join(found) or None
    if not found and first.parameters == second.parameters and first.outcome == second.outcome:
        return None
    if first.loss != second.loss or first.gradient != second.gradient:
        found.append(_first_step(first, second))
    elif first.outcome != second.outcome:
        found.append(f"the same step-0 loss and gradient, {_apart_from(first, second)}")
    more = sum(first.parameters.values()) - sum(second.parameters.values())
    if more or not first.stood_in:
        whose = " of the student" if first.stood_in else ""
        found.append(f"{abs(more):,.0f} {'fewer' if more < 0 else 'more'} parameters{whose}")
    return "; ".join(found)


def hidden_schedules(first: Rehearsal, second: Rehearsal) -> list[str]:
    """Schedules whose levels differ in the training in full, but at no step of the rehearsal."""
    both = [name for name in first.levels if name in second.levels]
    found = [name for name in both if first.levels[name] != second.levels[name] and first.seen[name] == second.seen[name]]
    return [name.partition(".")[2] for name in found]


def settings_apart(first: Trial, second: Trial) -> list[str]:
    """Settings of which two trainings have different values, with the values."""
    ours, theirs = first.config(), second.config()
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return [name if name == "chain" else f"{name} {_spelled(ours.get(name))} for {_spelled(theirs.get(name))}" for name in names]


def told_apart(first: float, second: float) -> tuple[str, str]:
    """Two numbers with as few digits, three at least, as tell one from the other."""
    for digits in range(3, 17):
        pair = f"{first:.{digits}g}", f"{second:.{digits}g}"
        if pair[0] != pair[1]:
            return pair
    return f"{first:.17g}", f"{second:.17g}"


def _first_step(first: Rehearsal, second: Rehearsal) -> str:
    if first.loss != second.loss:
        return "step-0 loss {} against {}".format(*told_apart(first.loss, second.loss))
    return "the same step-0 loss, its gradient's norm {} against {}".format(*told_apart(first.gradient, second.gradient))


def _apart_from(first: Rehearsal, second: Rehearsal) -> str:
    moments = [mine[0] for mine, other in zip(first.losses, second.losses, strict=False) if mine != other]
    return f"apart by {moments[0]:.0%} of the training" if moments else "apart in the trained student alone"


def _refusal(pairs: Sequence[tuple[Rehearsal, Rehearsal]], settings: Sequence[str]) -> str:
    first, second = pairs[0]
    further = [f"{pair[0].rehearsed} {conditions.name}" for conditions, pair in zip(CONDITIONS, pairs, strict=True)][1:]
    said = f"a no-op: the two trainings are bit for bit the same over {_listed([f'{first.rehearsed} rehearsed steps', *further])}"
    if first.stood_in:
        said += f", {_STOOD_IN}"
    if first.loss != second.loss:
        said += ", though the step-0 loss reads {} against {}".format(*told_apart(first.loss, second.loss))
    return f"{said}. Without effect here: {_listed(settings)}" if settings else f"{said}, and so are their settings"


def _listed(parts: Sequence[str]) -> str:
    shown = [*parts[:_MOST_NAMED], *([f"{len(parts) - _MOST_NAMED} more"] if len(parts) > _MOST_NAMED else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _spelled(value: Any) -> str:
    return "nothing" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
