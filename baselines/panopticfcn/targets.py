"""What each level is to find: centres of things, regions of stuff, and where masks are learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from entitybench.baselines.entity.assignment import random_keys
from entitybench.baselines.regions import Regions

_LEAST_OVERLAP = 0.7
_DEVIATIONS = 3  # of the Gaussian, in its diameter
_NARROW = 4  # a level's greatest size over its least
_GUIDED = 0.1  # least share of an entity in a cell that learns its mask
_REGION = 0.5  # least share of a class in a cell that is its region
_SMALL = 1e-8


def suits(regions: Regions, strides: Sequence[int], sizes: float) -> Tensor:
    """Return which levels answer for which entities.

    Args:
        regions: Geometry of `(B, G)` entities.
        strides: Of the levels.
        sizes: Greatest √(box area) of the first level, in its strides.

    Returns:
        `(B, levels, G)` bool; both bounds are inclusive. The first level has no lower and the last
        no upper one, so that every entity has a level.
    """
    sides = regions.boxes[..., 2:] - regions.boxes[..., :2]
    side = sides.prod(-1).sqrt()[:, None]
    high = torch.tensor([sizes * stride for stride in strides], device=side.device)
    low = high / _NARROW
    low[0], high[-1] = 0, math.inf
    within = (side >= low[:, None]) & (side <= high[:, None])
    return within & regions.present[:, None]


def gaussian_radius(width: Tensor, height: Tensor) -> Tensor:
    """Return how far from its centre a box's Gaussian reaches, in whole cells.

    Of CornerNet's three radii this one, where a box inside the true one still shares .7 of it, is
    always the least. It keeps CornerNet's division by 2 (the root of the quadratic has 2.8).

    Args:
        width: Of boxes, in cells.
        height: The same.
    """
    perimeter = _LEAST_OVERLAP * 2 * (width + height)
    product = 4 * _LEAST_OVERLAP * 4 * (1 - _LEAST_OVERLAP) * width * height
    return (((perimeter**2 + product).sqrt() - perimeter) / 2).floor()


def centre_map(
    regions: Regions,
    member: Tensor,
    channel: Tensor,
    channels: int,
    stride: int,
    shape: tuple[int, int],
) -> Tensor:
    """Draw a Gaussian around the mass centre of each entity; of several the greatest value holds.

    Args:
        regions: Geometry of `(B, G)` entities.
        member: `(B, G)` bool: the level answers for the entity.
        channel: `(B, G)` int64: where it is drawn.
        channels: How many there are.
        stride: Pixels of a cell.
        shape: Height and width of the level's map.

    Returns:
        `(B, channels, h, w)` in [0, 1]; 1 in the cell that holds a centre.
    """
    sides = (regions.boxes[..., 2:] - regions.boxes[..., :2]) / stride
    radius = gaussian_radius(sides[..., 0], sides[..., 1])
    cells = (regions.centres / stride).floor()
    across = _bump(cells[..., 0], radius, shape[1])[:, :, None, :]
    down = _bump(cells[..., 1], radius, shape[0])[:, :, :, None]
    drawn = (across * down * member[..., None, None]).flatten(2)
    target = drawn.new_zeros(len(drawn), channels, drawn.shape[2])
    target.scatter_reduce_(1, channel[..., None].expand_as(drawn), drawn, "amax")
    return target.reshape(*target.shape[:2], *shape)


def _bump(centre: Tensor, radius: Tensor, length: int) -> Tensor:
    """Return a `(B, G, length)` Gaussian along one side, cut off beyond the radius."""
    places = torch.arange(length, device=centre.device)
    distance = (places - centre.clamp(0, length - 1)[..., None]).abs()
    deviation = ((2 * radius + 1) / _DEVIATIONS)[..., None]
    return torch.exp(-(distance**2) / (2 * deviation**2)) * (distance <= radius[..., None])


def shares(numbers: Tensor, count: int) -> Tensor:
    """Return the masks of the numbers of a map at stride 4.

    They are read bilinearly in the middle of each 4×4 pixels, as the released code does.

    Args:
        numbers: `(B, H, W)` int64; sides are multiples of 4.
        count: Masks are made of 1…count.

    Returns:
        `(B, count, H/4, W/4)` float32: 0, ¼, ½, ¾ or 1.
    """
    wanted = torch.arange(1, count + 1, device=numbers.device)[:, None, None]
    total = torch.zeros((), device=numbers.device)
    for y, x in ((1, 1), (1, 2), (2, 1), (2, 2)):
        total = total + (numbers[:, None, y::4, x::4] == wanted) * 0.25
    return total


def dice_losses(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - Dice over the last two dimensions; both empty is a loss of 1.

    Args:
        probabilities: `(..., h, w)` in [0, 1].
        targets: `(..., h, w)` in [0, 1].
    """
    shared = (probabilities * targets).sum((-2, -1))
    total = (probabilities**2).sum((-2, -1)) + (targets**2).sum((-2, -1))
    return 1 - 2 * shared / total.clamp(min=_SMALL)


def best_places(
    logits: Tensor, masks: Tensor, channel: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Return where a level learns the masks of its entities: its best centre scores inside them.

    Args:
        logits: `(B, C, h, w)` of the centre map.
        masks: `(B, G, H, W)` true masks.
        channel: `(B, G)` int64 channel of each entity.
        count: Places.

    Returns:
        `(B, G, count)` scores, 0 for places outside the mask, and `(B, G, count)` int64 cells.
    """
    shape = logits.shape[-2:]
    inside = functional.interpolate(masks, size=shape, mode="bilinear") > _GUIDED
    wanted = channel[..., None].expand(-1, -1, shape[0] * shape[1])
    scores = logits.sigmoid().flatten(2).gather(1, wanted) * inside.flatten(2)
    best, cells = scores.topk(min(count, scores.shape[2]), dim=2)
    missing = (0, count - best.shape[2])
    return functional.pad(best, missing), functional.pad(cells, missing)


def region_map(masks: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the share of each class in a level's cells, less than a half being none.

    Args:
        masks: `(B, R, H, W)` of the classes.
        shape: Height and width of the level's map.
    """
    share = functional.interpolate(masks, size=shape, mode="bilinear")
    return torch.where(share < _REGION, 0.0, share)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Pairs whose masks are trained, in K slots per image.

    Attributes:
        index: `(B, K)` int64 pair, level · entities + entity.
        valid: `(B, K)` bool: the slot is used.
    """

    index: Tensor
    valid: Tensor

    def pick(self, values: Tensor) -> Tensor:
        """Return the `(B, K, …)` values of the chosen among `(B, pairs, …)`."""
        index = self.index.reshape(*self.index.shape, *[1] * (values.ndim - 2))
        return values.gather(1, index.expand(-1, -1, *values.shape[2:]))


def choose(pairs: Tensor, seeds: Tensor, most: int) -> Chosen:
    """Gather the pairs that there are, or draw `most` where an image has more.

    What is drawn depends on the images' seeds alone.

    Args:
        pairs: `(B, pairs)` bool.
        seeds: `(B,)` int64.
        most: Per image; 0 takes all.
    """
    keys = random_keys(seeds, pairs.shape[1]).masked_fill(~pairs, torch.inf)
    slots = max(1, int(pairs.sum(1).max()))  # waits for the device: masks are worth it
    drawn, index = keys.topk(min(slots, most or slots), dim=1, largest=False)
    return Chosen(index, drawn < torch.inf)
