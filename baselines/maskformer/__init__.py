"""MaskFormer, through transformers."""
