"""Every study of the package from end to end, on lanes: made-up data, real networks, every method. Minutes each: make test-smoke."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

STUDIES = sorted((Path(__file__).parent.parent / "search_spaces" / "studies").glob("*.yaml"))


@pytest.mark.smoke
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_runs_from_end_to_end(path, tmp_path):
    pytest.importorskip("datasets")
    pytest.importorskip("transformers")
    command = [sys.executable, "-m", "orchestrator", "run", str(path), "--smoke", "--lanes", "2", "--workers", "0", "--json"]
    done = subprocess.run([*command, "--storage", str(tmp_path)], capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["counts"]["failed"] == 0
    assert told["counts"]["ok"] > 0
    found = json.loads((tmp_path / "smoke" / path.stem.replace("_", "-") / "report.json").read_text())
    assert found["is_complete"]
    # An arm that equals another by construction may be left out of a comparison; none is lost without a word.
    assert len(found["arms"]) + len(found["skipped"]) >= 2
