"""How fast a model trains and predicts here: images per second, shares of time, memory.

::

    python -m entitybench.baselines.speed --model entity --config gpu_r50 --size 800 1333 --batch 16

Random photographs of one size stay in memory, so that the disk is not measured. Training steps
are forward, backward and optimiser; prediction goes to the photograph's original size. Reading
and decoding are timed apart, since they run on other processors.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from entitybench.baselines.augmentation import HostBatch, stack, to_device
from entitybench.baselines.configuration import load_config
from entitybench.baselines.model import BaselineModel, Classes
from entitybench.baselines.optimiser import make_optimiser
from entitybench.baselines.painting import paint
from entitybench.baselines.placement import Placement, canvas_for
from entitybench.baselines.registry import family
from entitybench.baselines.settings import Data
from entitybench.baselines.source import Decoded

_ENTITIES = 12


@dataclass(frozen=True, slots=True)
class Timing:
    """What was measured; times in milliseconds per image.

    Attributes:
        device: Its name.
        config: The configuration.
        size: Height and width of the resized image.
        batch: Images at once.
        training_images_per_second: Transfer, placement, forward, backward, optimiser.
        prediction_images_per_second: Transfer, network, masks, painting to the original size.
        transfer_ms: Upload, resizing and placement on the device.
        network_ms: From pixels to candidates with their masks.
        painting_ms: From candidates to the final map, on the device.
        training_memory_gib: Peak; NaN without a GPU.
        prediction_memory_gib: Peak; NaN without a GPU.
    """

    device: str
    config: str
    size: tuple[int, int]
    batch: int
    training_images_per_second: float
    prediction_images_per_second: float
    transfer_ms: float
    network_ms: float
    painting_ms: float
    training_memory_gib: float
    prediction_memory_gib: float


def measure(
    config_name: str,
    size: tuple[int, int],
    batch: int,
    rounds: int,
    changes: tuple[str, ...] = (),
    device: str = "",
    model_name: str = "entity",
) -> Timing:
    """Measure a configuration with random weights.

    Args:
        config_name: A named configuration, or a TOML file.
        size: Height and width of the resized image.
        batch: Images at once.
        rounds: Timed repetitions, after a third as many that are not timed.
        changes: To the configuration.
        device: `cpu`, or nothing for the best there is.
        model_name: Its family.
    """
    kind = family(model_name)
    config: Any = load_config(kind.config, kind.package, config_name, changes)
    best = torch.device("cuda" if torch.cuda.is_available() and device != "cpu" else "cpu")
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    model = kind.build(config, Classes()).to(best)
    model.run_with(config.schedule)
    host = _random_batch(size, batch, max(model.divisor, config.data.divisor))
    warm = max(1, rounds // 3)
    training, training_memory = _training(model, config, host, best, warm, rounds)
    parts, prediction_memory = _prediction(model.eval(), host, best, warm, rounds)
    transfer, network, painting = (seconds / batch for seconds in parts)
    return Timing(
        torch.cuda.get_device_name() if best.type == "cuda" else platform.processor() or "cpu",
        config_name,
        size,
        batch,
        batch / training,
        1 / (transfer + network + painting),
        1000 * transfer,
        1000 * network,
        1000 * painting,
        training_memory,
        prediction_memory,
    )


def _random_batch(size: tuple[int, int], batch: int, divisor: int) -> HostBatch:
    """Make photographs at 0.6 of the size, as COCO's are, with a dozen rectangles each."""
    rng = np.random.default_rng(0)
    original = round(size[0] * 0.6), round(size[1] * 0.6)
    decoded, placements = [], []
    for number in range(batch):
        coarse = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(original[::-1], Image.Resampling.BICUBIC)
        ids = np.zeros(original, dtype=np.int32)
        for entity in range(1, _ENTITIES + 1):
            y, x = rng.integers(0, original[0] - 8), rng.integers(0, original[1] - 8)
            height, width = rng.integers(8, original[0] // 2), rng.integers(8, original[1] // 2)
            ids[y : y + height, x : x + width] = entity
        things = np.zeros(_ENTITIES, dtype=bool)
        decoded.append(Decoded(np.asarray(picture), ids, things, things.astype(np.int64)))
        placements.append(Placement(size, (0, 0), size, number % 2 == 1, 1.0, 0.0, number))
    return stack(decoded, placements, canvas_for(placements, Data(), divisor), _ENTITIES)


def _training(
    model: BaselineModel,
    config: Any,
    host: HostBatch,
    device: torch.device,
    warm: int,
    rounds: int,
) -> tuple[float, float]:
    optimiser = make_optimiser(model, config.schedule)
    model.train()

    def step() -> None:
        terms = model(to_device(host, device))
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return _timed(step, device, warm, rounds), _peak(device)


@torch.no_grad()
def _prediction(
    model: BaselineModel, host: HostBatch, device: torch.device, warm: int, rounds: int
) -> tuple[tuple[float, float, float], float]:
    batch = to_device(host, device)
    _peak(device)
    found = model.candidates(batch.images)
    visible = host.placements[0].visible
    original = int(host.sizes[0, 0]), int(host.sizes[0, 1])

    def paint_all() -> None:
        for number in range(len(host.placements)):
            paint(found, number, visible, original)

    transfer = _timed(lambda: to_device(host, device), device, warm, rounds)
    network = _timed(lambda: model.candidates(batch.images), device, warm, rounds)
    painting = _timed(paint_all, device, warm, rounds)
    return (transfer, network, painting), _peak(device)


def _timed(work: Callable[[], object], device: torch.device, warm: int, rounds: int) -> float:
    """Return seconds of one call, all that it started included."""
    for _ in range(warm):
        work()
    _wait(device)
    began = time.perf_counter()
    for _ in range(rounds):
        work()
    _wait(device)
    return (time.perf_counter() - began) / rounds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _peak(device: torch.device) -> float:
    """Return the most memory since the last call, and begin anew."""
    if device.type != "cuda":
        return float("nan")
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return peak


@click.command()
@click.option("--model", default="entity", show_default=True)
@click.option("--config", default="gpu_r50", show_default=True)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE")
@click.option("--size", type=(int, int), default=(800, 1333), show_default=True)
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "best"]), default="best", show_default=True)
def main(
    model: str,
    config: str,
    changes: tuple[str, ...],
    size: tuple[int, int],
    batch: int,
    rounds: int,
    device: str,
) -> None:
    """Measure training and prediction; prints one JSON object."""
    chosen = "cpu" if device == "cpu" else ""
    timing = measure(config, size, batch, rounds, changes, chosen, model)
    plain = {k: None if v != v else v for k, v in asdict(timing).items()}
    click.echo(json.dumps(plain, indent=1))


if __name__ == "__main__":
    main()
