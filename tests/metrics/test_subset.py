"""Subsets: cut from records, equal to a run on those images alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from entitybench.entity_map import EntityMap
from entitybench.errors import ConflictError, FormatError, MissingDataError
from entitybench.metrics import STRICT, Evaluation, ImagePair, MatchRecords, evaluate
from entitybench.metrics.subset import Subset, cut, label, read_subsets
from entitybench.perturbation import Perturbation, perturb


def made_pairs(count: int, name: str = "made_val") -> list[ImagePair]:
    random, pairs = np.random.default_rng(len(name)), []
    for number in range(count):
        ids = np.kron(random.integers(0, 8, (4, 5)), np.ones((6, 6), dtype=int))
        truth = EntityMap.from_array(ids)
        made = perturb(truth, random, Perturbation(0.2, 0.2, 0.2, 1, 0.3))
        pairs.append(ImagePair(str(number), truth, *made, set_name=name))
    return pairs


@pytest.fixture(scope="module")
def records() -> MatchRecords:
    return evaluate(made_pairs(8)).records


def test_a_subset_scores_like_a_run_on_it(records: MatchRecords) -> None:
    chosen = [made_pairs(8)[k] for k in (1, 5, 6)]
    part = cut(records, Subset("some", ("6", "1", "5")))
    assert part.images == tuple(pair.key for pair in chosen)
    expected = evaluate(chosen).all_scores()
    np.testing.assert_array_equal(
        list(Evaluation.of(part).all_scores().values()), list(expected.values())
    )


def test_a_subset_scores_as_pycocotools_says(records: MatchRecords, coco_reference: Any) -> None:
    """Of its images alone, from records that hold no map: nothing can be matched again."""
    part = cut(records, Subset("some", ("6", "1", "5", "2")))
    stats = coco_reference([made_pairs(8)[k] for k in (1, 2, 5, 6)], STRICT).stats
    ours = [*Evaluation.of(part).scores.as_dict().values()]
    np.testing.assert_array_equal(np.nan_to_num(ours, nan=-1), stats)


def test_text_is_one_subset(tmp_path: Path) -> None:
    (tmp_path / "night.txt").write_text("# by hand\n12\n\n  7  # rain\n")
    assert read_subsets(tmp_path / "night.txt") == [Subset("night", ("12", "7"))]


def test_json_is_a_subset_per_key(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"day": ["1"], "night": ["2", "3"]}))
    assert [s.name for s in read_subsets(tmp_path / "a.json")] == ["day", "night"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a b.txt", b"1", "cannot be called 'a b'"),
        ("a.txt", b"# nothing", "`a` has no image"),
        ("a.txt", b"1\n2\n1", "lists 1 images twice"),
        ("a.txt", b"\xff\xfe", "a text file of image ids"),
        ("a.json", b"[1]", "a.json"),
        ("a.json", b'{"x|y": ["1"]}', "cannot be called"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_subsets(tmp_path / name)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="cannot be read: No such file"):
        read_subsets(tmp_path / "a.txt")


def test_unknown_images_are_refused(records: MatchRecords) -> None:
    with pytest.raises(FormatError, match="names 2 images that the ground truth lacks") as caught:
        cut(records, Subset("some", ("1", "77", "88")))
    assert "--> 77" in str(caught.value)


def test_in_a_union_an_id_may_need_its_set() -> None:
    pairs = [*made_pairs(3, "a_val"), *made_pairs(3, "bc_val")]
    pairs.append(replace(pairs[0], image_id="9"))
    records = evaluate(pairs).records
    with pytest.raises(ConflictError, match="names 1 images that several sets have") as caught:
        cut(records, Subset("some", ("1", "9")))
    assert "write `set/id`" in str(caught.value)
    part = cut(records, Subset("some", ("bc_val/1", "9", "a_val/2")))
    assert part.images == (("a_val", "2"), ("a_val", "9"), ("bc_val", "1"))


def test_a_label_tells_the_images(records: MatchRecords) -> None:
    some, others = (Subset("some", ids) for ids in (("1", "2"), ("1", "3")))
    assert label(some, cut(records, some)) != label(others, cut(records, others))
    assert label(some, cut(records, some)).startswith("some@")
