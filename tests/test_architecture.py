"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import catalogue

ROOT = Path(__file__).parents[1]
ROOMS = ("search_spaces", "trainables", "orchestrator")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """First names of everything a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_imports_point_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    banned = {
        "search_spaces": {"trainables", "orchestrator", "torch", "torch_xla", "ray", "optuna", "wandb", "numpy"},
        "trainables": {"orchestrator", "ray", "optuna", "wandb"},
        "orchestrator": set(),
    }[room]
    assert imports(path) & banned == set()


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        (
            "ray",
            {
                f"orchestrator/{name}.py"
                for name in ("cluster", "clusterfile", "desk", "groups", "lanes", "probes", "rayprobe", "tune", "workers")
            },
        ),
        # Its evaluators of importance share nothing with its samplers, and the analysis nothing with the driver.
        ("optuna", {"orchestrator/search.py", "orchestrator/analysis/evaluators.py"}),
        ("wandb", {"orchestrator/replay.py"}),
        ("torch_xla", {"trainables/xla.py"}),
    ],
)
def test_one_file_knows_a_package(package: str, allowed: set[str]) -> None:
    assert {named(path) for path in FILES if package in imports(path)} <= allowed


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("search_spaces", ("torch", "ray", "optuna", "numpy", "yaml")),
        ("trainables.runner", ("ray", "optuna", "wandb")),
        ("orchestrator.table", ("torch", "ray", "optuna", "wandb")),
        ("orchestrator.report", ("torch", "ray", "optuna", "wandb")),
        ("orchestrator.reading", ("ray", "optuna", "wandb")),
        ("orchestrator.driver", ("ray", "wandb")),
        ("orchestrator.clusterfile", ("torch", "ray", "optuna", "wandb")),
        ("orchestrator.preemption", ("torch", "ray", "optuna", "wandb", "yaml", "urllib.request")),
    ],
)
def test_importing_a_room_does_not_load_another(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(sorted({set(absent)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_file_is_about_one_thing(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
    assert path.stem not in {"utils", "util", "common", "core", "base", "manager", "helpers", "engine", "misc"}


def test_the_hash_of_the_environment_does_not_depend_on_what_was_imported() -> None:
    code = "from orchestrator.provenance import lock_hash; print(lock_hash())"
    found = {
        subprocess.run([sys.executable, "-c", f"{first}{code}"], capture_output=True, text=True, check=True).stdout
        for first in ("", "import ray; ")
    }
    assert len(found) == 1


def test_exported_names_are_the_public_ones() -> None:
    import search_spaces

    public = {name for name, value in vars(search_spaces).items() if not name.startswith("_") and not isinstance(value, type(sys))}
    assert set(search_spaces.__all__) == public - {"annotations"}


def test_the_table_of_methods_in_the_readme_is_the_folder() -> None:
    text = (ROOT / "README.md").read_text()
    table = re.search(r"<!-- methods -->\n(.*?)\n<!-- /methods -->", text, re.DOTALL)
    assert table is not None, "the README needs its method table between the two comments"
    assert table[1] == "\n".join(catalogue.markdown_table()), "run `kdsweep methods --markdown` and paste it"


def test_links_of_the_documentation_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_verbs_of_the_readme_are_those_of_the_command() -> None:
    from orchestrator.__main__ import app

    text = (ROOT / "README.md").read_text()
    for command in app.registered_commands:
        assert command.callback is not None
        assert re.search(rf"^\| `kdsweep {command.callback.__name__}\b", text, re.MULTILINE), command.callback.__name__
