"""The floor: classical segmentation, made by anybody to the same bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import click
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from entitybench.baselines.classical import CLASSICAL, predict_classical, segment
from entitybench.commands.predict_command import command
from entitybench.entity_set import EntitySet, open_path
from entitybench.entity_writer import EntityWriter
from entitybench.errors import FormatError, MissingDataError, UnknownNameError
from entitybench.metrics.benchmark import evaluate


def quarters(side: int = 64) -> NDArray[np.uint8]:
    """Four flat colours."""
    photograph = np.zeros((side, side, 3), np.uint8)
    half = side // 2
    photograph[:half, :half] = 250, 20, 20
    photograph[:half, half:] = 20, 250, 20
    photograph[half:, :half] = 20, 20, 250
    photograph[half:, half:] = 250, 250, 250
    return photograph


@pytest.fixture
def truth(tmp_path: Path) -> EntitySet:
    """Two photographs of four quarters, and their entities."""
    (tmp_path / "photographs").mkdir()
    ids = np.kron([[1, 2], [3, 4]], np.ones((32, 32), int))
    location = str(tmp_path / "photographs")
    with EntityWriter(tmp_path / "toy", kind="ground_truth", images=location) as out:
        for number in range(2):
            photograph = Image.fromarray(np.roll(quarters(), number, axis=2))
            photograph.save(tmp_path / "photographs" / f"{number}.png")
            out.add(str(number), ids, file_name=f"{number}.png")
    return open_path(tmp_path / "toy")


def test_flat_quarters_are_found_but_for_their_blurred_edges() -> None:
    entity_map, scores = segment("felzenszwalb", quarters())
    best = np.argsort(-scores)[:4] + 1
    assert entity_map.areas[best].min() > 0.85 * 1024
    inner = entity_map.to_array()[[8, 8, 56, 56], [8, 56, 8, 56]]
    assert sorted(inner.tolist()) == sorted(best.tolist())


@pytest.mark.parametrize("name", CLASSICAL)
def test_every_pixel_has_its_region_and_regions_score_their_share(name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    entity_map, scores = segment(name, noise)
    assert entity_map.areas[0] == 0
    assert entity_map.num_entities >= 1
    np.testing.assert_allclose(scores * 2000, entity_map.areas[1:])
    assert scores.sum() == pytest.approx(1)
    again, _ = segment(name, noise.copy())
    assert again == entity_map


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_set_is_predicted_scored_and_repeated(truth: EntitySet, name: str) -> None:
    root = truth.path.parent
    made = predict_classical(name, truth, root / "preds")
    assert made.header.model is not None
    assert (made.header.model.name, made.header.model.score_rule) == (name, "area")
    again = predict_classical(name, truth, root / "again", jobs=2, name="floor")
    assert again.header.content_hash == made.header.content_hash
    assert again.header.model is not None
    assert again.header.model.name == "floor"
    done = evaluate(made.path, str(truth.path))
    assert done.result.signature.prediction == "scores:area|overlap:none"
    if name == "felzenszwalb":
        assert done.result.scores["AP50"] == pytest.approx(100)


def test_it_resumes(truth: EntitySet) -> None:
    root = truth.path.parent
    (root / "photographs" / "1.png").rename(root / "1.png")
    with pytest.raises(MissingDataError, match=r"no photograph `1\.png`"):
        predict_classical("slic", truth, root / "preds")
    (root / "1.png").rename(root / "photographs" / "1.png")
    (root / "photographs" / "0.png").unlink()  # done already: not read again
    assert len(predict_classical("slic", truth, root / "preds")) == 2
    assert len(predict_classical("slic", truth, root / "preds")) == 2


def test_what_cannot_be_predicted(truth: EntitySet, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean `slic`"):
        predict_classical("slick", truth, tmp_path / "preds")
    with pytest.raises(UnknownNameError, match="unknown classical model"):
        segment("sam", quarters())
    with pytest.raises(FormatError, match=r"this is float64 \(2, 2\)"):
        segment("slic", np.zeros((2, 2)))  # type: ignore[arg-type]
    Image.fromarray(quarters(32)).save(tmp_path / "photographs" / "0.png")
    with pytest.raises(FormatError, match="the photograph is 32×32, the set says 64×64"):
        predict_classical("slic", truth, tmp_path / "preds")
    with EntityWriter(tmp_path / "nowhere", kind="ground_truth") as out:
        out.add("0", [[1]])
    with pytest.raises(MissingDataError, match="nobody knows where the photographs"):
        predict_classical("slic", open_path(tmp_path / "nowhere"), tmp_path / "other")


@pytest.fixture
def photographs_of_bsds(realdata: Path, tmp_path: Path) -> EntitySet:
    """Ten real photographs with the regions that a person drew."""
    from scipy.io import loadmat

    root = realdata / "bsds500" / "BSDS500" / "data"
    images = root / "images" / "val"
    files = sorted(images.glob("*.jpg"))[:10]
    with EntityWriter(tmp_path / "bsds", kind="ground_truth", images=str(images)) as out:
        for file in files:
            drawn = loadmat(root / "groundTruth" / "val" / f"{file.stem}.mat")["groundTruth"]
            out.add(file.stem, drawn[0, 0]["Segmentation"][0, 0], file_name=file.name)
    return open_path(tmp_path / "bsds")


@pytest.mark.parametrize("name", CLASSICAL)
def test_real_photographs_score_above_nothing(
    photographs_of_bsds: EntitySet, tmp_path: Path, name: str
) -> None:
    truth = photographs_of_bsds
    made = predict_classical(name, truth, tmp_path / "preds")
    scores = evaluate(made.path, str(truth.path)).result.scores
    assert scores["AP"] is not None
    assert 0 < scores["AP"] < 30
    again = predict_classical(name, truth, tmp_path / "again")
    digests = [
        hashlib.sha256(b"".join(p.read_bytes() for p in sorted(path.rglob("*.png")))).hexdigest()
        for path in (made.path, again.path)
    ]
    assert digests[0] == digests[1]


def test_from_the_command_line(truth: EntitySet, capsys: pytest.CaptureFixture[str]) -> None:
    out = truth.path.parent / "preds"
    arguments = ["--model", "watershed", "--out", str(out), "-j", "1", "--json"]
    assert command.main([*arguments, "--on", str(truth.path)], standalone_mode=False) == 0
    (made,) = json.loads(capsys.readouterr().out)["sets"]
    assert made == {"path": str(out / "toy"), "images": 2}
    with pytest.raises(click.UsageError, match="--model watershed needs --on"):
        command.main([*arguments, "--images", "photographs"], standalone_mode=False)
