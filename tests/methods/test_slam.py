"""SLaM: the facts of its paper and of its formulas, against NumPy and by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from search_spaces import Schedule, changed, flat, leave_one_out, switches
from tests import oracles
from tests.toy import CLASSES, HELD_OUT, ROWS, Probe, batch, facts, toy
from trainables.distiller import Outputs
from trainables.losses import cross_entropy, ranks
from trainables.methods.slam import STATIC, SLaM, log_mix

MIXINGS = ("unnormalised", "normalised", "renormalised")
UNCLIPPED = {"lower_bound": 0.0, "upper_bound": 1.0}


def mixed(logits, teacher, a, k, mixing):
    """exp(log_mix) in float64, (B, K), for numbers or arrays a and k."""
    logits, teacher = torch.as_tensor(logits, dtype=torch.float64), torch.as_tensor(teacher, dtype=torch.float64)
    a = torch.as_tensor(a, dtype=torch.float64).expand(len(logits))
    k = torch.as_tensor(k).expand(len(logits))
    return log_mix(logits.log_softmax(-1), 1 - a, k, ranks(teacher) < k.unsqueeze(1), mixing).exp()


def draw(seed, rows=6, classes=7, scale=2.0):
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(rows, classes)), scale * rng.normal(size=(rows, classes))


def inside(teacher, k, scale=2.0, seed=9):
    """Student logits with all mass (up to e^-80) on the teacher's top k classes."""
    rng = np.random.default_rng(seed)
    return np.where(oracles.top(teacher, k) > 0, scale * rng.normal(size=teacher.shape), -80.0)


def ready(method, a, k, rows=ROWS, classes=CLASSES):
    """A state that was told the accuracy and k of every row."""
    state = method.state(facts(rows=rows, classes=classes))
    state.accuracy.copy_(torch.as_tensor(a))
    state.k.copy_(torch.as_tensor(k))
    return state


def unlabelled(count):
    return batch(torch.arange(count), torch.zeros(count, dtype=torch.int64), labelled=0)


def mixed_term(method, logits, teacher, a, k):
    """The term ``mixed`` over unlabelled rows, and its gradient in the logits times the number of rows."""
    leaf = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    state = ready(method, a, k, *leaf.shape)
    term = method.terms(state, unlabelled(len(leaf)), Outputs(leaf, {}), Outputs(torch.tensor(teacher, dtype=torch.float32), {}))["mixed"]
    term.backward()
    return term.item(), leaf.grad.numpy() * len(leaf)


# The mix.


