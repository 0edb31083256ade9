"""The confirm section as it is read: parts to switch off, factors and their levels, fractions. Every fault is kept with its place.

The form::

    confirm:
      base: slam
      leave_one_out: [method.lower_bound, {bounds: [method.lower_bound, method.upper_bound]}]
      add_one_in: [method.lower_bound, method.mixing]
      one_factor: {teacher.model.width: [8, 64], recipe.schedule: [constant, {kind: cosine, end: 0.1}]}
      factorial:
        factors: {bound: {method.lower_bound: off}, teacher: {teacher.model.width: [8, 64]}, method: {arm: [slam, vanilla]}}
        fraction: {resolution: 4}        # or {generators: [method = bound*teacher]}; all combinations without it
      path: {from: defaults, parts: [method.lower_bound, {schedule: [recipe.schedule]}], blocks: 3}
      against: [vanilla]
      blocks: 12
      effect: 1.0                        # seed sd, or 0.5 points: what plan tells the power for
      correlation: 0.7                   # of arms over blocks, for the same

Whether what is read makes trainings is tried by ``orchestrator.designed``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from orchestrator.analysis.reach import stated
from orchestrator.designs import MOST_FACTORS
from orchestrator.drafts import Draft
from orchestrator.fields import MANY, Faults, Need, chosen, complaint, entries, filled, fitted, one_of, several, single, whole
from orchestrator.fractions import asked_of, read_design
from orchestrator.levels import HIGH, LOW, OFF, ON, TUNED, Factor, Factorial, Level, shown
from orchestrator.located import Node, Scalar, joined, quoted
from orchestrator.networks import SMOOTHED
from orchestrator.parts import is_free, is_group, overlap, read_parts, read_path
from orchestrator.study import Confirm
from search_spaces import Choice, Tunable, all_names, field_at, nearest
from trainables.distiller import Distiller
from trainables.network import Family
from trainables.source import Source
from trainables.trial import Teacher

ARM = "arm"
"""Names a factor whose levels are tuned arms."""
_METHOD, _MODELS = "method", ("model", "teacher.model")


def _is_effect(value: Scalar) -> bool:
    try:
        return not isinstance(value, bool) and value is not None and bool(stated(value))
    except ValueError:
        return False


_EFFECT = Need("a size above 0 in seed sd or points, as in 1.0 or 0.5 points", _is_effect)
_CORRELATION = Need("a number in [0, 1)", lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1)


@dataclass(frozen=True)
class _Ground:
    """An arm that levels are set in, with what it is trained on and taught by."""

    draft: Draft
    data: Source | None
    teacher: Teacher | None

    @property
    def names(self) -> list[str]:
        """Every dotted name that a level may set."""
        found = [name for name in self.draft.names if not is_group(field_at(self.draft.arm, name))]
        found += [_METHOD, "model"]
        if self.teacher is not None:
            found += [_MODELS[1], *(f"teacher.model.{name}" for name in all_names(self.teacher.model))]
            found += [f"teacher.recipe.{name}" for name in all_names(self.teacher.recipe)]
        return found + ([] if self.data is None else [f"data.{name}" for name in all_names(self.data)])

    def is_without(self, name: str) -> bool:
        """Whether what the name belongs to is at fault, so that nothing can be said about it."""
        head = name.partition(".")[0]
        if head in ("data", "teacher"):
            return (self.data if head == "data" else self.teacher) is None
        return head in ("method", "recipe", "model") and self.draft.part(head) is None

    def field(self, name: str) -> Tunable:
        """What is declared at one of ``names`` other than a whole method or network."""
        head, _, rest = name.partition(".")
        if head == "data":
            return field_at(self.data, rest)
        if head == "teacher":
            part, _, inner = rest.partition(".")
            return field_at(getattr(self.teacher, part), inner)
        return field_at(self.draft.arm, name)


def read_confirm(faults: Faults, node: Node, drafts: Mapping[str, Draft], data: Source | None, teacher: Teacher | None) -> Confirm | None:
    """Stage two; None where it is not known of which arm. ``data`` and ``teacher`` are the study's, None where they are at fault."""
    default = Confirm("")
    found = entries(faults, node, "confirm", [field.name for field in fields(Confirm)], {"base": "the name of an arm"})
    blocks = single(faults, found.get("blocks"), "confirm.blocks", whole(1, MANY), default.blocks)
    if not drafts:
        return None
    base = single(faults, found.get("base"), "confirm.base", one_of(*drafts), None)
    against: list[str] = []
    for name, at in several(faults, found.get("against"), "confirm.against", one_of(*drafts)):
        if name in (base, *against):
            faults.need(at, "confirm.against", f"distinct names, none of them {base}")
        against.append(name)
    if base is None:
        return None
    grounds = {name: _Ground(draft, data, draft.teacher or teacher) for name, draft in drafts.items()}
    left_out = read_parts(faults, found.get("leave_one_out"), "confirm.leave_one_out", drafts[base], is_apart=False)
    added = read_parts(faults, found.get("add_one_in"), "confirm.add_one_in", drafts[base], is_apart=True)
    one_factor = _one_factor(faults, found.get("one_factor"), "confirm.one_factor", base, grounds)
    factorial = _factorial(faults, found.get("factorial"), "confirm.factorial", base, grounds)
    walked = read_path(faults, found.get("path"), "confirm.path", base, drafts)
    effect = single(faults, found.get("effect"), "confirm.effect", _EFFECT, None)
    correlation = single(faults, found.get("correlation"), "confirm.correlation", _CORRELATION, None)
    expected = None if effect is None else stated(effect)
    return Confirm(base, left_out, tuple(against), blocks, added, one_factor, factorial, walked, expected, correlation)


