"""Names of DETR's weights, in transformers' files and in the original `.pth`."""

from __future__ import annotations

from entitybench.baselines.queries import encoder_rules
from entitybench.baselines.renaming import Rule
from entitybench.baselines.weights import State

_STAGE = r"mask_head.fpn_stages."

RULES: tuple[Rule, ...] = (
    # the backbone, in transformers now and earlier, and in the original
    *encoder_rules("detr.model.backbone.model."),
    *encoder_rules("detr.model.backbone.conv_encoder.model."),
    *encoder_rules("detr.backbone.0.body."),
    # the original
    (r"^detr\.transformer\.decoder\.norm\.", "decoder.layernorm."),
    (r"^detr\.transformer\.", ""),
    (r"^detr\.class_embed\.", "class_labels_classifier."),
    (r"^detr\.bbox_embed\.", "bbox_predictor."),
    (r"^detr\.query_embed\.", "query_position_embeddings."),
    (r"^detr\.input_proj\.", "input_projection."),
    (r"^(encoder\..*|decoder\..*)\.multihead_attn\.", r"\1.encoder_attn."),
    (r"^(encoder\..*)\.norm2\.", r"\1.final_layer_norm."),
    (r"^(decoder\..*)\.norm2\.", r"\1.encoder_attn_layer_norm."),
    (r"^(decoder\..*)\.norm3\.", r"\1.final_layer_norm."),
    (r"^(encoder\..*|decoder\..*)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"^(encoder\..*|decoder\..*)\.linear([12])\.", r"\1.mlp.fc\2."),
    # transformers, now and earlier
    (r"^detr\.model\.", ""),
    (r"^detr\.", ""),
    (r"^(encoder\..*|decoder\..*)\.out_proj\.", r"\1.o_proj."),
    (r"(\.layers\.\d+)\.(fc[12])\.", r"\1.mlp.\2."),
    (r"^bbox_attention\.([qk])_linear\.", r"bbox_attention.\1_proj."),
    (r"^mask_head\.lay([12])\.", r"mask_head.conv\1.conv."),
    (r"^mask_head\.gn([12])\.", r"mask_head.conv\1.norm."),
    (r"^mask_head\.adapter(\d)\.", lambda m: f"{_STAGE}{int(m[1]) - 1}.fpn_adapter."),
    (r"^mask_head\.lay([345])\.", lambda m: f"{_STAGE}{int(m[1]) - 3}.refine.conv."),
    (r"^mask_head\.gn([345])\.", lambda m: f"{_STAGE}{int(m[1]) - 3}.refine.norm."),
    (r"^mask_head\.out_lay\.", "mask_head.output_conv."),
)


# COCO's numbers of the 133 panoptic classes, in their order; the published classifier has one
# row for each number up to 249 and one for nothing
_THINGS = sorted({*range(1, 91)} - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
_STUFF = (
    92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145, 147,
    148, 149, 151, 154, 155, 156, 159, 161, 166, 168, 171, 175, 176, 177, 178, 180, 181,
)  # fmt: skip
_MERGED = range(184, 201)
COCO_ROWS = (*_THINGS, *_STUFF, *_MERGED, 250)
_PUBLISHED_ROWS = 251


def coco_rows(state: State, rows: int) -> State:
    """Pick COCO's classes from a classifier of all numbers, if the model has just these.

    Args:
        state: A file's weights.
        rows: Of the model's classifier.
    """
    names = ("detr.class_embed.", "detr.class_labels_classifier.")
    picked = dict(state)
    for name, tensor in state.items():
        if name.startswith(names) and len(tensor) == _PUBLISHED_ROWS and rows == len(COCO_ROWS):
            picked[name] = tensor[list(COCO_ROWS)]
    return picked


def split_attention(state: State) -> State:
    """Cut the original's joint query, key and value."""
    split: State = {}
    for name, tensor in state.items():
        stem, _, last = name.rpartition(".in_proj_")
        if stem:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                split[f"{stem}.{part}_proj.{last}"] = third
        else:
            split[name] = tensor
    return split
