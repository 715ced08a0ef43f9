from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from entitybench.baselines.configuration import load_config
from entitybench.baselines.entity.config import EntityConfig
from entitybench.baselines.entity.model import EntityModel
from entitybench.baselines.prediction import (
    Predictor,
    list_photographs,
    predict_folder,
    predict_set,
)
from entitybench.entity_set import EntitySet, Model
from entitybench.errors import FormatError, MissingDataError
from entitybench.metrics.benchmark import evaluate
from entitybench.registry import open_entity_set
from entitybench.validation import validate

CHANGES = ("inference.threshold=0.005", "data.test_short_side=64", "data.longest=128")
DESCRIBED = Model("untrained")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(1)
    config = load_config(EntityConfig, "entitybench.baselines.entity", "tiny", CHANGES)
    model = EntityModel(config)
    with torch.no_grad():  # masks that do not fill the image
        model.head.kernel.output.weight.mul_(30)
    return Predictor.of(model.eval(), config)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def run(predictor: Predictor, truth: EntitySet, out: Path, **more: object) -> EntitySet:
    return predict_set(predictor, truth, out, DESCRIBED, options={"a": 1}, **more)  # type: ignore[arg-type]


def test_every_image_is_predicted_once_and_can_be_scored(
    predictor: Predictor, world: Path, tmp_path: Path
) -> None:
    truth = open_entity_set("coco_entity_val", world)
    made = run(predictor, truth, tmp_path / "coco_entity_val", batch=3)
    assert made.ids == truth.ids
    assert made.header.num_entities > 0
    assert list(validate(made)) == []
    done = evaluate(tmp_path, "coco_entity_val", data=world)
    assert 0 <= done.evaluation.scores.AP <= 1


def test_interrupted_and_resumed_gives_the_same_bytes(
    predictor: Predictor, world: Path, tmp_path: Path
) -> None:
    truth = open_entity_set("coco_entity_val", world)
    run(predictor, truth, tmp_path / "whole", batch=3)

    def kill(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(predictor, truth, tmp_path / "whole2", batch=3, progress=kill)
    again = tmp_path / "again" / "whole"
    again.parent.mkdir()
    (tmp_path / "whole2").rename(again)
    with pytest.raises(Exception, match="other options"):
        run(predictor, truth, again, batch=3)  # it was begun under another name
    (tmp_path / "cut").mkdir()
    with pytest.raises(KeyboardInterrupt):
        run(predictor, truth, tmp_path / "cut" / "whole", batch=3, progress=kill)
    run(predictor, truth, tmp_path / "cut" / "whole", batch=3)
    assert files(tmp_path / "cut" / "whole") == files(tmp_path / "whole")


def test_plain_photographs_of_any_size(predictor: Predictor, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    sizes = {"wide.jpg": (90, 40), "tall.png": (33, 71), "dot.png": (1, 1), "big.jpg": (300, 260)}
    for name, size in sizes.items():
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    Image.new("L", (50, 50), 90).save(folder / "gray.png")
    (folder / "notes.txt").write_text("not a photograph")
    made = predict_folder(
        predictor, folder, tmp_path / "out", DESCRIBED, options={}, batch=2, threads=2
    )
    assert set(made.ids) == {"wide", "tall", "dot", "big", "gray"}
    for name, (width, height) in sizes.items():
        row = made.image_row(Path(name).stem)
        assert (row.file_name, row.width, row.height) == (name, width, height)


def test_predictions_do_not_depend_on_company(predictor: Predictor) -> None:
    rng = np.random.default_rng(0)
    photographs = [
        Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8))
        for h, w in ((64, 64), (64, 90), (64, 64))
    ]
    together = predictor.predict(photographs)
    alone = [predictor.predict([p])[0] for p in photographs]
    for a, b in zip(together, alone, strict=True):
        assert a.map.shape == b.map.shape
        np.testing.assert_allclose(a.scores[:5], b.scores[:5], atol=1e-4)


def test_a_folder_that_cannot_be_predicted_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no folder"):
        list_photographs(tmp_path / "nothing")
    with pytest.raises(MissingDataError, match="holds no photograph"):
        list_photographs(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(FormatError, match="two photographs"):
        list_photographs(tmp_path)
