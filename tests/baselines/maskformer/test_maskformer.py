from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from entitybench.baselines.batch import Batch
from entitybench.baselines.configuration import load_config
from entitybench.baselines.entity.losses import dice_loss
from entitybench.baselines.maskformer.model import (
    FAMILY,
    MaskFormer,
    MaskFormerConfig,
    overlap_sum,
)
from entitybench.baselines.queries import Pairs, enlarged
from entitybench.errors import FormatError

MakeBatch = Callable[..., Batch]


def config(name: str = "tiny", *changes: str) -> MaskFormerConfig:
    return load_config(MaskFormerConfig, FAMILY.package, name, changes)


def scenes(make_batch: MakeBatch, classes: int = 1) -> Batch:
    """Two scenes of rectangles with void between them; a slot of the second is empty."""
    ids = torch.zeros(2, 64, 96, dtype=torch.int64)
    ids[0, :40, :50], ids[0, 30:, 40:], ids[0, 10:20, 60:90] = 1, 2, 3
    ids[1, 5:60, 3:33], ids[1, 8:16, 50:51] = 1, 3
    batch = make_batch(ids, slots=4)
    return replace(batch, labels=torch.arange(8).reshape(2, 4) % classes)


def outputs(
    layers: int, queries: int, classes: int, size: tuple[int, int] = (16, 24)
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(7)
    logits = [torch.randn(2, queries, classes + 1, generator=generator) for _ in range(layers)]
    masks = [4 * torch.randn(2, queries, *size, generator=generator) for _ in range(layers)]
    return logits, masks


def as_transformers_wants(batch: Batch) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    masks, labels = [], []
    for ids, names in zip(batch.ids, batch.labels, strict=True):
        numbers = [n for n in range(1, batch.num_slots + 1) if bool((ids == n).any())]
        masks.append(torch.stack([(ids == n).float() for n in numbers]))
        labels.append(names[[n - 1 for n in numbers]])
    return masks, labels


@pytest.mark.parametrize("classes", [1, 3])
def test_the_loss_is_that_of_transformers(make_batch: MakeBatch, classes: int) -> None:
    library = import_module("transformers.models.maskformer.modeling_maskformer")
    batch, settings = scenes(make_batch, classes), config("tiny", "transformer.queries=9")
    logits, masks = outputs(3, 9, classes)
    matcher = library.MaskFormerHungarianMatcher(cost_class=1.0, cost_mask=20.0, cost_dice=1.0)
    settings = replace(settings, loss=replace(settings.loss, classification=1, mask=20, dice=1))
    loss = library.MaskFormerLoss(classes, matcher, {}, eos_coef=0.1)
    between = [
        {"masks_queries_logits": m, "class_queries_logits": c}
        for m, c in zip(masks[:-1], logits[:-1], strict=True)
    ]
    theirs = loss(masks[-1], logits[-1], *as_transformers_wants(batch), between)
    ours = MaskFormer(settings, classes).losses_of(logits, masks, batch)
    for name, key, weight in (
        ("classification", "loss_cross_entropy", 1),
        ("mask", "loss_mask", 20),
        ("dice", "loss_dice", 1),
    ):
        expected = weight * sum(value for k, value in theirs.items() if k.startswith(key))
        torch.testing.assert_close(ours[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "both"])
def test_overlap_suppression_is_that_of_a_loop(make_batch: MakeBatch, kind: str) -> None:
    batch = scenes(make_batch)
    pairs = Pairs(
        torch.tensor([0, 0, 0, 1, 1]), torch.tensor([1, 4, 5, 0, 2]), torch.tensor([2, 0, 1, 0, 2])
    )
    _, [masks] = outputs(1, 6, 1)
    total = torch.zeros(())
    for image in range(2):
        own = [(q, s) for i, q, s in zip(*(t.tolist() for t in pairs), strict=True) if i == image]
        rivals = enlarged(masks[image, [q for q, _ in own]], (64, 96))
        for activation in ("softmax", "sigmoid"):
            if kind not in (activation, "both"):
                continue
            won = rivals.softmax(0) if activation == "softmax" else rivals.sigmoid()
            won = won * (batch.ids[image] > 0)
            for row, (_, slot) in enumerate(own):
                share = 0.5 if kind == "both" else 1.0
                total = total + share * dice_loss(won[row], batch.ids[image] == slot + 1)
    torch.testing.assert_close(overlap_sum(masks, batch, pairs, kind), total)


def test_overlap_suppression_is_one_more_term(make_batch: MakeBatch) -> None:
    batch = scenes(make_batch)
    with_it = MaskFormer(config("tiny_overlap")).train()(batch)
    assert list(with_it) == ["classification", "mask", "dice", "overlap"]
    assert 0 < float(with_it["overlap"].detach()) < 1
    empty = make_batch(torch.zeros(1, 64, 64, dtype=torch.int64), slots=1)
    assert float(MaskFormer(config("tiny_overlap"))(empty)["overlap"].detach()) == 0


def expected_parameters(classes: int, queries: int) -> int:
    """Count by hand, from the architecture of the papers.

    The backbone is torchvision's ResNet-50 without its classifier: 25,557,032 - 2,049,000.
    """
    width, inner = 256, 2048
    attention = 4 * (width * width + width)
    feedforward = 2 * width * inner + inner + width
    norm = 2 * width
    decoder = 6 * (2 * attention + feedforward + 3 * norm) + norm
    laterals = sum(width * channels + norm for channels in (256, 512, 1024))
    convolution = 9 * width * width + norm
    pyramid = 9 * width * 2048 + norm + laterals + 3 * convolution
    mask_features = 9 * width * width + width
    heads = width * (classes + 1) + classes + 1 + 3 * (width * width + width)
    projection = 2048 * width + width
    return 23_508_032 + pyramid + mask_features + projection + decoder + queries * width + heads


def test_parameters_and_cost_are_those_of_the_original() -> None:
    # MaskFormer R50 with 150 classes: 41 M in its paper's Table 1
    assert expected_parameters(150, 100) == 41_307_863
    model = MaskFormer(config("maskformer_r50"), 150)
    assert sum(p.numel() for p in model.parameters()) == expected_parameters(150, 100)
    decoder = decoder_gigamacs(model)
    assert decoder == pytest.approx(70.29, abs=0.01)


def decoder_gigamacs(model: Any) -> float:
    """Return multiplications at 800×800 pixels without the backbone, in 10⁹."""
    model.eval().requires_grad_(False).to("meta")
    pixels = torch.empty(1, 3, 800, 800, device="meta")
    with FlopCounterMode(display=False) as whole:
        model.dense(pixels)
    with FlopCounterMode(display=False) as encoder:
        model.backbone(pixels)
    return float(whole.get_total_flops() - encoder.get_total_flops()) / 2e9


# --- published weights -------------------------------------------------------


def published(folder: Path, classes: int) -> Any:
    """Write transformers' own model on a ResNet-18, random weights, and return it."""
    library = import_module("transformers")
    backbone = library.ResNetConfig(
        depths=[2, 2, 2, 2],
        layer_type="basic",
        hidden_sizes=[64, 128, 256, 512],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    decoder = library.DetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        d_model=64,
        decoder_layers=2,
        decoder_ffn_dim=96,
        num_queries=7,
    )
    settings = library.MaskFormerConfig(
        backbone_config=backbone,
        decoder_config=decoder,
        fpn_feature_size=64,
        mask_feature_size=64,
        num_labels=classes,
    )
    torch.manual_seed(3)
    model = library.MaskFormerForInstanceSegmentation(settings).eval()
    model.save_pretrained(folder)
    return model


def of_that_size(*changes: str) -> MaskFormerConfig:
    return config(
        "tiny", "backbone.name=r18", "backbone.stride_in_1x1=false", "features=64",
        "transformer.decoder_layers=2", "transformer.feedforward=96", "transformer.queries=7",
        "schedule.precision=float32", *changes,
    )  # fmt: skip


def test_weights_of_transformers_give_the_same_outputs(tmp_path: Path) -> None:
    theirs = published(tmp_path, 3)
    ours = MaskFormer(of_that_size(), 3).eval()
    unused = ours.load_published(tmp_path)
    assert set(unused) <= {"criterion.empty_weight"}
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = theirs(pixels), ours.dense(pixels)
    torch.testing.assert_close(found.logits[-1], expected.class_queries_logits)
    torch.testing.assert_close(found.masks[-1], expected.masks_queries_logits)
    assert len(found.logits) == 2


def test_names_of_any_version_are_known(tmp_path: Path) -> None:
    """Files on the hub have `fc1`, `out_proj`; newer ones may have `mlp.fc1`, `o_proj`."""
    theirs = published(tmp_path, 1)
    in_file, in_memory = load_file(tmp_path / "model.safetensors"), theirs.state_dict()
    assert set(in_file) != set(in_memory)
    newer = {name: tensor.clone() for name, tensor in in_memory.items()}
    save_file(newer, tmp_path / "newer.safetensors")
    older, ours = MaskFormer(of_that_size()), MaskFormer(of_that_size())
    older.load_published(tmp_path)
    ours.load_published(tmp_path / "newer.safetensors")
    for name, tensor in older.state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[name])


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    published(tmp_path, 3)
    with pytest.raises(FormatError, match="other classes") as caught:
        MaskFormer(of_that_size(), 1).load_published(tmp_path)
    assert any("(4, 64) there, (2, 64) here" in place for place in caught.value.where)
    with pytest.raises(FormatError, match="are not in"):
        MaskFormer(of_that_size("transformer.decoder_layers=3"), 3).load_published(tmp_path)
    with pytest.raises(FormatError, match="another shape"):
        MaskFormer(of_that_size("transformer.queries=8"), 3).load_published(tmp_path)
    with pytest.raises(FormatError, match="other pixels"):
        MaskFormer(of_that_size("backbone.pixels=caffe"), 3).load_published(tmp_path)
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(FormatError, match="are not in"):  # another architecture's file
        MaskFormer(of_that_size(), 3).load_published(tmp_path / "other.safetensors")
