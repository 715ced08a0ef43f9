"""The Python of docs/your-model.md runs, and what it saves can be imported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from entitybench.entity_set import EntityImage, EntitySet, open_path
from entitybench.entity_writer import EntityWriter
from entitybench.formats.detection import open_predictions
from entitybench.formats.missing_score import MissingScore
from entitybench.photographs import read_photograph
from entitybench.registry import open_entity_set
from tests.tiny_models import QUERIES, tiny_model

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "your-model.md"
IDS = np.kron([[1, 2], [0, 3]], np.ones((24, 36), int))


def block(word: str) -> str:
    """The one Python block with a word in it; short enough to be believed."""
    fence = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
    (found,) = (b for b in fence.findall(GUIDE.read_text(encoding="utf-8")) if word in b)
    text: str = found
    assert len(text.splitlines()) <= 10
    return text


def run(word: str, **names: Any) -> None:
    exec(compile(block(word), f"{GUIDE.name}: {word}", "exec"), names)


@pytest.fixture
def truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EntitySet:
    """Two images of 72×48 pixels with their photographs, in a data root in the working folder."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photographs", "raw", "sam"):
        Path(folder).mkdir()
    location = str(tmp_path / "photographs")
    with EntityWriter("data/coco_entity_val", kind="ground_truth", images=location) as out:
        for image_id in ("000000000139", "000000000285"):
            noise = np.random.default_rng(int(image_id)).integers(0, 256, (48, 72, 3))
            Image.fromarray(noise.astype(np.uint8)).save(f"photographs/{image_id}.png")
            out.add(image_id, IDS, file_name=f"{image_id}.png")
    return open_entity_set("coco_entity_val")


def photograph(image: EntityImage) -> Image.Image:
    return read_photograph("photographs", image.row.file_name)


def count(path: str, truth: EntitySet, rule: MissingScore = MissingScore.ERROR) -> list[int]:
    """Entities or candidates in each image, as `open_predictions` reads them."""
    from entitybench.formats.predictions import ImageSize

    reader = open_predictions(Path(path), image_ids=truth.ids, missing_score=rule)
    sizes = [ImageSize(row.id, row.width, row.height) for row in truth.rows()]
    loaded = [reader.load(size) for size in sizes]
    return [len(found.scores) for found in loaded]


def test_a_map_of_ids(truth: EntitySet) -> None:
    def predict(file_name: str) -> tuple[NDArray[np.int64], list[float]]:
        assert file_name.endswith(".png")
        return IDS, [0.9, 0.5, 0.1]

    run("predict(image", predict=predict)
    written = open_path(Path("preds/mine/coco_entity_val"))
    assert written.header.num_entities == 6
    assert written.header.model is not None
    assert written.header.model.trained_on == ("coco_entity_train",)


def test_torch_masks(truth: EntitySet) -> None:
    def model(_: str) -> tuple[torch.Tensor, torch.Tensor]:
        masks = torch.zeros(2, 48, 72, dtype=torch.bool)
        masks[0, :, :40] = masks[1, :, 30:] = True
        return masks, torch.tensor([0.25, 0.75])

    run("masks.cpu()", model=model)
    written = open_path(Path("preds/mine/coco_entity_val"))
    assert written.header.model is not None
    assert written.header.model.resolved_images == 2
    assert written.header.num_entities == 4


def transformers_names(truth: EntitySet) -> dict[str, Any]:
    from transformers.models.mask2former import image_processing_pil_mask2former as module

    processor = module.Mask2FormerImageProcessorPil(size={"height": 64, "width": 96})
    model = tiny_model("mask2former")
    return {"truth": truth, "model": model, "processor": processor, "photograph": photograph}


def test_transformers_raw_outputs(truth: EntitySet) -> None:
    run("masks_queries_logits", **transformers_names(truth))
    assert all(0 < number <= QUERIES for number in count("raw", truth))


def test_transformers_results(truth: EntitySet) -> None:
    run("post_process_panoptic_segmentation", **transformers_names(truth))
    assert len(count("results.pth", truth)) == 2


def test_detectron2(truth: EntitySet) -> None:
    class Segments:
        """A tensor on another device, which `torch.save` would keep there."""

        def cpu(self) -> torch.Tensor:
            return torch.from_numpy(IDS).int()

    def predictor(_: Image.Image) -> dict[str, Any]:
        thing = {"id": 1, "isthing": True, "score": 0.9, "category_id": 0, "instance_id": 0}
        stuff = [{"id": k, "isthing": False, "category_id": k, "area": 864} for k in (2, 3)]
        return {"panoptic_seg": (Segments(), [thing, *stuff])}

    run('["panoptic_seg"]', truth=truth, photograph=photograph, predictor=predictor)
    assert count("panoptic.pth", truth, MissingScore.AREA) == [3, 3]


def test_sam(truth: EntitySet) -> None:
    class Generator:
        def generate(self, _: Image.Image) -> list[dict[str, Any]]:
            rle: Any = coco_mask.encode(np.asfortranarray(IDS == 1, np.uint8))
            rle["counts"] = rle["counts"].decode("utf-8")
            return [{"segmentation": rle, "predicted_iou": 1.01, "stability_score": 0.98}]

    run("generator.generate", truth=truth, photograph=photograph, generator=Generator())
    assert count("sam", truth) == [1, 1]


def test_the_floor(truth: EntitySet) -> None:
    run("predict_classical")
    written = open_path(Path("preds/felzenszwalb/coco_entity_val"))
    assert len(written) == 2
    assert written.header.model is not None
    assert written.header.model.score_rule == "area"
