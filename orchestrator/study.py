"""Study: what was asked, as frozen values. ``orchestrator.reading`` makes them out of a file, checked as a whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, replace
from typing import Any, Self

from orchestrator.analysis.reach import Stated
from orchestrator.events import CONFIRM, PATH, SEARCH
from orchestrator.levels import Factor, Factorial, Part
from orchestrator.placement import ANY, Placement
from orchestrator.published import Published
from search_spaces import Choice, Space, Tunable, Value, changed, flat, nested, tunables
from trainables.device import seed_of
from trainables.distiller import Distiller
from trainables.folder import name_of
from trainables.network import Family
from trainables.recipe import Recipe
from trainables.source import Source
from trainables.status import LOST, OUT_OF_MEMORY, TIMED_OUT
from trainables.trial import CONTENT_VERSION, Block, Teacher, Trial

STAGES = (SEARCH, PATH, CONFIRM)
MAXIMISE, MINIMISE = GOALS = ("maximise", "minimise")
SAMPLERS = ("tpe", "random")
WANDB = ("offline", "online", "off")
METRICS: Mapping[str, str] = {
    f"{split}.{measure}": goal
    for split in ("validation", "test")
    for measure, goal in (("accuracy", MAXIMISE), ("nll", MINIMISE), ("ece", MINIMISE), ("agreement", MAXIMISE))
}
"""Every metric that a cell may end with, and what is better."""


@dataclass(frozen=True)
class Arm:
    """A named method value with network and training recipe. Dotted names start with method, recipe or model."""

    name: str
    method: Distiller[Any] = nested(None, "the distillation method")
    recipe: Recipe = nested(Recipe(), "how the student is trained")
    model: Family = nested(None, "the student network")
    steps: int = 1
    """Students in its chain, each taught by the one before, all with this recipe and network; its cells are the last of them."""
    teacher: Teacher | None = None
    """Of the first student; None for the study's. A block's seeds are shared, so arms with different teachers differ by them alone."""
    data: Source | None = None
    """What it is trained on; None for the study's data."""

    @property
    def methods(self) -> tuple[Distiller[Any], ...]:
        """Of the students of its chain, in their order; ValueError where the method has no value for a step."""
        return tuple(self.method.at_step(number, self.steps) for number in range(1, self.steps + 1))

    def changed(self, point: Mapping[str, Value]) -> Self:
        """The arm with a point of its space applied; KeyError or ValueError as ``search_spaces.changed``."""
        return changed(self, point)

    def varied(self, study: Study, values: Mapping[str, Any]) -> Self:
        """The arm with dotted names set, which may start with teacher or data as well; KeyError or ValueError as ``changed``."""
        parts: dict[str, dict[str, Any]] = {"": {}, "data": {}, "teacher.model": {}, "teacher.recipe": {}}
        for name, value in values.items():
            prefix = next((prefix for prefix in parts if prefix and f"{name}.".startswith(f"{prefix}.")), "")
            parts[prefix][name.removeprefix(prefix).removeprefix(".")] = value
        found = changed(self, parts[""])
        teacher = self.taught_by(study)
        if parts["teacher.model"] or parts["teacher.recipe"]:
            model = parts["teacher.model"].pop("", teacher.model)
            teacher = Teacher(changed(model, parts["teacher.model"]), changed(teacher.recipe, parts["teacher.recipe"]))
            found = replace(found, teacher=teacher)
        return replace(found, data=changed(self.source(study), parts["data"])) if parts["data"] else found

    def trial(self, study: Study, block: Block, opens_test: bool) -> Trial:
        """The training of this arm on a block of a study."""
        *earlier, last = self.methods
        return Trial(self.source(study), block, self.model, self.recipe, last, self.taught_by(study), opens_test, tuple(earlier))

    def taught_by(self, study: Study) -> Teacher:
        """The teacher of its first student."""
        return self.teacher or study.teacher

    def source(self, study: Study) -> Source:
        """What it is trained on."""
        return self.data or study.data


