"""LaTeX tables: whatever stands in a study is printed and never run, and every row has as many cells as its head."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from orchestrator import latex, report
from orchestrator.sections import sections
from orchestrator.sections.forms import Section, Table
from tests.test_report import HOSTILE, drawn, kept, whole


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & c", r"a\_b \& c"),
        ("50 % of #1", r"50 \% of \#1"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("x^2 ~ $y$", r"x\textasciicircum{}2 \textasciitilde{} \$y\$"),
        ("[red] *", "{[}red{]} {*}"),
        ("−1.5 ± 0.2", r"$-$1.5 $\pm$ 0.2"),
        ("p < .0001", "p $<$ .0001"),
        ("–", "--"),
        ("run --async", "run -{}-async"),
        ("two\nlines % end", r"two lines \% end"),
        ("2ⁿ, ¾, é", r"2$^n$, $\frac{3}{4}$, é"),
    ],
)
def test_words_are_printed_as_they_are(text: str, expected: str) -> None:
    assert latex.escaped(text) == expected


def test_a_table_is_a_booktabs_float() -> None:
    table = Table(("arm", "n", "difference"), (("kd_1", "12", "−0.5"), ("[x]", "11", "+1.0")))
    found = latex.document("my study", [Section("Differences to slam", tables=(table,), notes=("Use `kd_1`.",))])
    assert found.splitlines()[2:] == [
        "",
        r"\begin{table}[htbp]",
        r"\centering\small",
        r"\caption{Differences to slam}\label{tab:my-study:differences-to-slam}",
        r"\begin{tabular}{@{}lrr@{}}",
        r"\toprule",
        r"arm & n & difference \\",
        r"\midrule",
        r"kd\_1 & 12 & $-$0.5 \\",
        r"{[}x{]} & 11 & +1.0 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip{\footnotesize Use \texttt{kd\_1}.\par}",
        r"\end{table}",
    ]
    assert all(line.startswith("%") for line in found.splitlines()[:2])


def test_long_tables_break_over_pages_and_long_words_over_lines() -> None:
    rows = tuple((f"arm {place}", "word " * 20) for place in range(latex.LONG + 1))
    found = latex.document("s", [Section("T", tables=(Table(("arm", "words"), rows, names=2),))])
    assert r"\begin{longtable}{@{}l>{\raggedright\arraybackslash}p{0.5\linewidth}@{}}" in found
    assert r"\begin{table}" not in found
    assert found.count(r"\toprule") == 2, "the head stands on every page"
    assert found.index(r"\endfirsthead") < found.index(r"\endhead") < found.index(r"\endfoot") < found.index("arm 0")


def test_wide_tables_have_folded_heads_and_smaller_letters() -> None:
    table = Table(("arm", "95 % interval (t)", *(f"column {place}" for place in range(7))), (("kd", "1 to 2", *["1.0"] * 7),))
    found = latex.document("s", [Section("T", tables=(table,))])
    assert r"\centering\small" in found
    assert r"arm & \shortstack[r]{95 \%\\interval (t)} & \shortstack[r]{column\\0} &" in found
    wider = Table(table.columns, (("kd", "1 to 2", *["a longer cell"] * 7),))
    assert r"\centering\scriptsize\setlength{\tabcolsep}{3pt}" in latex.document("s", [Section("T", tables=(wider,))])


def test_labels_are_distinct() -> None:
    table = Table(("a",), (("1",),))
    found = latex.document("s", [Section("T", tables=(table, table)), Section("T!", tables=(table,))])
    assert re.findall(r"\\label\{(.*?)\}", found) == ["tab:s:t", "tab:s:t-2", "tab:s:t-3"]


def balanced(text: str) -> bool:
    """Whether braces that are not escaped close in order, and every environment that begins ends."""
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", re.sub(r"\\\\", "", text)):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    begun = re.findall(r"\\(begin|end)\{(\w+)\}", text)
    stack: list[str] = []
    for what, name in begun:
        if what == "begin":
            stack.append(name)
        elif not stack or stack.pop() != name:
            return False
    return depth == 0 and not stack


def test_the_report_is_written_with_the_same_tables_and_nothing_in_it_runs(tmp_path: Path) -> None:
    hostile = HOSTILE + r" \end{tabular} 100% ~^_{}#&"
    scores = {hostile if arm == "kd" else arm: values for arm, values in drawn(6).items()}
    scores[hostile][2] = "failed"
    events = whole(scores, study=hostile)
    for event in events:
        event |= {"message": hostile} if event["event"] == "row" else {}
        # The id of a cell is a hash, and a journal in which it is anything else is refused.
        event |= {"cell": hashlib.sha256(event["cell"].encode()).hexdigest()} if "cell" in event else {}
    paths = report.write(kept(tmp_path, events))
    text = Path(paths["tex"]).read_text(encoding="utf-8")
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert balanced(body)
    assert set(re.findall(r"(?<!\\)(?:\\\\)*\\([a-zA-Z]+)", body)) <= {
        *("begin", "end", "centering", "small", "caption", "label", "toprule", "midrule", "bottomrule", "par", "smallskip", "footnotesize"),
        *(
            "raggedright",
            "shortstack",
            "scriptsize",
            "setlength",
            "tabcolsep",
            "arraybackslash",
            "linewidth",
            "textbackslash",
            "textasciicircum",
            "textasciitilde",
            "texttt",
            "frac",
            "pm",
        ),
    }
    tables = [table for section in sections(report.frames(tmp_path)) for table in section.tables]
    assert body.count(r"\begin{tabular}") == len(tables)
    for part, table in zip(body.split(r"\toprule")[1:], tables, strict=True):
        rows = [line for line in part.partition(r"\bottomrule")[0].splitlines() if line.endswith(r" \\")]
        assert [len(re.findall(r"(?<!\\) & ", row)) + 1 for row in rows] == [len(table.columns)] * (1 + len(table.rows))
    # The numbers are those of the other forms.
    row = next(line for line in Path(paths["md"]).read_text(encoding="utf-8").splitlines() if line.startswith("| vanilla | 6 of 6 |"))
    assert " & ".join(row.strip("| ").split(" | ")).replace("−", "$-$").replace("–", "--") in text
