"""What holds for every family in the folder. There is no list of exceptions: a file without settings here fails."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from search_spaces import changed, flat, tunables
from tests.small_networks import CLASSES, SETTINGS, built, every, inputs_for
from trainables.convolutions import Convolutional
from trainables.encoders import TextEncoder
from trainables.folder import name_of, names
from trainables.models.cnn import CNN
from trainables.models.mobilenetv2 import MobileNetV2
from trainables.models.resnet import ResNet
from trainables.models.resnet50 import ResNet50
from trainables.models.shufflenetv1 import ShuffleNetV1
from trainables.models.shufflenetv2 import ShuffleNetV2
from trainables.models.vgg import VGG
from trainables.models.wrn import WRN
from trainables.network import FIRST, LAST, MIDDLE, PENULTIMATE, outputs_of
from trainables.recipe import BFLOAT16

CIFAR = (ResNet(), WRN(), VGG(), MobileNetV2(), ShuffleNetV1(), ShuffleNetV2(), ResNet50())


def test_no_family_is_left_out():
    assert {name_of(setting.family) for setting in SETTINGS.values()} == set(names("trainables.models"))


@every
def test_value(name):
    family = SETTINGS[name].family
    assert dataclasses.replace(family) == family
    assert pickle.loads(pickle.dumps(family)) == family
    assert changed(type(family)(), json.loads(json.dumps(flat(family)))) == family
    assert len({field.name for field in tunables(family)}) == len(dataclasses.fields(family))
    assert all(field.doc for field in tunables(family))


@every
def test_logits_and_exactly_the_asked_maps(name):
    network, inputs = built(name).eval(), inputs_for(name)
    assert network(inputs).features == {}
    assert network(inputs).logits.shape == (2, CLASSES)
    found = network(inputs, (*network.stages, PENULTIMATE))
    assert list(found.features) == [*network.stages, PENULTIMATE]
    for stage, value in found.features.items():
        alone = network(inputs, (stage,))
        assert list(alone.features) == [stage]
        assert torch.equal(alone.features[stage], value)
    widths = [value.shape[-1] for value in found.features.values() if value.dim() == 4]
    assert widths == sorted(widths, reverse=True), "the resolution never grows"


@every
def test_the_head_reads_the_penultimate_features(name):
    network = built(name).eval()
    assert isinstance(network.head, nn.Linear)
    found = network(inputs_for(name), (PENULTIMATE,))
    assert found.features[PENULTIMATE].shape == (2, network.head.in_features)
    torch.testing.assert_close(network.head(found.features[PENULTIMATE]), found.logits)


@every
def test_first_middle_and_last_are_stages_in_order(name):
    network = built(name)
    places = [network.stages.index(network.stage(place)) for place in (FIRST, MIDDLE, LAST)]
    assert places == sorted(places)
    assert places[-1] == len(network.stages) - 1
    assert [network.stage(stage) for stage in (*network.stages, PENULTIMATE)] == [*network.stages, PENULTIMATE]


@every
def test_weights_come_from_the_global_generator(name):
    first, second, other = built(name), built(name), built(name, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)


@every
def test_evaluation_is_a_function_of_the_row(name):
    network, inputs = built(name).eval(), inputs_for(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    logits = network(inputs).logits
    assert torch.equal(network(inputs).logits, logits)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    alone = torch.cat([network(row[None]).logits for row in inputs])
    torch.testing.assert_close(logits, alone, rtol=1e-3, atol=1e-4)


@every
def test_every_parameter_learns_and_a_copy_is_another_network(name):
    """One step of training: gradient everywhere, a slow copy that does not move, and a state that another network takes over."""
    network, inputs = built(name).train(), inputs_for(name)
    slow = copy.deepcopy(network).requires_grad_(False).eval()
    kept = {key: value.clone() for key, value in slow.state_dict().items()}
    network(inputs).logits.square().sum().backward()
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in network.parameters())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= 1e-3 * parameter.grad
    assert all(torch.equal(value, kept[key]) for key, value in slow.state_dict().items())
    other = built(name, seed=1)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other.eval()(inputs).logits, network.eval()(inputs).logits)


@every
def test_bfloat16_computes_and_float32_remembers(name):
    """What comes out is float32, and near to what float32 computes; so is what batch norm remembers of a step."""
    network, exact, inputs = built(name), built(name), inputs_for(name)
    with torch.no_grad():
        found = outputs_of(network.eval(), inputs, (LAST,), BFLOAT16)
        expected = outputs_of(exact.eval(), inputs, (LAST,))
        assert all(value.dtype == torch.float32 for value in (found.logits, *found.features.values()))
        assert 0 < _relative(found.features[LAST], expected.features[LAST]) < 0.1
        outputs_of(network.train(), inputs, (), BFLOAT16)
        outputs_of(exact.train(), inputs)
    assert {value.dtype for value in network.state_dict().values()} <= {torch.float32, torch.int64}
    statistics = [key for key in exact.state_dict() if key.endswith(("running_mean", "running_var"))]
    for key in statistics[:2]:  # of the first batch norm: later ones of a small batch multiply what differs
        assert 0 < _relative(network.state_dict()[key], exact.state_dict()[key]) < 0.02, key


def _relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@every
def test_a_tracing_compiler_sees_one_graph(name):
    """Of deep networks, whose blocks are alike, the first of the first stage (tracing them whole takes ten seconds each)."""
    network = built(name).train()
    if isinstance(network, Convolutional):
        stage = network.body[0]
        network.body = nn.ModuleList([stage[:2] if isinstance(stage, nn.Sequential) else stage])
        network.stages, network.tail = network.stages[:2], nn.Identity()
        network.head = nn.LazyLinear(CLASSES)
        network(inputs_for(name))
    elif isinstance(network, TextEncoder):
        network.stages, network.order = network.stages[:2], network.order[:2]
    counter = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend=counter, dynamic=False)
    for seed in (0, 1):
        compiled(inputs_for(name, seed), (network.stage(LAST), PENULTIMATE))
    assert counter.frame_count == 1


@pytest.mark.parametrize("family", CIFAR, ids=name_of)
@pytest.mark.parametrize("side", [64, 96])
def test_larger_pictures(family, side):
    with torch.device("meta"):
        network = family.build((3, side, side), 200)
        found = network(torch.empty(2, 3, side, side), (network.stage(LAST),))
        small = family.build((3, 32, 32), 200)
    assert found.logits.shape == (2, 200)
    assert found.features[network.stage(LAST)].shape[-1] > 1
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in small.parameters())


@pytest.mark.parametrize("family", CIFAR, ids=name_of)
@pytest.mark.parametrize("shape", [(3, 34, 32), (3, 32, 34), (3, 4, 4), (64,), (2, 3, 32, 32)])
def test_pictures_that_do_not_fit(family, shape):
    with pytest.raises(ValueError, match=rf"{type(family).__name__} needs inputs \(C, H, W\) .* but got shape=\({shape[0]},.*such as cnn"):
        family.build(shape, 10)


@pytest.mark.parametrize("family", CIFAR, ids=name_of)
def test_digits_fit_what_halves_twice(family):
    if isinstance(family, ResNet | WRN):
        assert outputs_of(family.build((1, 8, 8), 10), torch.rand(2, 1, 8, 8), (LAST,)).features[LAST].shape[2:] == (2, 2)
    else:
        with pytest.raises(ValueError, match=r"of at least (16|32) .* but got shape=\(1, 8, 8\)"):
            family.build((1, 8, 8), 10)
    CNN().build((1, 8, 8), 10)


# What CRD's code hands to feature methods for 32x32 pictures, worked out from its layers: channels and resolution of f0, f1, ...
MAPS = {
    ResNet(depth=8, width=4): [(32, 32), (64, 32), (128, 16), (256, 8)],
    ResNet(depth=14): [(16, 32), (16, 32), (32, 16), (64, 8)],
    WRN(depth=10, width=3): [(16, 32), (48, 32), (96, 16), (192, 8)],
    VGG(depth=8): [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)],
    MobileNetV2(): [(16, 16), (12, 16), (16, 8), (48, 4), (160, 2)],
    ShuffleNetV1(): [(24, 32), (240, 16), (480, 8), (960, 4)],
    ShuffleNetV2(): [(24, 32), (116, 16), (232, 8), (464, 4)],
    ResNet50(): [(64, 32), (256, 32), (512, 16), (1024, 8), (2048, 4)],
}


@pytest.mark.parametrize("family", MAPS, ids=str)
def test_stages_are_those_of_the_literature(family):
    with torch.device("meta"):
        network = family.build((3, 32, 32), 100)
        found = network(torch.empty(2, 3, 32, 32), network.stages)
    assert [(value.shape[1], value.shape[2]) for value in found.features.values()] == MAPS[family]
    assert network.stages == ("stem", *(f"stage{i}" for i in range(1, len(MAPS[family]))))
    assert (network.stage(FIRST), network.stage(MIDDLE), network.stage(LAST)) == ("stage1", "stage2", network.stages[-1])


def test_which_stages_are_rectified():
    """As in CRD's code: sums of WRN and MobileNetV2 are not."""
    inputs = torch.randn(2, 3, 32, 32)
    for family in CIFAR:
        torch.manual_seed(0)
        found = family.build((3, 32, 32), 10)(inputs, ("stage1", "stage2", "stage3")).features
        is_rectified = all((value >= 0).all() for value in found.values())
        assert is_rectified is not isinstance(family, WRN | MobileNetV2), name_of(family)


