"""Optimiser and learning rate, as pure functions of the schedule and the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from entitybench.baselines.settings import Schedule

_MOMENTUM = 0.9
_WARM_START = 1e-3
_POWER = 0.9
_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._BatchNorm)


def make_optimiser(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """Make the optimiser; norms do not decay, nor do biases under AdamW.

    Each group has `scale`: its multiple of the learning rate.
    """
    norms = {
        id(p) for m in model.modules() if isinstance(m, _NORMS) for p in m.parameters(recurse=False)
    }
    adam = schedule.optimiser == "adamw"
    members: dict[tuple[float, float], list[nn.Parameter]] = {
        (1.0, schedule.decay): [],
        (1.0, 0.0): [],
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_free = id(parameter) in norms or (adam and parameter.ndim <= 1)
            scale = schedule.backbone_rate if name.startswith("backbone.") else 1.0
            key = scale, 0.0 if is_free else schedule.decay
            members.setdefault(key, []).append(parameter)
    groups = [
        {"params": parameters, "scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in members.items()
    ]
    if adam:
        return torch.optim.AdamW(groups, lr=schedule.rate)
    return torch.optim.SGD(groups, lr=schedule.rate, momentum=_MOMENTUM)


def rate_at(schedule: Schedule, step: int) -> float:
    """Return the learning rate of a step, from 0.

    >>> one = Schedule(steps=90_000, rate=0.01)
    >>> [round(rate_at(one, s), 7) for s in (0, 750, 1500, 59_999, 60_000, 80_000)]
    [1e-05, 0.005005, 0.01, 0.01, 0.001, 0.0001]
    """
    rate, passed = schedule.rate, min(1.0, step / max(1, schedule.steps))
    if schedule.shape == "cosine":
        rate *= (1 + math.cos(math.pi * passed)) / 2
    elif schedule.shape == "poly":
        rate *= (1 - passed) ** _POWER
    else:
        rate *= 0.1 ** sum(step >= round(drop * schedule.steps) for drop in schedule.drops)
    if step < schedule.warmup:
        done = step / schedule.warmup
        rate *= _WARM_START * (1 - done) + done
    return rate


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group to its multiple of a rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]
