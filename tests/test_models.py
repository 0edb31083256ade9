"""The two families for small inputs, which have no state beside their parameters. What holds for every family: tests/test_networks.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from trainables.distiller import flat_shapes
from trainables.models.cnn import CNN
from trainables.models.mlp import MLP

FAMILIES = {
    "mlp": MLP(),
    "cnn": CNN(),
    "deep mlp": MLP(width=5, depth=3),
    "deep cnn": CNN(width=4, depth=3, norm="none", head="pool"),
    "odd cnn": CNN(width=3, depth=2, head="pool"),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


def _built(family, seed=0, shape=(1, 8, 8)):
    torch.manual_seed(seed)
    return family.build(shape, 10)


def test_logits_and_exactly_the_asked_maps(family):
    network, inputs = _built(family), torch.rand(4, 1, 8, 8)
    assert network(inputs).logits.shape == (4, 10)
    assert network(inputs).features == {}
    for stage in network.stages:
        outputs = network(inputs, (stage,))
        assert set(outputs.features) == {stage}
        assert outputs.features[stage].shape[0] == 4
    assert set(network(inputs, network.stages).features) == set(network.stages)


def test_weights_come_from_the_global_generator(family):
    first, second, other = _built(family), _built(family), _built(family, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_a_row_does_not_see_the_rest_of_its_batch(family):
    network, inputs = _built(family), torch.rand(6, 1, 8, 8)
    alone = torch.cat([network(row[None]).logits for row in inputs])
    torch.testing.assert_close(network(inputs).logits, alone, rtol=1e-5, atol=1e-6)


def test_no_state_beside_the_parameters(family):
    assert list(_built(family).buffers()) == []


def test_mlp_is_affine_rectified_affine():
    network, inputs = _built(MLP(width=7, depth=1)), torch.rand(3, 1, 8, 8)
    w1, b1, w2, b2 = (p.detach().numpy().astype(np.float64) for p in network.parameters())
    hidden = np.maximum(inputs.numpy().reshape(3, 64) @ w1.T + b1, 0)
    outputs = network(inputs, ("hidden1",))
    np.testing.assert_allclose(outputs.features["hidden1"].detach().numpy(), hidden, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(outputs.logits.detach().numpy(), hidden @ w2.T + b2, rtol=1e-4, atol=1e-6)


def test_sizes_by_hand():
    # 64*5+5 + 5*5+5 + 5*10+10
    assert sum(p.numel() for p in _built(MLP(width=5, depth=2)).parameters()) == 325 + 30 + 60
    # 3x3 convolutions 1->4->8 with bias, group norms of 4 and 8 channels, a head on 8 channels of 4x4
    assert sum(p.numel() for p in _built(CNN(width=4)).parameters()) == (9 * 4 + 4) + (9 * 4 * 8 + 8) + 2 * 4 + 2 * 8 + (8 * 16 * 10 + 10)


def test_cnn_stages_halve_and_double():
    shapes = flat_shapes(_built(FAMILIES["deep cnn"])(torch.rand(2, 1, 8, 8), ("stage1", "stage2", "stage3")))
    assert shapes == {"logits": (10,), "stage1": (4, 8, 8), "stage2": (8, 4, 4), "stage3": (16, 2, 2)}


def test_cnn_heads():
    inputs = torch.rand(2, 1, 8, 8)
    pooled = _built(CNN(width=4, head="pool"))
    outputs = pooled(inputs, ("stage2",))
    torch.testing.assert_close(outputs.logits, pooled.head(outputs.features["stage2"].mean(dim=(2, 3))))
    flat = _built(CNN(width=4, head="flatten"))
    outputs = flat(inputs, ("stage2",))
    torch.testing.assert_close(outputs.logits, flat.head(outputs.features["stage2"].flatten(1)))


def test_group_norm_makes_the_scale_of_a_convolution_irrelevant():
    inputs = torch.rand(2, 1, 8, 8)
    for norm, is_same in (("group", True), ("none", False)):
        network = _built(CNN(width=8, norm=norm))
        before = network(inputs).logits
        with torch.no_grad():
            for convolution in network.convolutions:
                convolution.weight *= 100
                convolution.bias *= 100
        # group norm divides by sqrt(variance + 1e-5), so small variances change a little
        assert torch.allclose(network(inputs).logits, before, atol=0.05) is is_same


def test_no_batch_norm(family):
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in _built(family).modules())


def test_cnn_needs_room():
    with pytest.raises(ValueError, match=r"at least 4x4 at depth=3, but got shape=\(1, 2, 8\)"):
        CNN(depth=3).build((1, 2, 8), 10)
    CNN(depth=3).build((1, 4, 4), 10)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"depth": 4}, {"norm": "batch"}, {"head": "both"}])
def test_cnn_refuses(wrong):
    with pytest.raises(ValueError, match=f"CNN needs {next(iter(wrong))}"):
        CNN(**wrong)
