"""Mask stacks: both layouts, the score rules, and files that lie about themselves."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from entitybench.candidates import Candidates
from entitybench.errors import FormatError, MissingDataError
from entitybench.formats import mask_stack
from entitybench.formats.mask_stack import MaskStacks
from entitybench.formats.missing_score import MissingScore
from entitybench.formats.predictions import ImageSize, ScoredMap

TRUTH = ["000000000139", "street"]
MASKS = np.array([[[1, 1, 1, 0, 0, 0]] * 4, [[0, 0, 0, 0, 0, 0]] * 4, [[0, 0, 1, 1, 1, 1]] * 4])
SCORES = np.array([0.5, 0.25, 1.0])


def load(path: Path, image: ImageSize, rule: MissingScore = MissingScore.ERROR) -> Any:
    return MaskStacks(path, TRUTH, rule).load(image)


def dense(candidates: Candidates) -> NDArray[np.bool_]:
    height, width = candidates.shape
    stack = np.zeros((len(candidates), height * width), dtype=bool)
    for run, owner in enumerate(candidates.owners):
        stack[owner, candidates.starts[run] : candidates.ends[run]] = True
    return stack.reshape(-1, height, width)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, ">i2"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_masks_and_scores(tmp_path: Path, image: ImageSize, dtype: Any, save: Any) -> None:
    save(tmp_path / "139.npz", masks=MASKS.astype(dtype), scores=SCORES)
    predictions = MaskStacks(tmp_path, TRUTH)
    assert predictions.image_ids == {"000000000139"}
    assert predictions.description == "mask stacks: 1 files"
    assert predictions.score_rule == "model"
    found = predictions.load(image)
    assert isinstance(found, Candidates)
    assert np.array_equal(dense(found), MASKS)
    assert found.scores.tolist() == SCORES.tolist()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 200))
def test_blocks_of_any_size_join_to_the_same_masks(tmp_path: Path, seed: int, at_once: int) -> None:
    rng = np.random.default_rng(seed)
    count, height, width = rng.integers(0, 9), rng.integers(1, 9), rng.integers(1, 9)
    masks = rng.random((count, height, width)) < 0.5
    np.savez(tmp_path / "street.npz", masks=masks, scores=rng.random(count))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_stack, "_AT_ONCE", at_once)
        found = load(tmp_path, ImageSize("street", int(width), int(height)))
    expected = Candidates.from_masks(masks, np.zeros(count))
    assert np.array_equal(found.starts, expected.starts)
    assert np.array_equal(found.ends, expected.ends)
    assert np.array_equal(found.offsets, expected.offsets)


def test_many_masks_need_the_memory_of_a_few(tmp_path: Path) -> None:
    masks = np.zeros((400, 512, 512), dtype=bool)
    masks[:, 100:200, 100:200] = True
    np.savez_compressed(tmp_path / "street.npz", masks=masks, scores=np.ones(400))
    size = masks.nbytes
    del masks
    predictions = MaskStacks(tmp_path / "street.npz", TRUTH)
    tracemalloc.start()
    found = predictions.load(ImageSize("street", 512, 512))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(found, Candidates)
    assert found.areas.tolist() == [10_000] * 400
    assert peak < size


def test_an_id_map_and_scores_in_ascending_order(tmp_path: Path, image: ImageSize) -> None:
    ids = np.array([[0, 900, 900, 7, 7, 0]] * 4, dtype=np.uint16)
    np.savez(tmp_path / "000000000139.npz", ids=ids, scores=[0.25, 0.75])
    found = load(tmp_path, image)
    assert isinstance(found, ScoredMap)
    assert found.map.to_array().tolist() == [[0, 2, 2, 1, 1, 0]] * 4
    assert found.scores.tolist() == [0.25, 0.75]


def test_an_id_map_may_be_stored_in_fortran_order(tmp_path: Path, image: ImageSize) -> None:
    ids = np.random.default_rng(0).integers(0, 4, (4, 6))
    np.save(tmp_path / "139.npy", np.asfortranarray(ids))
    found = load(tmp_path, image, MissingScore.AREA)
    assert found.map.to_array().tolist() == ids.tolist()


def test_plain_arrays_have_no_scores(tmp_path: Path, image: ImageSize) -> None:
    np.save(tmp_path / "139.npy", MASKS.astype(bool))
    np.save(tmp_path / "street.npy", MASKS[0] * 5)
    with pytest.raises(MissingDataError, match=r"^2 mask stacks have no score") as caught:
        MaskStacks(tmp_path, TRUTH)
    assert "--missing-score" in caught.value.hint
    predictions = MaskStacks(tmp_path, TRUTH, MissingScore.AREA)
    assert predictions.score_rule == "area"
    masks = predictions.load(image)
    assert isinstance(masks, Candidates)
    assert masks.scores.tolist() == [0.5, 0, 16 / 24]
    ids = predictions.load(ImageSize("street", 6, 4))
    assert isinstance(ids, ScoredMap)
    assert (ids.map.areas.tolist(), ids.scores.tolist()) == ([12, 12], [0.5])


def test_the_mean_probability_inside_each_mask(tmp_path: Path, image: ImageSize) -> None:
    probabilities = np.arange(72, dtype=np.float32).reshape(3, 4, 6) / 128
    np.savez(tmp_path / "139.npz", masks=MASKS.astype(bool), probabilities=probabilities)
    found = load(tmp_path, image, MissingScore.MEAN_PROB)
    inside = [probabilities[k][MASKS[k] == 1] for k in (0, 2)]
    assert found.scores == pytest.approx([inside[0].mean(), 0, inside[1].mean()])
    assert load(tmp_path, image, MissingScore.CONSTANT).scores.tolist() == [1, 1, 1]
    np.savez(tmp_path / "139.npz", masks=MASKS.astype(bool))
    with pytest.raises(MissingDataError, match="mean-prob` needs probabilities, and there are"):
        MaskStacks(tmp_path, TRUTH, MissingScore.MEAN_PROB)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (np.ones((2, 4, 6)), r"probabilities are \(2, 4, 6\), masks are \(3, 4, 6\)"),
        (np.ones((3, 4, 6), int), "`probabilities` holds int64, expected floats"),
        (np.full((3, 4, 6), 1.5), r"a value that is not in \[0, 1\]"),
        (np.full((3, 4, 6), np.nan), r"a value that is not in \[0, 1\]"),
    ],
)
def test_bad_probabilities_are_refused(
    tmp_path: Path, image: ImageSize, probabilities: NDArray[Any], message: str
) -> None:
    np.savez(tmp_path / "139.npz", masks=MASKS, probabilities=probabilities)
    with pytest.raises(FormatError, match=message):
        load(tmp_path, image, MissingScore.MEAN_PROB)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"masks": MASKS.transpose(0, 2, 1)}, "the prediction is 4×6, the image is 6×4"),
        ({"masks": MASKS[0]}, "`masks` has shape .*, expected 3 dimensions"),
        ({"masks": MASKS.astype(float)}, "`masks` holds float64, expected booleans or integers"),
        ({"masks": MASKS * 255}, "booleans, or integers 0 and 1"),
        ({"masks": MASKS, "scores": SCORES[:2]}, r"3 entities need 3 scores, `scores` is .* \(2,"),
        ({"masks": MASKS, "scores": SCORES[None]}, "3 entities need 3 scores"),
        ({"masks": MASKS, "scores": np.array(["a", "b", "c"])}, "3 entities need 3 scores"),
        ({"masks": MASKS, "scores": SCORES + 0.5}, r"score 1.5 of entity 3 is not in \[0, 1\]"),
        ({"masks": MASKS, "scores": SCORES * np.nan}, r"score nan of entity 1 is not in"),
        ({"ids": MASKS}, "`ids` has shape .*, expected 2 dimensions"),
        ({"ids": MASKS[0].astype(bool)}, "`ids` holds bool, expected integers"),
        ({"ids": MASKS[0].T.copy()}, "the prediction is 4×6, the image is 6×4"),
        ({"ids": MASKS[0] - 1}, "ids hold -1; 0 is void, entities are positive"),
        ({"ids": MASKS[0], "scores": SCORES}, "1 entities need 1 scores"),
        ({"masks": MASKS.astype(object)}, "Python objects, which are never unpickled"),
        ({"masks": np.asfortranarray(MASKS)}, "stored in Fortran order"),
    ],
)
def test_bad_arrays_name_their_file(
    tmp_path: Path, image: ImageSize, arrays: dict[str, NDArray[Any]], message: str
) -> None:
    path = tmp_path / "139.npz"
    np.savez(path, **{"scores": SCORES} | arrays)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=message) as caught:
        load(tmp_path, image)
    assert str(path) in caught.value.where[0]


@pytest.mark.parametrize(
    ("arrays", "there"),
    [
        ({"arr_0": MASKS}, "it holds arr_0"),
        ({"masks": MASKS, "ids": MASKS[0]}, "it holds ids, masks"),
        ({}, "it holds nothing"),
    ],
)
def test_other_arrays_are_refused(
    tmp_path: Path, arrays: dict[str, NDArray[Any]], there: str
) -> None:
    np.savez(tmp_path / "139.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="either `masks` or `ids`") as caught:
        MaskStacks(tmp_path, TRUTH)
    assert caught.value.hint == there


def test_an_array_of_other_dimensions_is_refused(tmp_path: Path, image: ImageSize) -> None:
    np.save(tmp_path / "139.npy", np.zeros(24, dtype=bool))
    with pytest.raises(FormatError, match=r"masks are \(N, H, W\) and ids \(H, W\)"):
        load(tmp_path, image, MissingScore.AREA)


def test_a_pickle_is_never_opened(tmp_path: Path, image: ImageSize) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    np.save(tmp_path / "139.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "street.npz", masks=np.array([Bomb()], dtype=object), scores=SCORES)
    predictions = MaskStacks(tmp_path, TRUTH, MissingScore.AREA)
    for size in (image, ImageSize("street", 6, 4)):
        with pytest.raises(FormatError, match="never unpickled"):
            predictions.load(size)
    assert not (tmp_path / "exploded").exists()


def header_of(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    fields = {"descr": "|b1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()


def test_a_header_that_promises_more_than_there_is_is_refused(
    tmp_path: Path, image: ImageSize
) -> None:
    huge = header_of((10**9, 4, 6))
    (tmp_path / "139.npy").write_bytes(huge + bytes(24))
    with zipfile.ZipFile(tmp_path / "street.npz", "w") as archive:
        archive.writestr("masks.npy", huge + bytes(24))
    predictions = MaskStacks(tmp_path, TRUTH, MissingScore.AREA)
    for size in (image, ImageSize("street", 6, 4)):
        with pytest.raises(FormatError, match="header promises 24,000,000,128 bytes, the file has"):
            predictions.load(size)


def test_a_zip_that_unpacks_to_another_size_is_refused(tmp_path: Path) -> None:
    """The directory of the zip promises as much as the header; the data do not come."""
    path = tmp_path / "street.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("masks.npy", header_of((1, 4, 6)) + bytes(24))
    data = bytearray(path.read_bytes())
    larger = len(header_of((9, 4, 6))) + 9 * 24
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = larger.to_bytes(4, "little")
    path.write_bytes(bytes(data))
    with pytest.raises(FormatError) as caught:
        load(path, ImageSize("street", 6, 4), MissingScore.AREA)
    assert str(path) in caught.value.where[0]


def test_booleans_that_are_neither_true_nor_false_are_refused(
    tmp_path: Path, image: ImageSize
) -> None:
    (tmp_path / "139.npy").write_bytes(header_of((1, 4, 6)) + bytes([2] * 24))
    with pytest.raises(FormatError, match="booleans, or integers 0 and 1"):
        load(tmp_path, image, MissingScore.AREA)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_truncated_file_is_refused_by_name(
    tmp_path: Path, image: ImageSize, suffix: str, keep: int
) -> None:
    path = tmp_path / f"139{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, masks=MASKS, scores=SCORES)
    else:
        np.save(path, MASKS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FormatError) as caught:
        load(tmp_path, image, MissingScore.AREA)
    assert caught.value.where[0].startswith(str(path))


def test_damaged_data_fail_their_checksum(tmp_path: Path, image: ImageSize) -> None:
    path = tmp_path / "139.npz"
    np.savez(path, masks=MASKS.astype(np.uint8), scores=SCORES)
    data = bytearray(path.read_bytes())
    place = data.index(MASKS.astype(np.uint8).tobytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FormatError, match="CRC"):
        load(tmp_path, image)


def test_unknown_and_doubled_files_are_refused(tmp_path: Path) -> None:
    for name in ("139", "000000000139", "other", "more"):
        np.savez(tmp_path / f"{name}.npz", masks=MASKS, scores=SCORES)
    with pytest.raises(FormatError, match="image `000000000139` is there twice"):
        MaskStacks(tmp_path, TRUTH)
    (tmp_path / "139.npz").unlink()
    with pytest.raises(FormatError, match=r"^2 images are unknown") as caught:
        MaskStacks(tmp_path, TRUTH)
    assert caught.value.where == (f"{tmp_path}: image more", f"{tmp_path}: image other")


def test_an_image_without_a_file_is_missing(tmp_path: Path, image: ImageSize) -> None:
    np.savez(tmp_path / "street.npz", masks=MASKS, scores=SCORES)
    predictions = MaskStacks(tmp_path, TRUTH)
    assert not predictions.absent_means_empty
    with pytest.raises(MissingDataError, match="no predictions for image `000000000139`"):
        predictions.entry(image)


def test_an_entry_crosses_a_process_border(tmp_path: Path, image: ImageSize) -> None:
    np.savez(tmp_path / "139.npz", masks=MASKS, scores=SCORES)
    entry = pickle.loads(pickle.dumps(MaskStacks(tmp_path, TRUTH).entry(image)))
    assert np.array_equal(dense(entry.load()), MASKS)
