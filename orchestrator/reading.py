"""From a study file to a Study: everything is checked at once, before anything starts.

The form of a file (``search_spaces/studies`` has examples). An arm is ``method: NAME`` with the fields of the method
beside it; its ``recipe`` and ``model`` override the student's, its ``teacher`` keys of the study's, and ``steps`` is the
number of students in its chain. A schedule may be written as its kind alone. A name in
``search.space`` is dotted and starts with method, recipe or model; under ``all`` it is searched for every arm.
``published`` names a table of docs/published.md that the report puts beside the arms: paper, table, and the teacher and
student whose rows are meant.

A fault is one line, ``FILE:LINE: key.path: needs X, but got Y. Did you mean Z?``, and all of them are raised together.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

from orchestrator import chains, variants
from orchestrator.confirming import read_confirm
from orchestrator.designed import check_designs, unreadable
from orchestrator.drafts import NAME_NEED, OF_ARM, Draft, check_steps, is_name, read_arms, read_spaces, warn_of_idle
from orchestrator.errors import StudyError
from orchestrator.fields import MANY, Faults, Need, chosen, entries, filled, fraction, one_of, several, single, whole, words
from orchestrator.located import MAX_CHARACTERS, Fault, Node, joined, one_line, override_place, quoted, read, written
from orchestrator.networks import read_network
from orchestrator.published import Published, numbers
from orchestrator.running import read_run
from orchestrator.study import GOALS, METRICS, SAMPLERS, Confirm, Metric, Search, Study
from search_spaces import Value, flat, nearest
from trainables.folder import name_of
from trainables.network import Family
from trainables.recipe import Recipe
from trainables.source import Source
from trainables.trial import Teacher

_NO_OPTIONS: Mapping[str, Value | None] = {}
_MAP = "a map with the keys"
_REQUIRED = {
    "study": "a name for the folder of results",
    "data": f"{_MAP} source and its fields",
    "teacher": f"{_MAP} model and recipe",
    "student": f"{_MAP} model and recipe",
    "arms": "a map from names to arms",
}
_KEYS = ("study", "question", "seed", "metric", "data", "teacher", "student", "arms", "search", "confirm", "run", "published")


def read_study(path: str | Path, overrides: Sequence[str] = (), options: Mapping[str, Value | None] = _NO_OPTIONS) -> Study:
    """The study of a file; see ``study_of``.

    Raises:
        StudyError: the file cannot be read, or is not a valid study; every fault is in it.
    """
    try:
        with open(path, "rb") as file:
            # Four bytes are the most that a character takes, so this is enough to see that a file is too long.
            data = file.read(4 * MAX_CHARACTERS + 1)
        text = "x" * len(data) if len(data) > 4 * MAX_CHARACTERS else data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StudyError([f"{one_line(str(path))}:1: needs to be text in UTF-8, but got {one_line(str(error))}."]) from error
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise StudyError([f"{one_line(str(path))}: needs to be a file that can be read, but got this: {one_line(reason)}."]) from error
    return study_of(text, overrides, one_line(str(path)), options)


def study_of(
    text: str, overrides: Sequence[str] = (), source: str = "study.yaml", options: Mapping[str, Value | None] = _NO_OPTIONS
) -> Study:
    """The study of a text.

    Args:
        text: YAML.
        overrides: "key.path=value", the value as YAML, each put in place of what the text says.
        source: what messages call the text.
        options: keys of ``run`` to values, as the command line got them; None is no option.

    Raises:
        StudyError: with every fault, in the order of the text, then of overrides and options.
    """
    original, found = read(text, source)
    if original is None:
        raise StudyError([str(fault) for fault in sorted(found)])
    document = original
    given = {key: value for key, value in options.items() if value is not None}
    for number, override in enumerate(overrides):
        document = _overridden(document, override, number, found)
    for number, (key, value) in enumerate(given.items(), len(overrides)):
        place = override_place(number, one_line(f"--{key.replace('_', '-')} {value}"))
        document = _put(document, ("run", key), "", Node(value, place), found)
    faults = Faults(found)
    study = _study(faults, document)
    return replace(study, text=text if document is original else written(document))


def _overridden(document: Node, override: str, number: int, found: list[Fault]) -> Node:
    label = one_line(f"--set {override}")
    key, equals, value = override.partition("=")
    parts = _parts(key.strip())
    if not equals or not all(parts):
        found.append(Fault(override_place(number, label), f"needs the form key.path=value, but got {quoted(override)}."))
        return document
    node, more = read(value, label, key.strip(), number)
    found += more
    return document if node is None else _put(document, parts, "", node, found)


def _parts(key: str) -> tuple[str, ...]:
    parts = key.split(".")
    # Below these, keys are dotted names.
    for above, depth in ((["search", "space"], 3), (["confirm", "one_factor"], 2), (["confirm", "factorial", "factors"], 4)):
        if parts[: len(above)] == above and len(parts) > depth:
            return (*parts[:depth], ".".join(parts[depth:]))
    return tuple(parts)


def _put(node: Node, parts: Sequence[str], path: str, new: Node, found: list[Fault]) -> Node:
    """The node with something new at a path, on which missing maps are made."""
    if not parts:
        return new
    head, *rest = parts
    if node.value is not None and not isinstance(node.value, Mapping):
        found.append(Fault(new.place, f"{path}: needs to be a map so that {quoted(head)} can be set in it, but got {node}."))
        return node
    inner = node.entries.get(head, Node(None, new.place))
    return replace(node, value={**node.entries, head: _put(inner, rest, joined(path, head), new, found)})


def _study(faults: Faults, root: Node) -> Study:
    found = entries(faults, root, "", _KEYS, _REQUIRED)
    if not isinstance(root.value, Mapping):
        faults.settle()
    nothing = Node({}, root.place)
    name = single(faults, found.get("study"), "study", Need(NAME_NEED, is_name), "")
    question = single(faults, found.get("question"), "question", words(), "")
    seed = single(faults, found.get("seed"), "seed", whole(0, 2**31 - 1), 0)
    metric = _metric(faults, found.get("metric", nothing))
    data = _data(faults, found["data"]) if "data" in found else None
    taught_by, taught = read_network(faults, found["teacher"], "teacher", smooths=True) if "teacher" in found else (None, Recipe())
    before = len(faults)
    model, recipe = read_network(faults, found["student"], "student", smooths=False) if "student" in found else (None, Recipe())
    student = Draft("", None, recipe, model, doubtful=frozenset(() if len(faults) == before else ("recipe", "model")))
    drafts: Mapping[str, Draft] = read_arms(faults, found["arms"], "arms", student, (taught_by, taught)) if "arms" in found else {}
    # null stands for a section that is not there, which is how an override takes one out.
    searched, confirmed = (found[key] if key in found and found[key].value is not None else None for key in ("search", "confirm"))
    if searched is None and confirmed is None:
        faults.add(root.place, "search", "needs to be given, or confirm, or both, but got neither: there is nothing to train.")
    search: Search | None = None
    if searched is not None:
        search, drafts = _search(faults, searched, drafts)
    for arm, draft in drafts.items():
        check_steps(faults, draft, found["arms"].entries[arm], joined("arms", arm))
    warnings = Faults()
    own = None if taught_by is None else Teacher(taught_by, taught)
    confirm = None if confirmed is None else read_confirm(faults, confirmed, drafts, data, own)
    if confirmed is not None:
        _warn_of_arms(warnings, found, drafts, confirm)
    run = read_run(faults, found.get("run", nothing))
    published = _published(faults, found["published"], data) if "published" in found else None
    faults.settle()
    if data is None or own is None:
        raise AssertionError("What is missing has a fault.")
    if search is not None:
        search = replace(search, spaces={name: draft.space for name, draft in drafts.items() if draft.searched})
    arms = {name: draft.arm for name, draft in drafts.items()}
    study = Study(name, question, seed, metric, data, own, arms, search, confirm, run, published=published)
    _check_networks(faults, found, study)
    faults.settle()
    if confirm is not None and confirmed is not None:
        check_designs(faults, warnings, study, confirm, confirmed, _misfit)
        faults.settle()
    _warn_of_idle(warnings, found, drafts, study)
    return replace(study, warnings=tuple(warnings.lines()))


def _metric(faults: Faults, node: Node) -> Metric:
    default = Metric()
    before = len(faults)
    found = entries(faults, node, "metric", [field.name for field in fields(Metric)])
    select = found.get("select")
    if select is not None and isinstance(select.value, str) and select.value.startswith("test."):
        hint = nearest(select.value[:100].replace("test.", "validation."), METRICS)
        sealed = "the test split stays sealed while something is chosen, or its numbers come out too good"
        faults.add(select.place, "metric.select", f"needs a validation metric, but got {select}: {sealed}.{hint}")
        select = None
    chooses = single(faults, select, "metric.select", one_of(*(name for name in METRICS if name.startswith("validation."))), default.select)
    reports = single(
        faults,
        found.get("report"),
        "metric.report",
        one_of(*METRICS),
        default.report if "report" in found else f"test.{chooses.partition('.')[2]}",
    )
    goal = single(faults, found.get("goal"), "metric.goal", one_of(*GOALS), METRICS[chooses])
    if len(faults) > before:
        return default
    if goal != METRICS[chooses]:
        faults.need(found["goal"], "metric.goal", f"{METRICS[chooses]}, which is better for {chooses}")
    elif METRICS[reports] != goal:
        faults.need(found["report"], "metric.report", f"a metric to {goal}, like {chooses}")
    return Metric(chooses, reports, goal)


def _data(faults: Faults, node: Node) -> Source | None:
    if not isinstance(node.value, Mapping):
        faults.need(node, "data", _REQUIRED["data"])
        return None
    source = chosen(faults, node.entries.get("source"), node.place, "data.source", "trainables.data", Source)  # type: ignore[type-abstract] # load() finds a concrete one
    if source is None:
        return None
    before = len(faults)
    source = filled(faults, source, node.entries, node.place, "data", beside=("source",))
    misfit = _misfit(source) if len(faults) == before else None
    if misfit is not None:
        faults.add(node.place, "data", misfit)
    return source


@functools.lru_cache(maxsize=32)
def _misfit(source: Source) -> str | None:
    """Why no block can be drawn from a source, or None. The test split stays sealed."""
    try:
        source.fits()
    except (ValueError, OSError) as error:
        return one_line(str(error))
    return None


def _check_networks(faults: Faults, found: Mapping[str, Node], study: Study) -> None:
    """Keep networks that cannot read what the study's data give them, each at the place that says so."""
    seen: dict[str, tuple[Node, str]] = {}

    def look(node: Node, path: str, *families: Family) -> None:
        for family in families:
            misfit = unreadable(family, study.data)
            if misfit is not None:
                seen.setdefault(path, (node, misfit))

    look(found["teacher"], "teacher.model", study.teacher.model)
    for name, arm in study.arms.items():
        node, path = found["arms"].entries[name], joined("arms", name)
        own = (node, joined(path, "model")) if "model" in node.entries else (found["student"], "student.model")
        look(*own, arm.model)
        if arm.teacher is not None:
            look(node, joined(path, "teacher.model"), arm.teacher.model)
        if study.search is not None and name in study.search.spaces and unreadable(arm.model, study.data) is None:
            others = (each.model for each in chains.reached(arm, study.search.spaces[name]))
            look(found["search"].entries["space"], "search.space", *others)
    for path, (node, misfit) in seen.items():
        faults.add(node.place, path, f"needs to be a network for the rows of {name_of(study.data)}, but got this: {one_line(misfit)}")


