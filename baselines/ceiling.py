"""How well a model could do at best: true masks, sent through its output stride."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch
from PIL import Image

from entitybench.baselines.augmentation import stack, to_device
from entitybench.baselines.model import MaskCandidates
from entitybench.baselines.painting import paint
from entitybench.baselines.placement import canvas_for, whole_placement
from entitybench.baselines.settings import Data
from entitybench.baselines.source import Decoded
from entitybench.entity_map import EntityMap
from entitybench.entity_set import EntitySet
from entitybench.metrics import ImagePair, Scores, evaluate


def ceiling(truth: EntitySet, data: Data, stride: int, most: int | None = None) -> Scores:
    """Score the truth itself after it was resized, sampled at the mask stride and enlarged again.

    Small entities get a better score than large ones, so that they lie on top of what their
    enlarged neighbours would take from them.

    Args:
        truth: Ground truth.
        data: How the model resizes photographs.
        stride: Pixels of the canvas between the cells of a mask.
        most: Images; all unless given.
    """
    pairs = []
    for image in islice(truth, most):
        found, visible = _sampled(image.map, data, stride)
        entity_map, scores, _ = paint(found, 0, visible, image.map.shape).to_host()
        pairs.append(ImagePair(image.id, image.map, entity_map, scores))
    return evaluate(pairs).scores


def _sampled(truth: EntityMap, data: Data, stride: int) -> tuple[MaskCandidates, tuple[int, int]]:
    ids = truth.to_array()
    pixels = np.asarray(Image.new("RGB", ids.shape[::-1]))
    empty = np.zeros(0, dtype=np.int64)
    placement = whole_placement(truth.shape, data)
    canvas = canvas_for([placement], Data(divisor=data.divisor), data.divisor)
    image = Decoded(pixels, ids, empty.astype(bool), empty)
    placed = to_device(stack([image], [placement], canvas, 1), torch.device("cpu")).ids
    cells = placed[0, stride // 2 :: stride, stride // 2 :: stride]
    count = max(1, truth.num_entities)
    smallest_first = np.argsort(truth.areas[1 : truth.num_entities + 1], kind="stable") + 1
    numbers = torch.from_numpy(smallest_first) if truth.num_entities else torch.tensor([-1])
    masks = (cells[None] == numbers[:, None, None]).float()
    scores = torch.linspace(1, 0.5, count)[None]
    valid = torch.full((1, count), truth.num_entities > 0)
    boxes = torch.zeros(1, count, 4)
    found = MaskCandidates(scores, valid, boxes, boxes[..., 0].long(), masks[None], stride)
    return found, placement.visible
