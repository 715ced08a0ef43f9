"""Which location answers for which entity: sampling around mass centres (paper, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from entitybench.baselines.batch import Batch
from entitybench.baselines.entity.config import Sampling
from entitybench.baselines.entity.grid import Grid
from entitybench.baselines.regions import Regions, cells, measure, nearest_pixels

_CELLS = 3
_MIX = (0x9E3779B97F4A7C15 - (1 << 64), 0xBF58476D1CE4E5B9 - (1 << 64))


@dataclass(frozen=True, slots=True)
class Assignment:
    """Targets of L locations of B images.

    Attributes:
        entity: `(B, L)` int64 slot of the entity, 0…G - 1; meaningless where not positive.
        positive: `(B, L)` bool.
        distances: `(B, L, 4)` float32 to the entity's box, in strides.
        centerness: `(B, L)` float32 in [0, 1]; 0 where not positive.
    """

    entity: Tensor
    positive: Tensor
    distances: Tensor
    centerness: Tensor


def assign(batch: Batch, grid: Grid, sampling: Sampling) -> Assignment:
    """Assign.

    A location answers for an entity if it lies strictly within the window around the entity's
    centre (the mass centre by default, which may lie outside the mask) and its box, and if its
    longest distance to the box's sides suits its level. Of several, the smallest box wins.
    """
    regions = measure(batch.ids, batch.num_slots)
    boxes = regions.boxes[:, None]  # (B, 1, G, 4)
    points = grid.points[None, :, None]  # (1, L, 1, 2)
    sides = torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)  # (B, L, G, 4)
    reach = sides.amax(-1)
    low, high = grid.reaches[:, 0, None], grid.reaches[:, 1, None]
    suits = _in_window(centres_of(batch, regions, sampling), regions, grid, sampling.radius)
    suits &= (reach >= low) & (reach <= high) & regions.present[:, None]
    sizes = (regions.boxes[..., 2:] - regions.boxes[..., :2]).prod(-1)[:, None]
    smallest, entity = torch.where(suits, sizes, torch.inf).min(dim=2)
    positive = smallest < torch.inf
    chosen = sides.gather(2, entity[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]
    distances = chosen / grid.strides[:, None]
    return Assignment(entity, positive, distances, _centerness(distances) * positive)


def centres_of(batch: Batch, regions: Regions, sampling: Sampling) -> Tensor:
    """Return `(B, G, P, 2)` centres of each entity; NaN where there are fewer than P."""
    things = _centres(batch, regions, sampling.things)
    if sampling.things == sampling.stuff:
        return things
    stuff = _centres(batch, regions, sampling.stuff)
    count = max(things.shape[2], stuff.shape[2])
    return torch.where(batch.things[..., None, None], _padded(things, count), _padded(stuff, count))


def _padded(centres: Tensor, count: int) -> Tensor:
    missing = count - centres.shape[2]
    return torch.nn.functional.pad(centres, (0, 0, 0, missing), value=torch.nan)


def _centres(batch: Batch, regions: Regions, kind: str) -> Tensor:
    if kind == "point":
        return regions.centres[:, :, None]
    if kind == "point_in_mask":
        return nearest_pixels(batch.ids, regions.centres)[:, :, None]
    pieces = cells(batch.ids, regions, _CELLS)
    slots = batch.num_slots * _CELLS**2
    points = nearest_pixels(pieces, measure(pieces, slots).centres)
    return points.reshape(len(points), batch.num_slots, _CELLS**2, 2)


def _in_window(centres: Tensor, regions: Regions, grid: Grid, radius: float) -> Tensor:
    """Return `(B, L, G)`: strictly inside a window around one of the centres and the box."""
    half = (grid.strides * radius)[None, :, None, None]
    points, boxes = grid.points[None, :, None], regions.boxes[:, None]
    inside = torch.zeros((), dtype=torch.bool, device=centres.device)
    for centre in centres.unbind(2):
        low = torch.maximum(centre[:, None] - half, boxes[..., :2])
        high = torch.minimum(centre[:, None] + half, boxes[..., 2:])
        inside = inside | ((points > low) & (points < high)).all(-1)  # NaN compares False
    return inside


def _centerness(distances: Tensor) -> Tensor:
    left, top, right, bottom = distances.clamp(min=0).unbind(-1)
    tiny = torch.finfo(distances.dtype).tiny
    across = torch.minimum(left, right) / torch.maximum(left, right).clamp(min=tiny)
    down = torch.minimum(top, bottom) / torch.maximum(top, bottom).clamp(min=tiny)
    return (across * down).sqrt()


@dataclass(frozen=True, slots=True)
class Samples:
    """Positives that reach the mask head, in K slots per image.

    Attributes:
        index: `(B, K)` int64 location.
        valid: `(B, K)` bool: the slot is used.
        entity: `(B, K)` int64 slot of the entity.
    """

    index: Tensor
    valid: Tensor
    entity: Tensor


def choose(assignment: Assignment, seeds: Tensor, sampling: Sampling) -> Samples:
    """Draw the positives that reach the mask head, uniformly where there are too many.

    What is drawn depends on the images' seeds alone: not on a generator, the device or the
    number of processes.
    """
    positive = assignment.positive
    count, locations = positive.shape
    keys = random_keys(seeds, locations).masked_fill(~positive, torch.inf)
    if sampling.scope == "image":
        slots = min(sampling.per_image, locations)
    else:
        keys, slots = _drawn_from_batch(keys, sampling.per_image * count)
    drawn, index = keys.topk(slots, dim=1, largest=False)
    return Samples(index, drawn < torch.inf, assignment.entity.gather(1, index))


def _drawn_from_batch(keys: Tensor, most: int) -> tuple[Tensor, int]:
    """Keep the keys drawn from the whole batch, and return how many one image has at most."""
    if most < keys.numel():
        greatest = keys.flatten().kthvalue(most).values
        keys = keys.masked_fill(keys > greatest, torch.inf)
    slots = int((keys < torch.inf).sum(1).max())  # waits for the device; `scope = "image"` does not
    return keys, max(slots, 1)


def random_keys(seeds: Tensor, count: int) -> Tensor:
    """Return `(B, count)` float32 keys in [0, 1) that a seed alone determines."""
    places = torch.arange(count, device=seeds.device, dtype=torch.int64)
    mixed = seeds[:, None] * _MIX[0] + places * _MIX[1]
    for shift in (30, 27, 31):
        mixed = (mixed ^ (mixed >> shift)) * _MIX[1]
    return (mixed >> 40 & 0xFFFFFF).float() / (1 << 24)