def _published(faults: Faults, node: Node, data: Source | None) -> Published | None:
    """The published table that the study is to be held against, and whose rows of it."""
    if node.value is None:
        return None
    known = numbers()
    before = len(faults)
    needed = {"paper": "the key of a paper in docs/published.md", "table": "the name of one of its tables there"}
    found = entries(faults, node, "published", [field.name for field in fields(Published)], needed)
    paper = single(faults, found.get("paper"), "published.paper", one_of(*dict.fromkeys(each.paper for each in known)), "")
    of_paper = [each for each in known if each.paper == paper]
    if not of_paper:
        return None
    table = single(faults, found.get("table"), "published.table", one_of(*dict.fromkeys(each.table for each in of_paper)), "")
    if data is None or len(faults) > before:
        return None
    source = name_of(data)
    tables_of = [each.dataset for each in of_paper if each.table == table]
    if source not in tables_of:
        faults.need(found["table"], "published.table", f"a table about the study's data, {source}, and not about {tables_of[0]}")
        return None
    of_data = [each for each in known if each.dataset == source]
    names: dict[str, str | None] = {}
    for role in ("teacher", "student"):
        options = dict.fromkeys(name for each in of_data if (name := getattr(each, role)) is not None)
        names[role] = single(faults, found.get(role), f"published.{role}", one_of(*options), None)
    return Published(paper, table, names["teacher"], names["student"])


