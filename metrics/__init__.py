"""Scores for entity maps: contingency → matching → accumulation → scores.

AP_e is COCO's mask AP without classes on maps that cannot overlap, bit for bit what pycocotools
computes. The three steps are pure functions with plain records between them:

* `contingency`: the pixels that true and predicted entities of one image share;
* `match`: which prediction matches at which IoU and size, under a `Protocol`;
* `accumulate` and `summarize`: from the `MatchRecords` of all images to curves and scores.

`evaluate` runs them over any iterable of `ImagePair`. Nothing here opens a file but
`MatchRecords.load` and `.save`.
"""

from entitybench.metrics.accumulation import Curves, accumulate
from entitybench.metrics.contingency import Contingency, contingency
from entitybench.metrics.evaluation import (
    Counts,
    Evaluation,
    ImagePair,
    evaluate,
    match_pair,
)
from entitybench.metrics.matching import ImageMatches, match
from entitybench.metrics.protocol import (
    AREA_NAMES,
    AREA_RANGES,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    OFFICIAL,
    RECALL_POINTS,
    STRICT,
    CrowdRule,
    Protocol,
    SizeRule,
    VoidRule,
    truth_sizes,
)
from entitybench.metrics.records import ImageKey, MatchRecords, image_order
from entitybench.metrics.scores import Scores, summarize

__all__ = [
    "AREA_NAMES",
    "AREA_RANGES",
    "IOU_THRESHOLDS",
    "MAX_DETECTIONS",
    "OFFICIAL",
    "RECALL_POINTS",
    "STRICT",
    "Contingency",
    "Counts",
    "CrowdRule",
    "Curves",
    "Evaluation",
    "ImageKey",
    "ImageMatches",
    "ImagePair",
    "MatchRecords",
    "Protocol",
    "Scores",
    "SizeRule",
    "VoidRule",
    "accumulate",
    "contingency",
    "evaluate",
    "image_order",
    "match",
    "match_pair",
    "summarize",
    "truth_sizes",
]
