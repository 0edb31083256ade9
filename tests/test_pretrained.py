"""Networks of the transformers library: what they compute, what is read from checkpoints, and what is refused."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from tests.small_networks import needs_models
from trainables.models.albert import ALBERT
from trainables.models.bert import BERT
from trainables.models.imagenet import ImageNet
from trainables.network import PENULTIMATE
from trainables.pretrained import fitted

SMALL = {"vocab_size": 50, "num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512}
TINY = BERT(size="tiny", vocabulary=50)
TOKENS = torch.tensor([[7, 3, 9, 0, 0], [4, 8, 1, 2, 6], [0, 0, 0, 0, 0]])
ATTENDED = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
"""Padding is not, except for a first token, since something must be."""


def on_meta(family, shape, classes):
    with torch.device("meta"):
        return family.build(shape, classes)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("family", [ImageNet(), BERT(), ALBERT()], ids=lambda family: type(family).__name__)
def test_without_the_extra(family, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=rf"{type(family).__name__} needs the package transformers.*pip install 'kdsweep\[models\]'"):
        family.build((64,) if isinstance(family, BERT | ALBERT) else (3, 64, 64), 10)


@pytest.mark.parametrize(("family", "shape"), [(BERT(), (3, 8, 8)), (ALBERT(), (513,)), (BERT(), (0,))])
def test_inputs_that_are_no_text(family, shape):
    with pytest.raises(
        ValueError, match=rf"{type(family).__name__} needs inputs \(L,\) of at most 512 token ids, but got shape=\({shape[0]},"
    ):
        family.build(shape, 2)


@pytest.mark.parametrize("shape", [(3, 33, 32), (8,), (3, 16, 16)])
def test_pictures_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"ImageNet needs inputs \(C, H, W\) with H and W of at least 32 and multiples of 32"):
        ImageNet().build(shape, 2)


# torchvision's documentation of its weights, num_params; mobilenetv1 is that of github.com/osmr/imgclsmob.
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "mobilenetv1": 4_231_976,
    "mobilenetv2": 3_504_872,
    "efficientnet_b0": 5_288_548,
}


@needs_models
@pytest.mark.parametrize("network", PUBLISHED)
def test_published_counts_of_imagenet(network):
    assert count(on_meta(ImageNet(network=network), (3, 224, 224), 1000)) == PUBLISHED[network]


@needs_models
def test_published_counts_of_text():
    """Of the encoder with its pooler, as printed in public for bert-base-uncased and albert-base-v2; in millions by the papers."""
    assert count(on_meta(BERT(), (8,), 2)) - 2 * 769 == 109_482_240
    assert count(on_meta(ALBERT(), (8,), 2)) - 2 * 769 == 11_683_584
    # Lan et al. 2020, table 1; Turc et al. 2019, table 1, which counts the heads of pre-training: a layer, a norm, two classifiers.
    assert round((count(on_meta(ALBERT(size="large"), (8,), 2)) - 2 * 1025) / 1e6) == 18
    for size, width, millions in (
        ("tiny", 128, "4.4"),
        ("mini", 256, "11.3"),
        ("small", 512, "29.1"),
        ("medium", 512, "41.7"),
        ("base", 768, "110.1"),
    ):
        heads = width * width + 3 * width + 30522 + 2 * (width + 1)
        assert f"{(count(on_meta(BERT(size=size), (8,), 2)) - 2 * (width + 1) + heads) / 1e6:.1f}" == millions


MAPS = {  # from the layer tables of the papers, at 224x224
    "resnet18": [(64, 56), (64, 56), (128, 28), (256, 14), (512, 7)],
    "resnet50": [(64, 56), (256, 56), (512, 28), (1024, 14), (2048, 7)],
    "mobilenetv1": [(64, 112), (128, 56), (256, 28), (512, 14), (1024, 7)],
    "mobilenetv2": [(16, 112), (24, 56), (32, 28), (96, 14), (320, 7)],
    "efficientnet_b0": [(16, 112), (24, 56), (40, 28), (112, 14), (320, 7)],
}


@needs_models
@pytest.mark.parametrize("name", MAPS)
def test_stages_are_where_the_resolution_halves(name):
    network = on_meta(ImageNet(network=name), (3, 224, 224), 10)
    with torch.device("meta"):
        found = network.eval()(torch.empty(1, 3, 224, 224), network.stages)
    assert [(value.shape[1], value.shape[2]) for value in found.features.values()] == MAPS[name]


@needs_models
@pytest.mark.parametrize(
    ("name", "kind"),
    [("resnet18", "ResNet"), ("mobilenetv1", "MobileNetV1"), ("mobilenetv2", "MobileNetV2"), ("efficientnet_b0", "EfficientNet")],
)
def test_it_computes_what_the_library_computes(name, kind, tmp_path):
    """By way of a checkpoint that the library itself wrote, its batch norms not at their start."""
    import transformers

    torch.manual_seed(0)
    width = 0.5 if name.startswith("mobile") else 1.0
    family = ImageNet(network=name, width=width)
    settings = family._configuration()[1]
    library = getattr(transformers, f"{kind}ForImageClassification")(
        getattr(transformers, f"{kind}Config")(num_labels=4, **settings)
    ).eval()
    for module in library.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.001, 0.01)
    library.save_pretrained(tmp_path)
    inputs = torch.rand(2, 3, 64, 64)
    network = ImageNet(network=name, width=width, weights=str(tmp_path)).build((3, 64, 64), 4).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(inputs).logits, library(inputs).logits, rtol=1e-4, atol=1e-6)
        drawn = family.build((3, 64, 64), 4).eval()
        assert not torch.equal(drawn(inputs).logits, network(inputs).logits)


@needs_models
@pytest.mark.parametrize("kind", ["Bert", "Albert"])
def test_text_is_read_as_the_library_reads_it(kind, tmp_path):
    import transformers

    torch.manual_seed(0)
    if kind == "Bert":
        family = BERT(size="tiny", vocabulary=50, weights=str(tmp_path))
        configuration = transformers.BertConfig(num_labels=3, **SMALL)
    else:
        family = ALBERT(vocabulary=50, weights=str(tmp_path))
        configuration = transformers.AlbertConfig(
            num_labels=3, vocab_size=50, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072
        )
    library = getattr(transformers, f"{kind}ForSequenceClassification")(configuration).eval()
    library.save_pretrained(tmp_path)
    network = family.build((5,), 3).eval()
    with torch.no_grad():
        expected = library(TOKENS, attention_mask=ATTENDED, output_hidden_states=True)
        found = network(TOKENS, (*network.stages, PENULTIMATE))
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-6)
    for stage, hidden in zip(network.stages, expected.hidden_states[1:], strict=True):
        torch.testing.assert_close(found.features[stage], hidden[:, 0], rtol=1e-4, atol=1e-5)


@needs_models
def test_padding_is_not_read():
    torch.manual_seed(0)
    network = TINY.build((5,), 2).eval()
    with torch.no_grad():
        logits = network(TOKENS).logits
        torch.testing.assert_close(network(TOKENS[:1, :3]).logits, logits[:1])
        assert not torch.allclose(network(torch.tensor([[7, 3, 9, 5, 5]])).logits, logits[:1], atol=1e-4)


@needs_models
def test_drawn_weights_are_torchvisions():
    """He's sqrt(2 / (k^2 outputs)); scales of batch norm 1; U(-b, b) with b = 1 / sqrt(classes), whose deviation is b / sqrt(3)."""
    torch.manual_seed(0)
    network = ImageNet(network="efficientnet_b0", dropout=0.3).build((3, 64, 64), 10)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() and norm.momentum == 0.1 for norm in norms)
    assert network.tail[0].weight.std().item() == pytest.approx((2 / 1280) ** 0.5, rel=0.02)
    assert network.head.weight.std().item() == pytest.approx((1 / 30) ** 0.5, rel=0.02)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout) and m.p > 0] == [0.3]
    mobile = ImageNet(network="mobilenetv1", width=0.5).build((3, 64, 64), 10)
    assert mobile.head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert {m.momentum for m in mobile.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
    assert not [m for m in mobile.modules() if isinstance(m, nn.Dropout)]


@needs_models
def test_dropout_is_the_familys_not_the_checkpoints(tmp_path):
    import transformers

    transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=2, hidden_dropout_prob=0.7, **SMALL)).save_pretrained(
        tmp_path
    )
    network = BERT(size="tiny", vocabulary=50, dropout=0.25, weights=str(tmp_path)).build((5,), 2)
    assert {module.p for module in network.modules() if isinstance(module, nn.Dropout)} == {0.25}
    assert all(module.training for module in network.modules())