def _search(faults: Faults, node: Node, drafts: Mapping[str, Draft]) -> tuple[Search, Mapping[str, Draft]]:
    default = Search({})
    needed = {"space": "a map from all, or an arm, to the names that are searched"}
    found = entries(faults, node, "search", [*(field.name for field in fields(Search) if field.name != "spaces"), "space"], needed)
    trials = single(faults, found.get("trials"), "search.trials", whole(1, MANY), default.trials)
    smaller = min(default.generation, trials)
    generation = single(faults, found.get("generation"), "search.generation", whole(1, MANY), smaller)
    if generation > trials:
        faults.need(found["generation"], "search.generation", f"at most as many trials as the whole search, {trials}")
    search = Search(
        {},
        trials,
        generation,
        startup=single(faults, found.get("startup"), "search.startup", whole(0, MANY), default.startup),
        blocks=single(faults, found.get("blocks"), "search.blocks", whole(1, MANY), default.blocks),
        rungs=_rungs(faults, found.get("rungs")),
        keep=single(faults, found.get("keep"), "search.keep", fraction(), default.keep),
        sampler=single(faults, found.get("sampler"), "search.sampler", one_of(*SAMPLERS), default.sampler),
    )
    return search, read_spaces(faults, found["space"], "search.space", drafts) if "space" in found else drafts


