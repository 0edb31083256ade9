"""Damaged study files and journals, drawn by hypothesis: what users, other programs and attackers may put before kdsweep."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st


@dataclass(frozen=True)
class Raw:
    """YAML that stands in the file as it is."""

    text: str


def spelled(value: Any) -> str:
    """The value as YAML on one line. JSON is YAML, but for what ``Raw`` puts into it."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{spelled(key)}: {spelled(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(spelled, value)) + "]"
    return json.dumps(value)


def as_yaml(document: Any) -> str:
    """A document with a top-level key a line, so that messages have lines to name."""
    if not isinstance(document, Mapping):
        return spelled(document) + "\n"
    return "".join(f"{spelled(key)}: {spelled(inner)}\n" for key, inner in document.items())


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of every value in a document, its own first."""
    found = [path]
    inner: list[tuple[Any, Any]] = list(document.items()) if isinstance(document, Mapping) else []
    inner += list(enumerate(document)) if isinstance(document, list) else []
    for key, value in inner:
        found += places(value, (*path, key))
    return found


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


_DEEP: Any = 1
for _ in range(30):
    _DEEP = [_DEEP]

ODD_WORDS = (
    *("", " ", "\t", "a.b", "..", "../x", "/etc/passwd", "C:\\x", "a/b", "a\\b", "\x00", "\x7f", "\u202e", "é", "e\u0301", "\U0001f600"),
    *("__init__", "os.path", "__class__", "all", "null", "true", "off", "1", "1e3", "-0.0", ".inf", "<script>", "%s%n{0}", "$(x)", "`x`"),
    *("x" * 70, "y" * 5000, "method", "method.", ".method", "method..name", "recipe.schedule", "model.family", "declared", "test.accuracy"),
    *("CON", "nul", "-", "--help", "~", "gs://u:p@b/x", "s3://", "\ufeff", "\u2028", "a\nb", "slam, x=1", "=", "<<"),
)
ODD_NUMBERS = (
    *(0, -1, 1, 2, 3, 7, 0.0, -0.0, 0.5, 1.0, 1.5, -1e-308, 5e-324, 1e308, 2**31, 2**31 - 1, 2**53 + 1, 2**63 - 1, -(2**63) + 1, 2**63),
    *(2**64, 10**99, 10**400, 99_999, 100_000, 100_001, 20_000),
)
RAW = (
    *(
        ".inf",
        "-.inf",
        ".nan",
        "1e999",
        "-1e999",
        "0x10",
        "0o7",
        "1_000",
        "2001-01-01",
        "12:30:45",
        "~",
        "?",
        "@x",
        "%x",
        "|",
        ">",
        "- a",
        "*x",
    ),
    *("&a [*a]", "&a {b: *a}", "!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!!binary aGk=", "!!set {a, b}"),
    *(
        "{<<: {a: 1}}",
        "{<<: [{a: 1}]}",
        "{a: 1, a: 2}",
        "{? [a] : b}",
        '"\\ud800"',
        '"\\x00"',
        "'\n'",
        "!!int '1'",
        "! x",
        "[" * 40,
        "{" * 40,
        "]",
        "}",
    ),
    *("\t", "\x07", "\x85", "\u2028", "\ufeff", "---", "...", "a: b: c", "# comment", "9" * 5000, "0." + "0" * 5000 + "1", "y" * 2000),
)

values = st.one_of(
    st.sampled_from(ODD_WORDS),
    st.sampled_from(ODD_NUMBERS),
    st.sampled_from([None, True, False, [], {}, [[]], [None], {"": None}, _DEEP, {"uniform": [0, 1]}, {"choice": []}, {"all": {}}]),
    st.sampled_from(RAW).map(Raw),
    st.recursive(
        st.one_of(st.text(max_size=8), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
        max_leaves=4,
    ),
)
keys = st.one_of(
    st.sampled_from(ODD_WORDS), st.text(max_size=6), st.sampled_from(["<<", "&a b", "*x", "!!str a", "? a", "[a]", "{a: b}", "'"]).map(Raw)
)


@st.composite
def mutated(draw: st.DrawFn, document: Any, most: int = 3) -> Any:
    """The document after one to three changes: values deleted, doubled, swapped, retyped, replaced or moved to another key."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        known = places(document)
        path = known[draw(st.integers(0, len(known) - 1))]
        document = _changed(draw, document, path, known)
        if not isinstance(document, Mapping | list):
            break
    return document


def _changed(draw: st.DrawFn, document: Any, path: tuple[Any, ...], known: list[tuple[Any, ...]]) -> Any:
    kind = draw(st.sampled_from(("replace", "replace", "retype", "delete", "rename", "copy", "double", "wrap", "add")))
    if not path:
        return copy.deepcopy(draw(values)) if kind == "replace" and draw(st.integers(0, 9)) == 0 else document
    parent, key = at(document, path[:-1]), path[-1]
    value = parent[key]
    if kind == "replace":
        parent[key] = copy.deepcopy(draw(values))
    elif kind == "retype":
        parent[key] = draw(
            st.sampled_from([str(value), [value], {"a": value}, [value, value], bool(value), None, 1, 1.0, "1", len(str(value))])
        )
    elif kind == "delete":
        del parent[key]
    elif kind == "copy":
        parent[key] = copy.deepcopy(at(document, known[draw(st.integers(0, len(known) - 1))]))
    elif kind == "wrap":
        parent[key] = {draw(keys): value}
    elif kind == "add" and isinstance(value, dict):
        value[draw(keys)] = copy.deepcopy(draw(values))
    elif isinstance(parent, list):
        parent.insert(key, copy.deepcopy(draw(values)) if kind == "rename" else value)
    elif kind == "rename":
        parent[draw(keys)] = parent.pop(key)
    else:
        parent[Raw(spelled(key))] = value  # the key a second time
    return document


_LINES = (
    b"",
    b"{",
    b"null",
    b"[1]",
    b'"x"',
    b'{"event": "said"}',
    b'{"event": 1}',
    b"\xff\xfe",
    b"\x00" * 40,
    b'{"event": "row"}',
    b"NaN",
    b"[" * 100_000,
)


@st.composite
def journals(draw: st.DrawFn, events: list[dict[str, Any]], most: int = 3) -> bytes:
    """The bytes of a journal after one to three changes: of values in an event, or of lines: gone, doubled, moved, cut, foreign."""
    lines = [json.dumps(event).encode() for event in events]
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(("value", "value", "value", "value", "delete", "double", "move", "cut", "line")))
        if kind == "value" and place < len(events):
            lines[place] = as_json(draw(mutated(events[place], most=1)))
        elif kind == "delete" and len(lines) > 1:
            del lines[place]
        elif kind == "double":
            lines.insert(draw(st.integers(0, len(lines))), lines[place])
        elif kind == "move":
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(place))
        elif kind == "cut":
            lines[place] = lines[place][: draw(st.integers(0, len(lines[place])))]
        elif kind == "line":
            lines.insert(place, draw(st.sampled_from(_LINES)))
    end = draw(st.sampled_from((b"\n", b"\n", b"\n", b"", b'\n{"event": "ro')))
    return b"\n".join(lines) + end


def as_json(event: Any) -> bytes:
    """An event on a line. What is no JSON stands there as it is."""
    return spelled(event).replace("\n", " ").encode("utf-8", "surrogatepass")
