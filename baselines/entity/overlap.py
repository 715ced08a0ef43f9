"""Overlap suppression (paper, section 5.3): entities of an image compete for every pixel."""

from __future__ import annotations

import torch
from torch import Tensor

_NEVER = -1e4  # a logit that soft-max turns into zero, and that stays finite if all have it


def clusters(entity: Tensor, valid: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Number the clusters of samples: by entity, or by first sample where that needs fewer.

    Args:
        entity: `(B, K)` slot of each sample's entity.
        valid: `(B, K)` whether the sample exists.
        slots: G, the slots for entities.

    Returns:
        `(B, K)` cluster of each sample, and `(B, C)` the entity of each cluster, C the less of G
        and K. Where C is K, a cluster has the number of its first sample; the numbers of the
        other samples are clusters without a member.
    """
    batch, count = entity.shape
    device = entity.device
    if slots <= count:
        return entity, torch.arange(slots, device=device).expand(batch, slots)
    same = (entity[:, :, None] == entity[:, None, :]) & valid[:, None, :]
    numbers = torch.arange(count, device=device)
    return torch.where(same, numbers, count - 1).amin(2), entity


def membership(cluster: Tensor, valid: Tensor, slots: int) -> Tensor:
    """Tell which samples each cluster has; unlike `one_hot`, nothing is read back to be checked.

    Args:
        cluster: `(B, K)` cluster of each sample.
        valid: `(B, K)` whether the sample exists.
        slots: C, the clusters.

    Returns:
        `(B, K, C)` bool.
    """
    numbers = torch.arange(slots, device=cluster.device)
    return (cluster[..., None] == numbers) & valid[..., None]


def representatives(
    logits: Tensor, cluster: Tensor, valid: Tensor, slots: int
) -> tuple[Tensor, Tensor]:
    """Average the logits of each entity's kernels (equation 3).

    Args:
        logits: `(B, K, h, w)` of the dynamic path.
        cluster: `(B, K)` cluster of each sample.
        valid: `(B, K)` whether the sample exists.
        slots: C, the clusters.

    Returns:
        `(B, C, h, w)` mean logits, zero where there is no kernel, and `(B, C)` kernels.
    """
    member = membership(cluster, valid, slots).to(logits.dtype)
    count = member.sum(1)
    mean = torch.bmm((member / count.clamp(min=1)[:, None]).transpose(1, 2), logits.flatten(2))
    return mean.reshape(*mean.shape[:2], *logits.shape[-2:]), count


def suppressed(masks: Tensor, has_kernel: Tensor, owned: Tensor, activation: str) -> Tensor:
    """Let the representative masks of each image compete.

    Args:
        masks: `(B, C, h, w)` mean logits.
        has_kernel: `(B, C)` whether the cluster has a kernel; the others take no part.
        owned: `(B, 1, h, w)` whether a true entity has the pixel; all others become zero.
        activation: `softmax`, without a background channel, or `sigmoid`.

    Returns:
        `(B, C, h, w)` in [0, 1].
    """
    takes_part = has_kernel[..., None, None]
    if activation == "sigmoid":
        return masks.sigmoid() * takes_part * owned
    return masks.masked_fill(~takes_part, _NEVER).softmax(1) * takes_part * owned
