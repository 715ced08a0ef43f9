"""transformers' own models, a few thousand random weights each, without a network."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import Any

QUERIES, CLASSES = 12, 4


def _transformers() -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return import_module("transformers")  # untyped: its configurations hide their arguments


def _backbone() -> Any:
    return _transformers().ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 32, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


def _detr_config(**more: Any) -> Any:
    return _transformers().DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone_config=_backbone(),
        d_model=64,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=QUERIES,
        **more,
    )


@cache
def tiny_model(name: str) -> Any:
    """`detr`, `maskformer` or `mask2former`, in evaluation mode; the same weights every time."""
    import torch

    transformers = _transformers()
    transformers.logging.set_verbosity_error()
    torch.manual_seed(1)
    if name == "detr":
        model = transformers.DetrForSegmentation(_detr_config(num_labels=CLASSES))
        with torch.no_grad():  # else it finds that there is nothing
            model.detr.class_labels_classifier.bias[-1] = -5.0
    elif name == "maskformer":
        config = transformers.MaskFormerConfig(
            backbone_config=_backbone(),
            fpn_feature_size=32,
            mask_feature_size=32,
            decoder_config=_detr_config(),
            num_labels=CLASSES,
        )
        model = transformers.MaskFormerForInstanceSegmentation(config)
    else:
        config = transformers.Mask2FormerConfig(
            backbone_config=_backbone(),
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_feedforward_dim=32,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=4,
            dim_feedforward=32,
            num_queries=QUERIES,
            num_labels=CLASSES,
        )
        model = transformers.Mask2FormerForUniversalSegmentation(config)
    return model.eval()


@cache
def post_processor(name: str) -> Any:
    """The image processor of the same model, of the kind that needs no torchvision."""
    from transformers.models.detr import image_processing_pil_detr as detr
    from transformers.models.mask2former import image_processing_pil_mask2former as mask2former
    from transformers.models.maskformer import image_processing_pil_maskformer as maskformer

    if name == "detr":
        return detr.DetrImageProcessorPil()
    if name == "maskformer":
        return maskformer.MaskFormerImageProcessorPil()
    return mask2former.Mask2FormerImageProcessorPil()


def outputs_of(name: str, seed: int = 0) -> Any:
    """What a model puts out for a random picture of 64×96 pixels."""
    import torch

    model = tiny_model(name)
    torch.manual_seed(seed)
    with torch.no_grad():
        return model(torch.randn(1, 3, 64, 96))
