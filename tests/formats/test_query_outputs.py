"""Raw query outputs: against torch, and by hand."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from entitybench.candidates import Candidates, resolve
from entitybench.errors import FormatError
from entitybench.formats.detection import open_predictions
from entitybench.formats.duplicates import DuplicateRule, Duplicates
from entitybench.formats.predictions import ImageSize
from entitybench.formats.query_outputs import QueryOutputs, QueryRules, QueryScore
from entitybench.formats.resize import Axis, enlarge, enlarge_positive
from tests.tiny_models import CLASSES, QUERIES, outputs_of

IDS = ["000000000139"]
BIG = ImageSize("000000000139", 77, 50)


def loaded(path: Path, image: ImageSize, **rules: Any) -> Candidates:
    reader = QueryOutputs(path, IDS, QueryRules(**rules))
    entry = pickle.loads(pickle.dumps(reader.entry(image)))
    found = entry.load()
    assert isinstance(found, Candidates)
    return found


def dense(candidates: Candidates) -> NDArray[np.bool_]:
    height, width = candidates.shape
    masks = np.zeros((len(candidates), height * width), bool)
    owners = candidates.owners
    for start, end, owner in zip(candidates.starts, candidates.ends, owners, strict=True):
        masks[owner, start:end] = True
    return masks.reshape(-1, height, width)


@pytest.mark.parametrize("shape", [(50, 77), (5, 7), (4, 6), (1, 1), (3, 40)])
def test_resizing_as_torch_does(shape: tuple[int, int]) -> None:
    stack = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(stack)[None], size=shape, mode="bilinear", align_corners=False
    )[0]
    rows, columns = Axis.between(4, shape[0]), Axis.between(6, shape[1])
    for mask, wanted in zip(stack, expected.numpy(), strict=True):
        whole = enlarge(mask, rows, columns)
        np.testing.assert_allclose(whole, wanted, atol=5e-6)
        down, across, part = enlarge_positive(mask - 0.8, rows, columns)
        there = np.zeros(shape, bool)
        there[down, across] = part > 0
        np.testing.assert_array_equal(there, enlarge(mask - np.float32(0.8), rows, columns) > 0)


@pytest.mark.parametrize("name", ["detr", "maskformer", "mask2former"])
@pytest.mark.parametrize("suffix", ["npz", "pth"])
def test_transformers_own_outputs(tmp_path: Path, name: str, suffix: str) -> None:
    """Saved by the names that transformers gives them, batch and all."""
    outputs = outputs_of(name)
    logits_name = "logits" if name == "detr" else "class_queries_logits"
    masks_name = "pred_masks" if name == "detr" else "masks_queries_logits"
    values = {logits_name: outputs[logits_name], masks_name: outputs[masks_name]}
    if suffix == "npz":
        np.savez(tmp_path / "139.npz", **{k: v.numpy() for k, v in values.items()})
    else:
        torch.save(dict(values), tmp_path / "139.pth")
    reader = open_predictions(tmp_path, image_ids=IDS)
    assert isinstance(reader, QueryOutputs)
    assert reader.max_entities == QUERIES
    assert f"{QUERIES} queries, {CLASSES} classes" in reader.description
    probabilities = values[logits_name][0].softmax(-1)[:, :-1]
    large = torch.nn.functional.interpolate(
        values[masks_name], size=BIG.shape, mode="bilinear", align_corners=False
    )[0]
    alive = (large > 0).flatten(1).any(1)
    found = loaded(tmp_path, BIG)
    np.testing.assert_allclose(found.scores, probabilities.amax(1)[alive].numpy(), atol=1e-6)
    wrong = dense(found) != (large > 0)[alive].numpy()
    assert wrong.mean() < 1e-4  # a logit within rounding of zero may fall on either side


LOGITS = np.array([[4.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 5.0]], np.float32)
MASKS = np.full((3, 4, 6), -1.0, np.float32)
MASKS[0, :, :3] = 1.0
MASKS[1, :, 3:] = 2.0
MASKS[2, 0] = 3.0


def save(folder: Path, logits: Any = LOGITS, masks: Any = MASKS) -> Path:
    np.savez(folder / "139.npz", logits=logits, masks=masks)
    return folder


def test_scores_by_hand(tmp_path: Path, image: ImageSize) -> None:
    found = loaded(save(tmp_path), image)
    e = np.exp
    best = [e(4) / (e(4) + 2), e(3) / (e(3) + 2), 1 / (e(5) + 2)]
    np.testing.assert_allclose(found.scores, best)
    assert found.areas.tolist() == [12, 12, 6]
    inside = [1 / (1 + e(-1)), 1 / (1 + e(-2)), 1 / (1 + e(-3))]
    weighted = loaded(tmp_path, image, score=QueryScore.CLASS_MASK)
    np.testing.assert_allclose(weighted.scores, np.multiply(best, inside), rtol=1e-6)
    assert QueryOutputs(tmp_path, IDS, QueryRules(QueryScore.CLASS_MASK)).score_rule == "class-mask"
    assert len(loaded(tmp_path, image, min_score=0.5)) == 2


def test_a_query_without_pixels_claims_nothing(tmp_path: Path, image: ImageSize) -> None:
    masks = MASKS.copy()
    masks[1] = -4
    found = loaded(save(tmp_path, masks=masks), image)
    assert found.areas.tolist() == [12, 6]


def test_painting_goes_by_score(tmp_path: Path, image: ImageSize) -> None:
    from entitybench.candidates import OverlapPolicy

    done = resolve(loaded(save(tmp_path), image), OverlapPolicy.RESOLVE)
    np.testing.assert_array_equal(done.map.to_array()[0], [1, 1, 1, 2, 2, 2])
    assert done.num_emptied == 1  # the third, sure to be nothing, has lost its row


def test_independent_classes_are_told_by_their_number(tmp_path: Path, image: ImageSize) -> None:
    save(tmp_path)
    sigmoid = loaded(tmp_path, image, num_classes=3)
    np.testing.assert_allclose(sigmoid.scores, 1 / (1 + np.exp([-4.0, -3.0, -5.0])))
    softmax = loaded(tmp_path, image, num_classes=2)
    np.testing.assert_array_equal(softmax.scores, loaded(tmp_path, image).scores)
    one = save(tmp_path, logits=LOGITS[:, :1])
    np.testing.assert_allclose(loaded(one, image).scores, 1 / (1 + np.exp([-4.0, 0, 0])))
    with pytest.raises(FormatError, match="class logits have 3 columns, expected 80 or 81"):
        QueryOutputs(save(tmp_path), IDS, QueryRules(num_classes=80))


def test_both_rules_for_duplicates(tmp_path: Path, image: ImageSize) -> None:
    """Two queries find one region, under two labels each; a third finds another."""
    logits = np.array([[3.0, 2.0, 0.0], [2.5, 2.6, 0.0], [9.0, 0.0, 0.0]], np.float32)
    masks = np.stack([MASKS[0], MASKS[0], MASKS[1]])
    save(tmp_path, logits, masks)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rules = {name: Duplicates(DuplicateRule(name)) for name in ("keep", "per-class", "agnostic")}
    keep, per_class, agnostic = (
        sorted(loaded(tmp_path, image, duplicates=rule).scores.tolist()) for rule in rules.values()
    )
    np.testing.assert_allclose(keep, sorted([p[0, 0], p[1, 1], p[2, 0]]))
    np.testing.assert_allclose(agnostic, sorted([p[0, 0], p[2, 0]]))
    # in class 0 the first query wins, in class 1 the second; the third stands alone in both
    np.testing.assert_allclose(per_class, sorted([p[0, 0], p[1, 1], p[2, 0], p[2, 1]]), rtol=1e-6)


def test_pairs_are_limited_to_what_ap_looks_at(tmp_path: Path, image: ImageSize) -> None:
    logits = np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32)
    masks = np.full((30, 4, 6), -1.0, np.float32)
    for k in range(30):
        masks[k].ravel()[k % 24] = 1
    save(tmp_path, logits, masks)
    rule = Duplicates(DuplicateRule.PER_CLASS, 0.999)
    probabilities = torch.from_numpy(logits).softmax(1)[:, :-1].double().numpy()
    best = np.sort(probabilities.ravel())[-100:]
    found = loaded(tmp_path, image, duplicates=rule)
    assert len(found) <= 100
    assert found.scores.min() >= best[0] - 1e-7


@pytest.mark.parametrize(
    ("logits", "masks", "message"),
    [
        (LOGITS[:2], MASKS, "2 queries in the class logits, 3 in the masks"),
        (LOGITS, MASKS[0], "expected floats"),
        (LOGITS[None].repeat(2, 0), MASKS, "expected floats"),
        (LOGITS[0], MASKS, "class logits have shape"),
        (LOGITS, MASKS > 0, "`masks` is bool"),
        (np.full((3, 3), np.nan), MASKS, "class logits hold values that are not numbers"),
        (LOGITS, MASKS * np.nan, "mask logits hold values that are not numbers"),
        (LOGITS, np.zeros((3, 0, 6)), "expected floats"),
    ],
)
def test_arrays_that_do_not_fit(
    tmp_path: Path, image: ImageSize, logits: Any, masks: Any, message: str
) -> None:
    save(tmp_path, logits, masks)
    with pytest.raises(FormatError, match=message) as caught:
        loaded(tmp_path, image)
    assert "139.npz" in str(caught.value)


def test_images_of_different_models(tmp_path: Path) -> None:
    save(tmp_path)
    np.savez(tmp_path / "285.npz", logits=LOGITS[:, :2], masks=MASKS)
    with pytest.raises(FormatError, match="have 2 columns in some images, 3 in others"):
        QueryOutputs(tmp_path, [*IDS, "000000000285"])


def test_the_number_of_queries_is_the_largest(tmp_path: Path) -> None:
    save(tmp_path, LOGITS[:1], MASKS[:1])
    np.savez(tmp_path / "285.npz", logits=LOGITS, masks=MASKS)
    assert QueryOutputs(tmp_path, [*IDS, "000000000285"]).max_entities == 3


def test_an_output_without_masks(tmp_path: Path) -> None:
    np.savez(tmp_path / "139.npz", logits=LOGITS)
    with pytest.raises(FormatError, match="1 outputs have no class logits or no mask logits"):
        QueryOutputs(tmp_path, IDS)


def test_no_queries(tmp_path: Path, image: ImageSize) -> None:
    found = loaded(save(tmp_path, LOGITS[:0], MASKS[:0]), image)
    assert len(found) == 0
