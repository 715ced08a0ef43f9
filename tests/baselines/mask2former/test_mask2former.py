from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from entitybench.baselines.batch import Batch
from entitybench.baselines.configuration import load_config
from entitybench.baselines.mask2former import model as module
from entitybench.baselines.mask2former.model import FAMILY, Mask2Former, Mask2FormerConfig
from entitybench.baselines.mask2former.points import random_points, truth_at, uncertain_points
from entitybench.errors import FormatError

MakeBatch = Callable[..., Batch]


def config(name: str = "tiny", *changes: str) -> Mask2FormerConfig:
    return load_config(Mask2FormerConfig, FAMILY.package, name, changes)


def scenes(make_batch: MakeBatch, classes: int = 1) -> Batch:
    ids = torch.zeros(2, 64, 96, dtype=torch.int64)
    ids[0, :40, :50], ids[0, 30:, 40:], ids[0, 10:20, 60:90] = 1, 2, 3
    ids[1, 5:60, 3:33], ids[1, 8:16, 50:51] = 1, 3
    batch = make_batch(ids, slots=4)
    return replace(batch, labels=torch.arange(8).reshape(2, 4) % classes)


# --- points ------------------------------------------------------------------


def test_points_are_spread_evenly_and_belong_to_their_seed() -> None:
    points = random_points(torch.tensor([3, 4, 3]), 4000)
    assert torch.equal(points[0], points[2])
    assert not torch.equal(points[0], points[1])
    assert points.min() >= 0
    assert points.max() < 1
    cells = (points[0] * 4).long()
    counts = torch.bincount(cells[:, 0] * 4 + cells[:, 1], minlength=16)
    assert counts.min() > 190  # 250 expected, deviation 15
    assert counts.max() < 310
    correlation = torch.corrcoef(points[:2].reshape(2, -1))[0, 1]
    assert abs(float(correlation)) < 0.05


def test_truth_at_points_is_that_of_sampled_masks(make_batch: MakeBatch) -> None:
    batch = scenes(make_batch)
    points = random_points(torch.tensor([1, 2]), 500)
    points[:, :4] = torch.tensor([[0.0, 0.0], [0.999, 0.999], [0.5, 0.0], [0.001, 0.7]])
    slots = torch.tensor([[0, 1, 2, 3], [2, 0, 0, 1]])
    found = truth_at(batch.ids, torch.tensor([0, 1]), slots, points)
    masks = (batch.ids[:, None] == slots[:, :, None, None] + 1).float()
    expected = functional.grid_sample(masks, 2 * points[:, :, None] - 1, align_corners=False)
    torch.testing.assert_close(found, expected[..., 0], rtol=1e-4, atol=1e-4)
    assert found.max() > 0.9


def test_most_points_lie_where_a_mask_is_undecided() -> None:
    columns = torch.linspace(-8, 8, 32).expand(2, 1, 32, 32)
    points = uncertain_points(columns, torch.tensor([0, 1]), 400, 3.0, 0.75)
    assert points.shape == (2, 400, 2)
    distance = (points[..., 0] - 0.5).abs()
    # the nearest quarter of 1,200 is within 0.125; at the border maps fade to zero, undecided
    assert distance[:, :300].quantile(0.95) < 0.14
    assert distance[:, 300:].max() > 0.45
    nobody = uncertain_points(columns[:0], torch.zeros(0, dtype=torch.int64), 400, 3.0, 0.75)
    assert nobody.shape == (0, 400, 2)


