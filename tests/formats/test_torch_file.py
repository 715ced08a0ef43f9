"""Files that torch saved: read as data, never run."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from entitybench.errors import FormatError, MissingDataError
from entitybench.formats.torch_file import as_array, load_torch, plain


class Bomb:
    """Unpickled, it would leave a file behind."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "it-ran"
    torch.save({1: Bomb(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FormatError, match="may run code; it was not loaded") as caught:
        load_torch(path)
    assert "mkdir" in caught.value.what
    assert "from_numpy" in caught.value.hint
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the bomb was a real one
    assert trace.exists()


def test_a_bare_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "it-ran"
    path.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(FormatError):
        load_torch(path)
    assert not trace.exists()


def test_a_models_own_objects_are_refused_by_their_name(tmp_path: Path) -> None:
    path = tmp_path / "preds.pth"
    torch.save([torch.nn.Linear(1, 1)], path)
    with pytest.raises(FormatError, match=r"holds `torch\.nn\.modules\.linear\.Linear`"):
        load_torch(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_numbers_texts_and_tables_come_back(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "preds.pth"
    content = {
        "a": (torch.arange(6).reshape(2, 3), [{"id": 1, "score": torch.tensor(0.5), "t": "x"}]),
        7: None,
    }
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read = plain(load_torch(path))
    ids, table = read["a"]
    np.testing.assert_array_equal(ids, [[0, 1, 2], [3, 4, 5]])
    assert table == [{"id": 1, "score": 0.5, "t": "x"}]
    assert read[7] is None


def test_bfloat16_becomes_float32() -> None:
    array = plain(torch.tensor([0.5, 2.0], dtype=torch.bfloat16))
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, [0.5, 2.0])


@pytest.mark.parametrize("content", [b"", b"not torch at all", b"PK\x03\x04 broken"])
def test_damage_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "preds.pth"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"not a readable \.pth file") as caught:
        load_torch(path)
    assert caught.value.where == (str(path),)


def test_a_truncated_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "preds.pth"
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(FormatError):
        load_torch(path)


def test_without_torch_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDataError, match="needs torch") as caught:
        load_torch(tmp_path / "preds.pth")
    assert "npz" in caught.value.hint


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no file"):
        load_torch(tmp_path / "preds.pth")


def test_only_an_array_is_an_array() -> None:
    with pytest.raises(FormatError, match="`masks` is str, expected an array or a tensor"):
        as_array("text", "masks")
