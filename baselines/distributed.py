"""Sums over all processes of a training run; one process is the plain case."""

from __future__ import annotations

import torch.distributed
from torch import Tensor


def is_distributed() -> bool:
    """Tell whether several processes train together."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def num_processes() -> int:
    """Return how many processes train together."""
    return torch.distributed.get_world_size() if is_distributed() else 1


def global_sum(values: Tensor) -> Tensor:
    """Add up a tensor over all processes; it carries no gradient."""
    total = values.detach().clone()
    if is_distributed():
        torch.distributed.all_reduce(total)
    return total


def share(local_sum: Tensor, global_count: Tensor) -> Tensor:
    """Return this process's term of a global mean.

    Gradients are averaged over the processes, so the average of the terms must be the global
    mean: each is its own sum times the number of processes, over the global count.
    """
    return local_sum * num_processes() / global_count
