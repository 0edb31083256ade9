"""Stand-ins: the names and forms of what they stand for, at a fraction of its size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainables.models.resnet import ResNet
from trainables.network import PENULTIMATE
from trainables.standin import StandIn


def test_it_has_the_stages_and_the_dropout_of_the_network() -> None:
    network = ResNet(depth=20).build((3, 32, 32), 10)
    assert StandIn.of(network) == StandIn(network.stages, 0.0)
    network.extra = nn.Sequential(nn.Dropout(0.1), nn.Dropout(0.3))
    assert StandIn.of(network).dropout == 0.3


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12])
def test_stages_of_pictures_are_maps_from_large_to_small(count: int) -> None:
    names = tuple(f"stage{number}" for number in range(count))
    network = StandIn(names, 0.0).build((3, 32, 32), 7)
    found = network(torch.rand(2, 3, 32, 32), (*names, PENULTIMATE))
    assert found.logits.shape == (2, 7)
    assert list(found.features) == [*names, PENULTIMATE]
    sides = [found.features[name].shape[-1] for name in names]
    assert sides == sorted(sides, reverse=True)
    assert set(sides) <= {16, 8, 4}
    assert found.features[PENULTIMATE].shape == (2, network.head.in_features)


def test_stages_of_texts_are_vectors_and_any_vocabulary_is_read() -> None:
    network = StandIn(("layer1", "layer2"), 0.1).build((12,), 2)
    found = network(torch.tensor([[0] * 12, [250_000] * 12]), ("layer2",))
    assert found.logits.shape == (2, 2)
    assert found.features["layer2"].ndim == 2


def test_dropout_makes_two_passes_differ_in_training_alone() -> None:
    network = StandIn(("a",), 0.5).build((3, 8, 8), 3)
    inputs = torch.rand(4, 3, 8, 8)
    assert not torch.equal(network(inputs).logits, network(inputs).logits)
    network.eval()
    assert torch.equal(network(inputs).logits, network(inputs).logits)


def test_what_is_not_asked_for_is_not_returned() -> None:
    assert StandIn(("a", "b"), 0.0).build((3, 8, 8), 3)(torch.rand(1, 3, 8, 8)).features == {}
