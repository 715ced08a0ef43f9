"""The compiled kernel gives the bits of its NumPy twins, and refuses what they refuse."""

from __future__ import annotations

import json
import math
import struct
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from entitybench import kernel
from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError
from entitybench.formats.json_rows import (
    HAS_SCORE,
    IMAGE_IS_TEXT,
    MappedText,
    Rows,
    scan_members,
    scan_whole_list,
    skip_value,
)
from entitybench.rle import decode_counts, encode_counts, runs_of_counts

pytestmark = pytest.mark.skipif(not kernel.is_active(), reason="the kernel is not active")


def a_map(rng: np.random.Generator, height: int, width: int, ids: int) -> EntityMap:
    coarse = rng.integers(0, ids + 1, (height // 3 + 1, width // 3 + 1))
    dense = np.kron(coarse, np.ones((3, 3), dtype=int))[:height, :width]
    return EntityMap.from_array(dense, entities=range(1, ids + 1))


def coco_text(mask: NDArray[np.bool_]) -> bytes:
    encoded: bytes = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return encoded


# --- RLE text ---


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 70_000), min_size=1, max_size=60))
def test_text_decodes_to_the_twins_runs(counts: list[int]) -> None:
    text = encode_counts(counts).encode()
    pixels = sum(counts)
    starts, ends = runs_of_counts(decode_counts(text), pixels)
    found = kernel.mask_runs(text, pixels)
    assert found[:, 0].tolist() == starts.tolist()
    assert found[:, 1].tolist() == ends.tolist()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 2000))
def test_any_bytes_are_decoded_or_refused_as_by_the_twin(text: bytes, pixels: int) -> None:
    try:
        starts, ends = runs_of_counts(decode_counts(text), pixels)
    except FormatError:
        with pytest.raises(FormatError):
            kernel.mask_runs(text, pixels)
    else:
        assert kernel.mask_runs(text, pixels).tolist() == np.stack([starts, ends], 1).tolist()


rle_bytes = st.lists(st.integers(48, 111), max_size=30).map(bytes)


@settings(max_examples=500, deadline=None)
@given(rle_bytes)
def test_rle_characters_in_any_order(text: bytes) -> None:
    try:
        counts = decode_counts(text)
        pixels = int(counts.sum())
        starts, ends = runs_of_counts(counts, pixels)
    except FormatError:
        for pixels in (0, 1, 100):
            with pytest.raises(FormatError):
                kernel.mask_runs(text, pixels)
        return
    if pixels < 2**31:
        assert kernel.mask_runs(text, pixels).tolist() == np.stack([starts, ends], 1).tolist()


@settings(max_examples=200, deadline=None)
@given(rle_bytes)
def test_escapes_are_resolved_as_json_does(text: bytes) -> None:
    escaped = json.dumps(text.decode())[1:-1].encode()
    unicode = "".join(f"\\u{c:04x}" for c in text).encode()
    for raw in (escaped, unicode):
        try:
            plain = kernel.mask_runs(text, 50).tolist()
        except FormatError:
            with pytest.raises(FormatError):
                kernel.mask_runs(raw, 50, kernel.SEGMENT_ESCAPED)
        else:
            assert kernel.mask_runs(raw, 50, kernel.SEGMENT_ESCAPED).tolist() == plain


def test_lists_of_counts() -> None:
    assert kernel.mask_runs(b"[1, 2,\n3, 4]", 10, kernel.SEGMENT_LIST).tolist() == [[1, 3], [6, 10]]
    assert kernel.mask_runs(b"[]", 0, kernel.SEGMENT_LIST).tolist() == []
    for wrong in (b"[1, -2, 3]", b"[1, 1.5]", b'["1", 9]', b"[99999999999999999999]", b"[[10]]"):
        with pytest.raises(FormatError):
            kernel.mask_runs(wrong, 10, kernel.SEGMENT_LIST)


# --- maps ---


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.uint64, np.int8])
def test_runs_of_arrays(dtype: type[np.signedinteger[Any]]) -> None:
    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 7, 8, 9, 17, 300):
        flat = rng.integers(0, 2, size).astype(dtype)
        expected = [i for i in range(size) if i == 0 or flat[i] != flat[i - 1]]
        assert kernel.find_runs(flat).tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_areas_and_boxes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 30)), int(rng.integers(1, 30))
    made = a_map(rng, *shape, int(rng.integers(0, 6)))
    areas, boxes = kernel.measure(made.starts, made.ids, shape, made.num_ids)
    dense = made.to_array()
    for i in range(made.num_ids + 1):
        y, x = np.nonzero(dense == i)
        assert areas[i] == len(y)
        box = [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1] if len(y) else [0, 0, 0, 0]
        assert boxes[i].tolist() == box