@dataclass(frozen=True)
class Metric:
    """What is compared."""

    select: str = "validation.accuracy"
    """Chooses configurations; never a test metric."""
    report: str = "test.accuracy"
    """Compares arms in the report; opened once per chosen configuration."""
    goal: str = MAXIMISE

    @property
    def sign(self) -> float:
        """1 where more is better, else -1."""
        return 1.0 if self.goal == MAXIMISE else -1.0


@dataclass(frozen=True)
class Search:
    """Stage one: every searched arm gets the same number of trials, generations and rungs."""

    spaces: Mapping[str, Space]
    """Arm name to the space that is searched for it."""
    trials: int = 24
    generation: int = 8
    """Trials proposed at a time; also the group within which early stopping compares."""
    startup: int = 8
    """Trials drawn at random before the sampler models anything."""
    blocks: int = 1
    """Blocks on which each configuration is trained; its score is the mean."""
    rungs: tuple[float, ...] = ()
    """Progress in (0, 1) at which a share of the generation is stopped."""
    keep: float = 0.5
    """Share of a generation that goes on after a rung."""
    sampler: str = "tpe"


@dataclass(frozen=True)
class Path:
    """An ablation path: parts of the base, brought one by one from what they start with to what tuning chose."""

    parts: tuple[Part, ...]
    start: str | None = None
    """The arm that has, as declared, what parts start with; None for the base itself."""
    blocks: int = 3
    """On which the flips of a step are compared. Neither tuning nor the report sees them."""

    def to_json(self) -> Any:
        return [self.start, self.blocks, [part.to_json() for part in self.parts]]


@dataclass(frozen=True)
class Confirm:
    """Stage two: the tuned base, what the designs make of it, and tuned rivals, over blocks that tuning never saw."""

    base: str
    leave_one_out: tuple[Part, ...] = ()
    """Of the base, each off in one variant."""
    against: tuple[str, ...] = ()
    """Names of rival arms."""
    blocks: int = 10
    add_one_in: tuple[Part, ...] = ()
    """Of the base, all off in a reference arm, and each alone as tuned in a variant that is compared with it."""
    one_factor: tuple[Factor, ...] = ()
    """Each level of each makes a variant of the base."""
    factorial: Factorial | None = None
    path: Path | None = None
    effect: Stated | None = None
    """What the plan tells the power for; it changes no number."""
    correlation: float | None = None
    """Of two arms over blocks, for the same, until finished cells tell."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms that it starts from, the base first."""
        factors = (*self.one_factor, *(self.factorial.factors if self.factorial else ()))
        levels = (level.arm for factor in factors for level in factor.levels if level.arm is not None)
        return tuple(dict.fromkeys((self.base, *self.against, *levels)))

    def to_json(self) -> dict[str, Any]:
        """All that counts, in an order of its own; designs that are not asked for are left out."""
        found: dict[str, Any] = {"base": self.base, "against": sorted(self.against), "blocks": self.blocks}
        found["leave_one_out"] = sorted((part.to_json() for part in self.leave_one_out), key=str)
        if self.add_one_in:
            found["add_one_in"] = sorted((part.to_json() for part in self.add_one_in), key=str)
        if self.one_factor:
            found["one_factor"] = sorted(factor.to_json() for factor in self.one_factor)
        if self.factorial:
            found["factorial"] = self.factorial.to_json()
        if self.path:
            found["path"] = self.path.to_json()
        return found


