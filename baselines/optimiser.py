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
    """Make the optimiser; norms do not decay, nor do biases under AdamW."""
    norms = {
        id(p) for m in model.modules() if isinstance(m, _NORMS) for p in m.parameters(recurse=False)
    }
    adam = schedule.optimiser == "adamw"
    decaying: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            is_free = id(parameter) in norms or (adam and parameter.ndim <= 1)
            (free if is_free else decaying).append(parameter)
    groups = [
        {"params": decaying, "weight_decay": schedule.decay},
        {"params": free, "weight_decay": 0.0},
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
    """Set the learning rate of every group."""
    for group in optimiser.param_groups:
        group["lr"] = rate
