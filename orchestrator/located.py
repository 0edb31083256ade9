"""YAML with line numbers, read safely: every value knows where it stands, and every fault says so.

What is read is the plain part of YAML 1.2: maps, lists, words, numbers, true, false and null. So ``1e-3`` is a number and
``off`` a word, which YAML 1.1 has the other way round. Tags are refused, hence nothing but these is ever constructed.
Size, depth and the growth by aliases are bounded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import yaml

MAX_CHARACTERS = 200_000
MAX_NODES = 20_000
"""Values after every alias is replaced by what it stands for."""
MAX_DEPTH = 20

Scalar = str | int | float | bool | None

_CONSTANTS: Mapping[str, Scalar] = (
    dict.fromkeys(("", "~", "null", "Null", "NULL"))
    | dict.fromkeys(("true", "True", "TRUE"), True)
    | dict.fromkeys(("false", "False", "FALSE"), False)
)
_AFTER_THE_FILE = 10**9  # more lines than MAX_CHARACTERS can have
_LONGEST_NUMBER = 100
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_WHOLE = re.compile(r"[-+]?[0-9]+")
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True, order=True)
class Place:
    """Where something stands; places sort in the order of the text, and overrides after it."""

    line: int
    column: int
    label: str
    """What a message starts with: FILE:LINE, or the override as it was written."""


def override_place(number: int, label: str) -> Place:
    """The place of the override of a number: after the whole file."""
    return Place(_AFTER_THE_FILE + number, 0, label)


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong."""

    place: Place
    message: str

    def __str__(self) -> str:
        return printable(f"{self.place.label}: {self.message}")


@dataclass(frozen=True)
class Node:
    """A value and its place. In a map, that is the place of its key."""

    value: Scalar | tuple[Node, ...] | Mapping[str, Node]
    place: Place
    size: int = 1
    """Values in it, itself included, aliases replaced."""

    @property
    def entries(self) -> Mapping[str, Node]:
        """Of a map, key to value; nothing of anything else."""
        return self.value if isinstance(self.value, Mapping) else {}

    def __str__(self) -> str:
        """The value as a message quotes it, on one line and not longer than one can read."""
        if isinstance(self.value, Mapping):
            return "a map" if self.value else "an empty map"
        if isinstance(self.value, tuple):
            return "a list" if self.value else "an empty list"
        return quoted(self.value)


