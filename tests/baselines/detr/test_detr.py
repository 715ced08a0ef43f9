from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from entitybench.baselines.batch import Batch, Images
from entitybench.baselines.configuration import load_config
from entitybench.baselines.detr.boxes import (
    box_costs,
    corners,
    generalised_iou,
    normalised_boxes,
)
from entitybench.baselines.detr.model import FAMILY, Detr, DetrConfig
from entitybench.baselines.detr.original import COCO_ROWS
from entitybench.errors import FormatError

MakeBatch = Callable[..., Batch]


def config(name: str = "tiny", *changes: str) -> DetrConfig:
    return load_config(DetrConfig, FAMILY.package, name, changes)


def scenes(make_batch: MakeBatch, classes: int = 1) -> Batch:
    """Two scenes, the second one smaller than the canvas."""
    ids = torch.zeros(2, 64, 96, dtype=torch.int64)
    ids[0, :40, :50], ids[0, 30:, 40:], ids[0, 10:20, 60:90] = 1, 2, 3
    ids[1, 5:48, 3:33], ids[1, 8:16, 50:51] = 1, 3
    batch = make_batch(ids, slots=4)
    sizes = torch.tensor([[64, 96], [48, 80]])
    images = Images(batch.images.pixels, sizes)
    pixels = images.pixels * images.inside
    labels = torch.arange(8).reshape(2, 4) % classes
    return replace(batch, images=Images(pixels, sizes), labels=labels)


# --- boxes -------------------------------------------------------------------


def test_boxes_by_hand() -> None:
    boxes = torch.tensor([[[10.0, 5.0, 30.0, 45.0]]])
    found = normalised_boxes(boxes, torch.tensor([[50, 40]]))
    assert found[0, 0].tolist() == pytest.approx([0.5, 0.5, 0.5, 0.8])
    assert corners(found)[0, 0].tolist() == pytest.approx([0.25, 0.1, 0.75, 0.9])


def test_generalised_iou_by_hand() -> None:
    square = torch.tensor([0.0, 0.0, 2.0, 2.0])
    half = torch.tensor([1.0, 0.0, 3.0, 2.0])
    away = torch.tensor([3.0, 0.0, 4.0, 2.0])
    assert float(generalised_iou(square, square)) == pytest.approx(1)
    assert float(generalised_iou(square, half)) == pytest.approx(2 / 6)
    assert float(generalised_iou(square, away)) == pytest.approx(-2 / 8)
    point = torch.zeros(4)
    assert float(generalised_iou(point, point)) == 0


def test_costs_of_boxes_are_those_of_each_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes, truth = (
        torch.rand(2, 5, 4, generator=generator),
        torch.rand(2, 3, 4, generator=generator),
    )
    distance, giou = box_costs(boxes, truth)
    library = import_module("transformers.loss.loss_for_object_detection")
    for image in range(2):
        for q in range(5):
            for g in range(3):
                slow = (boxes[image, q] - truth[image, g]).abs().sum()
                assert float(distance[image, q, g]) == pytest.approx(float(slow), rel=1e-4)
        theirs = library.generalized_box_iou(corners(boxes[image]), corners(truth[image]))
        torch.testing.assert_close(-giou[image], theirs, rtol=1e-4, atol=1e-5)


