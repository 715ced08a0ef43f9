"""detectron2's Panoptic FPN (and Mask R-CNN) under our names."""

from __future__ import annotations

from entitybench.baselines.renaming import Rule

CLASS_LAYERS = ("box_head.classes.", "box_head.changes.", "mask_head.masks.", "semantic.classes.")

RULES: tuple[Rule, ...] = (
    (r"^backbone\.fpn_lateral(\d)\.", r"pyramid.lateral.\1."),
    (r"^backbone\.fpn_output(\d)\.", r"pyramid.output.\1."),
    (r"^proposal_generator\.rpn_head\.conv\.", "proposal_head.conv."),
    (r"^proposal_generator\.rpn_head\.objectness_logits\.", "proposal_head.objectness."),
    (r"^proposal_generator\.rpn_head\.anchor_deltas\.", "proposal_head.changes."),
    (r"^roi_heads\.box_head\.fc1\.", "box_head.first."),
    (r"^roi_heads\.box_head\.fc2\.", "box_head.second."),
    (r"^roi_heads\.box_predictor\.cls_score\.", "box_head.classes."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "box_head.changes."),
    (r"^roi_heads\.mask_head\.mask_fcn(\d)\.", lambda m: f"mask_head.tower.{int(m[1]) - 1}."),
    (r"^roi_heads\.mask_head\.deconv\.", "mask_head.enlarge."),
    (r"^roi_heads\.mask_head\.predictor\.", "mask_head.masks."),
    (r"^sem_seg_head\.predictor\.", "semantic.classes."),
    # convolution, up-sampling, convolution, …
    (
        r"^sem_seg_head\.p(\d)\.(\d)\.norm\.",
        lambda m: f"semantic.levels.{int(m[1]) - 2}.{int(m[2]) // 2}.1.",
    ),
    (
        r"^sem_seg_head\.p(\d)\.(\d)\.",
        lambda m: f"semantic.levels.{int(m[1]) - 2}.{int(m[2]) // 2}.0.",
    ),
)