def _rungs(faults: Faults, node: Node | None) -> tuple[float, ...]:
    rungs = several(faults, node, "search.rungs", fraction())
    for (earlier, _), (later, at) in pairwise(rungs):
        if later <= earlier:
            faults.need(at, "search.rungs", f"increasing values, each above the one before ({earlier})")
    return tuple(rung for rung, _ in rungs)


def _warn_of_arms(warnings: Faults, found: Mapping[str, Node], drafts: Mapping[str, Draft], confirm: Confirm | None) -> None:
    if confirm is None:
        return
    compared = confirm.arms
    for name, draft in drafts.items():
        place = found["arms"].entries[name].place
        if name not in compared:
            warnings.add(place, joined("arms", name), "needs a place in confirm, as base or in against, but got none: it is not reported.")
        elif not draft.searched and any(drafts[other].searched for other in compared):
            warnings.add(place, joined("arms", name), "needs a search as large as that of the arms it is compared with, but got none.")


def _warn_of_idle(warnings: Faults, found: Mapping[str, Node], drafts: Mapping[str, Draft], study: Study) -> None:
    """Of a study without faults: what is given but never counts, because the fields that it depends on are never so."""
    confirm = study.confirm
    parts = [name for part in confirm.leave_one_out for name in part.fields] if confirm else []
    counting = {name: draft.counting(parts if confirm and name == confirm.base else ()) for name, draft in drafts.items()}
    of_teacher = {*flat(study.teacher.model, "model."), *flat(study.teacher.recipe, "recipe.")}
    for each in variants.distinct(study, confirm) if confirm else ():
        arm = variants.declared(study, each)
        for part, value in (("method.", arm.method), ("model.", arm.model), ("recipe.", arm.recipe)):
            counting[each.arm].update(flat(value, part))
        taught_by = arm.taught_by(study)
        of_teacher.update(flat(taught_by.model, "model."), flat(taught_by.recipe, "recipe."))
    warn_of_idle(warnings, found["student"], "student", set().union(*counting.values()))
    warn_of_idle(warnings, found["teacher"], "teacher", of_teacher)
    for name, node in found["arms"].entries.items():
        networks = {key: inner for key, inner in node.entries.items() if key in ("recipe", "model")}
        method = {key: inner for key, inner in node.entries.items() if key not in OF_ARM}
        own = drafts[name].teacher
        if own is not None:
            counts = {*flat(own.model, "model."), *flat(own.recipe, "recipe.")}
            warn_of_idle(warnings, node.entries["teacher"], joined(joined("arms", name), "teacher"), counts)
        warn_of_idle(warnings, replace(node, value=networks), joined("arms", name), counting[name])
        warn_of_idle(warnings, replace(node, value=method), joined("arms", name), counting[name], "method.")
