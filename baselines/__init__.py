"""Whatever needs torch: models, their training and their predictions.

A *family* (`registry.py`) is one function from a configuration to a module with `losses(batch)`
and `candidates(images)`; all else is shared. Nothing here is imported by the rest of the
project but inside the commands `train` and `predict`.
"""