@pytest.mark.parametrize("seed", range(30))
def test_contingency_counts_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 40)), int(rng.integers(1, 40))
    truth, prediction = a_map(rng, *shape, 4), a_map(rng, *shape, 7)
    counted = 5  # ids 6 and 7 are void
    rows, columns, pixels = kernel.contingency(
        (truth.starts, truth.ids),
        (prediction.starts, prediction.ids),
        truth.lengths.sum(),
        4,
        counted,
    )
    table = np.zeros((5, counted + 1), dtype=int)
    ids = prediction.to_array()
    np.add.at(table, (truth.to_array(), np.where(ids > counted, 0, ids)), 1)
    found = np.zeros_like(table)
    found[rows, columns] = pixels
    assert np.array_equal(found, table)
    assert np.count_nonzero(table) == len(pixels)
    assert np.all(np.diff(rows * (counted + 1) + columns) > 0)


def test_maps_that_lie_are_refused() -> None:
    good = np.array([0, 3], dtype=np.int32), np.array([0, 1], dtype=np.int32)
    for starts, ids in (
        ([1, 3], [0, 1]),
        ([0, 0], [0, 1]),
        ([0, 9], [0, 1]),
        ([0, 3], [0, 2]),
        ([0, 3], [-1, 1]),
        ([0, -3], [0, 1]),
    ):
        bad = np.array(starts, dtype=np.int32), np.array(ids, dtype=np.int32)
        with pytest.raises(FormatError):
            kernel.contingency(bad, good, 9, 1, 1)
        with pytest.raises(FormatError):
            kernel.measure(*bad, (3, 3), 1)
    with pytest.raises(ValueError, match="buffer"):
        kernel.contingency((good[0], good[1][:1]), good, 9, 1, 1)


# --- ranking ---


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, -0.0, 0.5, 1.0]), max_size=60))
def test_scores_sort_stably(scores: list[float]) -> None:
    values = np.array(scores, dtype=np.float64)
    expected = np.argsort(-values, kind="stable")
    assert np.array_equal(kernel.sort_scores(values), expected)


# --- PNG ---