# --- the loss ----------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 3])
def test_the_loss_is_that_of_transformers(make_batch: MakeBatch, classes: int) -> None:
    library = import_module("transformers.loss.loss_for_object_detection")
    batch = scenes(make_batch, classes)
    torch.manual_seed(0)
    model = Detr(config("tiny", "schedule.precision=float32"), classes).eval()
    with torch.no_grad():
        ours = model.losses(batch)
        outputs = model.dense(model.pixels_of(batch.images))
        masks = model.masks(outputs, outputs.queries)
    targets = []
    for ids, labels, size in zip(batch.ids, batch.labels, batch.images.sizes, strict=True):
        numbers = [n for n in (1, 2, 3) if bool((ids == n).any())]
        boxes = []
        for n in numbers:
            y, x = (ids == n).nonzero(as_tuple=True)
            low = torch.stack([x.min() / size[1], y.min() / size[0]])
            high = torch.stack([(x.max() + 1) / size[1], (y.max() + 1) / size[0]])
            boxes.append(torch.cat([(low + high) / 2, high - low]))
        targets.append(
            {
                "class_labels": labels[[n - 1 for n in numbers]],
                "boxes": torch.stack(boxes),
                "masks": torch.stack([(ids == n).float() for n in numbers]),
            }
        )
    matcher = library.HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    loss = library.ImageLoss(matcher, classes, 0.1, ["labels", "boxes", "masks"])
    between = [
        {"logits": c, "pred_boxes": b}
        for c, b in zip(outputs.logits[:-1], outputs.boxes[:-1], strict=True)
    ]
    theirs = loss(
        {
            "logits": outputs.logits[-1],
            "pred_boxes": outputs.boxes[-1],
            "pred_masks": masks,
            "auxiliary_outputs": between,
        },
        targets,
    )
    for name, key, weight in (
        ("classification", "loss_ce", 1),
        ("boxes", "loss_bbox", 5),
        ("giou", "loss_giou", 2),
        ("mask", "loss_mask", 1),
        ("dice", "loss_dice", 1),
    ):
        expected = weight * sum(value for k, value in theirs.items() if k.startswith(key))
        torch.testing.assert_close(ours[name], expected, rtol=1e-4, atol=1e-5)


def test_a_mask_does_not_depend_on_the_other_queries(make_batch: MakeBatch) -> None:
    model = Detr(config("tiny", "schedule.precision=float32")).eval()
    with torch.no_grad():
        outputs = model.dense(model.pixels_of(scenes(make_batch).images))
        every = model.masks(outputs, outputs.queries)
        some = model.masks(outputs, outputs.queries[:, [7, 2]])
    torch.testing.assert_close(some, every[:, [7, 2]], rtol=1e-4, atol=1e-5)


def test_boxes_are_in_pixels_of_their_own_image(make_batch: MakeBatch) -> None:
    model = Detr(config("tiny", "schedule.precision=float32")).eval()
    images = scenes(make_batch).images
    found = model.candidates(images)
    with torch.no_grad():
        outputs = model.dense(model.pixels_of(images))
    x, y, width, height = outputs.boxes[-1][1].unbind(-1)
    low = torch.stack([(x - width / 2) * 80, (y - height / 2) * 48], -1)
    order = outputs.logits[-1][1].softmax(-1)[:, 0].argsort(descending=True, stable=True)
    torch.testing.assert_close(found.boxes[1, :, :2], low[order], rtol=1e-4, atol=1e-3)


# --- size --------------------------------------------------------------------

WIDTH, INNER = 256, 2048


def transformer_and_heads(classes: int) -> int:
    """Count by hand: DETR without backbone and mask head."""
    linear = WIDTH * WIDTH + WIDTH
    attention, norm = 4 * linear, 2 * WIDTH
    feedforward = 2 * WIDTH * INNER + INNER + WIDTH
    encoder = 6 * (attention + feedforward + 2 * norm)
    decoder = 6 * (2 * attention + feedforward + 3 * norm) + norm
    heads = (WIDTH + 1) * (classes + 1) + 2 * linear + (WIDTH + 1) * 4
    return encoder + decoder + heads + 100 * WIDTH + 2048 * WIDTH + WIDTH


def mask_head() -> int:
    """Count by hand: attention maps, five convolutions with norms, three adapters, the last."""
    sizes = [(264, 264), (264, 128), (128, 64), (64, 32), (32, 16)]
    convolutions = sum(9 * a * b + b + 2 * b for a, b in sizes)
    adapters = sum(a * b + b for a, b in ((1024, 128), (512, 64), (256, 32)))
    return 2 * (WIDTH * WIDTH + WIDTH) + convolutions + adapters + 9 * 16 + 1


