"""Files that somebody made to do harm: a study, a journal, a checkpoint, a report. Nothing in them runs, and nothing leaves its folder."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.bulletin import Bulletin
from orchestrator.errors import StorageError, StudyError
from orchestrator.journal import Journal, StudyLock
from orchestrator.reading import study_of
from orchestrator.storage import LocalFolder
from tests.small_trials import student_trial
from tests.test_architecture import FILES, named
from trainables.device import Cpu
from trainables.folder import load
from trainables.runner import Runner, name_of_checkpoint
from trainables.status import OK
from trainables.store import Store
from trainables.teachers import name_of_weights
from trainables.trial import Leg

UNSAFE = {
    "eval": "runs what it is given",
    "exec": "runs what it is given",
    "compile": "makes code of text",
    "__import__": "imports what it is given",
    "pickle.load": "runs what it reads",
    "pickle.loads": "runs what it reads",
    "pickle.Unpickler": "runs what it reads",
    "marshal.loads": "makes code of bytes",
    "shelve.open": "unpickles",
    "dill.loads": "unpickles",
    "cloudpickle.loads": "unpickles",
    "joblib.load": "unpickles",
    "yaml.load": "constructs what tags name",
    "yaml.unsafe_load": "constructs what tags name",
    "yaml.full_load": "constructs what tags name",
    "pd.read_pickle": "unpickles",
    "torch.load": "unpickles, but for weights_only=True",
    "np.load": "unpickles, but for allow_pickle=False",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "runpy.run_path": "runs a file",
    "importlib.import_module": "imports what it is given",
}
ALLOWED = {
    ("trainables/device.py", "torch.load"): "with weights_only=True, on bytes that begin as a zip file does",
    ("trainables/folder.py", "importlib.import_module"): "of names that are files of three fixed folders",
    ("orchestrator/citations.py", "importlib.import_module"): "of one fixed package, to find where it lies",
    ("trainables/nodecache.py", "np.load"): "with allow_pickle=False",
    ("trainables/pretrained.py", "importlib.import_module"): "of one fixed package, which may be missing",
    ("orchestrator/tune.py", "pickle.loads"): "of the error that Ray Tune wrote a moment ago into this launch's own temporary folder",
}


def called(path: Path) -> list[tuple[str, ast.Call]]:
    """Every call of a file, by its dotted name."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [(ast.unparse(call.func), call) for call in calls]


def test_nothing_unsafe_is_called_but_what_is_listed() -> None:
    found = {(named(path), name) for path in FILES for name, _ in called(path) if name in UNSAFE}
    assert found - set(ALLOWED) == set()
    for path in FILES:
        for name, call in called(path):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert given.get("shell", "False") == "False", f"{named(path)}: {name} runs a shell"
            assert given.get("allow_pickle", "False") == "False", f"{named(path)}: {name} unpickles"
            assert name != "np.load" or given.get("allow_pickle") == "False", f"{named(path)}: np.load unpickles"
            assert name != "torch.load" or given.get("weights_only") == "True", f"{named(path)}: torch.load unpickles"


def test_readers_of_journal_and_table_import_nothing_that_unpickles() -> None:
    for path in FILES:
        if path.stem in (
            "journal",
            "record",
            "shapes",
            "events",
            "table",
            "schema",
            "storage",
            "bucket",
            "located",
            "reading",
            "store",
            "orders",
        ):
            names = {alias.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import) for alias in node.names}
            assert names & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"} == set(), named(path)


