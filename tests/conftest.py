"""Fixtures that several rooms use."""

from __future__ import annotations

import pytest

_LONG = ("test_lanes", "test_data_parallel", "test_faults", "test_verbs", "test_synchronised")
"""Files that take minutes for few tests."""
_TINY = """\
study: tiny
question: Does everything fit together?
seed: 0
metric: {select: validation.accuracy, report: test.accuracy, goal: maximise}
data: {source: digits, labelled: 50, validation: 100, test: 1000}
teacher:
  model: {family: mlp, width: 8, depth: 1}
  recipe: {optimiser: adam, learning_rate: 0.01, epochs: 2, batch: 32}
student:
  model: {family: mlp, width: 8, depth: 1}
  recipe: {optimiser: sgd, epochs: 2, batch: 128}
arms:
  slam: {method: slam}
  vanilla: {method: vanilla}
search:
  trials: 4
  generation: 2
  startup: 2
  blocks: 1
  rungs: [0.5]
  keep: 0.5
  sampler: tpe
  space:
    all:
      recipe.learning_rate: {log_uniform: [0.01, 1.0]}
    slam:
      method.lower_bound: {uniform: [0.1, 0.9]}
confirm:
  base: slam
  leave_one_out: [method.lower_bound]
  against: [vanilla]
  blocks: 2
run: {lanes: 1, workers: 0, device: cpu, wandb: "off"}
"""


@pytest.fixture
def tiny_study_text() -> str:
    """A valid study whose trainings take milliseconds: search and confirm, two arms, one rung."""
    return _TINY


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, whatever the order of the rest, so that nobody waits for a single file at the end."""
    items.sort(key=lambda item: item.path.stem not in _LONG)
