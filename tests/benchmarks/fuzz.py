"""Throw broken bytes at the kernel: `python -m tests.benchmarks.fuzz --seconds 600`.

Run it with the sanitizers of `tests/kernel_sanitizers.sh`: what the kernel must not do (read or
write outside its buffers, overflow, hang) then ends the process. What it may do is refuse.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from entitybench import kernel
from entitybench.compiled_truth import (
    Masks,
    PixelOrder,
    TruthImage,
    compile_maps,
    compile_masks,
    open_compiled,
)
from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError
from entitybench.formats.json_rows import MappedText, scan_members, scan_whole_list
from entitybench.map_png import decode_map, encode_map
from entitybench.metrics import STRICT
from entitybench.metrics.fused import match_masks
from entitybench.metrics.fused_maps import StoredMaps, match_stored
from entitybench.png_rows import read_plain
from entitybench.rle import encode_counts

Random = np.random.Generator
_ALPHABET = np.arange(48, 112, dtype=np.uint8)


def broken(random: Random, data: bytes) -> bytes:
    """Flip, cut, repeat or insert a few bytes."""
    out = bytearray(data)
    for _ in range(int(random.integers(0, 4))):
        place = int(random.integers(0, len(out) + 1))
        match int(random.integers(0, 4)):
            case 0 if place < len(out):
                out[place] ^= 1 << int(random.integers(0, 8))
            case 1:
                del out[place:]
            case 2:
                out[place:place] = random.integers(0, 256, 3, dtype=np.uint8).tobytes()
            case _:
                out[place:place] = out[max(0, place - 9) : place]
    return bytes(out)


def rle_text(random: Random, pixels: int) -> bytes:
    """A mask's text: valid, of random characters, or broken."""
    if random.random() < 0.2:
        return random.choice(_ALPHABET, int(random.integers(0, 40))).tobytes()
    cuts = np.sort(random.integers(0, pixels + 1, int(random.integers(0, 9))))
    text = encode_counts(np.diff(cuts, prepend=0, append=pixels)).encode()
    return text if random.random() < 0.7 else broken(random, text)


def fuzz_text(random: Random, _: Path) -> None:
    pixels = int(random.choice([0, 1, 7, 64, 65, 4096, 2**31 - 1]))
    kind = int(random.choice([kernel.SEGMENT_TEXT, kernel.SEGMENT_ESCAPED, kernel.SEGMENT_LIST]))
    text = rle_text(random, pixels)
    if kind == kernel.SEGMENT_LIST:
        text = broken(random, json.dumps(random.integers(-1, 2**33, 5).tolist()).encode())
    runs = kernel.mask_runs(text, pixels, kind).astype(np.int64)
    flat = runs.ravel()
    if np.any(np.diff(flat) < 0) or np.any(flat > pixels) or np.any(runs[:, 0] == runs[:, 1]):
        msg = f"wrong runs of {text!r}"
        raise AssertionError(msg)


def _row(random: Random) -> dict[str, Any]:
    text = rle_text(random, 64).decode("latin-1")
    return {
        "image_id": random.choice([1, 2.0, 3]),
        "segmentation": {"size": [8, 8], "counts": text},
        "score": float(random.random()),
        "more": [None, True, {"a": "\u00e9\n"}, 1e-7],
    }


def fuzz_json(random: Random, folder: Path) -> None:
    rows = [_row(random) for _ in range(int(random.integers(0, 4)))]
    text = json.dumps(rows if random.random() < 0.7 else {"annotations": rows, "x": [rows]})
    path = folder / "rows.json"
    path.write_bytes(broken(random, text.encode()) or b" ")
    mapped = MappedText.of(path)
    scan_members(mapped, {}) if random.random() < 0.3 else scan_whole_list(mapped, lambda _: None)