# Levels


def _one_factor(faults: Faults, node: Node | None, path: str, base: str, grounds: Mapping[str, _Ground]) -> tuple[Factor, ...]:
    if node is None:
        return ()
    if not isinstance(node.value, Mapping):
        faults.need(node, path, "a map from dotted names to lists of levels")
        return ()
    found: list[Factor] = []
    for name, inner in node.value.items():
        inside = joined(path, name)
        if not _is_known(faults, [grounds[base]], name, inner, inside):
            continue
        if not isinstance(inner.value, tuple) or not inner.value:
            faults.need(inner, inside, "a list of levels")
            continue
        levels = [_level(faults, [grounds[base]], name, item, f"{inside}[{index}]", grounds) for index, item in enumerate(inner.value)]
        known = [level for level in levels if level is not None]
        labels = [level.label for level in known]
        if len(set(labels)) < len(labels):
            faults.add(inner.place, inside, f"needs distinct levels, but got {', '.join(labels)}.")
        if base in (level.arm for level in known):
            faults.add(inner.place, inside, f"needs other arms than the base, but got {base}.")
        found.append(Factor(name, tuple(known)))
    return tuple(found)


def _is_known(faults: Faults, grounds: Sequence[_Ground], name: str, node: Node, path: str) -> bool:
    """Whether every arm has what a level would set; kept as a fault where one has not."""
    if name == ARM:
        return True
    for ground in grounds:
        if ground.is_without(name):
            return False
        if name in ground.names:
            continue
        known = [ARM, *ground.names]
        inner = [each for each in known if each.startswith(f"{name}.")]
        reason = f": name one of {', '.join(inner)}" if inner else ""
        hint = "" if inner else nearest(name[:100], [each for each in known if ("." in each) == ("." in name)])
        faults.add(
            node.place,
            path,
            f"needs {ARM}, or a field of {ground.draft.name} under method, recipe, model, teacher or data, but got {quoted(name)}{reason}.{hint}",
        )
        return False
    return True


def _level(
    faults: Faults, grounds: Sequence[_Ground], name: str, node: Node, path: str, arms: Mapping[str, _Ground], knows_tuned: bool = False
) -> Level | None:
    """One level of one dotted name, valid in every arm that it is set in; None where it is at fault."""
    if name == ARM:
        arm = single(faults, node, path, one_of(*arms), None)
        return None if arm is None else Level(arm, arm=arm)
    if knows_tuned and node.value == TUNED:
        return Level(TUNED)
    before = len(faults)
    found = [_value(faults, ground, name, node, path) for ground in grounds]
    if len(faults) > before or any(value is None for value in found):
        return None
    if all(value is OFF for value in found):
        return Level(OFF, off=(name,))
    return Level(shown(found[0]), ((name, found[0]),))


def _value(faults: Faults, ground: _Ground, name: str, node: Node, path: str) -> Any:
    """What a node sets, or OFF where it says so; None where it is at fault."""
    if name == _METHOD or name in _MODELS:
        return _whole(faults, name, node, path)
    declared = ground.field(name)
    before = len(faults)
    if node.value == OFF and declared.off is not MISSING and (declared.is_nested or complaint(declared, node) is not None):
        return OFF
    if declared.is_nested:
        given = {"kind": node} if isinstance(node.value, str) else node.entries
        if not given:
            faults.need(node, path, f"a map with the fields of {type(declared.default).__name__}, or its kind")
            return None
        value = filled(faults, declared.default, given, node.place, path)
        return value if len(faults) == before else None
    need = complaint(declared, node)
    options = declared.domain.options if isinstance(declared.domain, Choice) else ()
    if need is None and name == "recipe.smoothing" and node.value != 0:
        need = SMOOTHED
    if need is not None:
        faults.need(node, path, need, [each for each in options if isinstance(each, str)])
        return None
    return fitted(declared, node.value)


def _whole(faults: Faults, name: str, node: Node, path: str) -> Any:
    """A method or network with its fields, from the defaults of its class; a name alone is all defaults."""
    key, package, kind = ("method", "trainables.methods", Distiller) if name == _METHOD else ("family", "trainables.models", Family)
    given = {key: node} if isinstance(node.value, str) else node.entries
    if not given:
        faults.need(node, path, f"a name, or a map with {key} and its fields")
        return None
    before = len(faults)
    value: Any = chosen(faults, given.get(key), node.place, joined(path, key), package, kind)
    if value is not None:
        value = filled(faults, value, given, node.place, path, beside=(key,))
    return value if len(faults) == before else None