@dataclass(frozen=True)
class Run:
    """How, not what: nothing here changes a number in the table."""

    lanes: int = 2
    """Where a study leaves it out: as many as a slice of ``topology`` holds, or two where lanes are parts of no slice."""
    workers: int = 1
    lane: str = ANY
    """What a lane is: any machine, or a chip, a host or the whole of a TPU v4 slice."""
    topology: str = ""
    """Of the slices that the cluster is made of, as in 2x2x1."""
    device: str = "auto"
    wandb: str = "offline"
    wandb_project: str = "kdsweep"
    storage: str = "kdsweep-results"
    retries: int = 1
    """How often a cell is taken again, for any of ``retry_on``. A lane that says beforehand that it goes away does not count."""
    retry_on: tuple[str, ...] = (LOST, OUT_OF_MEMORY, TIMED_OUT)
    """What makes a cell be taken again: a death of its lane ("lost"), or how its training ended."""
    cell_seconds: float | None = None
    """How long a cell may take on its lane, from its first leg to its last; None: as long as it likes."""
    give_up_after: int = 10
    """Failures, and not one cell that got anywhere, after which a launch ends; 0: never."""
    training_seconds: float | None = None
    """How long one whole training takes on one lane, for the plan's estimate while nothing has finished that could tell."""
    smoke: bool = False
    """Whether this is a run with ``--smoke``, whose numbers mean nothing."""

    @property
    def placement(self) -> Placement:
        """What a lane holds of the cluster; ValueError where lane and topology contradict each other, which no checked study does."""
        return Placement(self.lane, self.topology)

    @property
    def lane_device(self) -> str:
        """Name of the device that the runner of a lane is made with: ``device``, where auto is xla on a lane that is a part of a slice.

        The driver's own machine need not have it: ``device_named`` can tell there only where lane is any and Ray starts here.
        """
        return "xla" if self.device == "auto" and self.lane != ANY else self.device


