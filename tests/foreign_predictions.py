"""Predictions of one entity set, in the files that other tools write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from entitybench.entity_set import EntityImage, EntitySet
from entitybench.formats.coco_rle import encode_map
from entitybench.perturbation import Perturbation, perturb


def write_foreign_predictions(folder: Path, truth: EntitySet) -> None:
    """Write the files that docs/your-model.md names."""
    for name in ("raw", "sam", "stacks", "npz", "inference"):
        (folder / name).mkdir()
    results: dict[str, Any] = {}
    panoptic: dict[str, Any] = {}
    instances: list[dict[str, Any]] = []
    for number, image in enumerate(truth):
        entity_map, scores = perturb(image.map, np.random.default_rng(number), Perturbation())
        ids = entity_map.to_array()
        masks = ids == np.arange(1, entity_map.num_entities + 1)[:, None, None]
        rles = [{"size": list(ids.shape), "counts": text} for text in encode_map(entity_map)]
        table = [{"id": k, "score": s} for k, s in enumerate(scores.tolist(), start=1)]
        results[image.id] = {"segmentation": torch.from_numpy(ids), "segments_info": table}
        infos = [{**row, "isthing": True, "category_id": 1} for row in table[:-1]]
        stuff = {"id": len(table), "isthing": False, "category_id": 40}
        panoptic[image.id] = torch.from_numpy(ids), [*infos, stuff][: len(table)]
        found = [
            {"image_id": image.id, "category_id": k % 2, "segmentation": rle, "score": score}
            for k, (rle, score) in enumerate(zip(rles, scores.tolist(), strict=True))
        ]
        instances.append({"image_id": image.id, "instances": found})
        _write_image_files(folder, image, masks, scores)
        _write_sam(folder / "sam" / f"{image.id}.json", rles, scores.tolist())
    torch.save(results, folder / "results.pth")
    torch.save(panoptic, folder / "panoptic.pth")
    torch.save(instances, folder / "inference" / "instances_predictions.pth")
    rows = [row for image in instances for row in image["instances"]]
    (folder / "results.json").write_text(json.dumps(rows))


def _write_image_files(
    folder: Path, image: EntityImage, masks: NDArray[np.bool_], scores: NDArray[np.float64]
) -> None:
    logits = np.log(np.stack([scores, 1 - scores], axis=1) + 1e-9).astype(np.float32)
    np.savez(folder / "raw" / f"{image.id}.npz", logits=logits, masks=masks * 8 - np.float32(4))
    np.savez(folder / "stacks" / f"{image.id}.npz", masks=masks, scores=scores)
    ids = image.map.to_array().astype(np.uint8)
    planes = np.stack([ids, np.where(ids > 0, 7, 255).astype(np.uint8)])
    boxes = [[0, 0, 1, 1, 7, 1, k] for k in range(1, int(ids.max()) + 1)]
    arrays: dict[str, Any] = {"map": planes, "bounding_box": np.array(boxes, np.int64)}
    np.savez(folder / "npz" / f"{image.id}.npz", **arrays)


def _write_sam(path: Path, rles: list[dict[str, Any]], scores: list[float]) -> None:
    rows = [
        {"segmentation": rle, "predicted_iou": score, "stability_score": 0.9}
        for rle, score in zip(rles, scores, strict=True)
    ]
    path.write_text(json.dumps(rows))
