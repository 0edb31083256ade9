"""Variants: the arms of stage two that the designs of a study come to, and which of them are compared. Pure functions.

Before tuning has chosen, ``candidates`` says what there will be, at most; after it, ``variants`` makes the arms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator import path as ablation
from orchestrator.designs import LETTERS
from orchestrator.events import CONFIRM, Event, design_event
from orchestrator.levels import OFF, Level, Part, shown
from orchestrator.path import Course
from orchestrator.proof import Proof, Prove, twin_of
from orchestrator.study import Arm, Confirm, Path, Study
from search_spaces import Schedule, field_at, is_off, value_at
from trainables.distiller import Distiller

BASE, LEAVE_ONE_OUT, REFERENCE, ADD_ONE_IN, ONE_FACTOR, FACTORIAL, ALONG, RIVAL = KINDS = (
    "base", "leave_one_out", "reference", "add_one_in", "one_factor", "factorial", "path", "rival",
)  # fmt: skip
"""What an arm can be in the design of stage two."""


@dataclass(frozen=True)
class Candidate:
    """An arm that a design asks for: a tuned one with dotted names set. Several may come to the same arm."""

    kind: str
    label: str
    arm: str
    """The tuned arm that it starts from."""
    values: Mapping[str, Any] = field(default_factory=dict)
    against: str = ""
    """Label of the candidate that it is compared with; empty where it is compared with none."""
    part: str = ""
    """Name of the part that a leave-one-out variant lacks."""
    is_open: bool = False
    """Whether trainings of the path will tell its values."""


def candidates(study: Study, confirm: Confirm, course: Course | None = None) -> tuple[Candidate, ...]:
    """Everything that the designs ask for, base first, in the order of the table. ``course``: the path, once it is walked."""
    return tuple(_candidates(study, confirm, course))


def _candidates(study: Study, confirm: Confirm, course: Course | None) -> Iterator[Candidate]:
    name = confirm.base
    base = study.arms[name]
    yield Candidate(BASE, name, name)
    for part in confirm.leave_one_out:
        off = _off_values(base, part.fields)
        yield Candidate(LEAVE_ONE_OUT, f"{name}, {part_label(base, part)}", name, off, against=name, part=part.name)
    if confirm.add_one_in:
        reference = reference_label(confirm)
        yield Candidate(REFERENCE, reference, name, _off_values(base, [f for part in confirm.add_one_in for f in part.fields]))
        for part in confirm.add_one_in:
            others = _off_values(base, [f for other in confirm.add_one_in if other != part for f in other.fields])
            yield Candidate(ADD_ONE_IN, f"{name}, only {part.title}", name, others, against=reference)
    for factor in confirm.one_factor:
        for level in factor.levels:
            arm, values = _set(study, confirm, [level])
            yield Candidate(ONE_FACTOR, f"{name}, {factor.title}={level.label}", arm, values, against=name)
    if confirm.factorial is not None:
        for row in confirm.factorial.design.rows:
            arm, values = _set(study, confirm, confirm.factorial.levels(row))
            yield Candidate(FACTORIAL, run_label(confirm, row), arm, values)
    if confirm.path is not None:
        yield from _along(study, confirm, confirm.path, course)
    for rival in confirm.against:
        yield Candidate(RIVAL, rival, rival, against=name)


def _along(study: Study, confirm: Confirm, path: Path, course: Course | None) -> Iterator[Candidate]:
    """From the start to the last arm before the base, each compared with the one before; then the base with that."""
    name = confirm.base
    before = ablation.start_label(name)
    yield Candidate(ALONG, before, name, ablation.held(study, confirm, path, course.idle if course else ()))
    if course is None:
        for number in range(1, len(path.parts)):
            title = f"{name}, path +{number}"
            yield Candidate(ALONG, title, name, against=before, is_open=True)
            before = title
    else:
        for number in range(1, len(course.parts) + bool(course.stuck)):
            flipped = course.parts[:number]
            title = ablation.label(name, flipped)
            yield Candidate(ALONG, title, name, ablation.held(study, confirm, path, [*course.idle, *flipped]), against=before)
            before = title
    yield Candidate(ALONG, name, name, against=before)


def part_label(base: Arm, part: Part) -> str:
    """What is set to what where a part is off, as in ``mixing=normalised``; of a group, ``NAME=off``."""
    off = field_at(base, part.fields[0]).off if part.fields == (part.name,) else OFF
    return f"{part.title}={off.kind if isinstance(off, Schedule) else shown(off)}"


def reference_label(confirm: Confirm) -> str:
    """Of the arm with all parts of add-one-in off."""
    return f"{confirm.base}, without {', '.join(part.title for part in confirm.add_one_in)}"


def run_label(confirm: Confirm, row: Mapping[str, int]) -> str:
    """Of a run of the factorial: its levels."""
    if confirm.factorial is None:
        raise ValueError("A run needs a factorial, but the study has none.")
    levels = zip(confirm.factorial.factors, confirm.factorial.levels(row), strict=True)
    return f"{confirm.base}, {', '.join(f'{factor.title}={level.label}' for factor, level in levels)}"


def _off_values(arm: Arm, names: Sequence[str]) -> dict[str, Any]:
    return {name: field_at(arm, name).off for name in names}


def _set(study: Study, confirm: Confirm, levels: Sequence[Level]) -> tuple[str, dict[str, Any]]:
    """The tuned arm that levels start from, and what they set in it."""
    name = next((level.arm for level in levels if level.arm is not None), confirm.base)
    values = {name: value for level in levels for name, value in level.values}
    return name, values | _off_values(study.arms[name], [each for level in levels for each in level.off])


def distinct(study: Study, confirm: Confirm) -> tuple[Candidate, ...]:
    """The candidates that can come to different trainings, whatever tuning chooses: the first of each.

    What is set to the value that an arm has anyway, because it is declared so and not searched, makes no other training.
    """
    found: dict[Any, Candidate] = {}
    for each in candidates(study, confirm):
        found.setdefault(_key(study, each), each)
    return tuple(found.values())


def _key(study: Study, candidate: Candidate) -> Any:
    if candidate.is_open:
        return candidate.label
    space = study.search.spaces.get(candidate.arm) if study.search else None
    searched = space.names if space else ()
    arm = study.arms[candidate.arm]
    kept = {
        name: value
        for name, value in candidate.values.items()
        if any(f"{other}.".startswith(f"{name}.") or f"{name}.".startswith(f"{other}.") for other in searched)
        or _has(study, arm, name) != value
    }
    if not searched:  # then everything is known, fields without effect too
        return _id(study, arm.varied(study, candidate.values))
    return candidate.arm, frozenset(kept.items())


def _has(study: Study, arm: Arm, name: str) -> Any:
    """What an arm has at a dotted name."""
    head, _, rest = name.partition(".")
    if head == "data":
        return value_at(arm.source(study), rest)
    if head == "teacher":
        part, _, inner = rest.partition(".")
        holder = getattr(arm.taught_by(study), part)
        return value_at(holder, inner) if inner else holder
    return value_at(arm, name)


def declared(study: Study, candidate: Candidate) -> Arm:
    """The arm as it would be without tuning. It keeps the name of the arm that it starts from, whose search it shares."""
    return study.arms[candidate.arm].varied(study, candidate.values)


def planned(study: Study, confirm: Confirm) -> tuple[tuple[str, str], ...]:
    """Labels of the pairs that are compared, at most."""
    twins: dict[Any, str] = {}
    labels: dict[str, str] = {}
    found: list[tuple[str, str]] = []
    for each in candidates(study, confirm):
        labels[each.label] = twins.setdefault(_key(study, each), each.label)
        if each.against:
            _pair(found, labels[each.label], labels[each.against])
    return tuple(found)


def _pair(found: list[tuple[str, str]], arm: str, against: str) -> bool:
    """Keep a pair, unless it is of one arm, or kept already; whether it was."""
    if arm == against or (arm, against) in found or (against, arm) in found:
        return False
    found.append((arm, against))
    return True


@dataclass(frozen=True)
class Variants:
    """The arms of stage two, base first, which of them are compared, and what was left out with the reason."""

    base: str
    arms: Mapping[str, Arm]
    kinds: Mapping[str, tuple[str, ...]]
    """What each arm is in the design."""
    comparisons: tuple[tuple[str, str, str], ...]
    """Arm, what it is compared with, and the kind of the comparison."""
    skipped: tuple[tuple[str, str], ...]
    runs: tuple[tuple[str, Mapping[str, int]], ...] = ()
    """Of the factorial: arm and levels. Runs that come to the same training have one arm."""
    idle: frozenset[str] = frozenset()
    """Factors of the factorial whose levels make no difference in any run."""
    course: Course | None = None
    """The ablation path among the arms."""
    along: tuple[str, ...] = ()
    """Its arms, from the start to the base. A flip that makes no other training has the arm before."""
    proofs: tuple[tuple[str, str, Proof], ...] = ()
    """Arm, what it was rehearsed beside, and what was found: of the compared pairs, and of every arm that was refused as a no-op."""

    def event(self, study: Study, confirm: Confirm, late: bool = False) -> Event:
        """The design event."""
        factorial = confirm.factorial
        content = None
        if factorial is not None:
            letters = zip(LETTERS, factorial.factors, strict=False)
            content = {
                "factors": [
                    {
                        "name": factor.name,
                        "letter": letter,
                        "low": factor.levels[0].label,
                        "high": factor.levels[1].label,
                        "differs": factor.name not in self.idle,
                    }
                    for letter, factor in letters
                ],
                "runs": [{"arm": arm, "levels": dict(levels)} for arm, levels in self.runs],
                **factorial.design.to_json(),
            }
        return design_event(
            blocks=confirm.blocks,
            base=self.base,
            arms=[{"arm": name, "kinds": list(self.kinds[name]), "cell": _id(study, arm)} for name, arm in self.arms.items()],
            comparisons=[{"arm": arm, "against": against, "kind": kind} for arm, against, kind in self.comparisons],
            factorial=content,
            skipped=self.skipped,
            late=late,
            proofs=[
                {"arm": arm, "against": against, "differs": found.differs, "reason": found.reason}
                for arm, against, found in self.proofs
                if found.reason
            ],
            path=None if self.course is None else {**self.course.to_json(), "arms": list(self.along)},
        )


def variants(
    study: Study, confirm: Confirm, tuned: Mapping[str, Arm], prove: Prove | None = None, course: Course | None = None
) -> Variants:
    """The arms of stage two. What would equal the base, or another arm, is no arm of its own; where it was asked for, it is named.

    Args:
        study: what was asked.
        confirm: its stage two.
        tuned: the arms that it starts from, by name, as tuning left them.
        prove: tells whether an arm is another training than another one; without it, what has another configuration is.
        course: the ablation path, if there is one.
    """
    refused: dict[str, tuple[str, Proof]] = {}
    arms: dict[str, Arm] = {}
    kinds: dict[str, list[str]] = {}
    skipped: list[tuple[str, str]] = []
    pairs: list[tuple[str, str]] = []
    compared: list[tuple[str, str, str]] = []
    known: dict[str, str] = {}
    labels: dict[str, str] = {}
    for each in candidates(study, confirm, course):
        try:
            arm = replace(tuned[each.arm].varied(study, each.values), name=each.label)
            content = _id(study, arm)
        except ValueError as error:
            skipped.append((each.label, f"it is no valid configuration after tuning: {error}"))
            continue
        if content not in known and prove is not None and (same := twin_of(arm, arms, prove)) is not None:
            known[content], refused[each.label] = same[0], same
        twin = labels[each.label] = known.setdefault(content, each.label)
        if twin == each.label:
            arms[twin] = arm
        if each.kind not in kinds.setdefault(twin, []):
            kinds[twin].append(each.kind)
        if each.label in refused:
            skipped.append((each.label, f"the same training as {twin}: {refused[each.label][1].reason}"))
        if not each.against:
            continue
        against = labels.get(each.against)
        if against is None:
            skipped.append((each.label, f"{each.against}, which it is compared with, is not there"))
        elif _pair(pairs, twin, against):
            compared.append((twin, against, each.kind))
        elif each.label in refused:
            continue
        elif twin == against and each.part and all(is_off(tuned[each.arm], name) for name in each.values):
            skipped.append((each.label, f"the tuned {confirm.base} already has {each.part} off: there is nothing to leave out"))
        elif twin != each.label:
            skipped.append((each.label, f"it would be the same training as {twin}"))
    rows = confirm.factorial.design.rows if confirm.factorial else ()
    names = [run_label(confirm, row) for row in rows]
    idle = _idle(study, confirm, tuned, _factors(confirm), prove)
    proofs = [(arm, against, prove(arms[arm], arms[against])) for arm, against, _ in compared] if prove is not None else []
    proofs += [(label, twin, found) for label, (twin, found) in refused.items()]
    proofs += [pair for pairs in idle.values() for pair in pairs]
    skipped += [(f"factor {name}", pairs[0][2].reason) for name, pairs in idle.items() if pairs]
    if course is not None:
        skipped += [(f"path: {part.title}", f"the tuned {confirm.base} has what the path starts with") for part in course.idle]
        skipped += [(f"path: {part.title}", "flipped at the end, since no training of a flip came to its end") for part in course.stuck]
    return Variants(
        confirm.base,
        arms,
        {name: tuple(found) for name, found in kinds.items()},
        tuple(compared),
        tuple(skipped),
        # A run without a valid arm keeps its label, and has no cell.
        tuple((labels.get(name, name), row) for name, row in zip(names, rows, strict=True)),
        frozenset(idle),
        course,
        tuple(labels[each.label] for each in candidates(study, confirm, course) if each.kind == ALONG and each.label in labels),
        tuple(proofs),
    )


def idle_factors(study: Study, confirm: Confirm, arms: Mapping[str, Arm], among: Iterable[str] | None = None) -> frozenset[str]:
    """Factors of the factorial, all or ``among`` some, whose levels make no difference to the configuration of any run.

    ``arms`` are those that it starts from.
    """
    return frozenset(_idle(study, confirm, arms, _factors(confirm) if among is None else among, None))


def _factors(confirm: Confirm) -> tuple[str, ...]:
    return confirm.factorial.design.factors if confirm.factorial else ()


def _idle(
    study: Study, confirm: Confirm, arms: Mapping[str, Arm], among: Iterable[str], prove: Prove | None
) -> dict[str, tuple[tuple[str, str, Proof], ...]]:
    """Factors whose levels make no difference to any run; where the configuration does not say so, with the proof of each run.

    A run is held against its neighbour, which need not be a run of a fraction.
    """
    factorial = confirm.factorial
    if factorial is None:
        return {}
    known: dict[tuple[int, ...], tuple[Arm, str] | None] = {}

    def made(row: Mapping[str, int]) -> tuple[Arm, str] | None:
        levels = tuple(row.values())
        if levels not in known:
            name, values = _set(study, confirm, factorial.levels(row))
            try:
                arm = replace(arms[name].varied(study, values), name=run_label(confirm, row))
                known[levels] = arm, _id(study, arm)
            except ValueError:
                known[levels] = None
        return known[levels]

    def proofs(factor: str) -> tuple[tuple[str, str, Proof], ...] | None:
        found = []
        for row in factorial.design.rows:
            run, other = made(row), made({**row, factor: -row[factor]})
            if (run and run[1]) == (other and other[1]):
                continue
            if run is None or other is None or prove is None or (proof := prove(run[0], other[0])).differs:
                return None
            found.append((run[0].name, other[0].name, proof))
        return tuple(found)

    told = {factor: proofs(factor) for factor in among}
    return {factor: found for factor, found in told.items() if found is not None}


def _id(study: Study, arm: Arm) -> str:
    """Content id of the arm's training in the first block: what is the same there is so in all."""
    return arm.trial(study, study.block(CONFIRM, 0), opens_test=True).id


def methods(study: Study) -> tuple[Distiller[Any], ...]:
    """Every method value that a cell of the study may have, as declared."""
    found = [arm.method for arm in study.arms.values()]
    if study.confirm is not None:
        found += [declared(study, each).method for each in distinct(study, study.confirm) if "method" in each.values]
    return tuple(found)
