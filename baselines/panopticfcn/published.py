"""The released code's weights under our names."""

from __future__ import annotations

from entitybench.baselines.renaming import Rule

CLASS_LAYERS = ("position.centres.", "position.regions.")

RULES: tuple[Rule, ...] = (
    (r"^backbone\.fpn_(lateral|output)(\d)\.", r"pyramid.\1.\2."),
    (r"^backbone\.top_block\.p(\d)\.", r"pyramid.extra.\1."),
    # convolution, up-sampling, convolution, …
    (
        r"^semantic_fpn\.p(\d)\.(\d)\.",
        lambda m: f"semantic.branches.{m[1]}.{int(m[2]) // 2}.",
    ),
    (
        r"^(position|kernel)_head\.\1_head\.\1_head_head_(\d)\.",
        lambda m: f"{m[1]}.tower.{int(m[2]) - 1}.",
    ),
    (
        r"^feature_encoder\.encode_head\.encode_head_head_(\d)\.",
        lambda m: f"encoder.tower.{int(m[1]) - 1}.",
    ),
    (r"^position_head\.out_inst\.", "position.centres."),
    (r"^position_head\.out_sem\.", "position.regions."),
    (r"^kernel_head\.out_conv\.", "kernel.output."),
    (r"^(thing|stuff)_generator\.embed_extractor\.", r"\1_generator."),
    # inside the units of a tower
    (r"(\d)\.dcnv2\.", r"\1."),
    (r"(\d)\.offset_mask_conv\.", r"\1.convolution.offset."),
    (r"^((?:semantic|position|kernel|encoder)\..*\d)\.weight$", r"\1.convolution.weight"),
)
