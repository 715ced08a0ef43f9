"""What pycocotools makes of entity sets, with masks that pycocotools encoded itself."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from entitybench.entity_set import EntitySet


def coco_truth(truth: EntitySet) -> dict[str, Any]:
    """Ground truth as plain COCO, encoded by pycocotools itself."""
    annotations: list[dict[str, Any]] = []
    for image in truth:
        dense = image.map.to_array()
        for number in range(1, image.map.num_ids + 1):
            mask = np.asfortranarray(dense == number).astype(np.uint8)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": int(image.id),
                    "category_id": 1,
                    "iscrowd": int(number > image.map.num_entities),
                    "area": int(mask.sum()),
                    "bbox": [0, 0, 1, 1],
                    "segmentation": coco_mask.encode(mask),
                }
            )
    return {
        "images": [{"id": int(r.id), "width": r.width, "height": r.height} for r in truth.rows()],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "entity"}],
    }


def coco_results(predictions: EntitySet) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for image in predictions:
        dense, scores = image.map.to_array(), image.scores
        assert scores is not None
        for number, score in enumerate(scores.tolist(), start=1):
            rle = coco_mask.encode(np.asfortranarray(dense == number).astype(np.uint8))
            results.append(
                {
                    "image_id": int(image.id),
                    "category_id": 1,
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                    "score": score,
                }
            )
    return results


def pycocotools_stats(truth: EntitySet, results: list[dict[str, Any]]) -> NDArray[np.float64]:
    return _stats(coco_truth(truth), results, "segm")


def pycocotools_box_stats(truth: EntitySet, results: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Score boxes; as with detections, the size of a true box is its own area."""
    ground = coco_truth(truth)
    for annotation in ground["annotations"]:
        annotation["bbox"] = coco_mask.toBbox(annotation["segmentation"]).tolist()
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    return _stats(ground, results, "bbox")


def _stats(
    dataset: dict[str, Any], results: list[dict[str, Any]], kind: str
) -> NDArray[np.float64]:
    with redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = dataset
        ground.createIndex()
        run = COCOeval(ground, ground.loadRes(results), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return np.asarray(run.stats)
