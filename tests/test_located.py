"""YAML with line numbers: what is read, what is refused, and where."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.located import MAX_CHARACTERS, Node, override_place, plain, read, written

SETTINGS = settings(max_examples=300, derandomize=True, deadline=None, database=None)


def document(text: str) -> Node:
    node, faults = read(text, "f.yaml")
    assert not faults
    assert node is not None
    return node


def faults(text: str) -> list[str]:
    return [str(fault) for fault in read(text, "f.yaml")[1]]


def test_every_value_of_a_map_stands_where_its_key_does():
    node = document("a: 1\n\nb:\n  c:\n    - x\n    - [y]\n")
    assert node.entries["a"].place.line == 1
    assert node.entries["b"].place.line == 3
    c = node.entries["b"].entries["c"]
    assert c.place.label == "f.yaml:4"
    assert isinstance(c.value, tuple)
    assert [item.place.line for item in c.value] == [5, 6]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.", 1.0),
        (".5", 0.5),
        ("-0.0", 0.0),
        ("+7", 7),
        ("007", 7),
        ("-9223372036854775807", -(2**63) + 1),
        ("off", "off"),
        ("no", "no"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2001-01-01", "2001-01-01"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("inf", "inf"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("<<", "<<"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = document(f"a: {text}").entries["a"].value
    assert found == value
    assert type(found) is type(value)
    assert str(found) == str(value)  # tells -0.0 from 0.0


def test_keys_are_their_text():
    assert plain(document("1: a\nnull: b\ntrue: c\n'': d")) == {"1": "a", "null": "b", "true": "c", "": "d"}


def test_an_empty_text_is_null():
    assert document("# nothing\n").value is None


def test_aliases_stand_for_what_they_name_at_their_own_place():
    node = document("a: &x {k: 1}\nb: *x\n")
    assert plain(node) == {"a": {"k": 1}, "b": {"k": 1}}
    assert node.entries["b"].place.line == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: {c: 2, c: 3}\n", "f.yaml:2: b.c: needs distinct keys, but got 'c' again, after f.yaml:2."),
        ("a: 1\nb: .inf\n", "f.yaml:2: b: needs finite numbers of at most 64 bits, but got '.inf'."),
        ("a:\n- .nan\n", "f.yaml:2: a[0]: needs finite numbers of at most 64 bits, but got '.nan'."),
        ("a: 1e999\n", "f.yaml:1: a: needs finite numbers of at most 64 bits, but got '1e999'."),
        ("a: 9223372036854775808", "f.yaml:1: a: needs finite numbers of at most 64 bits, but got '9223372036854775808'."),
        ("a: 1\n---\nb: 1\n", "f.yaml:2: needs a single document, but got another one here."),
        ("a: 1\n? [b]\n: 1\n", "f.yaml:2: needs a word as key, but got a list, a map or an alias."),
        ("a: *b\n", "f.yaml:1: needs an anchor &b that is complete before this alias, but there is none."),
        ("a: &b\n  c: *b\n", "f.yaml:2: needs an anchor &b that is complete before this alias, but there is none."),
        ('a: "\\ud800"\n', "f.yaml:1: needs text that UTF-8 can hold, but got '\\ud800'."),
        ("a: 1\nb: \x07\n", "f.yaml:2: needs valid YAML, but got this: U+0007."),
        (
            "a: 1\nb: [1\nc: 2\n",
            "f.yaml:3: needs valid YAML, but got this: while parsing a flow sequence expected ',' or ']', but got ':'.",
        ),
        ("a: " + "[" * 21 + "]" * 21, "f.yaml:1: needs at most 20 levels, but this is deeper."),
        ("a" * (MAX_CHARACTERS + 1), f"f.yaml:1: needs at most {MAX_CHARACTERS} characters, but got {MAX_CHARACTERS + 1}."),
        ("[" + "1," * 20_000 + "]", "f.yaml:1: needs at most 20000 values with every alias replaced, but this is one more."),
    ],
)
def test_what_is_refused_and_where(text, line):
    assert faults(text) == [line]


@pytest.mark.parametrize(
    "text", ['a: "\\UFFFFFFFF"', f"%YAML 1.{'9' * 5000}\n---\na: 1", "a: " + "[" * 100_000, "!!binary x: *", "&a", "\ta"]
)
def test_what_breaks_parsers_is_a_fault(text):
    found = faults(text)
    assert all(line.startswith("f.yaml:1: ") and "\n" not in line for line in found)
    assert found or text == "&a"


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/name:os.system", "!!python/object/new:type", "!!str", "!!binary", "!mine", "!"]
)
def test_tags_are_refused_and_construct_nothing(tag):
    node, found = read(f"a: 1\nb: {tag} ['echo x']\n", "f.yaml")
    assert len(found) == 1
    assert str(found[0]).startswith("f.yaml:2: b: needs plain values without tags, but got ")
    assert node is not None
    assert plain(node) == {"a": 1, "b": ["echo x"]}


def test_aliases_cannot_make_a_small_file_a_large_document():
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        laughs += f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    # 1 + 10 + (1 + 91) + (1 + 820) + ... : line 5 is where more than 20,000 values are reached.
    assert faults(laughs) == ["f.yaml:5: needs at most 20000 values with every alias replaced, but this is one more."]


def test_faults_of_the_yaml_come_in_one_go():
    assert [line.split(": ")[0] for line in faults("a: .inf\nb: !x 1\nb: 2\n")] == ["f.yaml:1", "f.yaml:2", "f.yaml:3"]


def test_an_override_has_a_label_in_place_of_a_line_and_stands_behind_the_file():
    node, found = read("{k: .inf}", "--set a.b={k: .inf}", "a.b", 3)
    assert [str(fault) for fault in found] == ["--set a.b={k: .inf}: a.b.k: needs finite numbers of at most 64 bits, but got '.inf'."]
    assert node is not None
    assert node.place == override_place(3, "--set a.b={k: .inf}")
    assert node.place > document("a: 1").entries["a"].place
    assert override_place(3, "z") < override_place(4, "a")


words = st.one_of(
    st.text(), st.sampled_from(["off", "1e-3", "null", "~", "", "1", "true", "0x1", ".inf", "=", "<<", "2001-01-01", "a: b", "# c", "- d"])
)
values = st.recursive(
    st.one_of(words, st.booleans(), st.none(), st.integers(-(2**63) + 1, 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=4)),
    max_leaves=12,
)


def _located(value: object) -> Node:
    place = override_place(0, "x")
    if isinstance(value, dict):
        return Node({key: _located(inner) for key, inner in value.items()}, place)
    if isinstance(value, list):
        return Node(tuple(_located(inner) for inner in value), place)
    return Node(value, place)  # type: ignore[arg-type]


@SETTINGS
@given(values)
def test_what_is_written_is_read_back(value):
    assert plain(document(written(_located(value)))) == value


@SETTINGS
@given(st.text(alphabet=st.sampled_from("ab01.: \n\t-[]{},&*!|>%@`'\"\\#?=~_e\x00\x85\ud800é")))
def test_any_text_is_read_or_has_faults_on_one_line_each(text):
    node, found = read(text, "f.yaml")
    assert node is not None or found
    assert all("\n" not in str(fault) for fault in found)