# Studies


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch planted']",
        "!!python/object/new:os.system ['touch planted']",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/object:orchestrator.study.Run {}",
    ],
)
def test_a_study_cannot_run_anything(value: str, tiny_study_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = tiny_study_text.replace("question: Does everything fit together?", f"question: {value}")
    with pytest.raises(StudyError, match=r"study.yaml:2: question: needs plain values without tags"):
        study_of(text)
    with pytest.raises(StudyError, match="needs plain values without tags"):
        study_of(tiny_study_text, [f"question={value}"])
    assert not (tmp_path / "planted").exists()


NAMES = (
    "__init__",
    "../x",
    "os.path",
    "os",
    "digits.os",
    "/etc/passwd",
    "__main__",
    "slam.SLaM",
    ".slam",
    "slam\x00",
    "SLAM",
    "folder",
    "..slam",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["arms.slam.method", "student.model.family", "data.source"])
def test_a_study_cannot_name_what_is_imported(key: str, name: str, tiny_study_text: str) -> None:
    with pytest.raises(StudyError, match=rf"--set {key}=.*: {key}: needs one of [a-z0-9_, ]+, but got"):
        study_of(tiny_study_text, [f"{key}={json.dumps(name)}"])


@pytest.mark.parametrize("name", NAMES)
def test_the_folders_load_nothing_but_their_files(name: str) -> None:
    with pytest.raises(KeyError, match="is not among the methods"):
        load("trainables.methods", name, object)


def test_a_thousand_million_laughs_are_over_at_once(tiny_study_text: str) -> None:
    laughs = "l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n"
    for number in range(1, 30):
        laughs += f"l{number}: &l{number} [{', '.join([f'*l{number - 1}'] * 10)}]\n"
    maps = "m0: &m0 {a: 1}\n" + "".join(f"m{n}: &m{n} {{a: *m{n - 1}, b: *m{n - 1}}}\n" for n in range(1, 40))
    tracemalloc.start()
    began = time.process_time()
    for bomb in (laughs, maps, f"question: {'[' * 10_000}", "a: " + "&a " * 20_000, "? " * 5_000):
        with pytest.raises(StudyError):
            study_of(tiny_study_text + bomb)
        with pytest.raises(StudyError):
            study_of(tiny_study_text, [f"arms.slam={bomb}"])
    seconds, (_, most) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 50e6
    assert seconds < 20.0


@pytest.mark.parametrize("text", ["<<: {seed: 3}\n", "<<: [{seed: 3}]\n", "seed: 1\n"])
def test_keys_do_not_merge_and_do_not_hide_each_other(text: str, tiny_study_text: str) -> None:
    with pytest.raises(StudyError, match=r"needs to be one of study, question.*'<<'|needs distinct keys, but got 'seed' again"):
        study_of(tiny_study_text + text)


PLACES = (
    "../x",
    "/tmp/x",
    "..",
    ".",
    "",
    "a/b",
    "a\\b",
    "C:x",
    "C:",
    "a\x00b",
    ".hidden",
    "a b",
    "é",
    "x" * 65,
    "a\n",
    "-x",
    "~",
    "a.b",
    "gs://b",
)


@pytest.mark.parametrize("name", PLACES)
def test_a_study_is_no_path(name: str, tiny_study_text: str, tmp_path: Path) -> None:
    for key in ("study", "arms.slam"):
        text = tiny_study_text.replace("study: tiny", f"study: {json.dumps(name)}") if key == "study" else tiny_study_text
        if key != "study":
            text = text.replace("  vanilla: {method: vanilla}", f"  vanilla: {{method: vanilla}}\n  {json.dumps(name)}: {{method: kd}}")
        with pytest.raises(StudyError, match="needs a name of at most 64 letters, digits, - and _"):
            study_of(text)


# Checkpoints and teachers


class Planter:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def crafted(planted: Path) -> dict[str, bytes]:
    """Files that run code where they are unpickled: bare, as torch saves them, and as torch did before 2020."""
    whole, old = io.BytesIO(), io.BytesIO()
    torch.save({"weights": Planter(planted), "until": 0.5}, whole)
    torch.save({"weights": Planter(planted)}, old, _use_new_zipfile_serialization=False)
    by_hand = io.BytesIO()
    with zipfile.ZipFile(by_hand, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Planter(planted), protocol=2))
        file.writestr("archive/version", "3\n")
    script = io.BytesIO()
    with zipfile.ZipFile(script, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Planter(planted), protocol=2))
        file.writestr("archive/constants.pkl", pickle.dumps(Planter(planted), protocol=2))
        file.writestr("archive/code/__torch__.py", "import os")
        file.writestr("archive/version", "3\n")
    return {
        "bare": pickle.dumps(Planter(planted), protocol=2),
        "torch": whole.getvalue(),
        "old": old.getvalue(),
        "zip": by_hand.getvalue(),
        "script": script.getvalue(),
    }


def test_what_is_planted_would_run(tmp_path: Path) -> None:
    files = crafted(tmp_path / "planted")
    pickle.loads(files["bare"])
    assert (tmp_path / "planted").exists()
    (tmp_path / "planted").rmdir()
    torch.load(io.BytesIO(files["torch"]), weights_only=False)
    assert (tmp_path / "planted").exists()


