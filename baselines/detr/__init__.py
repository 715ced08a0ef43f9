"""DETR for panoptic segmentation, through transformers."""
