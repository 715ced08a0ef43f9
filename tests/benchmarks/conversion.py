"""How fast sources convert: `ENTITYBENCH_REALDATA=… python -m tests.benchmarks.conversion`.

Per source, from copies of its real samples: images per second and core; the ratio to doing
nothing but decoding the same files and encoding the same maps; and, for Cityscapes, how many
times faster than `createPanopticImgs` of cityscapesscripts on the same files.  Time is processor
time of one process, so that a busy machine changes little; rounds are interleaved, and the
median counts.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import click
import numpy as np
from PIL import Image

from entitybench import kernel
from entitybench.converters import convert
from entitybench.map_png import PALETTE

AIM_RATIO, AIM_SPEEDUP = 1.3, 5.0


@dataclass(frozen=True)
class Sample:
    """A release made of copies of real samples.

    Attributes:
        source: What converts it.
        root: Where it is.
        files: The pictures that a converter has to decode.
        images: How many images it has.
        peer: Another program that converts the same files into a folder, if there is one.
    """

    source: str
    root: Path
    files: list[Path]
    images: int
    peer: Callable[[Path, Path], None] | None = None


# --- samples -------------------------------------------------------------------


def coco(real: Path, root: Path, copies: int) -> Sample:
    """Copy the two images of val under new numbers."""
    folder = real / "coco_panoptic" / "assembled_official_layout" / "annotations"
    table = json.loads((folder / "panoptic_val2017.json").read_text())
    pngs = root / "annotations" / "panoptic_val2017"
    pngs.mkdir(parents=True)
    images = {image["id"]: image for image in table["images"]}
    made: dict[str, list[object]] = {"images": [], "annotations": []}
    for number in range(copies):
        annotation = table["annotations"][number % len(table["annotations"])]
        stem = f"{number:012}"
        image = images[annotation["image_id"]]
        made["images"].append({**image, "id": number, "file_name": f"{stem}.jpg"})
        names = {"image_id": number, "file_name": f"{stem}.png"}
        made["annotations"].append({**annotation, **names})
        shutil.copy(folder / "panoptic_val2017" / annotation["file_name"], pngs / f"{stem}.png")
    (root / "annotations" / "panoptic_val2017.json").write_text(json.dumps({**table, **made}))
    return Sample("coco", root, sorted(pngs.iterdir()), copies)


def ade20k(real: Path, root: Path, copies: int) -> Sample:
    """Copy the images that have both maps, under new numbers."""
    top = real / "ade20k_challenge_derived"
    top = next(folder for folder in (top, *top.iterdir()) if (folder / "annotations").is_dir())
    semantic = sorted((top / "annotations").rglob("*.png"))
    files: list[Path] = []
    for number in range(copies):
        original = semantic[number % len(semantic)]
        name = f"ADE_val_{number + 1:08}.png"
        for kind in ("annotations", "annotations_instance"):
            source = top / kind / original.parent.name / original.name
            files.append(root / kind / "validation" / name)
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, files[-1])
    return Sample("ade20k", root, files, copies)


def cityscapes(real: Path, root: Path, copies: int) -> Sample:
    """Take the labels as they are: each is as much work as several images of other sources."""
    labels = real / "cityscapes" / "gtFine"
    files = sorted(labels.glob("*/*/*_instanceIds.png"))[: max(1, copies // 8)]
    for file in files:
        for path in (file, file.with_name(file.name.replace("instanceIds", "labelIds"))):
            place = root / "gtFine" / path.relative_to(labels)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    copied = sorted((root / "gtFine").glob("*/*/*_instanceIds.png"))
    return Sample("cityscapes", root, copied, len(copied), _create_panoptic_imgs)


def _create_panoptic_imgs(root: Path, out: Path) -> None:
    from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic

    sets = [folder.name for folder in (root / "gtFine").iterdir()]
    with contextlib.redirect_stdout(io.StringIO()):
        convert2panoptic(str(root / "gtFine"), str(out), False, sets)


SAMPLES: dict[str, Callable[[Path, Path, int], Sample]] = {
    "coco": coco,
    "ade20k": ade20k,
    "cityscapes": cityscapes,
}

# --- timing --------------------------------------------------------------------


def seconds(work: Callable[[], object]) -> float:
    """Return the processor time of this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def bare(files: Sequence[Path], maps: Sequence[np.ndarray]) -> None:
    """Decode the files and encode the maps, and nothing else."""
    for file in files:
        np.asarray(Image.open(io.BytesIO(file.read_bytes())))
    for ids in maps:
        image = Image.fromarray(ids)
        if ids.dtype == np.uint8:
            image.putpalette(PALETTE)
        image.save(io.BytesIO(), format="PNG", bits=8)


@dataclass
class Timings:
    """Seconds of each round."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)

    def line(self, sample: Sample) -> str:
        ours, floor = statistics.median(self.ours), statistics.median(self.bare)
        cells = [
            sample.source,
            f"{sample.images}",
            f"{sample.images / ours:.1f}",
            f"{1000 * ours / sample.images:.2f}",
            f"{1000 * floor / sample.images:.2f}",
            f"{ours / floor:.2f}",
            f"{statistics.median(self.peer) / ours:.1f}" if self.peer else "–",
        ]
        return "".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True))


HEAD = ("source", "images", "images/s/core", "ms/image", "bare ms", "ratio", "x official")
WIDTHS = (12, 8, 15, 10, 10, 8, 12)


def measure(sample: Sample, folder: Path, rounds: int) -> Timings:
    """Time a sample; the first round warms up and does not count."""
    timings = Timings()
    out, peer_out = folder / "out", folder / "peer"
    for number in range(rounds + 1):
        shutil.rmtree(out, ignore_errors=True)
        ours = seconds(lambda: convert(sample.source, sample.root, out))
        maps = [np.asarray(Image.open(path)) for path in out.glob("*/maps/*.png")]
        floor = seconds(partial(bare, sample.files, maps))
        theirs = 0.0
        if sample.peer is not None:
            shutil.rmtree(peer_out, ignore_errors=True)
            peer_out.mkdir()
            theirs = seconds(lambda: sample.peer(sample.root, peer_out))  # type: ignore[misc]
        if number:
            timings.ours.append(ours)
            timings.bare.append(floor)
            timings.peer += [theirs] if sample.peer else []
    return timings


@click.command()
@click.option("--copies", default=96, show_default=True, help="Images per source.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--source", "names", multiple=True, type=click.Choice(list(SAMPLES)))
def main(copies: int, rounds: int, names: tuple[str, ...]) -> None:
    """Print a table of all sources."""
    real = os.environ.get("ENTITYBENCH_REALDATA")
    if not real:
        sys.exit("ENTITYBENCH_REALDATA names the folder of real samples")
    print(f"{kernel.describe()}; median of {rounds} rounds, processor time of one process")
    print("".join(cell.rjust(width) for cell, width in zip(HEAD, WIDTHS, strict=True)))
    for name in names or SAMPLES:
        with tempfile.TemporaryDirectory() as folder:
            sample = SAMPLES[name](Path(real), Path(folder) / "release", copies)
            print(measure(sample, Path(folder), rounds).line(sample), flush=True)
    print(f"aims: ratio at most {AIM_RATIO}; at least {AIM_SPEEDUP:.0f} times the official script")


if __name__ == "__main__":
    main()