def fuzz_png(random: Random, _: Path) -> None:
    shape = int(random.integers(1, 20)), int(random.integers(1, 20))
    wide = random.random() < 0.5
    ids = random.integers(0, 9, shape).astype(np.uint16 if wide else np.uint8)
    image = Image.fromarray(ids)
    if not wide:
        image.putpalette(bytes(768))
    file = BytesIO()
    image.save(file, format="PNG")
    png = _broken_png(random, file.getvalue())
    read_plain(png, shape)
    decode_map(png, shape, 9, 0)


def _broken_png(random: Random, png: bytes) -> bytes:
    """Leave a PNG whole, or break it anywhere, or inside its rows, or inside its codes."""
    kind = random.random()
    if kind < 0.2:
        return png
    if kind < 0.5:
        return _with_right_sums(broken(random, png))
    start = png.index(b"IDAT") + 4
    size = int.from_bytes(png[start - 8 : start - 4], "big")
    data = png[start : start + size]
    if kind < 0.75:
        level, strategy = int(random.integers(0, 10)), int(random.integers(0, 5))
        deflate = zlib.compressobj(level, zlib.DEFLATED, 15, 8, strategy)
        rows = bytearray(zlib.decompress(data))
        for _ in range(int(random.integers(0, 3))):
            rows[int(random.integers(0, len(rows)))] = int(random.integers(0, 6))
        data = deflate.compress(bytes(rows)) + deflate.flush()
    else:
        data = data[:2] + broken(random, data[2:-4]) + data[-4:]
    head, tail = png[: start - 8] + len(data).to_bytes(4, "big") + b"IDAT", png[start + size :]
    return _with_right_sums(head + data + tail)


