"""SAM's automatic masks, written as `amg.py --convert-to-rle` and SA-1B write them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from entitybench.candidates import Candidates
from entitybench.errors import FormatError
from entitybench.formats.coco_results import CocoResults
from entitybench.formats.detection import open_predictions
from entitybench.formats.flattening import Flattening, flatten
from entitybench.formats.predictions import ImageSize
from entitybench.formats.sam import SamMasks, SamScore, bounded

RLE = Callable[[NDArray[Any]], dict[str, Any]]
IDS = ["000000000139", "000000000285"]


def masks(rle: RLE) -> list[dict[str, Any]]:
    """A house, its wall and its door: each inside the one before."""
    found = []
    boxes = [(0, 4, 0, 6, 0.90, 0.99), (1, 4, 1, 5, 1.02, 0.98), (2, 4, 2, 4, 0.95, 0.97)]
    for top, bottom, left, right, iou, stability in boxes:
        mask = np.zeros((4, 6))
        mask[top:bottom, left:right] = 1
        found.append(
            {
                "segmentation": rle(mask),
                "area": int(mask.sum()),
                "bbox": [left, top, right - left - 1, bottom - top - 1],
                "predicted_iou": iou,
                "point_coords": [[2.5, 2.5]],
                "stability_score": stability,
                "crop_box": [0, 0, 6, 4],
            }
        )
    return found


def opened(path: Path) -> SamMasks:
    reader = open_predictions(path, image_ids=IDS)
    assert isinstance(reader, SamMasks)
    return reader


def candidates(path: Path, image: ImageSize) -> Candidates:
    found = opened(path).load(image)
    assert isinstance(found, Candidates)
    return found


def test_as_the_script_writes_it(tmp_path: Path, image: ImageSize, rle: RLE) -> None:
    for image_id in IDS:
        (tmp_path / f"{image_id}.json").write_text(json.dumps(masks(rle)))
    assert opened(tmp_path).description == "SAM masks: 2 JSON files, scored by predicted-iou"
    found = candidates(tmp_path, image)
    assert found.areas.tolist() == [24, 12, 4]
    assert found.scores[[0, 2]].tolist() == [0.9, 0.95]
    assert 0.999 < found.scores[1] < 1
    alone = candidates(tmp_path / f"{IDS[0]}.json", image)
    np.testing.assert_array_equal(alone.scores, found.scores)


def test_as_sa_1b_has_it(tmp_path: Path, image: ImageSize, rle: RLE) -> None:
    info = {"image_id": 139, "width": 6, "height": 4, "file_name": "000000000139.jpg"}
    annotations = [{**mask, "id": 5} for mask in masks(rle)]
    packed = gzip.compress(json.dumps({"image": info, "annotations": annotations}).encode())
    (tmp_path / "000000000139.json.gz").write_bytes(packed)
    assert candidates(tmp_path, image).areas.tolist() == [24, 12, 4]


def write_folder(folder: Path, rle: RLE) -> None:
    """Write what `amg.py` writes without `--convert-to-rle`."""
    folder.mkdir(parents=True)
    box = ("bbox_x0", "bbox_y0", "bbox_w", "bbox_h")
    crop = ("crop_box_x0", "crop_box_y0", "crop_box_w", "crop_box_h")
    head = ["id", "area", *box, "point_input_x", "point_input_y"]
    lines = [",".join([*head, "predicted_iou", "stability_score", *crop])]
    for number, mask in enumerate(masks(rle)):
        left, top, width, height = mask["bbox"]
        pixels = np.zeros((4, 6), np.uint8)
        pixels[top : top + height + 1, left : left + width + 1] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png")
        row = [number, mask["area"], *mask["bbox"], *mask["point_coords"][0]]
        row += [mask["predicted_iou"], mask["stability_score"], *mask["crop_box"]]
        lines.append(",".join(map(str, row)))
    (folder / "metadata.csv").write_text("\n".join(lines))


def test_folders_of_pngs_are_what_the_json_is(tmp_path: Path, image: ImageSize, rle: RLE) -> None:
    (tmp_path / "json").mkdir()
    for image_id in IDS:
        (tmp_path / "json" / f"{image_id}.json").write_text(json.dumps(masks(rle)))
        write_folder(tmp_path / "png" / image_id, rle)
    reader = opened(tmp_path / "png")
    assert reader.description == "SAM masks: 2 folders of PNGs, scored by predicted-iou"
    assert reader.image_ids == set(IDS)
    expected = candidates(tmp_path / "json", image)
    for path in (tmp_path / "png", tmp_path / "png" / IDS[0]):  # all, or one image
        found = candidates(path, image)
        np.testing.assert_array_equal(found.scores, expected.scores)
        for policy in Flattening:
            assert flatten(found, policy).map == flatten(expected, policy).map
    stable = SamMasks(tmp_path / "png", IDS, SamScore.STABILITY).load(image)
    assert isinstance(stable, Candidates)
    assert stable.scores.tolist() == [0.99, 0.98, 0.97]


def test_an_image_in_which_sam_found_nothing(tmp_path: Path, image: ImageSize, rle: RLE) -> None:
    write_folder(tmp_path / image.id, rle)
    table = tmp_path / image.id / "metadata.csv"
    table.write_text(table.read_text().partition("\n")[0])
    assert len(candidates(tmp_path, image)) == 0


def test_a_broken_folder_is_refused(tmp_path: Path, image: ImageSize, rle: RLE) -> None:
    write_folder(tmp_path / image.id, rle)
    table = tmp_path / image.id / "metadata.csv"
    text = table.read_text()
    for broken, message in (
        (text.replace("1.02", "high"), r"Expected `float`.*\[1\].predicted_iou"),
        (text.replace("\n2,", "\n../2,"), r"Expected `int`.*\[2\].id"),
        (text.replace("stability_score", "stability"), "field `stability_score`"),
        (text.replace("\n2,", "\n7,"), r"no mask `7.png`"),
    ):
        table.write_text(broken)
        with pytest.raises(FormatError, match=message):
            candidates(tmp_path, image)
    table.write_text(text)
    Image.new("L", (4, 6)).save(tmp_path / image.id / "1.png")
    with pytest.raises(FormatError, match="the PNG is 4×6, the image is 6×4"):
        candidates(tmp_path, image)
    (tmp_path / "more.json").write_text(json.dumps(masks(rle)))
    with pytest.raises(FormatError, match="more than one thing") as caught:
        opened(tmp_path)
    assert caught.value.where[1] == "1 folders of SAM's masks"


def test_anybodys_metadata_is_not_sams(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "metadata.csv").write_text("file_name,text\n1.png,a cat\n")
    with pytest.raises(FormatError, match="no known format"):
        open_predictions(tmp_path, image_ids=IDS)


def test_uncompressed_runs(tmp_path: Path, image: ImageSize, rle: RLE) -> None:
    rows = masks(rle)[:1]
    rows[0]["segmentation"] = {"size": [4, 6], "counts": [0, 24]}
    (tmp_path / "139.json").write_text(json.dumps(rows))
    assert candidates(tmp_path, image).areas.tolist() == [24]


def test_nested_masks_by_each_policy(tmp_path: Path, image: ImageSize, rle: RLE) -> None:
    (tmp_path / "139.json").write_text(json.dumps(masks(rle)))
    found = candidates(tmp_path, image)
    small = flatten(found, Flattening.SMALL_ON_TOP)
    assert small.map.areas.tolist() == [0, 12, 8, 4]
    score = flatten(found, Flattening.SCORE_ON_TOP)  # wall, door, house
    assert score.map.areas.tolist() == [0, 12, 12]
    assert score.num_emptied == 1
    large = flatten(found, Flattening.LARGE_ON_TOP)
    assert large.map.areas.tolist() == [0, 24]
    assert large.scores.tolist() == [0.9]


def test_stability_as_the_score(tmp_path: Path, image: ImageSize, rle: RLE) -> None:
    (tmp_path / "139.json").write_text(json.dumps(masks(rle)))
    reader = SamMasks(tmp_path, IDS, SamScore.STABILITY)
    assert reader.score_rule == "stability-score"
    loaded = reader.load(image)
    assert isinstance(loaded, Candidates)
    assert loaded.scores.tolist() == [0.99, 0.98, 0.97]


def test_scores_stay_in_order_and_in_bounds() -> None:
    values = np.concatenate([np.linspace(-0.5, 1.5, 2001), [0.999, 1.0, 2.0]])
    squeezed = bounded(np.sort(values))
    assert squeezed.min() == 0
    assert squeezed.max() < 1
    positive = np.unique(values[values > 0])
    assert np.all(np.diff(bounded(positive)) > 0)
    usual = positive[positive <= 0.999]
    np.testing.assert_array_equal(bounded(usual), usual)


def test_results_that_merely_mention_an_iou_are_results(tmp_path: Path, rle: RLE) -> None:
    row = {"image_id": 139, "score": 0.5, "segmentation": masks(rle)[0]["segmentation"]}
    (tmp_path / "139.json").write_text(json.dumps([row]))
    assert isinstance(open_predictions(tmp_path, image_ids=IDS), CocoResults)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": {"size": [6, 4], "counts": [24]}}, "is not the image's"),
        ({"segmentation": {"size": [4, 6], "counts": [23]}}, "counts sum to 23"),
        ({"predicted_iou": "high"}, "expected `float`"),
        ({"stability_score": None}, "expected `float`"),
    ],
)
def test_a_broken_mask_is_named(
    tmp_path: Path, image: ImageSize, rle: RLE, change: dict[str, Any], message: str
) -> None:
    rows = masks(rle)
    rows[2] |= change
    (tmp_path / "139.json").write_text(json.dumps(rows))
    with pytest.raises(FormatError, match=message) as caught:
        candidates(tmp_path, image)
    assert "[2]" in caught.value.where[0]


def test_files_that_nobody_knows_or_that_come_twice(tmp_path: Path, rle: RLE) -> None:
    text = json.dumps(masks(rle))
    (tmp_path / "139.json").write_text(text)
    (tmp_path / "000000000139.json").write_text(text)
    with pytest.raises(FormatError, match="image `000000000139` is there twice"):
        opened(tmp_path)
    (tmp_path / "000000000139.json").unlink()
    (tmp_path / "7.json").write_text(text)
    with pytest.raises(FormatError, match="1 image is unknown"):
        SamMasks(tmp_path, IDS)


def test_real_automatic_masks(realdata: Path, tmp_path: Path) -> None:
    """SA-V: SAM 2's own automatic masks of a frame, put into the script's fields."""
    source = realdata / "extras" / "sa_v_example" / "sav_000001_auto.json"
    video = json.loads(source.read_text())
    stabilities = video["masklet_stability_score"][0]
    rows = [
        {"segmentation": rle, "predicted_iou": 0.5 + k / 100, "stability_score": stability}
        for k, (rle, stability) in enumerate(zip(video["masklet"][0], stabilities, strict=True))
        if rle is not None
    ]
    (tmp_path / "frame.json").write_text(json.dumps(rows))
    reader = open_predictions(tmp_path, image_ids=["frame"])
    size = ImageSize("frame", int(video["video_width"]), int(video["video_height"]))
    found = reader.load(size)
    assert isinstance(found, Candidates)
    texts = [{**row["segmentation"], "counts": row["segmentation"]["counts"]} for row in rows]
    np.testing.assert_array_equal(found.areas, coco_mask.area(texts))
    done = flatten(found, Flattening.SMALL_ON_TOP)
    union = coco_mask.area(coco_mask.merge(texts))
    assert done.map.areas[1:].sum() == union