# Factorials


def _factorial(faults: Faults, node: Node | None, path: str, base: str, grounds: Mapping[str, _Ground]) -> Factorial | None:
    if node is None or node.value is None:
        return None
    before = len(faults)
    found = entries(faults, node, path, ("factors", "fraction"), {"factors": "a map from names to factors"})
    inside = joined(path, "factors")
    given = found.get("factors")
    if given is not None and not isinstance(given.value, Mapping):
        faults.need(given, inside, "a map from names to factors")
    maps: dict[str, Node] = {}
    for name, inner in given.entries.items() if given is not None else ():
        if not is_free(faults, name, inner, joined(inside, name), grounds[base].draft):
            continue
        if not inner.entries:
            faults.need(inner, joined(inside, name), "a map from dotted names to two levels, [low, high], or off")
        else:
            maps[name] = inner
    if given is not None and given.entries and not 2 <= len(given.entries) <= MOST_FACTORS:
        faults.add(given.place, inside, f"needs 2 to {MOST_FACTORS} factors, but got {len(given.entries)}.")
    elif given is not None and isinstance(given.value, Mapping) and not given.entries:
        faults.need(given, inside, f"2 to {MOST_FACTORS} factors")
    starts = _starts(faults, maps, inside, base, grounds)
    factors: list[Factor] = []
    names: list[str] = []
    for name, inner in maps.items():
        factor = _factor(faults, name, inner, joined(inside, name), starts, grounds)
        for dotted in inner.entries:
            if (other := overlap(dotted, names)) is not None:
                faults.add(inner.entries[dotted].place, joined(inside, name), f"needs fields of its own, but got {dotted} beside {other}.")
            names.append(dotted)
        if factor is not None:
            factors.append(factor)
    fraction = found.get("fraction")
    if len(faults) > before:
        if fraction is not None:
            asked_of(faults, fraction, joined(path, "fraction"))
        return None
    design = read_design(faults, fraction, joined(path, "fraction"), [factor.name for factor in factors], node)
    return None if design is None else Factorial(tuple(factors), design)


def _starts(faults: Faults, maps: Mapping[str, Node], path: str, base: str, grounds: Mapping[str, _Ground]) -> list[_Ground]:
    """The arms that runs start from: the base, or where a factor has arms for levels, those."""
    found = [base]
    for inner in maps.values():
        levels = inner.entries.get(ARM)
        if levels is not None and isinstance(levels.value, tuple):
            found = [item.value for item in levels.value if isinstance(item.value, str) and item.value in grounds] or found
    return [grounds[name] for name in dict.fromkeys(found)]


def _factor(faults: Faults, name: str, node: Node, path: str, starts: Sequence[_Ground], grounds: Mapping[str, _Ground]) -> Factor | None:
    before = len(faults)
    pairs: list[tuple[Level, Level]] = []
    for dotted, inner in node.entries.items():
        inside = joined(path, dotted)
        if not _is_known(faults, starts, dotted, inner, inside):
            continue
        pair = _pair(faults, dotted, inner, inside, starts, grounds)
        if pair is not None:
            pairs.append(pair)
    if len(faults) > before or not pairs:
        return None
    labels = [tuple(level.label for level in pair) for pair in pairs]
    if len(pairs) == 1 or (len(set(labels)) == 1 and labels[0] == (OFF, ON)):
        low, high = labels[0]
    else:
        low, high = LOW, HIGH
    return Factor(name, (_joined(low, [pair[0] for pair in pairs]), _joined(high, [pair[1] for pair in pairs])))


def _pair(
    faults: Faults, name: str, node: Node, path: str, starts: Sequence[_Ground], grounds: Mapping[str, _Ground]
) -> tuple[Level, Level] | None:
    """The low and the high level of one dotted name."""
    if node.value == OFF and name != ARM:
        low = _level(faults, starts, name, node, path, grounds)
        if low is not None and low.label != OFF:
            faults.add(node.place, path, f"needs two levels, [low, high], but got {node}, which is one level of {name}.")
        return None if low is None else (low, Level(ON))
    if not isinstance(node.value, tuple) or len(node.value) != 2:
        faults.need(node, path, "two levels, [low, high], or off")
        return None
    found = [_level(faults, starts, name, item, f"{path}[{index}]", grounds, knows_tuned=True) for index, item in enumerate(node.value)]
    low, high = found
    if low is None or high is None:
        return None
    if low.label == high.label:
        faults.add(node.place, path, f"needs two different levels, but got {low.label} twice.")
        return None
    return low, high


def _joined(label: str, levels: Sequence[Level]) -> Level:
    return Level(
        label,
        tuple(pair for level in levels for pair in level.values),
        tuple(name for level in levels for name in level.off),
        next((level.arm for level in levels if level.arm is not None), None),
    )