def png_of(data: bytes, shape: tuple[int, int], depth: int = 8, pieces: int = 1) -> bytes:
    """A gray PNG of the given image data, in so many chunks."""

    def chunk(name: bytes, content: bytes) -> bytes:
        sums = zlib.crc32(name + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + name + content + sums

    cuts = np.linspace(0, len(data), pieces + 1).astype(int).tolist()
    head = struct.pack(">IIBBBBB", shape[1], shape[0], depth, 0, 0, 0, 0)
    parts = [chunk(b"IDAT", data[a:b]) for a, b in pairwise(cuts)]
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", head), *parts, chunk(b"IEND", b"")])


@pytest.mark.parametrize("pixel_bytes", [1, 2])
def test_every_filter_is_undone(pixel_bytes: int) -> None:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 256, (15, 12), dtype=np.uint8)
    raw = b""
    for r in range(15):
        raw += bytes([r % 5]) + filtered(rows, r, r % 5, pixel_bytes)
    shape, kind = (15, 12 // pixel_bytes), (8 * pixel_bytes, 0, pixel_bytes)

    def read(data: bytes) -> NDArray[np.uint8] | None:
        return kernel.read_png(png_of(zlib.compress(data), shape, kind[0]), shape, kind)

    assert np.array_equal(np.array(read(raw)), rows)
    assert read(b"\x05" + raw[1:]) is None  # no such filter
    assert read(raw[:-1]) is None
    assert read(raw + b"\0") is None


def streams() -> list[bytes]:
    """Bytes that call for every kind of block, code and copy."""
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 256, 70_000, dtype=np.uint8).tobytes()
    rare = rng.geometric(0.02, 200_000).clip(0, 255).astype(np.uint8).tobytes()
    steps = np.kron(rng.integers(0, 9, 900), np.ones(300)).astype(np.uint8).tobytes()
    periods = b"".join(bytes(range(period)) * (600 // period) for period in range(1, 40))
    return [b"\0", b"\7" * 300_000, noise, rare, steps, periods, noise[:40] * 2000, noise[:1]]


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize(
    "strategy", [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE]
)
def test_streams_are_inflated_as_by_zlib(level: int, strategy: int) -> None:
    for values in streams():
        deflate = zlib.compressobj(level, zlib.DEFLATED, 15, 8, strategy)
        data = deflate.compress(b"\0" + values) + deflate.flush()
        png = png_of(data, (1, len(values)), pieces=1 + len(values) % 3)
        found = kernel.read_png(png, (1, len(values)), (8, 0, 1))
        assert found is not None
        assert found.tobytes() == values


def test_streams_that_end_or_lie_are_refused() -> None:
    values = streams()[4][:5000]
    data = zlib.compress(b"\0" + values)
    shape = 1, len(values)

    def read(stream: bytes) -> NDArray[np.uint8] | None:
        return kernel.read_png(png_of(stream, shape), shape, (8, 0, 1))

    assert read(data) is not None
    assert read(data + b"more") is not None  # as zlib: what follows the stream is not looked at
    assert all(read(data[:size]) is None for size in range(len(data)))
    for place in range(len(data)):  # a flipped bit that zlib forgives must be forgiven, no other
        stream = bytearray(data)
        stream[place] ^= 0x08
        assert (read(bytes(stream)) is not None) == inflates_to(bytes(stream), 1 + len(values))


def inflates_to(stream: bytes, size: int) -> bool:
    inflate = zlib.decompressobj()
    try:
        return len(inflate.decompress(stream, size + 1)) == size and inflate.eof
    except zlib.error:
        return False


def filtered(rows: NDArray[np.uint8], r: int, kind: int, step: int) -> bytes:
    """Filter a row as the PNG specification says, one byte at a time."""
    out = bytearray()
    for i, value in enumerate(rows[r].tolist()):
        a = int(rows[r, i - step]) if i >= step else 0
        b = int(rows[r - 1, i]) if r else 0
        c = int(rows[r - 1, i - step]) if r and i >= step else 0
        nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
        out.append((value - [0, a, b, (a + b) // 2, nearest][kind]) % 256)
    return bytes(out)


# --- JSON ---


def mapped(tmp_path: Path, text: bytes) -> MappedText:
    path = tmp_path / "rows.json"
    path.write_bytes(text)
    return MappedText.of(path)


def scores_of(text: MappedText) -> list[float]:
    found: list[float] = []
    scan_whole_list(text, lambda rows: found.extend(rows["score"].tolist()))
    return found


numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(0, 1).map(repr),
    st.integers(-(10**30), 10**30).map(str),
    st.from_regex(r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=20))
def test_numbers_are_read_as_python_reads_them(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    body = ",".join(f'{{"score":{t}}}' for t in texts).encode()
    found = scores_of(mapped(folder, b"[" + body + b"]"))
    expected = [float(t) for t in texts]
    assert [math.copysign(1, a) for a in found] == [math.copysign(1, b) for b in expected]
    assert found == expected


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(json_values, st.booleans())
def test_unknown_values_are_skipped_whole(
    tmp_path_factory: pytest.TempPathFactory, value: object, ascii_only: bool
) -> None:
    row = {"extra": value, "score": 0.25, "more": [value]}
    text = json.dumps([row, row], ensure_ascii=ascii_only, indent=1)
    assert scores_of(
        mapped(tmp_path_factory.getbasetemp(), text.encode("utf-8", "surrogatepass"))
    ) == [0.25, 0.25]


def test_a_row_in_full(tmp_path: Path) -> None:
    text = mapped(
        tmp_path,
        b' [ {"image_id":"a\\u0041","segmentation":{"x":[{}],"counts":"0\\\\1",'
        b'"size":[3,4]},"score":1,"iscrowd":true,"area":12.5,"id":7,"bbox":[1,2,3,4]} , {} ] ',
    )
    parts: list[Rows] = []
    scan_whole_list(text, lambda rows: parts.append(rows.copy()))
    (rows,) = parts
    row = rows[0]
    assert len(rows) == 2
    assert text.view[row["image"] : row["image"] + row["image_size"]] == b"a\\u0041"
    assert row["present"] & IMAGE_IS_TEXT
    assert text.view[row["text"] : row["text"] + row["text_size"]] == b"0\\\\1"
    assert row["kind"] == kernel.SEGMENT_ESCAPED
    assert (row["height"], row["width"], row["score"], row["area"]) == (3, 4, 1.0, 12.5)
    assert (row["id"], row["is_crowd"]) == (7, 1)
    assert not rows[1]["present"] & HAS_SCORE


@pytest.mark.parametrize(
    ("text", "byte"),
    [
        (b'[{"score":0.5},]', 15),
        (b'[{"score":NaN}]', 10),
        (b'[{"score":-Infinity}]', 11),
        (b'[{"score":.5}]', 10),
        (b'[{"score":01}]', 11),
        (b'[{"score":"0.5"}]', 10),
        (b'[{"score":null}]', 10),
        (b'[{"image_id":1.5}]', 13),
        (b'[{"a":"\x01"}]', 7),
        (b'[{"a":"\\x"}]', 8),
        (b'[{"a":tru}]', 6),
        (b'[{"a" 1}]', 6),
        (b'[{"a":1 "b":2}]', 8),
        (b"[{}", 3),
        (b'[{"a":"', 7),
        (b"[1]", 1),
        (b'[{"a":' + b"[" * 200, 6 + 128),
    ],
)
def test_what_is_not_json_is_refused_with_the_byte(tmp_path: Path, text: bytes, byte: int) -> None:
    with pytest.raises(FormatError, match=rf"byte {byte}\)"):
        scores_of(mapped(tmp_path, text))


def test_members_of_an_object(tmp_path: Path) -> None:
    text = mapped(tmp_path, b' { "a" : [1, {"b": 2}] , "c\\n":"}" } ')
    places: list[int] = []

    def read(position: int) -> int:
        places.append(position)
        return skip_value(text, position)

    scan_members(text, {"a": read, "c\n": read})
    assert [text.view[p : p + 3] for p in places] == [b"[1,", b'"}"']
    for wrong in (b"{", b'{"a":1,}', b'{"a":1}x', b"{1:2}", b"[]"):
        with pytest.raises(FormatError, match="byte"):
            scan_members(mapped(tmp_path, wrong), {})
