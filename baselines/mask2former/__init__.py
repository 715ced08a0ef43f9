"""Mask2Former, through transformers."""