def test_parameters_are_those_of_the_original() -> None:
    # The original's log of R50 prints 41,302,368: stem and first stage frozen, norms not counted.
    # Convolutions of res3 to res5 have 23,232,512 weights.
    assert 23_232_512 + transformer_and_heads(91) == 41_302_368
    model = Detr(config("detr_r50"), 91)
    norms = [
        p
        for m in model.backbone.modules()
        if isinstance(m, torch.nn.BatchNorm2d)
        for p in m.parameters()
    ]
    assert not any(p.requires_grad for p in norms)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == 41_302_368 + mask_head()
    whole = sum(p.numel() for p in model.parameters())
    assert whole == 23_508_032 + transformer_and_heads(91) + mask_head()


@pytest.mark.slow
def test_cost_of_the_decoder_at_800_pixels() -> None:
    model = Detr(config("detr_r50"), 250).eval().requires_grad_(False)
    pixels = torch.ones(1, 4, 800, 800)
    with FlopCounterMode(display=False) as whole:
        outputs = model.dense(pixels)
        model.masks(outputs, outputs.queries)
    with FlopCounterMode(display=False) as encoder:
        model.backbone(pixels[:, :3])
    decoder = (whole.get_total_flops() - encoder.get_total_flops()) / 2e9
    assert decoder == pytest.approx(219.17, abs=0.01)


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
    settings = library.DetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=96,
        decoder_ffn_dim=96,
        num_queries=7,
        num_labels=classes,
    )
    torch.manual_seed(3)
    model = library.DetrForSegmentation(settings).eval()
    model.save_pretrained(folder)
    return model


def of_that_size(*changes: str) -> DetrConfig:
    return config(
        "tiny", "backbone.name=r18", "backbone.stride_in_1x1=false", "transformer.queries=7",
        "transformer.decoder_layers=2", "transformer.feedforward=96",
        "schedule.precision=float32", *changes,
    )  # fmt: skip


def test_weights_of_transformers_give_the_same_outputs(
    make_batch: MakeBatch, tmp_path: Path
) -> None:
    theirs = published(tmp_path, 3)
    ours = Detr(of_that_size(), 3).eval()
    assert ours.load_published(tmp_path) == []
    images = scenes(make_batch).images
    with torch.no_grad():
        found = ours.dense(ours.pixels_of(images))
        masks = ours.masks(found, found.queries)
        inside = images.inside[:, 0].long()
        expected = theirs(ours.normalised(images), pixel_mask=inside)
    torch.testing.assert_close(found.logits[-1], expected.logits)
    torch.testing.assert_close(found.boxes[-1], expected.pred_boxes)
    torch.testing.assert_close(masks, expected.pred_masks, rtol=1e-4, atol=1e-4)


