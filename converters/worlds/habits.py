"""The statistics in which the worlds differ; `vocabulary` has their labels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Habits:
    """In what one world differs from the others, labels apart.

    Attributes:
        layouts: Layout names and their weights.
        plenty: How many things a scene gets, as a factor.
        size: Size of the things, as a factor.
        crowds: Probability of a crowd where a layout has room for one.
        jitter: Amplitude of the annotators' outline noise, in pixels of a 128-pixel scene.
        forgotten: Probability that the annotators leave out an entity.
        saturation: Range of the colour saturation.
        warmth: Range of the colour temperature.
        noise: Range of the sensor noise, in levels.
        haze: Colour of the distance.
        outdoors: Whether it shows nothing but streets.
    """

    layouts: tuple[tuple[str, float], ...]
    plenty: float
    size: float
    crowds: float
    jitter: float
    forgotten: float
    saturation: tuple[float, float]
    warmth: tuple[float, float]
    noise: tuple[float, float]
    haze: str
    outdoors: bool = False


HABITS = {
    "coco": Habits(
        layouts=(("landscape", 30), ("street", 18), ("room", 22), ("tabletop", 20), ("front", 10)),
        plenty=0.95,
        size=1.1,
        crowds=0.14,
        jitter=0.0,
        forgotten=0.06,
        saturation=(0.9, 1.2),
        warmth=(-0.6, 0.8),
        noise=(2, 7),
        haze="#c9d9e6",
    ),
    "ade20k": Habits(
        layouts=(("room", 55), ("street", 16), ("landscape", 15), ("front", 14)),
        plenty=1.25,
        size=0.9,
        crowds=0.1,
        jitter=0.9,
        forgotten=0.06,
        saturation=(0.8, 1.1),
        warmth=(-0.2, 1.0),
        noise=(1, 5),
        haze="#d9dce0",
    ),
    "cityscapes": Habits(
        layouts=(("street", 100),),
        plenty=1.35,
        size=1.15,
        crowds=0.4,
        jitter=0.0,
        forgotten=0.02,
        saturation=(0.55, 0.8),
        warmth=(-0.9, -0.1),
        noise=(2, 5),
        haze="#c3cdc9",
        outdoors=True,
    ),
}
