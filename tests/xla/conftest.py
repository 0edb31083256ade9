"""These tests need torch_xla, in an environment of its own: ``make test-xla``. Elsewhere they are not collected."""

from __future__ import annotations

import importlib.util
import os

import pytest

if importlib.util.find_spec("torch_xla") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    os.environ["PJRT_DEVICE"] = "CPU"


@pytest.fixture(scope="session", autouse=True)
def _settled() -> None:
    """Before any test trains: autograd takes in the devices that are there at the first backward of the process."""
    from trainables.xla import Xla

    Xla().settle()