TO_ORIGINAL = (
    (r"^detr\.model\.backbone\.(conv_encoder\.)?model\.", "detr.backbone.0.body."),
    (r"^detr\.model\.query_position_embeddings\.", "detr.query_embed."),
    (r"^detr\.model\.input_projection\.", "detr.input_proj."),
    (r"^detr\.model\.(encoder|decoder)\.", r"detr.transformer.\1."),
    (r"decoder\.layernorm\.", "decoder.norm."),
    (r"^detr\.class_labels_classifier\.", "detr.class_embed."),
    (r"^detr\.bbox_predictor\.", "detr.bbox_embed."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.encoder_attn_layer_norm\.", ".norm2."),
    (r"(encoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm2."),
    (r"(decoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm3."),
    (r"\.encoder_attn\.", ".multihead_attn."),
    (r"(layers\.\d+)\.fc([12])\.", r"\1.linear\2."),
    (r"embedder\.embedder\.convolution\.", "conv1."),
    (r"embedder\.embedder\.normalization\.", "bn1."),
    (r"encoder\.stages\.(\d)\.layers\.(\d)\.shortcut\.convolution\.", r"layer\1.\2.downsample.0."),
    (
        r"encoder\.stages\.(\d)\.layers\.(\d)\.shortcut\.normalization\.",
        r"layer\1.\2.downsample.1.",
    ),
    (r"encoder\.stages\.(\d)\.layers\.(\d)\.layer\.(\d)\.convolution\.", r"layer\1.\2.conv\3+."),
    (r"encoder\.stages\.(\d)\.layers\.(\d)\.layer\.(\d)\.normalization\.", r"layer\1.\2.bn\3+."),
)


def original(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Write a file of transformers as the original code would: joint attention, its own names."""
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in TO_ORIGINAL:
            new = re.sub(pattern, replacement, new)
        new = re.sub(r"layer(\d)\.(\d)\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.", new)
        new = re.sub(r"(conv|bn)(\d)\+", lambda m: f"{m[1]}{int(m[2]) + 1}", new)
        if "num_batches_tracked" not in new:
            renamed[new] = tensor
    joint = dict(renamed)
    for name in renamed:
        if ".q_proj." in name and "bbox" not in name:
            parts = [renamed[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            joint[name.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
            for part in "qkv":
                del joint[name.replace(".q_proj.", f".{part}_proj.")]
    return joint


def test_the_original_file_is_read(tmp_path: Path) -> None:
    published(tmp_path, 3)
    in_file = load_file(tmp_path / "model.safetensors")
    state = original(in_file)
    # names as in detr-r50-panoptic-00ce5173.pth
    for name in (
        "detr.transformer.encoder.layers.0.self_attn.in_proj_weight",
        "detr.transformer.encoder.layers.1.norm2.bias",
        "detr.transformer.decoder.layers.1.multihead_attn.out_proj.weight",
        "detr.transformer.decoder.layers.0.norm3.weight",
        "detr.transformer.decoder.layers.0.linear1.weight",
        "detr.transformer.decoder.norm.weight",
        "detr.class_embed.weight",
        "detr.bbox_embed.layers.2.bias",
        "detr.query_embed.weight",
        "detr.input_proj.weight",
        "detr.backbone.0.body.layer2.0.downsample.1.running_var",
        "bbox_attention.q_linear.weight",
        "mask_head.lay1.weight",
        "mask_head.gn5.bias",
        "mask_head.adapter3.weight",
        "mask_head.out_lay.bias",
    ):
        assert name in state
    torch.save({"model": state}, tmp_path / "detr.pth")
    mine, theirs = Detr(of_that_size(), 3), Detr(of_that_size(), 3)
    mine.load_published(tmp_path / "detr.pth")
    theirs.load_published(tmp_path)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(mine.state_dict()[name], tensor), name


def test_classes_of_coco_are_picked_by_their_numbers(tmp_path: Path) -> None:
    theirs = published(tmp_path, 250)
    ours = Detr(of_that_size(), 133)
    ours.load_published(tmp_path)
    rows = theirs.detr.class_labels_classifier.weight.detach()
    found = ours.class_labels_classifier.weight.detach()
    assert torch.equal(found[0], rows[1])  # person
    assert torch.equal(found[79], rows[90])  # toothbrush
    assert torch.equal(found[80], rows[92])  # banner
    assert torch.equal(found[132], rows[200])  # rug
    assert torch.equal(found[133], rows[250])  # nothing
    with pytest.raises(FormatError, match="other classes"):
        Detr(of_that_size(), 132).load_published(tmp_path)


def test_numbers_of_coco_are_those_of_its_files(realdata: Path) -> None:
    import json

    path = realdata / "coco_panoptic" / "panoptic_coco_categories.json"
    numbers = [c["id"] for c in json.loads(path.read_text(encoding="utf-8"))]
    assert numbers == list(COCO_ROWS[:-1])
