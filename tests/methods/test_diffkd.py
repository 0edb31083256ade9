"""Knowledge diffusion against NumPy, layer by layer, and what a denoiser that knows the noise must give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import oracles
from tests.toy import CLASSES, generator, toy
from trainables.distiller import Batch, Facts, Outputs
from trainables.methods.diffkd import TIMES, DiffKD, kept_shares

SHAPES = {"map": ((5, 4, 4), (6, 2, 2)), "vector": ((5,), (6,))}
KEPT = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
ROWS = 6


# The networks in NumPy, float64, with the weights of the module.


def numbers(parameter):
    return parameter.detach().double().numpy()


def layer(module, x):
    """A convolution that keeps height and width, or a linear map."""
    weight = numbers(module.weight)
    if x.ndim == 2:
        found = x @ weight.T
    else:
        reach = weight.shape[2] // 2
        padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
        height, width = x.shape[2:]
        found = sum(
            np.einsum("oc,bchw->bohw", weight[:, :, i, j], padded[:, :, i : i + height, j : j + width])
            for i in range(weight.shape[2])
            for j in range(weight.shape[3])
        )
    return found if module.bias is None else found + along(numbers(module.bias), x)


def along(values, x):
    """Values by channel, to be added to (B, C, ...)."""
    return values.reshape(1, -1, *[1] * (x.ndim - 2))


def norm(module, x):
    axes = (0, *range(2, x.ndim))
    scaled = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    return scaled * along(numbers(module.gain), x) + along(numbers(module.offset), x)


def conv_norm(layers, x, index, rectified):
    x = norm(layers.norms[index], layer(layers.layers[index], x))
    return np.maximum(x, 0) if rectified else x


def bottleneck(module, x):
    inner = x
    for index, rectified in enumerate((True, True, False)):
        inner = conv_norm(module.within, inner, index, rectified)
    return x + inner


def denoised(module, x, t):
    x = x + numbers(module.time.weight)[t].reshape(len(x), -1, *[1] * (x.ndim - 2))
    if x.ndim == 4:
        return conv_norm(module.blocks[2], bottleneck(module.blocks[1], bottleneck(module.blocks[0], x)), 0, False)
    only = module.blocks[0]
    for index, rectified in enumerate((True, False, True)):
        x = conv_norm(only, x, index, rectified)
    return layer(only.layers[3], x)


def kept_of_student(module, x):
    """g (B,)."""
    if x.ndim == 4:
        inner = bottleneck(module.within, x).mean((2, 3))
    else:
        inner = conv_norm(module.within, conv_norm(module.within, x, 0, True), 1, False)
    return oracles.softmax(layer(module.head, inner))[:, 0]


def refined(tap, x, noise, steps):
    x = layer(tap.project.layers[0], x)
    if tap.adapter is not None:
        g = kept_of_student(tap.adapter, x).reshape(-1, *[1] * (x.ndim - 1))
        x = g * x + (1 - g) * noise
    stride = 1000 // (2 * steps)
    for t in range((steps - 1) * stride, -1, -stride):
        e = denoised(tap.denoiser, x, np.full(len(x), t))
        before = KEPT[t - stride] if t >= stride else 1.0
        x = np.sqrt(before) * (x - np.sqrt(1 - KEPT[t]) * e) / np.sqrt(KEPT[t]) + np.sqrt(1 - before) * e
    return conv_norm(tap.last, x, 0, False)


def misjudged(tap, z, noise, t):
    """(B,)."""
    a = KEPT[t].reshape(-1, *[1] * (z.ndim - 1))
    return squares(denoised(tap.denoiser, np.sqrt(a) * z + np.sqrt(1 - a) * noise, t) - noise)


def squares(x):
    return (x**2).reshape(len(x), -1).mean(1)


def matched(x, size):
    """Means of blocks."""
    if x.ndim == 2:
        return x
    blocks = x.reshape(*x.shape[:2], size[0], x.shape[2] // size[0], size[1], x.shape[3] // size[1])
    return blocks.mean((3, 5))


# What is tested.


def built(kind, seed=0, **changes):
    """(method, state in float64 with weights that matter everywhere, batch, student, teacher)."""
    student_shape, teacher_shape = SHAPES[kind]
    method = DiffKD(latent_width=8, **changes)
    torch.manual_seed(seed)
    facts = Facts(CLASSES, 40, 10, {"logits": (CLASSES,), "last": student_shape}, {"logits": (CLASSES,), "last": teacher_shape})
    state = method.state(facts).double()
    drawn = generator(seed)
    for parameter in state.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=drawn, dtype=torch.float64))
    outputs = [
        Outputs(
            torch.randn(ROWS, CLASSES, generator=drawn, dtype=torch.float64),
            {"last": 1.0 + 2.0 * torch.randn(ROWS, *shape, generator=drawn, dtype=torch.float64)},
        )
        for shape in (student_shape, teacher_shape)
    ]
    made = Batch(
        label=torch.tensor([3, 0, 1, 0, 0, 0]),
        is_labelled=torch.tensor([1.0, 0, 1, 0, 0, 0]),
        row=torch.arange(ROWS),
        weight=torch.ones(ROWS),
        total=torch.tensor(float(ROWS)),
        progress=torch.tensor(0.5),
    )
    return method, state, made, *outputs


def terms(method, state, made, student, teacher, seed=1):
    torch.manual_seed(seed)
    return method.terms(state, made, student, teacher)


def drawn_by_terms(state, code_shape, adapts, seed=1):
    """What the terms draw, in their order: noise for both taps to start from, then noise and times for both denoisers."""
    torch.manual_seed(seed)
    starts = [torch.randn(shape).double().numpy() if adapts else None for shape in (code_shape, (ROWS, CLASSES))]
    rest = [(torch.randn(shape).double().numpy(), torch.randint(TIMES, (ROWS,)).numpy()) for shape in (code_shape, (ROWS, CLASSES))]
    return starts, rest


def expected_terms(method, state, made, student, teacher):
    size = teacher.features["last"].shape[2:]
    ours, theirs = (matched(o.features["last"].detach().numpy(), size) for o in (student, teacher))
    code = conv_norm(state.encoder, theirs, 0, False)
    starts, rest = drawn_by_terms(state, code.shape, method.adapter)
    said, logits = teacher.logits.numpy(), student.logits.detach().numpy()
    p = oracles.softmax(said / method.temperature)
    f = oracles.softmax(refined(state.logits, logits, starts[1], method.ddim_steps) / method.temperature)
    known = np.where(made.is_labelled > 0, made.label, said.argmax(1))
    counted = np.ones(ROWS) if method.unlabelled == "pseudo" else made.is_labelled.numpy()
    return {
        "truth": (oracles.cross_entropy(oracles.onehot(known, CLASSES), oracles.softmax(logits)) * counted).mean(),
        "feature": squares(refined(state.feature, ours, starts[0], method.ddim_steps) - code).mean(),
        "logits": method.temperature**2 * (p * np.log(p / f)).sum(1).mean(),
        "denoiser": (misjudged(state.feature, code, *rest[0]) + misjudged(state.logits, said, *rest[1])).mean(),
        "reconstruction": squares(layer(state.decoder.layers[0], code) - theirs).mean(),
    }


def test_schedule_of_noise():
    assert kept_shares() == pytest.approx(KEPT.tolist(), rel=1e-12)
    assert kept_shares()[0] == pytest.approx(0.9999, rel=1e-12)


@pytest.mark.parametrize(("steps", "times"), [(5, (400, 300, 200, 100, 0)), (1, (0,)), (2, (250, 0)), (10, tuple(range(450, -1, -50)))])
def test_times_of_refining(steps, times):
    state = built("vector", ddim_steps=steps)[1]
    assert state.feature.times == state.logits.times == times


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("changes", [{}, {"adapter": False, "ddim_steps": 2, "temperature": 3.0, "unlabelled": "skip"}, {"ddim_steps": 1}])
def test_oracle(kind, changes):
    method, state, made, student, teacher = built(kind, **changes)
    found = terms(method, state, made, student, teacher)
    expected = expected_terms(method, state, made, student, teacher)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # The draws and the schedule are float32.
        assert found[name].item() == pytest.approx(value, rel=1e-5), name


def test_oracle_in_float32():
    method, state, made, student, teacher = built("map", ddim_steps=2)
    expected = expected_terms(method, state, made, student, teacher)
    single = [Outputs(o.logits.float(), {n: v.float() for n, v in o.features.items()}) for o in (student, teacher)]
    found = terms(method, state.float(), made, *single)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-4), name


def test_gradient_of_what_the_student_is_compared_by():
    """Against finite differences of the formulas in NumPy."""
    method, state, made, student, teacher = built("map", ddim_steps=2)
    leaves = student.logits.clone().requires_grad_(), student.features["last"].clone().requires_grad_()
    found = terms(method, state, made, Outputs(leaves[0], {"last": leaves[1]}), teacher)
    (found["feature"] + found["logits"]).backward()
    for leaf, place in ((leaves[0], (1, 2)), (leaves[0], (4, 0)), (leaves[1], (2, 3, 1, 0)), (leaves[1], (5, 0, 3, 3))):
        ends = []
        for step in (1e-5, -1e-5):
            moved = [value.detach().clone() for value in leaves]
            moved[0 if leaf is leaves[0] else 1][place] += step
            value = expected_terms(method, state, made, Outputs(moved[0], {"last": moved[1]}), teacher)
            ends.append(value["feature"] + value["logits"])
        assert leaf.grad[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-6)


class Knows(torch.nn.Module):
    """A denoiser that knows the noise."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def forward(self, x, t, weight):
        return self.noise