def test_wrn_shortcuts_read_what_is_rectified():
    """By hand, one block that changes its width and one that does not."""
    torch.manual_seed(0)
    network = WRN(depth=16, width=1).build((3, 8, 8), 10).eval()
    changing, same = network.body[1][0], network.body[1][1]
    x = torch.randn(2, 16, 8, 8)
    scale = (1 + 1e-5) ** -0.5  # of a batch norm that has seen nothing
    opened = (x * scale).relu()
    convolution, _, _, _, second = changing.branch
    expected = second((convolution(opened) * scale).relu()) + changing.shortcut(opened)
    torch.testing.assert_close(changing(x), expected)
    convolution, _, _, _, second = same.branch
    torch.testing.assert_close(same(expected), second((convolution((expected * scale).relu()) * scale).relu()) + expected)


def test_shuffling_deals_the_channels_out():
    torch.manual_seed(0)
    network = ShuffleNetV1().build((3, 16, 16), 10)
    shuffle = network.body[1][0].branch[1]
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert shuffle(x).flatten().tolist() == [0, 2, 4, 1, 3, 5]


# Standard deviations by hand: He's sqrt(2 / (k^2 outputs)) for convolutions; torch's is that of U(-b, b) with b = 1 / sqrt(inputs): b / sqrt(3).
INITIAL = {
    ResNet(depth=8, width=4): (lambda n: n.body[2][0].branch[0][0], (2 / (9 * 256)) ** 0.5, (1 / 256 / 3) ** 0.5),
    WRN(): (lambda n: n.body[2][0].branch[0], (2 / (9 * 128)) ** 0.5, (1 / 128 / 3) ** 0.5),
    VGG(): (lambda n: n.body[1][1], (2 / (9 * 256)) ** 0.5, 0.01),
    MobileNetV2(): (lambda n: n.tail[0], (2 / 1280) ** 0.5, 0.01),
    ResNet50(): (lambda n: n.body[3][1].branch[1][0], (2 / (9 * 512)) ** 0.5, (1 / 2048 / 3) ** 0.5),
    ShuffleNetV1(): (lambda n: n.body[2][1].branch[3][0], (1 / 80 / 3) ** 0.5, (1 / 960 / 3) ** 0.5),
    ShuffleNetV2(): (lambda n: n.tail[0], (1 / 464 / 3) ** 0.5, (1 / 1024 / 3) ** 0.5),
}


@pytest.mark.parametrize("family", INITIAL, ids=name_of)
def test_initial_weights(family):
    torch.manual_seed(0)
    network = family.build((3, 32, 32), 100)
    pick, convolution, head = INITIAL[family]
    assert pick(network).weight.std().item() == pytest.approx(convolution, rel=0.02)
    assert network.head.weight.std().item() == pytest.approx(head, rel=0.02)
    assert bool((network.head.bias == 0).all()) is isinstance(family, WRN | VGG | MobileNetV2)
