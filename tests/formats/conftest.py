"""Small files as other tools write them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from entitybench.formats.predictions import ImageSize


@pytest.fixture
def image() -> ImageSize:
    """COCO's first validation image, shrunk."""
    return ImageSize("000000000139", 6, 4)


@pytest.fixture
def rle() -> Callable[[NDArray[Any]], dict[str, Any]]:
    """pycocotools' compressed RLE, as results files hold it."""

    def encode(mask: NDArray[Any]) -> dict[str, Any]:
        encoded: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        return {"size": encoded["size"], "counts": encoded["counts"].decode()}

    return encode


@pytest.fixture
def panoptic_png() -> Callable[[Any], bytes]:
    """A panoptic PNG by the definition R + 256 G + 65536 B, channel by channel."""

    def encode(ids: Any) -> bytes:
        values = np.asarray(ids, dtype=np.int64)
        channels = [values % 256, values // 256 % 256, values // 65536]
        file = io.BytesIO()
        Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(file, "PNG")
        return file.getvalue()

    return encode


@pytest.fixture
def write_results(tmp_path: Path) -> Callable[[Any], Path]:
    def write(results: Any) -> Path:
        path = tmp_path / "results.json"
        path.write_text(json.dumps(results))
        return path

    return write


@pytest.fixture
def write_panoptic(
    tmp_path: Path, panoptic_png: Callable[[Any], bytes]
) -> Callable[[Sequence[tuple[Any, Any, Sequence[dict[str, Any]]]]], Path]:
    """Write `(image id, id array, segments_info)` in the official layout."""

    def write(images: Sequence[tuple[Any, Any, Sequence[dict[str, Any]]]]) -> Path:
        folder = tmp_path / "panoptic"
        folder.mkdir()
        annotations = []
        for image_id, ids, segments in images:
            name = f"{image_id:012}.png" if isinstance(image_id, int) else f"{image_id}.png"
            (folder / name).write_bytes(panoptic_png(ids))
            annotations.append(
                {"image_id": image_id, "file_name": name, "segments_info": list(segments)}
            )
        path = tmp_path / "panoptic.json"
        path.write_text(json.dumps({"annotations": annotations}))
        return path

    return write