class Same(torch.nn.Module):
    """A layer that leaves everything as it is."""

    def forward(self, x, weight):
        return x


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_a_denoiser_that_knows_the_noise_brings_back_what_was_there(steps):
    tap = built("map", ddim_steps=steps, adapter=False)[1].feature
    z, noise = (torch.randn(ROWS, 8, 2, 2, generator=generator(s), dtype=torch.float64) for s in (1, 2))
    tap.denoiser, tap.project, tap.last = Knows(noise), Same(), Same()
    left = KEPT[tap.times[0]]
    torch.testing.assert_close(tap.refined(left**0.5 * z + (1 - left) ** 0.5 * noise, torch.ones(ROWS)), z, rtol=1e-4, atol=1e-4)
    assert tap.misjudged(z, torch.ones(ROWS)).min() > 0.1  # it does not know the noise of others


@pytest.mark.parametrize("kind", SHAPES)
def test_the_adapter_decides_how_much_noise_comes_in(kind):
    """At g = 1 the draws do not matter, at g = 0 the student does not."""
    method, state, made, student, teacher = built(kind, ddim_steps=2)
    other = Outputs(student.logits.flip(0) - 1.0, {"last": student.features["last"].flip(0) + 1.0})
    with torch.no_grad():
        for tap in (state.feature, state.logits):
            tap.adapter.head.weight.zero_()
        for sign, drawn_matters in ((500.0, False), (-500.0, True)):
            for tap in (state.feature, state.logits):
                tap.adapter.head.bias.copy_(torch.tensor([sign, -sign]))
            first, redrawn, moved = (
                terms(method, state, made, *arguments) for arguments in ((student, teacher), (student, teacher, 2), (other, teacher))
            )
            for name in ("feature", "logits"):
                assert (first[name].item() == pytest.approx(redrawn[name].item(), rel=1e-9)) is not drawn_matters
                assert (first[name].item() == pytest.approx(moved[name].item(), rel=1e-9)) is drawn_matters