@pytest.mark.parametrize("kind", ["bare", "torch", "old", "zip", "script"])
def test_nothing_in_a_file_of_tensors_runs(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Reading tensors needs the bytes of a whole file that torch saved"):
        Cpu().from_bytes(crafted(tmp_path / "planted")[kind])
    assert not (tmp_path / "planted").exists()


def test_a_study_goes_on_from_crafted_checkpoints(tmp_path: Path) -> None:
    trial = student_trial()
    for kind, data in {**crafted(tmp_path / "planted"), "none": b""}.items():
        root = str(tmp_path / kind)
        runner = Runner(root, "cpu")
        assert trial.teacher_trial is not None
        assert runner.run(Leg(trial.teacher_trial, 1.0)).status == OK
        Store(root).write(name_of_checkpoint(trial.id), data)
        row = runner.run(Leg(trial, 0.5))
        assert (row.status, row.message) == ("running", "")
    assert not (tmp_path / "planted").exists()


def test_a_crafted_teacher_is_a_failure_that_says_what_to_do(tmp_path: Path) -> None:
    trial = student_trial()
    assert trial.teacher_trial is not None
    empty = Cpu().to_bytes({"shape": (1, 1, 2), "classes": 3, "weights": {}})
    for kind, data in {**crafted(tmp_path / "planted"), "other": Cpu().to_bytes([1]), "empty": empty}.items():
        root = str(tmp_path / kind)
        Store(root).write(name_of_weights(trial.teacher_trial.id), data)
        row = Runner(root, "cpu").run(Leg(trial, 1.0))
        assert row.status == "failed"
        assert "A teacher needs the weights that trial" in row.message
        assert "Restore it from a copy" in row.message
        assert "weights_only" not in row.message
    assert not (tmp_path / "planted").exists()


# Journals and reports


CELL = {
    "event": "cell", "time": "2026-01-01T00:00:00+00:00", "cell": "0123456789abcdef", "attempt": 1, "stage": "search", "arm": "slam",
    "method": "slam", "block": 0, "seeds": {"split": 1, "teacher": 2, "init": 3, "order": 4}, "generation": 0, "number": 0,
    "proposed_by": "random", "needs": [], "config": {},
}  # fmt: skip


@pytest.mark.parametrize(
    "cell", ["../../x", "/etc/x", "..", ".", "", "a/../../b", "a//b", ".hidden", "a\\b", "a\x00b", "a\nb", "C:x", "x" * 200, 7, None]
)
def test_a_cell_is_no_path(cell: Any, tmp_path: Path) -> None:
    outside = tmp_path / "x.pt"
    outside.write_bytes(b"mine")
    folder = tmp_path / "results" / "study"
    for event in ({**CELL, "cell": cell}, {**CELL, "needs": [cell]}):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "journal.jsonl").write_text(json.dumps(event) + "\n")
        with pytest.raises(
            StorageError, match=r"line 1, a cell event in which (cell|needs\[0\]) needs to be the content id of a cell, but got"
        ):
            Journal(folder).read()
    assert outside.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "..", "", "a/b", "a\x00b"])
def test_a_picture_is_no_path(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"mine")
    (tmp_path / "report.json").write_text(json.dumps({"pictures": [{"name": name, "caption": ""}]}))
    with pytest.raises(ValueError, match="needs names of pictures that are no paths"):
        _ = Bulletin(tmp_path).figures


def test_artefacts_are_not_written_through_a_link(tmp_path: Path) -> None:
    """A link in the place of an artefact is replaced or removed, and what it leads to stays as it is."""
    outside = tmp_path / "mine"
    outside.write_bytes(b"mine")
    store = Store(str(tmp_path / "artifacts"))
    store.write("checkpoints/a.pt", b"x")
    for act in (lambda: store.write("checkpoints/b.pt", b"new"), lambda: store.remove("checkpoints/b.pt")):
        (tmp_path / "artifacts/checkpoints/b.pt").unlink(missing_ok=True)
        (tmp_path / "artifacts/checkpoints/b.pt").symlink_to(outside)
        act()
        assert outside.read_bytes() == b"mine"
        assert not (tmp_path / "artifacts/checkpoints/b.pt").is_symlink()


def test_tables_and_reports_are_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "study").mkdir()
    (tmp_path / "study/report.md").symlink_to(tmp_path / "mine")
    LocalFolder(tmp_path / "study").replace("report.md", b"new")
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert (tmp_path / "study/report.md").read_bytes() == b"new"


def test_a_journal_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    """The user may link whole folders; a journal that is itself a link is somebody else's file."""
    (tmp_path / "mine").write_bytes(b"mine\n")
    (tmp_path / "study").mkdir()
    for name in ("journal.jsonl", ".lock"):
        (tmp_path / "study" / name).symlink_to(tmp_path / "mine")
    with pytest.raises(StorageError):
        Journal(tmp_path / "study").append([CELL])
    with pytest.raises(StorageError), StudyLock(tmp_path / "study"):
        pass
    assert (tmp_path / "mine").read_bytes() == b"mine\n"
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    Journal(tmp_path / "linked").append([CELL])
    assert Journal(tmp_path / "real").read() == (CELL,)
