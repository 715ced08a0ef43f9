"""A floor that needs no training and no GPU: segmentation from before learning.

`segment` cuts one photograph, `predict_classical` those of an entity set. Every region is an
entity and every pixel belongs to one; the score of a region is its share of the photograph
(`--missing-score area` by another name), because these methods know no confidence.
"""

from entitybench.baselines.classical.prediction import predict_classical
from entitybench.baselines.classical.segmentation import CLASSICAL, segment

__all__ = ["CLASSICAL", "predict_classical", "segment"]