def quoted(value: object) -> str:
    """A scalar as a message quotes it."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def plain(node: Node) -> object:
    """Dicts, lists and scalars, without places."""
    if isinstance(node.value, Mapping):
        return {key: plain(inner) for key, inner in node.value.items()}
    if isinstance(node.value, tuple):
        return [plain(inner) for inner in node.value]
    return node.value


def read(text: str, source: str, path: str = "", override: int | None = None) -> tuple[Node | None, list[Fault]]:
    """The document, or None where it cannot be read, and what is wrong with it as YAML.

    Messages start with ``source:line: path``. With ``override``, the text is the value of the override of that number for
    the key ``path``: messages start with ``source`` alone, and sort after those of the file.
    """
    return _Composer(text, source, path, override).document()


def written(node: Node) -> str:
    """The node as text that ``read`` reads back, keys in order."""
    return yaml.dump(plain(node), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Unreadable(Exception):
    """Ends the reading: what follows cannot be made sense of."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class _Composer:
    """Turns PyYAML's parser events into nodes. Only the parser is used: it constructs nothing."""

    def __init__(self, text: str, source: str, path: str, override: int | None) -> None:
        self._text = text
        self._source = source
        self._path = path
        self._override = override
        self._faults: list[Fault] = []
        self._anchors: dict[str | None, Node] = {}
        self._count = 0

    def document(self) -> tuple[Node | None, list[Fault]]:
        try:
            if len(self._text) > MAX_CHARACTERS:
                self._stop(self._at(None), f"needs at most {MAX_CHARACTERS} characters, but got {len(self._text)}.")
            return self._whole(), self._faults
        except _Unreadable as unreadable:
            return None, [*self._faults, unreadable.fault]
        except yaml.MarkedYAMLError as error:
            problem = " ".join(str(part) for part in (error.context, error.problem) if part)
            place = self._at(error.problem_mark or error.context_mark)
        except yaml.reader.ReaderError as error:
            problem = f"the character {error.character!r}" if isinstance(error.character, bytes) else f"U+{error.character:04X}"
            place = self._place(self._text.count("\n", 0, error.position), 0)
        except (ValueError, OverflowError) as error:
            # PyYAML lets chr() and int() complain about escapes and version numbers beyond any range.
            problem = str(error)
            place = self._at(None)
        return None, [*self._faults, Fault(place, f"needs valid YAML, but got this: {one_line(problem)}.")]

    def _whole(self) -> Node:
        # The parser, unlike the loader behind yaml.safe_load, works without recursion: the depth is ours to bound.
        events = yaml.parse(self._text, Loader=yaml.SafeLoader)
        found: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if found is not None:
                    self._stop(self._at(event.start_mark), "needs a single document, but got another one here.")
                found = self._node(next(events), events, self._path, 0)
        return Node(None, self._at(None)) if found is None else found

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], path: str, depth: int, key: Place | None = None) -> Node:
        place = key or self._at(event.start_mark)
        if depth > MAX_DEPTH:
            self._stop(place, f"needs at most {MAX_DEPTH} levels, but this is deeper.")
        if isinstance(event, yaml.AliasEvent):
            node = self._alias(event, place)
        else:
            assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
            if event.tag is not None:
                self._fault(place, path, f"needs plain values without tags, but got {one_line(event.tag)}.")
            if isinstance(event, yaml.ScalarEvent):
                node = Node(self._scalar(event, place, path), place)
            elif isinstance(event, yaml.SequenceStartEvent):
                node = self._list(events, place, path, depth)
            else:
                node = self._map(events, place, path, depth)
            if event.anchor is not None:
                self._anchors[event.anchor] = node
        self._count += node.size if isinstance(event, yaml.AliasEvent) else 1
        if self._count > MAX_NODES:
            self._stop(place, f"needs at most {MAX_NODES} values with every alias replaced, but this is one more.")
        return node

    def _alias(self, event: yaml.AliasEvent, place: Place) -> Node:
        known = self._anchors.get(event.anchor)
        if known is None:
            self._stop(place, f"needs an anchor &{one_line(str(event.anchor))} that is complete before this alias, but there is none.")
        return replace(known, place=place)

    def _list(self, events: Iterator[yaml.Event], place: Place, path: str, depth: int) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(self._node(event, events, f"{path}[{len(items)}]", depth + 1))
        return Node(tuple(items), place, 1 + sum(item.size for item in items))

    def _map(self, events: Iterator[yaml.Event], place: Place, path: str, depth: int) -> Node:
        entries: dict[str, Node] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            here = self._at(event.start_mark)
            if not isinstance(event, yaml.ScalarEvent):
                self._stop(here, "needs a word as key, but got a list, a map or an alias.")
            self._encodable(event, here)
            key = joined(path, event.value)
            value = self._node(next(events), events, key, depth + 1, here)
            if event.value in entries:
                self._fault(
                    here, key, f"needs distinct keys, but got {quoted(event.value)} again, after {entries[event.value].place.label}."
                )
            else:
                entries[event.value] = value
        return Node(entries, place, 1 + sum(value.size for value in entries.values()))

    def _scalar(self, event: yaml.ScalarEvent, place: Place, path: str) -> Scalar:
        self._encodable(event, place)
        value = resolved(event.value) if event.implicit[0] else event.value
        if isinstance(value, int | float) and not (math.isfinite(value) and (isinstance(value, float) or abs(value) < 2**63)):
            self._fault(place, path, f"needs finite numbers of at most 64 bits, but got {quoted(event.value)}.")
            return 0
        return value

    def _encodable(self, event: yaml.ScalarEvent, place: Place) -> None:
        try:
            event.value.encode()
        except UnicodeEncodeError:
            self._stop(place, f"needs text that UTF-8 can hold, but got {quoted(event.value)}.")

    def _fault(self, place: Place, path: str, message: str) -> None:
        self._faults.append(Fault(place, f"{path}: {message}" if path else message))

    def _stop(self, place: Place, message: str) -> NoReturn:
        raise _Unreadable(Fault(place, message))

    def _at(self, mark: Any) -> Place:
        return self._place(mark.line, mark.column) if mark is not None else self._place(0, 0)

    def _place(self, line: int, column: int) -> Place:
        if self._override is not None:
            return override_place(self._override, self._source)
        return Place(line + 1, column, f"{self._source}:{line + 1}")


def resolved(text: str) -> Scalar:
    """What an unquoted scalar means."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _WHOLE.fullmatch(text):
        return int(text) if len(text) <= _LONGEST_NUMBER else math.inf
    if _REAL.fullmatch(text) and len(text) <= _LONGEST_NUMBER:
        # Python's float() knows inf and nan, but not with YAML's dot. Adding zero makes -0.0 and 0.0 one spelling.
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan")) + 0.0
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 takes for a word and ``resolved`` does not."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _word(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(resolved(text), str) else "'"
    if any(end in text for end in "\x85\u2028\u2029"):
        style = '"'  # the only style in which PyYAML brings these ends of line back
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _word)


def joined(path: str, key: str) -> str:
    """The dotted path of a key, quoted where it is no plain name."""
    shown = key if _NAME.fullmatch(key) else quoted(key)
    return f"{path}.{shown}" if path else shown


def one_line(text: str) -> str:
    """The text as it can stand in a message: printable, on one line, not endless."""
    return printable(" ".join(text.split()))[:200]


def printable(text: str) -> str:
    """The text with an escape for everything that would not show, or would move the cursor of a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