@needs_models
def test_a_checkpoint_without_classifier_gets_one(tmp_path):
    import transformers

    torch.manual_seed(0)
    body = transformers.BertModel(transformers.BertConfig(**SMALL))
    body.save_pretrained(tmp_path)
    network = BERT(size="tiny", vocabulary=50, weights=str(tmp_path)).build((5,), 3)
    assert network.head.weight.shape == (3, 128)
    assert torch.equal(network.embeddings.word_embeddings.weight, body.embeddings.word_embeddings.weight)


def test_classifiers_that_fit_are_kept():
    torch.manual_seed(0)
    head = nn.Linear(3, 5)
    assert fitted(head, 5) is head
    assert torch.equal(fitted(head, 4, has_background=True).weight, head.weight[1:])
    assert torch.equal(fitted(head, 4, has_background=True).bias, head.bias[1:])
    assert not torch.equal(fitted(head, 4).weight, head.weight[1:])
    assert fitted(head, 7, has_background=True).weight.shape == (7, 3)


class Payload:
    """What a malicious pickle does when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@needs_models
def test_pickles_are_not_read(tmp_path):
    import transformers

    folder, mark = tmp_path / "model", tmp_path / "mark"
    transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=2, **SMALL)).save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"classifier.weight": Payload(mark)}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"BERT needs weights to be a folder with config\.json and model\.safetensors"):
        BERT(size="tiny", vocabulary=50, weights=str(folder)).build((5,), 2)
    assert not mark.exists()


@needs_models
def test_checkpoints_that_do_not_fit(tmp_path):
    import transformers

    empty, other = tmp_path / "empty", tmp_path / "other"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"BERT needs weights to be a folder with config\.json.*'.*empty'"):
        BERT(weights=str(empty)).build((5,), 2)
    transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=2, **SMALL)).save_pretrained(other)
    with pytest.raises(ValueError, match=r"ALBERT needs weights of a albert, but got weights='.*other' of a bert"):
        ALBERT(weights=str(other)).build((5,), 2)
    with pytest.raises(
        ValueError, match=r"with num_hidden_layers=4, but got weights='.*other' with num_hidden_layers=2\. Change the family's fields"
    ):
        BERT(size="mini", vocabulary=50, weights=str(other)).build((5,), 2)


@needs_models
def test_a_checkpoint_that_lacks_layers(tmp_path):
    import transformers
    from safetensors.torch import load_file, save_file

    transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=2, **SMALL)).save_pretrained(tmp_path)
    kept = {name: value for name, value in load_file(tmp_path / "model.safetensors").items() if "layer.1" not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"BERT needs weights for all of its layers, but got weights='.*' without 16, bert\.encoder\.layer\.1"
    ):
        BERT(size="tiny", vocabulary=50, weights=str(tmp_path)).build((5,), 2)
