"""What a baseline is: a module with `losses(batch)` and `candidates(images)`."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from entitybench.baselines.batch import Batch, Images
from entitybench.baselines.settings import Schedule
from entitybench.errors import FormatError


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes that a model tells apart; none makes it class-agnostic.

    Attributes:
        names: In order; a label is a place here.
        things: For each whether it is of things; stuff and unknown are False.
    """

    names: tuple[str, ...] = ()
    things: tuple[bool, ...] = ()

    @property
    def count(self) -> int:
        """Number of classes, 1 for a class-agnostic model."""
        return max(1, len(self.names))

    def __bool__(self) -> bool:
        return bool(self.names)


@dataclass(frozen=True, slots=True)
class MaskCandidates:
    """Scored masks of B images in K slots, best first; they may overlap.

    Attributes:
        scores: `(B, K)` float32 in [0, 1], descending.
        valid: `(B, K)` bool: the slot is used.
        boxes: `(B, K, 4)` float32 x0, y0, x1, y1 on the canvas.
        labels: `(B, K)` int64 classes, 0 for class-agnostic models.
        masks: `(B, K, h, w)` float32 probabilities; cell (i, j) lies at pixel
            `(stride·i + offset, stride·j + offset)`. h and w are 0 for a detector.
        stride: Pixels between cells.
        offset: Where the first cell lies, in pixel indices; `stride // 2` unless given.
    """

    scores: Tensor
    valid: Tensor
    boxes: Tensor
    labels: Tensor
    masks: Tensor
    stride: int
    offset: float | None = None

    @property
    def first_cell(self) -> float:
        """The pixel index, along both sides, of the first cell."""
        return self.stride // 2 if self.offset is None else self.offset


class BaselineModel(nn.Module, ABC):
    """A trainable baseline.

    Attributes:
        config: What it was built from; `load_model` sets it.
    """

    config: Any

    def __init__(self) -> None:
        super().__init__()
        self._bfloat16 = False
        self._channels_last = False
        self._compiled: Callable[..., Any] | None = None

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms of the loss, each normalised over all processes."""

    @abstractmethod
    def candidates(self, images: Images) -> MaskCandidates:
        """Return scored masks."""

    @abstractmethod
    def dense(self, pixels: Tensor) -> Any:
        """Run the part with a fixed graph, from normalised pixels to raw outputs."""

    @property
    @abstractmethod
    def divisor(self) -> int:
        """Sides of the canvas must be multiples of it."""

    @property
    def finds_masks(self) -> bool:
        """Whether candidates have masks; a detector's have boxes alone."""
        return True

    @property
    def capacity(self) -> int | None:
        """Most entities of an image that the model can be trained on; None is no limit."""
        return None

    def load_published(self, path: Path) -> Sequence[str]:
        """Load the weights of a whole model that somebody published, by renaming.

        Args:
            path: The file.

        Returns:
            Names in the file that this model has no use for.

        Raises:
            FormatError: The file is another model's, or the classes do not match.
        """
        msg = f"no format of published weights is known for {type(self).__name__}"
        raise FormatError(msg, where=str(path), hint="`backbone.weights` takes a backbone's")

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return `losses(batch)`: what a distributed wrapper calls."""
        return self.losses(batch)

    def run_with(self, schedule: Schedule) -> None:
        """Choose precision, memory format and compilation of the dense part."""
        self._bfloat16 = schedule.precision == "bfloat16"
        self._channels_last = schedule.channels_last
        if self._channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs
        self._compiled = torch.compile(self.dense) if schedule.compile else None

    def run_dense(self, pixels: Tensor) -> Any:
        """Run the dense part as chosen."""
        if self._channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with self._autocast(pixels.device.type):
            return (self._compiled or self.dense)(pixels)

    def _autocast(self, device: str) -> AbstractContextManager[object]:
        if not (self._bfloat16 and computes_in_bfloat16(device)):
            return contextlib.nullcontext()
        return torch.autocast(device, dtype=torch.bfloat16)


@cache
def computes_in_bfloat16(device: str) -> bool:
    """Tell whether a kind of device has bfloat16 of its own.

    A CPU without it (AVX2 alone) would go through loops 35 times slower than float32.
    """
    if device != "cpu":
        return True
    # neither question has types in PyTorch
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(onednn and torch.ops.mkldnn._is_mkldnn_bf16_supported())