def _with_right_sums(png: bytes) -> bytes:
    """Mend the checksums, so that what is broken reaches the kernel."""
    out, at = bytearray(png), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = zlib.crc32(out[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(out)


def fuzz_matching(random: Random, folder: Path) -> None:
    """Compile truth, perhaps break the file, match masks with it, now and then broken ones."""
    shape = int(random.integers(1, 40)), int(random.integers(1, 40))
    path = folder / "truth.runs"
    with path.open("wb") as file:
        maps = [EntityMap.from_array(random.integers(0, 4, shape)) for _ in range(2)]
        images = (TruthImage(str(i), m) for i, m in enumerate(maps))
        compile_maps(images, PixelOrder.COLUMNS, file)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data if random.random() < 0.7 else broken(random, data))
    truth = open_compiled(path)
    masks = _masks(random, random.integers(0, 130, 2), shape[0] * shape[1])
    if random.random() < 0.5:
        match_masks(truth, masks, STRICT, tables=random.random() < 0.5)
        return
    entries = truth.entries.copy()
    entries["num_entities"], entries["num_crowds"] = np.diff(masks.image_offsets), 0
    compile_masks(truth.ids, entries, masks, None, BytesIO())


def _masks(random: Random, counts: NDArray[np.int64], pixels: int) -> Masks:
    share = random.choice([0.0, 0.02])
    texts = [_mask(random, pixels, share) for _ in range(int(counts.sum()))]
    lengths = np.array([len(t) for t in texts], dtype=np.uint32)
    kinds = np.full(len(texts), kernel.SEGMENT_TEXT, dtype=np.uint8)
    joined, offsets = b"".join(texts), np.cumsum(lengths, dtype=np.int64) - lengths
    in_file = random.random() < 0.7
    return Masks(
        joined if in_file else b"",
        b"" if in_file else joined,
        offsets if in_file else -1 - offsets,
        lengths,
        kinds,
        random.random(len(texts)).round(1),
        np.concatenate(([0], np.cumsum(counts))),
    )


def _mask(random: Random, pixels: int, broken_share: float) -> bytes:
    if random.random() < broken_share:
        return rle_text(random, pixels)
    cuts = np.sort(random.integers(0, pixels + 1, int(random.integers(0, 9))))
    return encode_counts(np.diff(cuts, prepend=0, append=pixels)).encode()


def fuzz_maps(random: Random, folder: Path) -> None:
    """Match broken PNGs; what they are scored by must be what the careful reader sees."""
    shape = int(random.integers(1, 40)), int(random.integers(1, 40))
    count = int(random.choice([0, 3, 120, 400]))
    maps = [_blocks(random, shape, count) for _ in range(2)]
    path = folder / "truth.runs"
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        images = (TruthImage(str(i), m) for i, m in enumerate(maps))
        compile_maps(images, PixelOrder.ROWS, file)
    pngs = {str(i): _broken_png(random, encode_map(m)) for i, m in enumerate(maps)}
    stored = StoredMaps(
        _Memory(pngs),
        [f"maps/{name}.png" for name in pngs],
        np.array([0, count, 2 * count]),
        random.random(2 * count).round(1),
        np.full(2, count),
    )
    found = match_stored(open_compiled(path), stored, STRICT, tables=random.random() < 0.5)
    for name in pngs.keys() - found.left:
        given = decode_map(pngs[name], shape, count, 0)
        areas = given.areas[found.records.take([int(name)]).prediction_ids]
        if not np.array_equal(areas, found.records.take([int(name)]).areas):
            msg = f"wrong areas of {pngs[name]!r}"
            raise AssertionError(msg)
    if found.left:
        msg = "left to the careful reader"
        raise FormatError(msg)


def _blocks(random: Random, shape: tuple[int, int], count: int) -> EntityMap:
    coarse = random.integers(0, count + 1, (shape[0] // 3 + 1, shape[1] // 3 + 1))
    dense = np.kron(coarse, np.ones((3, 3), dtype=np.int64))[: shape[0], : shape[1]]
    return EntityMap.from_array(dense, entities=range(1, count + 1))


class _Memory:
    """A set's files, by stem."""

    path = Path("memory")

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def read(self, name: str) -> bytes:
        return self._files[Path(name).stem]

    def seekable(self, name: str) -> IO[bytes]:
        return BytesIO(self.read(name))


def fuzz_runs(random: Random, _: Path) -> None:
    """Runs that are no map."""
    count = int(random.integers(1, 9))
    starts = np.sort(random.integers(-1, 30, count)).astype(np.int32)
    starts[0] = 0
    ids = random.integers(-1, 5, count).astype(np.int32)
    good = np.array([0, 9], dtype=np.int32), np.array([1, 0], dtype=np.int32)
    if random.random() < 0.5:
        kernel.measure(starts, ids, (5, 6), 3)
    else:
        kernel.contingency((starts, ids), good, 30, 3, 2)


TARGETS: tuple[Callable[[Random, Path], None], ...] = (
    fuzz_text,
    fuzz_json,
    fuzz_png,
    fuzz_matching,
    fuzz_maps,
    fuzz_runs,
)


@contextmanager
def little_memory(more: int = 1 << 30) -> Iterator[None]:
    """Let nothing take more than a GiB beyond what is taken already, where the system can.

    Images here have some hundred pixels, and broken files may claim 2³¹: whoever believes them
    before checking runs out of memory, which is no `FormatError` and ends the fuzzing.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        yield
        return
    import resource

    [now] = re.findall(r"VmSize:\s+(\d+) kB", status.read_text(encoding="ascii"))
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1024 * int(now) + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def run(seconds: float, seed: int) -> dict[str, tuple[int, int]]:
    """Fuzz all targets in little memory; returns cases and refusals of each."""
    counts = {target.__name__: [0, 0] for target in TARGETS}
    random, began = np.random.default_rng(seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder, little_memory():
        while time.monotonic() - began < seconds:
            for target in TARGETS:
                counts[target.__name__][0] += 1
                try:
                    target(random, Path(folder))
                except FormatError:
                    counts[target.__name__][1] += 1
    return {name: (cases, refused) for name, (cases, refused) in counts.items()}


@click.command()
@click.option("--seconds", default=600.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(seconds: float, seed: int) -> None:
    """Fuzz the kernel; a crash or a wrong result ends the process."""
    click.echo(kernel.describe())
    for name, (cases, refused) in run(seconds, seed).items():
        click.echo(f"{name:<16}{cases:>10} cases, {refused} refused")


if __name__ == "__main__":
    main()
