"""Releases of a few pixels in the formats of the sources, written without the code under test."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.io import savemat

Files = dict[str, bytes]
ADE_FOLDERS = {"train": "training", "val": "validation"}


def grid(text: str) -> NDArray[np.int64]:
    """Read a drawing: numbers in lines, `.` for 0."""
    rows = [line.split() for line in text.strip().splitlines()]
    return np.array([[0 if word == "." else int(word) for word in row] for row in rows])


def png(pixels: ArrayLike, dtype: type[np.generic] = np.uint8) -> bytes:
    """Encode a picture."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels).astype(dtype)).save(file, "PNG")
    return file.getvalue()


def jpeg(shape: tuple[int, ...], mode: str = "RGB", orientation: int = 1) -> bytes:
    """Encode a photograph of a height and width as they are stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.new(mode, (shape[1], shape[0])).save(file, "JPEG", exif=exif)
    return file.getvalue()


def write(root: Path, files: Files) -> Path:
    """Write files below a folder."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def zipped(files: Files, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Pack files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def tarred(files: Files, mode: str = "w") -> bytes:
    """Pack files."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


# --- ADE20K --------------------------------------------------------------------


def ade20k(
    number: int,
    classes: ArrayLike,
    categories: ArrayLike | None = None,
    instances: ArrayLike | None = None,
    *,
    split: str = "val",
    top: str = "ADEChallengeData2016/",
) -> Files:
    """Return an image of the challenge: photograph, classes, categories and instances."""
    semantic = np.asarray(classes)
    stem, folder = f"ADE_{split}_{number:08d}", ADE_FOLDERS[split]
    red, green = (
        np.zeros_like(semantic) if a is None else np.asarray(a) for a in (categories, instances)
    )
    colours = np.stack([red, green, np.zeros_like(red)], axis=-1)
    return {
        f"{top}images/{folder}/{stem}.jpg": jpeg(semantic.shape),
        f"{top}annotations/{folder}/{stem}.png": png(semantic),
        f"{top}annotations_instance/{folder}/{stem}.png": png(colours),
    }


def ade20k_full(
    stem: str,
    classes: ArrayLike,
    blues: ArrayLike,
    *,
    objects: Sequence[tuple[int, int, int, ArrayLike]] | None = None,
    folder: str = "ADE20K_2021_17_01/images/ADE/validation/urban/street",
    encoding: str = "utf-8",
) -> Files:
    """Return an image of the full release.

    Args:
        stem: Its name.
        classes: Class of each pixel.
        blues: Blue of each pixel.
        objects: Id, class, part level and mask (0, 128, 255) of each; None: without masks.
        folder: Where it lies.
        encoding: Of the JSON.
    """
    number, blue = np.asarray(classes), np.asarray(blues)
    seg = np.stack([number // 256 * 10, number % 256, blue], axis=-1)
    base = f"{folder}/{stem}"
    files = {f"{base}.jpg": jpeg(number.shape), f"{base}_seg.png": png(seg)}
    if objects is None:
        return files
    rows: list[dict[str, Any]] = []
    for object_id, name_ndx, level, mask in objects:
        name = f"{stem}/instance_{object_id:03d}_{stem}.png"
        files[f"{folder}/{name}"] = png(mask)
        parts = {"hasparts": [], "ispartof": [], "part_level": level}
        rows.append({"id": object_id, "name": "café", "name_ndx": name_ndx, "parts": parts})
        rows[-1] |= {"instance_mask": name, "occluded": [], "attributes": "open"}
    text = json.dumps(
        {"annotation": {"filename": f"{stem}.jpg", "object": rows}}, ensure_ascii=False
    )
    return files | {f"{base}.json": text.encode(encoding)}


# --- Cityscapes ----------------------------------------------------------------


def cityscapes(
    image_id: str, numbers: ArrayLike, *, split: str = "val", dtype: type[np.generic] = np.uint16
) -> Files:
    """Return an image: photograph, instances and labels."""
    ids, city = np.asarray(numbers), image_id.partition("_")[0]
    fine, photograph = f"gtFine/{split}/{city}", f"leftImg8bit/{split}/{city}"
    labels = np.where(ids < 1000, ids, ids // 1000)
    return {
        f"{photograph}/{image_id}_leftImg8bit.png": png(np.zeros((*ids.shape, 3))),
        f"{fine}/{image_id}_gtFine_instanceIds.png": png(ids, dtype),
        f"{fine}/{image_id}_gtFine_labelIds.png": png(labels),
    }


# --- BSDS500 -------------------------------------------------------------------


def bsds500(
    number: int,
    humans: Iterable[ArrayLike],
    *,
    split: str = "val",
    top: str = "BSR/BSDS500/data/",
) -> Files:
    """Return an image: photograph, and the segmentations of several humans."""
    maps = [np.asarray(human, dtype=np.uint16) for human in humans]
    kinds = [("Segmentation", "O"), ("Boundaries", "O")]
    cells = np.empty((1, len(maps)), dtype=object)
    for k, segmentation in enumerate(maps):
        cell = np.empty((1, 1), dtype=kinds)
        cell[0, 0] = (segmentation, np.zeros(segmentation.shape, dtype=np.uint8))
        cells[0, k] = cell
    file: Any = io.BytesIO()  # the stubs know paths only
    savemat(file, {"groundTruth": cells}, do_compression=True)
    return {
        f"{top}images/{split}/{number}.jpg": jpeg(maps[0].shape),
        f"{top}groundTruth/{split}/{number}.mat": file.getvalue(),
    }


def coco_instances(stem: str) -> Files:
    """Write a table of one image with two polygons; told by its stem, as `lvis_v1_val`."""
    squares = [[0, 0, 3, 0, 3, 4, 0, 4], [5, 0, 8, 0, 8, 4, 5, 4]]
    annotations = [
        {"id": n, "image_id": 7, "category_id": 1, "iscrowd": 0, "area": 12, "segmentation": [xy]}
        for n, xy in enumerate(squares, start=1)
    ]
    image = {"id": 7, "file_name": "000000000007.jpg", "height": 4, "width": 8}
    category = {"id": 1, "name": "square"}
    table = {"images": [image], "annotations": annotations, "categories": [category]}
    return {f"annotations/{stem}.json": json.dumps(table).encode()}


def sa1b(number: int) -> Files:
    """Write one image of two masks of 2 × 2 pixels, the second inside the first."""
    texts = [[0, 4], [3, 1]]
    annotations = [
        {"id": n, "segmentation": {"size": [2, 2], "counts": counts}, "bbox": [0, 0, 2, 2]}
        | {"area": counts[1], "predicted_iou": 0.9, "stability_score": 0.9}
        | {"crop_box": [0, 0, 2, 2], "point_coords": [[1.0, 1.0]]}
        for n, counts in enumerate(texts)
    ]
    image = {"image_id": number, "width": 2, "height": 2, "file_name": f"sa_{number}.jpg"}
    content = {"image": image, "annotations": annotations}
    return {f"sa_{number}.json": json.dumps(content).encode()}


def mapillary(stem: str) -> Files:
    """Write one image of version 2.0 as its instance map, with its classes."""
    labels = [
        {"name": "animal--bird", "instances": True, "evaluate": True},
        {"name": "construction--flat--road", "instances": False, "evaluate": True},
    ]
    return {
        "config_v2.0.json": json.dumps({"labels": labels}).encode(),
        f"validation/v2.0/instances/{stem}.png": png([[0, 1, 256], [0, 1, 256]], np.uint16),
    }
