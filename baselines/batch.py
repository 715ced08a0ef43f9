"""What a model sees: images and the entities in them, all on one device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Images:
    """B photographs on one canvas.

    Attributes:
        pixels: `(B, 3, H, W)` float32 RGB in 0…255; zero beyond each image's own size.
        sizes: `(B, 2)` int64 height and width of each image on the canvas.
    """

    pixels: Tensor
    sizes: Tensor

    @property
    def inside(self) -> Tensor:
        """`(B, 1, H, W)` bool: where an image is, and not the canvas around it."""
        height, width = self.pixels.shape[-2:]
        device = self.pixels.device
        rows = torch.arange(height, device=device) < self.sizes[:, :1]
        columns = torch.arange(width, device=device) < self.sizes[:, 1:]
        return (rows[:, :, None] & columns[:, None, :])[:, None]


@dataclass(frozen=True, slots=True)
class Batch:
    """Images and their entities; G is the number of slots, equal for all images.

    Attributes:
        images: The photographs.
        ids: `(B, H, W)` int64 in 0…G; 0 is void, crowd, canvas and entities left out.
        things: `(B, G)` bool; stuff and unknown origin are False.
        labels: `(B, G)` int64 class of each entity, 0 in class-agnostic training.
        seeds: `(B,)` int64, one for each image and epoch: what is drawn at random from it.
    """

    images: Images
    ids: Tensor
    things: Tensor
    labels: Tensor
    seeds: Tensor

    @property
    def num_slots(self) -> int:
        """G."""
        return int(self.things.shape[1])
