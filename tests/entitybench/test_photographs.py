"""Photographs wherever they lie; that every kind of archive is read: `test_source_tree.py`."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from entitybench.cli import main
from entitybench.entity_set import open_path
from entitybench.errors import FormatError, MissingDataError
from entitybench.photographs import read_photograph
from tests.small_releases import bsds500, jpeg, tarred, write, zipped


def test_photographs_in_a_gzipped_tar_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """BSDS500 comes as one `.tgz`, photographs included."""
    monkeypatch.chdir(tmp_path)
    files = bsds500(12003, [np.ones((40, 60)), np.ones((40, 60))])
    write(tmp_path / "in", {"BSR_bsds500.tgz": tarred(files, "w:gz")})
    assert main(["convert", "bsds500", "--source", "in", "-j", "1"]) == 0
    made = Path("data/bsds500_entity_val_a1")
    assert "BSR_bsds500.tgz!/" in str(open_path(made).photographs)
    capsys.readouterr()
    assert main(["show", made.name]) == 0
    assert capsys.readouterr().err == "wrote 12003.png\n"


@pytest.mark.parametrize("name", ["../1.jpg", "/1.jpg", "a\\1.jpg"])
def test_a_name_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match="is not a plain name"):
        read_photograph(str(tmp_path), name)


def test_what_is_not_there_and_what_is_no_folder(tmp_path: Path) -> None:
    write(tmp_path, {"x.zip": zipped({"photos/1.jpg": jpeg((4, 5)), "photos/2.jpg": b"no"})})
    for location in (str(tmp_path), f"{tmp_path}/x.zip!/other", f"{tmp_path}/y.zip!/photos"):
        with pytest.raises(MissingDataError, match=r"no photograph `1.jpg`"):
            read_photograph(location, "1.jpg")
    with pytest.raises(FormatError, match="is not a folder") as caught:
        read_photograph(f"{tmp_path}/x.zip", "1.jpg")
    assert caught.value.hint == "`archive.zip!/prefix` is a folder in an archive"
    with pytest.raises(FormatError, match=r"photograph `2.jpg` cannot be read"):
        read_photograph(f"{tmp_path}/x.zip!/photos", "2.jpg")
    write(tmp_path, {"z.zip": b"PK"})
    with pytest.raises(FormatError, match="not a readable archive"):
        read_photograph(f"{tmp_path}/z.zip!/photos", "1.jpg")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks there")
def test_a_forked_process_opens_archives_for_itself(tmp_path: Path) -> None:
    """One open file has one position: a parent and its child would read past each other."""
    write(tmp_path, {"x.zip": zipped({"1.jpg": jpeg((4, 5))})})
    location = f"{tmp_path}/x.zip!/"
    read_photograph(location, "1.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # where a thread runs beside
        child = os.fork()
    if child == 0:
        from entitybench.archives import _opened

        os._exit(_opened.cache_info().currsize)
    assert os.waitpid(child, 0)[1] == 0