def test_what_learns_from_what():
    """The auto-encoder from its reconstruction alone; the denoisers also from what the student is compared by; the student from that and truth."""
    method, state, made, student, teacher = built("map", ddim_steps=2)
    leaves = {"logits": student.logits.requires_grad_(), "last": student.features["last"].requires_grad_()}
    found = terms(method, state, made, student, teacher)
    parts = {
        "encoder": state.encoder, "decoder": state.decoder, "feature.denoiser": state.feature.denoiser, "feature.project": state.feature.project,
        "logits.denoiser": state.logits.denoiser, "logits.adapter": state.logits.adapter,
    }  # fmt: skip
    reached = {}
    for name, term in found.items():
        named = {**{n: list(m.parameters()) for n, m in parts.items()}, **{n: [leaf] for n, leaf in leaves.items()}}
        reached[name] = {
            n
            for n, tensors in named.items()
            if any(g is not None for g in torch.autograd.grad(term, tensors, retain_graph=True, allow_unused=True))
        }
    assert reached == {
        "truth": {"logits"},
        "feature": {"feature.denoiser", "feature.project", "last"},
        "logits": {"logits.denoiser", "logits.adapter", "logits"},
        "denoiser": {"feature.denoiser", "logits.denoiser"},
        "reconstruction": {"encoder", "decoder"},
    }


