"""The released K-Net under our names."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from entitybench.baselines.renaming import Rule, load_renamed
from entitybench.baselines.weights import State

_CLASS_LAYERS = ("semantic.", *(f"updates.{stage}.classes." for stage in range(9)))
_UNIT = {"conv": "0", "gn": "1"}

_RULES: tuple[Rule, ...] = (
    (r"^neck\.lateral_convs\.(\d)\.conv\.", lambda m: f"pyramid.lateral.{int(m[1]) + 2}."),
    (r"^neck\.fpn_convs\.(\d)\.conv\.", lambda m: f"pyramid.output.{int(m[1]) + 2}."),
    (
        r"^rpn_head\.localization_fpn\.convs_all_levels\.(\d)\.conv(\d)\.(conv|gn)\.",
        lambda m: f"features.levels.{m[1]}.{m[2]}.{_UNIT[m[3]]}.",
    ),
    (
        r"^rpn_head\.localization_fpn\.conv_pred\.(conv|gn)\.",
        lambda m: f"features.place.0.{_UNIT[m[1]]}.",
    ),
    (
        r"^rpn_head\.localization_fpn\.aux_convs\.0\.(conv|gn)\.",
        lambda m: f"features.name.0.{_UNIT[m[1]]}.",
    ),
    (r"^rpn_head\.loc_convs\.0\.(conv|gn)\.", lambda m: f"features.place.1.{_UNIT[m[1]]}."),
    (r"^rpn_head\.seg_convs\.0\.(conv|gn)\.", lambda m: f"features.name.1.{_UNIT[m[1]]}."),
    (r"^rpn_head\.init_kernels\.", "initial."),
    (r"^rpn_head\.conv_seg\.", "semantic."),
    (r"^roi_head\.mask_head\.(\d)\.", r"updates.\1."),
    (r"\.attention\.attn\.", ".attention."),
    (r"\.feat_transform\.conv\.", ".transform."),
    (r"\.kernel_update_conv\.dynamic_layer\.", ".update.of_features."),
    (r"\.kernel_update_conv\.input_layer\.", ".update.of_kernels."),
    (r"\.kernel_update_conv\.update_gate\.", ".update.feature_gate."),
    (r"\.kernel_update_conv\.input_gate\.", ".update.kernel_gate."),
    (r"\.kernel_update_conv\.norm_in\.", ".update.feature_gate_norm."),
    (r"\.kernel_update_conv\.input_norm_in\.", ".update.kernel_gate_norm."),
    (r"\.kernel_update_conv\.norm_out\.", ".update.feature_norm."),
    (r"\.kernel_update_conv\.input_norm_out\.", ".update.kernel_norm."),
    (r"\.kernel_update_conv\.fc_layer\.", ".update.out."),
    (r"\.kernel_update_conv\.fc_norm\.", ".update.out_norm."),
    (r"\.ffn\.layers\.0\.0\.", ".expand."),
    (r"\.ffn\.layers\.1\.", ".contract."),
    (r"\.ffn_norm\.", ".feedforward_norm."),
    (r"\.cls_fcs\.", ".class_hidden."),
    (r"\.mask_fcs\.", ".mask_hidden."),
    (r"\.fc_cls\.", ".classes."),
    (r"\.fc_mask\.", ".kernels."),
)


def load_published(model: nn.Module, path: Path, order: Tensor) -> list[str]:
    """Load the `.pth` of a released panoptic K-Net.

    Args:
        model: Ours.
        path: The file.
        order: `(K,)` for each of our classes its place in the file, where things come first.

    Returns:
        Names in the file that the model has no use for.

    Raises:
        FormatError: The file is another model's, or the classes do not match.
    """

    def arrange(state: State) -> State:
        rows = order.cpu()
        return {
            name: tensor[rows] if name.startswith(_CLASS_LAYERS) else tensor
            for name, tensor in state.items()
        }

    return load_renamed(model, path, _RULES, class_layers=_CLASS_LAYERS, arrange=arrange)


def things_first(is_thing: Tensor) -> Tensor:
    """Return each class's place if things came first and stuff after, each in our order.

    >>> things_first(torch.tensor([False, True, False, True])).tolist()
    [2, 0, 3, 1]
    """
    return torch.where(is_thing, is_thing.cumsum(0) - 1, is_thing.sum() + (~is_thing).cumsum(0) - 1)
