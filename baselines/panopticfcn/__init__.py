"""PanopticFCN."""
