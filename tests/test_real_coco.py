"""The whole path on real COCO panoptic files; runs where the samples are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from entitybench.cli import main
from entitybench.entity_map import EntityMap
from entitybench.entity_set import EntitySet
from entitybench.entity_writer import EntityWriter
from entitybench.errors import OverlapError
from entitybench.metrics import Protocol
from entitybench.metrics.benchmark import evaluate
from entitybench.perturbation import Perturbation, merge, perturb, shifted, split
from entitybench.registry import open_entity_set
from entitybench.validation import validate
from tests.pycocotools_oracle import coco_results, pycocotools_stats

SETS = {"train": "coco_entity_train", "val": "coco_entity_val"}


@pytest.fixture(scope="module")
def layout(realdata: Path) -> Path:
    return realdata / "coco_panoptic" / "assembled_official_layout"


@pytest.fixture(scope="module")
def data(layout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "data"
    assert main(["convert", "coco", "--source", str(layout), "--out", str(out), "-j", "1"]) == 0
    return out


@pytest.fixture(scope="module")
def val(data: Path) -> EntitySet:
    return open_entity_set("coco_entity_val", data)


def original_ids(layout: Path, split_name: str, image_id: str) -> NDArray[np.int64]:
    png = layout / "annotations" / f"panoptic_{split_name}2017" / f"{image_id}.png"
    rgb = np.asarray(Image.open(png)).astype(np.int64)
    ids: NDArray[np.int64] = rgb @ np.array([1, 256, 65536])
    return ids


def same_partition(one: NDArray[Any], two: NDArray[Any]) -> bool:
    """Whether two id maps cut the image alike, whatever the ids; 0 must be 0 in both."""
    pairs = np.unique(np.stack([one.ravel(), two.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1] and bool(
        np.all((pairs[0] == 0) == (pairs[1] == 0))
    )


def test_counts_are_the_expected_ones(realdata: Path, data: Path) -> None:
    expected = json.loads((realdata / "expected_entity_counts.json").read_text())["coco_panoptic"]
    seen = 0
    for split_name, name in SETS.items():
        for image in open_entity_set(name, data):
            facts = expected[f"{image.id}.png"]
            areas = image.map.areas
            assert facts["split"] == f"{split_name}2017"
            assert [image.row.width, image.row.height] == facts["size"]
            assert image.map.num_entities == facts["entities"]
            assert image.map.num_crowds == facts["crowd"]
            assert areas[0] == facts["void_px"]
            assert areas[image.map.num_entities + 1 :].sum() == facts["crowd_px"]
            seen += 1
    assert seen == 3


def test_the_sets_are_sound(data: Path) -> None:
    for name in SETS.values():
        assert list(validate(open_entity_set(name, data))) == []


def test_exported_again_it_is_the_original_partition(
    layout: Path, data: Path, tmp_path: Path
) -> None:
    for split_name, name in SETS.items():
        out = tmp_path / split_name
        assert main(["export", "coco-panoptic", name, "-o", str(out), "--data", str(data)]) == 0
        for image in open_entity_set(name, data):
            (png,) = out.rglob(f"{image.id}.png")
            exported = np.asarray(Image.open(png)).astype(np.int64) @ np.array([1, 256, 65536])
            assert same_partition(exported, original_ids(layout, split_name, image.id))


@pytest.mark.parametrize("protocol", ["strict", "official"])
def test_truth_against_itself_is_100(val: EntitySet, data: Path, protocol: str) -> None:
    done = evaluate(val.path, "coco_entity_val", data=data, protocol=Protocol.named(protocol))
    points = done.result.scores["AP"]
    assert points is not None
    assert abs(points - 100) < 1e-12


def merged(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    merge(ids, 2)
    merge(ids, 5)
    return ids


def cut(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    split(ids, 1)
    split(ids, 3)
    return ids


def dropped(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    ids[(ids == 2) | (ids == 4)] = 0
    return ids


def moved(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    return shifted(ids, 3, -5)


def untouched(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    return ids


@pytest.mark.parametrize("spoil", [merged, cut, dropped, moved, untouched])
def test_spoiled_truth_scores_what_pycocotools_says(
    val: EntitySet, data: Path, tmp_path: Path, spoil: Any
) -> None:
    rng = np.random.default_rng(3)
    with EntityWriter(tmp_path / "p", model="spoiled") as writer:
        for image in val:
            ids = image.map.to_array()
            ids[ids > image.map.num_entities] = 0
            spoiled = EntityMap.from_array(spoil(ids))
            writer.add(image.id, spoiled, rng.random(spoiled.num_entities).round(1))
    done = evaluate(tmp_path / "p", "coco_entity_val", data=data)
    ours = np.array([*done.evaluation.scores.as_dict().values()])
    stats = pycocotools_stats(val, coco_results(open_entity_set(tmp_path / "p")))
    assert np.array_equal(np.nan_to_num(ours, nan=-1), stats)
    assert 0 < stats[0] <= 1


def test_everything_spoiled_at_once_scores_what_pycocotools_says(
    val: EntitySet, data: Path, tmp_path: Path
) -> None:
    for seed in range(10):
        path = tmp_path / f"p{seed}"
        with EntityWriter(path, model="spoiled") as writer:
            for image in val:
                rng = np.random.default_rng([seed, int(image.id)])
                writer.add(image.id, *perturb(image.map, rng, Perturbation(0.2, 0.3, 0.2, 4, 0.4)))
        ours = evaluate(path, "coco_entity_val", data=data).evaluation.scores.as_dict()
        stats = pycocotools_stats(val, coco_results(open_entity_set(path)))
        assert np.array_equal(np.nan_to_num([*ours.values()], nan=-1), stats)


def test_real_masks_that_overlap_are_refused_with_pairs_and_pixels(
    val: EntitySet, data: Path, tmp_path: Path
) -> None:
    """Each entity grows by two pixels: the true pairs come from dense masks."""
    image = val["000000000139"]
    dense = image.map.to_array()
    masks = dense[None] == np.arange(1, image.map.num_entities + 1)[:, None, None]
    for _ in range(2):
        grown = masks.copy()
        grown[:, 1:] |= masks[:, :-1]
        grown[:, :, 1:] |= masks[:, :, :-1]
        masks = grown
    flat = masks.reshape(len(masks), -1).astype(np.int64)
    shared = np.triu(flat @ flat.T, 1)
    expected = {
        f"000000000139: entities {a + 1} and {b + 1} share {n} pixel{'' if n == 1 else 's'}"
        for a, b, n in zip(*np.nonzero(shared), shared[shared > 0], strict=True)
    }
    results = []
    for mask in masks:
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
        results.append({"image_id": 139, "segmentation": segmentation, "score": 0.5})
    (tmp_path / "grown.json").write_text(json.dumps(results))
    with pytest.raises(OverlapError, match="predictions overlap in 1 of 2 images") as caught:
        evaluate(tmp_path / "grown.json", "coco_entity_val", data=data)
    assert set(caught.value.where) == expected
    assert len(expected) > 20


def test_the_archives_convert_as_they_are(realdata: Path, data: Path, tmp_path: Path) -> None:
    source = str(realdata / "mini_archives")
    assert main(["convert", "coco", "--source", source, "--out", str(tmp_path), "-j", "2"]) == 0
    for name in SETS.values():
        from_archive, from_folder = open_entity_set(name, tmp_path), open_entity_set(name, data)
        assert from_archive.header.content_hash == from_folder.header.content_hash


def test_show_draws_a_real_image(val: EntitySet, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    arguments = ["show", "coco_entity_val", "000000142238", "--data", str(data), "-o", str(out)]
    assert main([*arguments, "--gt", "coco_entity_val"]) == 0
    with Image.open(out) as picture:
        assert picture.size == (1310, 2 * (427 + 30) + 60)
