"""``kdsweep run`` for a soak: the same driver on the same lanes, which also note the legs that they begin and end.

``python -m tests.soak.driver FOLDER ADDRESS WORKERS``: the study is ``FOLDER/study.yaml``.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from rich.console import Console

from orchestrator.driver import Launch, drive, folder_of
from orchestrator.errors import KdsweepError
from orchestrator.reading import study_of
from tests.soak.noting import noting
from trainables.runner import Runner


def main(folder: str, address: str, workers: str) -> int:
    """Exit codes as of ``kdsweep run``."""
    here = Path(folder)
    try:
        study = study_of((here / "study.yaml").read_text(), options={"storage": str(here / "soaked"), "workers": int(workers)})
        train = functools.partial(Runner, f"{folder_of(study)}/artifacts", study.run.lane_device)
        launch = Launch(address=address, make_runner=functools.partial(noting, str(here / "notes"), train))
        return drive(study, launch, Console()).exit_code
    except KdsweepError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