# --- the loss ----------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 3])
def test_the_loss_is_that_of_transformers(
    make_batch: MakeBatch, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are given our points, in the order in which transformers asks for random numbers."""
    library = import_module("transformers.models.mask2former.modeling_mask2former")
    batch = scenes(make_batch, classes)
    settings = config("tiny", "transformer.queries=9", "points.number=64")
    generator = torch.Generator().manual_seed(7)
    logits = [torch.randn(2, 9, classes + 1, generator=generator) for _ in range(3)]
    masks = [4 * torch.randn(2, 9, 16, 24, generator=generator) for _ in range(3)]
    drawn: list[torch.Tensor] = []

    def recorded(seeds: torch.Tensor, number: int) -> torch.Tensor:
        drawn.append(random_points(seeds, number))
        return drawn[-1]

    monkeypatch.setattr(module, "random_points", recorded)
    monkeypatch.setattr("entitybench.baselines.mask2former.points.random_points", recorded)
    ours = Mask2Former(settings, classes).losses_of(logits, masks, batch)
    costs, places = drawn[:3], drawn[3:]
    queue: list[torch.Tensor] = []
    for layer in (2, 0, 1):  # theirs begins with the last
        queue += [costs[layer][:1], costs[layer][1:]]
        queue += [places[layer][:, : 64 * 3], places[layer][:, 64 * 3 :]]
    monkeypatch.setattr(torch, "rand", lambda *_, **__: queue.pop(0).contiguous())
    hidden = import_module("transformers").Mask2FormerConfig(
        num_labels=classes, train_num_points=64
    )
    loss = library.Mask2FormerLoss(hidden, {})
    between = [
        {"masks_queries_logits": m, "class_queries_logits": c}
        for m, c in zip(masks[:-1], logits[:-1], strict=True)
    ]
    there = [[n for n in (1, 2, 3) if bool((ids == n).any())] for ids in batch.ids]
    truth = [
        torch.stack([(ids == n).float() for n in numbers])
        for ids, numbers in zip(batch.ids, there, strict=True)
    ]
    labels = [batch.labels[i, [n - 1 for n in numbers]] for i, numbers in enumerate(there)]
    theirs = loss(masks[-1], logits[-1], truth, labels, between)
    assert queue == []
    for name, key, weight in (
        ("classification", "loss_cross_entropy", 2),
        ("mask", "loss_mask", 5),
        ("dice", "loss_dice", 5),
    ):
        expected = weight * sum(value for k, value in theirs.items() if k.startswith(key))
        torch.testing.assert_close(ours[name], expected, rtol=1e-4, atol=1e-5)


# --- size --------------------------------------------------------------------


def expected_parameters(classes: int, queries: int) -> int:
    """Count by hand, from the architecture of the paper; the backbone as torchvision's."""
    width, inner, outer = 256, 2048, 1024
    linear = width * width + width
    norm = 2 * width
    places = 8 * 3 * 4  # heads, levels, points
    deformable = 3 * places * (width + 1) + 2 * linear
    encoder = 6 * (deformable + 2 * width * outer + outer + width + 2 * norm)
    projections = sum(width * channels + width + norm for channels in (512, 1024, 2048))
    finest = width * 256 + norm + 9 * width * width + norm
    pixel_decoder = encoder + projections + 3 * width + finest + linear
    layer = 8 * linear + 2 * width * inner + inner + width + 3 * norm
    decoder = 9 * layer + norm + 3 * linear + 3 * width + 2 * queries * width
    return 23_508_032 + pixel_decoder + decoder + (width + 1) * (classes + 1)


def test_parameters_and_cost_are_those_of_the_original() -> None:
    # Mask2Former R50 on COCO: 44 M in its paper's Table 1
    assert expected_parameters(133, 100) == 44_036_998
    model = Mask2Former(config("mask2former_r50"), 133)
    assert sum(p.numel() for p in model.parameters()) == expected_parameters(133, 100)
    model.eval().requires_grad_(False).to("meta")
    pixels = torch.empty(1, 3, 800, 800, device="meta")
    with FlopCounterMode(display=False) as whole:
        model.dense(pixels)
    with FlopCounterMode(display=False) as encoder:
        model.backbone(pixels)
    decoder = (whole.get_total_flops() - encoder.get_total_flops()) / 2e9
    assert decoder == pytest.approx(107.54, abs=0.01)


# --- published weights -------------------------------------------------------


def published(folder: Path, backbone: Any, classes: int) -> Any:
    library = import_module("transformers")
    settings = library.Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=64,
        mask_feature_size=64,
        hidden_dim=64,
        encoder_layers=1,
        encoder_feedforward_dim=80,
        decoder_layers=3,
        dim_feedforward=96,
        num_queries=7,
        num_labels=classes,
    )
    torch.manual_seed(3)
    model = library.Mask2FormerForUniversalSegmentation(settings).eval()
    model.save_pretrained(folder)
    return model


def of_that_size(*changes: str) -> Mask2FormerConfig:
    return config(
        "tiny", "backbone.stride_in_1x1=false", "pixel_decoder.feedforward=80",
        "transformer.decoder_layers=2", "transformer.feedforward=96", "transformer.queries=7",
        "schedule.precision=float32", *changes,
    )  # fmt: skip


STAGES = ["stage1", "stage2", "stage3", "stage4"]


@pytest.mark.parametrize("name", ["r18", "swin_t"])
def test_weights_of_transformers_give_the_same_outputs(tmp_path: Path, name: str) -> None:
    library = import_module("transformers")
    backbone = (
        library.ResNetConfig(
            depths=[2, 2, 2, 2],
            layer_type="basic",
            hidden_sizes=[64, 128, 256, 512],
            out_features=STAGES,
        )
        if name == "r18"
        else library.SwinConfig(out_features=STAGES)  # its defaults are those of Swin-T
    )
    theirs = published(tmp_path, backbone, 3)
    ours = Mask2Former(of_that_size(f"backbone.name={name}"), 3).eval()
    assert set(ours.load_published(tmp_path)) <= {"criterion.empty_weight"}
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = theirs(pixels), ours.dense(pixels)
    torch.testing.assert_close(found.logits[-1], expected.class_queries_logits)
    torch.testing.assert_close(found.masks[-1], expected.masks_queries_logits)
    assert len(found.logits) == 3
    with pytest.raises(FormatError, match="other classes"):
        Mask2Former(of_that_size(f"backbone.name={name}"), 1).load_published(tmp_path)
