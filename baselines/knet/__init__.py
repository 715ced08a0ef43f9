"""K-Net."""