@pytest.mark.parametrize("kind", SHAPES)
def test_order_and_padding_do_not_matter(kind):
    """Where nothing is drawn by place: without the adapter, all terms but the denoisers'."""
    method, state, made, student, teacher = built(kind, adapter=False)
    first = terms(method, state, made, student, teacher)
    turned, padded = torch.tensor([4, 2, 0, 5, 1, 3]), torch.tensor([0, 1, 2, 3, 4, 5, 0, 0])
    weight = torch.tensor([1.0] * 6 + [0.0] * 2)
    for rows, weights in ((turned, torch.ones(6)), (padded, weight)):
        outputs = [Outputs(o.logits[rows].clone(), {"last": o.features["last"][rows].clone()}) for o in (student, teacher)]
        for o in outputs:
            o.logits[6:], o.features["last"][6:] = 77.0, 9.0
        other = made._replace(label=made.label[rows], is_labelled=made.is_labelled[rows], row=made.row[rows], weight=weights)
        found = terms(method, state, other, *outputs)
        for name in ("truth", "feature", "logits", "reconstruction"):
            assert found[name].item() == pytest.approx(first[name].item(), rel=1e-9), name


@pytest.mark.parametrize(("real", "is_enough"), [(6, True), (3, True), (2, False), (1, False)])
def test_a_batch_that_is_hardly_there_counts_for_truth_alone(real, is_enough):
    method, state, made, student, teacher = built("vector")
    leaves = student.logits.requires_grad_(), student.features["last"].requires_grad_()
    weight = (torch.arange(ROWS) < real).float()
    found = terms(method, state, made._replace(weight=weight, total=weight.sum()), student, teacher)
    assert found.pop("truth").item() > 0
    for name, term in found.items():
        assert (term.item() > 0) is is_enough, name
    sum(found.values()).backward()
    assert all(bool(leaf.grad.abs().sum() > 0) is is_enough for leaf in leaves)


@pytest.mark.parametrize(("student", "teacher"), [((5,), (6, 2, 2)), ((5, 4, 4), (6,)), ((5, 3, 3), (6, 4, 4))])
def test_maps_and_vectors_meet(student, teacher):
    method = DiffKD(latent_width=8, ddim_steps=2)
    state = method.state(Facts(CLASSES, 40, 10, {"logits": (CLASSES,), "last": student}, {"logits": (CLASSES,), "last": teacher}))
    outputs = [Outputs(torch.randn(ROWS, CLASSES), {"last": torch.randn(ROWS, *shape)}) for shape in (student, teacher)]
    made = built("map")[2]
    found = terms(method, state, made, *outputs)
    assert all(torch.isfinite(term) for term in found.values())


def test_a_denoiser_learns():
    """A guess of no noise costs 1 at either tap. Of rows of two kinds alone, some of the noise can be told."""
    stage = toy(DiffKD.needs)
    torch.manual_seed(0)
    tap = DiffKD().state(stage.facts).logits
    z = 3.0 * torch.nn.functional.one_hot(torch.arange(64) % 2, CLASSES).float()
    optimiser = torch.optim.Adam(tap.denoiser.parameters(), lr=0.01)
    costs = []
    for _ in range(100):
        optimiser.zero_grad()
        cost = tap.misjudged(z, torch.ones(64)).mean()
        cost.backward()
        optimiser.step()
        costs.append(cost.item())
    assert np.mean(costs[:5]) > 1.0
    assert np.mean(costs[-20:]) < 0.8