def test_row_sums():
    logits, teacher = draw(0)
    k, a = np.array([2, 3, 4, 5, 6, 7]), np.array([0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
    f, marks = oracles.softmax(logits), oracles.top(teacher, k)
    s = (f * marks).sum(1)
    np.testing.assert_allclose(mixed(logits, teacher, a, k, "unnormalised").sum(1), a + (1 - a) * (k - s), rtol=1e-12)
    np.testing.assert_allclose(mixed(logits, teacher, a, k, "normalised").sum(1), a + (1 - a) * (k - s) / (k - 1), rtol=1e-12)
    np.testing.assert_allclose(mixed(logits, teacher, a, k, "renormalised").sum(1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(mixed(inside(teacher, k), teacher, a, k, "normalised").sum(1), 1.0, rtol=1e-12)


def test_within_the_top_k_unnormalised_is_normalised_at_a_noisier_teacher():
    _, teacher = draw(1)
    k, a = np.array([2, 3, 4, 5, 6, 7]), np.array([0.55, 0.6, 0.7, 0.8, 0.9, 0.99])
    logits = inside(teacher, k)
    d = a + (1 - a) * (k - 1)
    noisier = a / d
    np.testing.assert_allclose(noisier / (1 - noisier), a / (1 - a) / (k - 1), rtol=1e-12)
    expected = d[:, None] * mixed(logits, teacher, noisier, k, "normalised").numpy()
    np.testing.assert_allclose(mixed(logits, teacher, a, k, "unnormalised"), expected, rtol=1e-12, atol=1e-30)
    # Hence the third variant, which divides by the sum, is the normalised mix at those odds.
    np.testing.assert_allclose(mixed(logits, teacher, a, k, "renormalised"), expected / d[:, None], rtol=1e-12, atol=1e-30)


@pytest.mark.parametrize("a", [0.0, 0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_slopes(a, k):
    """Affine in f: two points give the slope of every class. Inside the top-k 2a - 1 or a - (1 - a)/(k - 1), outside a."""
    (first, teacher), (second, _) = draw(2), draw(3)
    a = max(a, 1e-6)
    marks = oracles.top(teacher, k)
    step = oracles.softmax(second) - oracles.softmax(first)
    for mixing, slope in (("unnormalised", 2 * a - 1), ("normalised", a - (1 - a) / (k - 1))):
        found = (mixed(second, teacher, a, k, mixing) - mixed(first, teacher, a, k, mixing)).numpy() / step
        np.testing.assert_allclose(found, np.where(marks > 0, slope, a), atol=1e-9)


def test_two_classes_make_all_mixings_one():
    """mix = a f + (1 - a)(1 - f), by hand at f = 0.8, a = 0.75: 0.65."""
    logits = [[math.log(0.8), math.log(0.2)]]
    for mixing in MIXINGS:
        np.testing.assert_allclose(mixed(logits, [[1.0, 0.0]], 0.75, 2, mixing), [[0.65, 0.35]], rtol=1e-12)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_without_doubt_the_mix_is_the_student(mixing):
    logits, teacher = draw(4)
    f = oracles.softmax(logits)
    np.testing.assert_allclose(mixed(logits, teacher, 1.0, 4, mixing), f, rtol=1e-12)
    np.testing.assert_allclose(mixed(logits, teacher, 0.6, 1, mixing), f, rtol=1e-12)


def test_normalised_mix_of_the_truth_is_the_expected_noisy_label():
    _, teacher = draw(5)
    a, k = np.array([0.2, 0.4, 0.5, 0.6, 0.8, 0.9]), 4
    marks = oracles.top(teacher, k)
    truth = np.array([np.flatnonzero(row)[i % k] for i, row in enumerate(marks)])
    sure = np.where(oracles.onehot(truth, 7) > 0, 0.0, -200.0)
    expected = oracles.noisy_label(truth, a, marks)
    np.testing.assert_allclose(mixed(sure, teacher, a, k, "normalised"), expected, atol=1e-12)


def test_normalised_mix_is_forward_correction():
    """f T, with the label-noise matrix T over the top-k classes; exact where the student has its mass there."""
    _, teacher = draw(6)
    a, k = 0.7, 3
    marks, logits = oracles.top(teacher, k), inside(teacher, k)
    f = oracles.softmax(logits)
    expected = np.stack([f[i] @ oracles.transition(a, k, marks[i]) for i in range(len(f))])
    np.testing.assert_allclose(mixed(logits, teacher, a, k, "normalised") * torch.tensor(marks), expected, atol=1e-12)


# What it teaches.


def hard_gradient(a, k, mixing):
    """Gradient in the logits of a hard label at a row whose top-k is known."""
    logits, teacher = draw(7, rows=1)
    leaf = torch.tensor(logits, requires_grad=True)
    size = torch.tensor([k])
    log_prediction = log_mix(
        leaf.log_softmax(-1), torch.tensor([1 - a], dtype=torch.float64), size, ranks(torch.tensor(teacher)) < k, mixing
    )
    label = int(np.argmax(teacher))
    (-log_prediction[0, label]).backward()
    return leaf.grad[0, label].item()


@pytest.mark.parametrize(
    ("mixing", "k", "switch"), [("unnormalised", 4, 0.5), ("unnormalised", 2, 0.5), ("normalised", 4, 0.25), ("normalised", 5, 0.2)]
)
def test_where_a_hard_label_stops_attracting(mixing, k, switch):
    assert hard_gradient(switch + 0.1, k, mixing) < -1e-2  # the logit of the label goes up
    assert hard_gradient(switch, k, mixing) == pytest.approx(0.0, abs=1e-12)
    assert hard_gradient(switch - 0.1, k, mixing) > 1e-2  # and is pushed down


def away_from_truth(a, k, classes, mixing):
    """How fast the expected loss under the noise model rises when mass leaves the truth for each other class: (classes - 1,).

    The loss is convex in f, so the truth is the global minimiser if and only if no entry is negative.
    """
    marks = np.arange(classes)[None, :] < k
    noisy = torch.tensor(oracles.noisy_label([0], np.array([a]), marks.astype(float)))
    truth = torch.full((1, classes), 1e-12, dtype=torch.float64)
    truth[0, 0] = 1 - (classes - 1) * 1e-12
    f = truth.requires_grad_()
    log_prediction = log_mix(f.log(), torch.tensor([1 - a], dtype=torch.float64), torch.tensor([k]), torch.tensor(marks), mixing)
    (slope,) = torch.autograd.grad(cross_entropy(noisy, log_prediction).sum(), f)
    return (slope[0, 1:] - slope[0, 0]).numpy()


@pytest.mark.parametrize("k", [3, 5, 10])
def test_the_truth_minimises_the_expected_loss(k):
    between = [1 / k + share * (0.5 - 1 / k) for share in (0.2, 0.5, 0.9)]
    for a in (*between, 0.5001, 0.7, 0.95):
        assert away_from_truth(a, k, k, "normalised").min() > -1e-6
        assert away_from_truth(a, k, k + 2, "normalised").min() > -1e-6  # classes outside the top-k do not attract
    for a in (0.5 / k, 0.9 / k):  # a teacher worse than chance teaches as well, as long as the top-k holds all mass
        assert away_from_truth(a, k, k, "normalised").min() > -1e-6
    for a in (0.5001, 0.7, 0.95):
        assert away_from_truth(a, k, k, "unnormalised").min() > 0
    for a in between:
        assert away_from_truth(a, k, k, "unnormalised").min() < -1e-3


@pytest.mark.parametrize("a", [0.5, 0.9, 0.999])
def test_confident_disagreement_saturates(a):
    """A hard label costs -log((1 - a) + (2a - 1) f_y), at most -log(1 - a)."""
    method = SLaM(targets="hard", **UNCLIPPED)
    a = float(np.float32(a))
    for gap in (0.0, 5.0, 1000.0):
        found, _ = mixed_term(method, [[gap, 0.0, 0.0, 0.0]], [[0.0, 3.0, 1.0, 2.0]], a, 3)
        f = math.exp(-gap) / (1 + 3 * math.exp(-gap))
        assert found == pytest.approx(-math.log((1 - a) + (2 * a - 1) * f), rel=1e-6)
        assert found <= -math.log(1 - a) * (1 + 1e-6)


def test_keras_divides_by_the_sum():
    """On probabilities that do not sum to one Keras trains another loss; with all mass in the top-k its gradient is the same."""
    _, teacher = draw(8)
    k, a = 3, 0.8
    near, leaking = inside(teacher, k), draw(8)[0]
    explicit, keras = SLaM(mixing="unnormalised", **UNCLIPPED), SLaM(mixing="renormalised", **UNCLIPPED)
    teacher_inside = np.where(oracles.top(teacher, k) > 0, teacher, -80.0)
    for logits, equal in ((near, True), (leaking, False)):
        found, gradient = mixed_term(keras, logits, teacher_inside, a, k)
        f, marks = oracles.softmax(logits), oracles.top(teacher, k)
        target = oracles.softmax(teacher_inside)
        single = np.float64(np.float32(a))
        expected = oracles.keras_categorical_crossentropy(target, oracles.mix_unnormalised(f, marks, np.full(6, single)))
        assert found == pytest.approx(expected.mean(), rel=1e-6)
        _, other = mixed_term(explicit, logits, teacher_inside, a, k)
        assert np.allclose(gradient, other, atol=1e-6) is equal


# The terms.


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("targets", ["soft", "hard"])
def test_oracle(mixing, targets):
    """Loss and gradient in float32 against float64, where both get the same float32 inputs."""
    logits, teacher = (x.astype(np.float32) for x in draw(10, rows=60, classes=10, scale=3.0))
    rng = np.random.default_rng(11)
    a, k = rng.uniform(0.05, 1.0, 60).astype(np.float32), rng.integers(2, 11, 60)
    method = SLaM(mixing=mixing, targets=targets, lower_bound=0.25, upper_bound=0.96875)  # exact in binary
    found, gradient = mixed_term(method, logits, teacher, a, k)
    f, marks, bounded = oracles.softmax(logits), oracles.top(teacher, k), np.clip(a.astype(np.float64), 0.25, 0.96875)
    target = oracles.softmax(teacher) if targets == "soft" else oracles.onehot(teacher.argmax(1), 10)
    mix = oracles.mix_normalised(f, marks, bounded, k) if mixing == "normalised" else oracles.mix_unnormalised(f, marks, bounded)
    if mixing == "renormalised":
        mix = mix / mix.sum(1, keepdims=True)
    assert found == pytest.approx(oracles.cross_entropy(target, mix).mean(), rel=1e-6)
    np.testing.assert_allclose(gradient, oracles.mixed_gradient(target, f, marks, bounded, k, mixing), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("targets", ["soft", "hard"])
@pytest.mark.parametrize("a", [0.0, 0.3, 0.5, 0.999, 1.0])
def test_extremes_are_finite(mixing, targets, a):
    """Logits of a thousand, probabilities that underflow or round to one, certain and impossible teachers, every k."""
    basis = 1000.0 * np.eye(4)
    logits = np.concatenate([basis, -basis, np.zeros((1, 4)), [[1000.0, 1000.0, -1000.0, -1000.0]]])
    for k in (1, 2, 3, 4):
        for teacher in (basis[[0]], -basis[[1]], 1000.0 * np.array([[1.0, -1.0, 0.5, 0.0]])):
            method = SLaM(mixing=mixing, targets=targets, **UNCLIPPED)
            found, gradient = mixed_term(method, logits, np.repeat(teacher, len(logits), 0), a, k)
            assert math.isfinite(found)
            assert np.isfinite(gradient).all()


def test_an_impossible_teacher_is_held_to_what_its_label_is_not():
    """At a = 0, which counts as 2^-20, the mix is almost 1 - f: here f = 1 - 1.4e-4, whose complement float32 knows to four digits."""
    method, logits, teacher = SLaM(targets="hard", **UNCLIPPED), np.array([[10.0, 0.0, 0.0, 0.0]]), np.array([[2.0, 1.0, 0.0, -1.0]])
    found, gradient = mixed_term(method, logits, teacher, 0.0, 3)
    f, marks, target, a = oracles.softmax(logits), oracles.top(teacher, 3), oracles.onehot([0], 4), [2.0**-20]
    assert found == pytest.approx(oracles.cross_entropy(target, oracles.mix_unnormalised(f, marks, a))[0], rel=1e-6)
    np.testing.assert_allclose(gradient, oracles.mixed_gradient(target, f, marks, a, [3], "unnormalised"), rtol=1e-5)


def test_labelled_rows_cost_plain_cross_entropy():
    method = SLaM()
    logits, teacher = (x.astype(np.float32) for x in draw(12, rows=8, classes=5))
    truth, row = torch.tensor([4, 0, 3, 2, 1, 1, 0, 2]), torch.arange(8)
    state = ready(method, 0.6, 3, rows=8)
    found = method.terms(state, batch(row, truth, labelled=3), Outputs(torch.tensor(logits), {}), Outputs(torch.tensor(teacher), {}))
    f = oracles.softmax(logits)
    labelled = oracles.cross_entropy(oracles.onehot(truth[:3], 5), f[:3])
    single = np.float64(np.float32(0.6))
    mixed_rows = oracles.cross_entropy(
        oracles.softmax(teacher[3:]), oracles.mix_unnormalised(f[3:], oracles.top(teacher[3:], 3), np.full(5, single))
    )
    assert found["labelled"].item() == pytest.approx(labelled.sum() / 8, rel=1e-6)
    assert found["mixed"].item() == pytest.approx(mixed_rows.sum() / 8, rel=1e-6)


def test_bounds_clip_what_was_estimated():
    logits, teacher = draw(13)
    for bound, inner in ((SLaM(lower_bound=0.75, upper_bound=0.875), (0.75, 0.875)), (SLaM(lower_bound=0.0, upper_bound=1.0), (0.25, 1.0))):
        for estimate, a in zip((0.25, 1.0), inner, strict=True):
            expected, _ = mixed_term(SLaM(**UNCLIPPED), logits, teacher, a, 3)
            assert mixed_term(bound, logits, teacher, estimate, 3)[0] == pytest.approx(expected, rel=1e-7)


def test_ramp_brings_the_doubt_in():
    """a_t = 1 + s (a - 1): s = 0 is cross-entropy, s = 1/2 halves the doubt, s = 1 is the paper."""
    logits, teacher = draw(14)
    ramp = SLaM(accuracy_ramp=Schedule(kind="linear", start=0.0, end=1.0, warmup=0.2), **UNCLIPPED)
    plain = SLaM(**UNCLIPPED)
    # With warm-up until 0.2 a level of 0 stays 0; 0.6 is half of the way that is left.
    for progress, a in ((0.0, 1.0), (0.1, 1.0), (0.2, 1.0), (0.6, 0.8), (1.0, 0.6)):
        expected, _ = mixed_term(plain, logits, teacher, a, 3)
        assert mixed_term(ramp.frozen(progress), logits, teacher, 0.6, 3)[0] == pytest.approx(expected, rel=1e-6), progress
    cross_entropy_alone = oracles.cross_entropy(oracles.softmax(teacher), oracles.softmax(logits)).mean()
    assert mixed_term(ramp.frozen(0.0), logits, teacher, 0.6, 3)[0] == pytest.approx(cross_entropy_alone, rel=1e-6)


# Algorithm 2.


def numbers(probe):
    """(held-out probabilities, held-out truth, training probabilities) as NumPy."""
    softened = (oracles.softmax(x.logits.detach().numpy()) for x in (probe.holdout_outputs, probe.train_outputs))
    held, train = softened
    return held, probe.holdout_truth.numpy(), train


def covariate(probabilities, kind):
    first, second = np.sort(probabilities, axis=1)[:, ::-1][:, :2].T
    return first - second if kind == "margin" else first


@pytest.mark.parametrize(("kind", "most"), [("margin", 10), ("margin", 2), ("confidence", 3)])
def test_prepare_estimates_accuracy_and_k(kind, most):
    method = SLaM(covariate=kind, k_threshold=0.8, max_k=most)
    stage = toy(method.needs)
    held, truth, train = numbers(stage.probe)
    state = method.state(stage.facts)
    method.prepare(state, stage.probe)
    at, to = covariate(held, kind), covariate(train, kind)
    accuracy = oracles.slam_fit(at, held.argmax(1) == truth, to)
    np.testing.assert_allclose(state.accuracy, accuracy, atol=1e-5)
    assert accuracy.min() < 0.5 < accuracy.max(), "the toy must have rows below the lower bound, which prepare leaves as they are"
    k = np.full(ROWS, CLASSES)
    for size in range(CLASSES - 1, 1, -1):
        hit = oracles.top(held, size)[np.arange(len(truth)), truth]
        k = np.where(oracles.slam_fit(at, hit, to) >= 0.8, size, k)
    assert len(set(k)) > 1, "the toy must have rows of different k"
    assert most > CLASSES or k.max() > most
    np.testing.assert_array_equal(state.k, np.minimum(k, most))


def test_prepare_does_not_depend_on_batches_or_padding():
    method = SLaM()
    stage = toy(method.needs)
    states = [method.state(stage.facts) for _ in range(3)]
    for state, size in zip(states, (7, 24, 64), strict=True):
        method.prepare(state, dataclasses.replace(stage.probe, size=size))
    for other in states[1:]:
        assert torch.equal(states[0].k, other.k)
        assert torch.equal(states[0].accuracy, other.accuracy)


def test_constant_accuracy_is_the_share_of_correct_held_out_rows():
    method = SLaM(accuracy_rule="constant", k_rule="fixed", fixed_k=3)
    logits = torch.tensor([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0], [2.0, 1.0, 0]])
    probe = Probe(Outputs(logits, {}), torch.tensor([0, 0, 0, 0]), Outputs(logits, {}), torch.tensor([0, 1, 2, 1]), size=3)
    state = method.state(facts(classes=3, rows=4, holdout_rows=4))
    method.prepare(state, probe)
    assert state.accuracy.tolist() == [0.75] * 4
    assert state.k.tolist() == [3] * 4


def test_isotonic_accuracy_by_hand():
    """Margins in the order of rows 0 to 3 with correctness 0, 1, 0, 1: the middle two are pooled to 1/2."""
    margins = torch.tensor([0.1, 0.2, 0.3, 0.4])
    first = (1 + margins) / 2
    logits = torch.stack([first, 1 - first, torch.full((4,), 1e-30)], 1).log()
    probe = Probe(Outputs(logits, {}), torch.zeros(4, dtype=torch.int64), Outputs(logits, {}), torch.tensor([1, 0, 1, 0]), size=4)
    method = SLaM(k_rule="fixed", fixed_k=2)
    state = method.state(facts(classes=3, rows=4, holdout_rows=4))
    method.prepare(state, probe)
    assert state.accuracy.tolist() == pytest.approx([0.0, 0.5, 0.5, 1.0], abs=1e-6)
    assert state.k.tolist() == [2] * 4


@pytest.mark.parametrize(
    ("changes", "k"),
    [
        ({"k_rule": "fixed", "fixed_k": 20}, 5),
        ({"k_rule": "fixed", "fixed_k": 1}, 1),
        ({"k_threshold": 1.0, "max_k": 3}, 3),
        ({"k_threshold": 1.0}, 5),
        ({"k_threshold": 0.0}, 2),
    ],
)
def test_limits_of_k(changes, k):
    """At most the number of classes and ``max_k``; a threshold of 0 is always reached at 2. One of 1 here only at K classes."""
    method = SLaM(**changes)
    stage = toy(method.needs)
    wrong = dataclasses.replace(stage.probe, holdout_truth=torch.zeros(HELD_OUT, dtype=torch.int64))
    wrong.holdout_outputs.logits[:, 0] = -9.0  # the truth is always ranked last
    state = method.state(stage.facts)
    method.prepare(state, wrong)
    assert set(state.k.tolist()) == {k}


@pytest.mark.parametrize("changes", [{}, {"k_rule": "fixed", "fixed_k": 1}, {"k_rule": "fixed", "fixed_k": 5}])
def test_two_classes_have_k_two(changes):
    method = SLaM(**changes)
    stage = toy(method.needs, classes=2)
    state = method.state(stage.facts)
    method.prepare(state, stage.probe)
    assert set(state.k.tolist()) == {2}


def test_terms_read_the_rows_of_the_batch():
    method = SLaM()
    stage = toy(method.needs)
    state = ready(method, np.linspace(0.5, 0.99, ROWS), np.arange(ROWS) % 4 + 2)
    row = torch.tensor([50, 30])
    found = method.terms(state, stage.batch(row), Outputs(stage.student.logits[row], {}), Outputs(stage.teacher.logits[row], {}))
    f, y = oracles.softmax(stage.student.logits[row].detach()), stage.teacher.logits[row].numpy()
    a = np.linspace(0.5, 0.99, ROWS).astype(np.float32)[[50, 30]]
    mix = oracles.mix_unnormalised(f, oracles.top(y, np.array([50 % 4 + 2, 30 % 4 + 2])), a)
    assert found["mixed"].item() == pytest.approx(oracles.cross_entropy(oracles.softmax(y), mix).mean(), rel=1e-6)


# The value.


def test_bounds_and_ramps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"lower_bound <= upper_bound, but got lower_bound=0\.95, upper_bound=0\.9\."):
        SLaM(lower_bound=0.95, upper_bound=0.9)
    with pytest.raises(ValueError, match=r"accuracy_ramp.start and accuracy_ramp.end in \[0, 1\], but got start=1\.5, end=1\.0"):
        SLaM(accuracy_ramp=Schedule(start=1.5, end=1.0))
    with pytest.raises(ValueError, match=r"needs lower_bound to be a number in \[0, 1\], but got lower_bound=-0\.1"):
        SLaM(lower_bound=-0.1)
    with pytest.raises(ValueError, match="one of unnormalised, normalised, renormalised"):
        SLaM(mixing="keras")
    with pytest.raises(ValueError, match=r"two classes or more and held-out rows.*holdout_rows=0"):
        SLaM().state(facts(holdout_rows=0))


def test_parts_that_can_be_turned_off():
    off = switches(SLaM())
    assert off["mixing"] == "normalised"
    assert off["lower_bound"] == 0.0
    assert off["upper_bound"] == 1.0
    assert off["k_rule"] == "fixed"
    assert off["accuracy_rule"] == "constant"
    assert off["accuracy_ramp"] == STATIC
    variants = leave_one_out(changed(SLaM(), {"accuracy_ramp.kind": "cosine", "accuracy_ramp.start": 0.0}), list(off))
    assert flat(variants["accuracy_ramp"]) == flat(SLaM())
    assert flat(SLaM())["accuracy_ramp.start"] == 1.0
    assert "fixed_k" not in flat(SLaM())
    assert "max_k" not in flat(variants["k_rule"])


def test_a_ramp_is_asked_for_by_kind_and_start():
    method = changed(SLaM(), {"accuracy_ramp.kind": "linear", "accuracy_ramp.start": 0.0})
    assert [method.accuracy_ramp.at(p) for p in (0.0, 0.25, 1.0)] == [0.0, 0.25, 1.0]


# The theory.


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_halfspace_bound(noise):
    """Binary mixing of a sign-linear student learns a halfspace with margin from flipped labels.

    In +-1 form mix(h) = (2a - 1) h. With a = 1 - noise, SGD on the mixed disagreement keeps
    (1 - 2 noise) * average P[disagree] <= 1 / (margin sqrt(T)).
    """
    certain = torch.tensor([[0.0, -1e3]], dtype=torch.float64)
    mix = mixed(certain, [[1.0, 0.0]], 1 - noise, 2, "unnormalised")[0]
    shrink = (mix[0] - mix[1]).item()  # mix of h = +1, in +-1 form
    assert shrink == pytest.approx(1 - 2 * noise, rel=1e-12)
    dimensions, margin, steps = 20, 0.1, 8000
    rng = np.random.default_rng(0)
    normal = oracles.onehot([0], dimensions)[0]
    x = rng.normal(size=(40 * steps, dimensions))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x = x[np.abs(x @ normal) >= margin][:steps]
    y = np.sign(x @ normal) * np.where(rng.random(steps) < noise, -1.0, 1.0)
    w, disagree, rate = np.zeros(dimensions), 0, 1 / math.sqrt(steps)
    for point, label, clean in zip(x, y, np.sign(x @ normal), strict=True):
        said = 1.0 if w @ point >= 0 else -1.0
        disagree += said != clean
        w -= rate * 0.5 * (shrink * said - label) * point
    excess = (1 - 2 * noise) * disagree / steps
    assert excess <= 1 / (margin * math.sqrt(steps))
    assert 1 / (margin * math.sqrt(steps)) < 0.5 * (1 - 2 * noise), "the bound must say more than guessing does"