@dataclass(frozen=True)
class Study:
    """A checked study."""

    name: str
    question: str
    seed: int
    metric: Metric
    data: Source
    teacher: Teacher
    arms: Mapping[str, Arm]
    search: Search | None
    confirm: Confirm | None
    run: Run = field(default_factory=Run)
    text: str = ""
    """The study file, overrides applied, as it is kept with the results."""
    warnings: tuple[str, ...] = ()
    """What is valid but unlikely to be meant, one line each, in file order."""
    published: Published | None = None
    """The published table that the report holds it against; it changes no number."""

    def block(self, stage: str, index: int) -> Block:
        """The seeds of one block. The two stages, and the blocks of a stage, share none but by the chance of 31 bits.

        Raises:
            ValueError: unknown stage or negative index.
        """
        if stage not in STAGES or index < 0:
            raise ValueError(f"A block needs a stage out of {', '.join(STAGES)} and index >= 0, but got stage={stage!r}, index={index}.")
        split, teacher, init, order = (seed_of(self.seed, stage, index, part) >> 32 for part in ("split", "teacher", "init", "order"))
        return Block(split, teacher, init, order)

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with whatever can change a number: not with ``run``, or how the file is spelled."""
        content = {
            "version": CONTENT_VERSION,
            "seed": self.seed,
            "metric": asdict(self.metric),
            "data": _content(self.data),
            "teacher": _content_of_teacher(self.teacher),
            "arms": {name: [*_content_of_arm(arm), *_content_of_teacher(arm.taught_by(self))] for name, arm in self.arms.items()},
            "search": None if self.search is None else _search_json(self.search),
            "confirm": None if self.confirm is None else self.confirm.to_json(),
        }
        return _hash(content)

    def is_that_of(self, launch: Mapping[str, Any]) -> bool:
        """Whether a study event tells of this study. The blocks of stage two may be others: that extends it."""
        blocks = launch.get("blocks")
        alike = self if self.confirm is None or blocks is None else replace(self, confirm=replace(self.confirm, blocks=int(blocks)))
        return bool(launch["fingerprint"] == alike.fingerprint)

    @property
    def space_fingerprint(self) -> str:
        """Sixteen hex digits that change with any searched name, domain or condition of any arm."""
        return _hash({name: space.to_json() for name, space in self.search.spaces.items()} if self.search else {})

    @property
    def parameters(self) -> list[dict[str, str]]:
        """Every name that the configuration of a cell can have, sorted, with the type of its column.

        A column is whole only where every value that has it declares a whole number; types that do not mix are strings.
        """
        kinds: dict[str, set[str]] = {}
        for name, column in self._columns():
            kinds.setdefault(name, set()).add(column)
        return [{"name": name, "column": _widest(kinds[name])} for name in sorted(kinds)]

    def _columns(self) -> Iterator[tuple[str, str]]:
        yield from (("data.source", "string"), ("model.family", "string"), ("method.name", "string"), ("teacher.model.family", "string"))
        yield from (("chain", "string"), ("chain.steps", "int64"))
        parts: list[tuple[str, Any]] = [("data.", self.data)]
        parts += self._parts_of_levels()
        # The cell that trains a teacher has the teacher's network as its own.
        for teacher in (self.teacher, *(arm.teacher for arm in self.arms.values() if arm.teacher is not None)):
            for prefix in ("", "teacher."):
                parts += [(f"{prefix}model.", teacher.model), (f"{prefix}recipe.", teacher.recipe)]
        for arm in self.arms.values():
            parts += [("method.", arm.method), ("model.", arm.model), ("recipe.", arm.recipe)]
        for prefix, value in parts:
            for name, declared, _ in _leaves(value):
                yield from ((prefix + name, column) for column in _columns_of(declared))

    def _parts_of_levels(self) -> Iterator[tuple[str, Any]]:
        """Methods and networks that only levels have."""
        factorial = self.confirm.factorial if self.confirm else None
        factors = (*(self.confirm.one_factor if self.confirm else ()), *(factorial.factors if factorial else ()))
        for name, value in (pair for factor in factors for level in factor.levels for pair in level.values):
            if isinstance(value, Distiller | Family):
                yield f"{name}.", value
                if name == "teacher.model":  # the cell that trains it has it as its own
                    yield "model.", value

    def skeleton_json(self) -> dict[str, Any]:
        """What the study comes to, for machines: every value spelled out, no text of the file."""
        return {
            "study": self.name,
            "question": self.question,
            "seed": self.seed,
            "fingerprint": self.fingerprint,
            "metric": asdict(self.metric),
            "data": {"source": name_of(self.data), **flat(self.data)},
            "teacher": _network_json(self.teacher.model, self.teacher.recipe),
            "arms": {
                name: {
                    "method": {"name": name_of(arm.method), **flat(arm.method)},
                    **_network_json(arm.model, arm.recipe),
                    "steps": arm.steps,
                    "teacher": _network_json(arm.taught_by(self).model, arm.taught_by(self).recipe),
                }
                for name, arm in self.arms.items()
            },
            "search": None if self.search is None else _search_json(self.search),
            "confirm": None if self.confirm is None else self.confirm.to_json(),
            "run": asdict(self.run),
            "published": None if self.published is None else asdict(self.published),
            "parameters": self.parameters,
            "warnings": list(self.warnings),
        }


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Tunable, Value]]:
    """Dotted name, declaration and value of every single field, without effect here or not: a search may give it one."""
    for declared in tunables(value):
        got = getattr(value, declared.name)
        if declared.is_nested:
            yield from _leaves(got, f"{prefix}{declared.name}.")
        else:
            yield prefix + declared.name, declared, got


def _content(value: object) -> list[Any]:
    return [name_of(value), {name: got for name, _, got in _leaves(value)}]


def _content_of_arm(arm: Arm) -> list[Any]:
    return [_content(arm.method), _content(arm.recipe), _content(arm.model), arm.steps]


def _content_of_teacher(teacher: Teacher) -> list[Any]:
    return [_content(teacher.model), _content(teacher.recipe)]


def _columns_of(declared: Tunable) -> set[str]:
    """The types of a field: its domain's, and those of default and off-value, which may lie outside of it."""
    found = {Choice((value,)).column for value in (declared.default, declared.off) if value is not MISSING}
    return found if declared.domain is None else found | {declared.domain.column}


def _widest(columns: set[str]) -> str:
    if len(columns) == 1:
        return next(iter(columns))
    return "float64" if columns == {"int64", "float64"} else "string"


def _search_json(search: Search) -> dict[str, Any]:
    rest = {name: value for name, value in vars(search).items() if name != "spaces"}
    return {**rest, "rungs": list(search.rungs), "spaces": {name: space.to_json() for name, space in search.spaces.items()}}


def _network_json(model: Family, recipe: Recipe) -> dict[str, Any]:
    return {"model": {"family": name_of(model), **flat(model)}, "recipe": flat(recipe)}
