"""PanopticFPN."""
