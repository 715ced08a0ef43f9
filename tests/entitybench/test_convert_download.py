"""`convert` without a release: public archives are fetched, the others are explained."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import entitybench.sources
from entitybench.cli import main
from entitybench.converters.worlds import make_world
from entitybench.entity_set import open_path
from tests.http_site import Answer, Site, loopback_only, sources_table

TRUTH = "panoptic_annotations_trainval2017.zip"
SPLITS = {"val2017.zip": ["val"], "train2017.zip": ["train"]}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    loopback_only(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def site(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A COCO release of generated scenes, in its archives, where the table says that COCO is."""
    make_world(here / "world", "coco", train=1, val=2, size=48, archives=True)
    with Site() as running:
        publish_coco(running, here / "world", monkeypatch)
        yield running


def publish_coco(site: Site, release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """List a release in a table of its own: the photographs by split."""
    archives = []
    for path in sorted(release.glob("*.zip")):
        data = path.read_bytes()
        address = site.put(f"/zips/{path.name}", data)
        checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
        entry = {"name": path.name, "addresses": [address], "bytes": len(data)}
        holds = "annotations" if path.name == TRUTH else "images"
        splits = SPLITS.get(path.name, [])
        archives.append({**entry, "checksum": checksum, "holds": holds, "splits": splits})
    assert TRUTH in [archive["name"] for archive in archives]
    table = sources_table(release.parent / "table.toml", "coco", *archives, title="COCO")
    monkeypatch.setattr(entitybench.sources, "SOURCES_FILE", table)


def convert(*arguments: object) -> int:
    return main(["convert", *map(str, arguments), "-j", "1"])


def fetched(site: Site) -> list[str]:
    return [request.path.removeprefix("/zips/") for request in site.log]


def test_the_annotations_are_fetched_and_converted(
    site: Site, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("coco", "--out", "data") == 0
    assert fetched(site) == [TRUTH]
    assert len(open_path(here / "data" / "coco_entity_val")) == 2
    assert len(open_path(here / "data" / "coco_entity_train")) == 1
    errors = capsys.readouterr().err
    assert "COCO was not found in `sources/coco`; fetching it there" in errors
    assert f"{TRUTH}: " in errors
    assert "sha256 as published" in errors

    assert convert("coco", "--out", "data") == 0
    assert len(site.log) == 1
    assert "already there" in capsys.readouterr().out


def test_photographs_of_the_split_alone(site: Site, here: Path) -> None:
    assert convert("coco", "--split", "val", "--with-images", "-q") == 0
    assert fetched(site) == [TRUTH, "val2017.zip"]
    assert (here / "sources" / "coco" / "val2017.zip").exists()
    assert convert("coco", "--with-images", "-q") == 0
    assert fetched(site) == [TRUTH, "val2017.zip", "train2017.zip"]


def test_download_only(
    site: Site, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENTITYBENCH_SOURCES", str(here / "releases"))
    path = here / "releases" / "coco" / TRUTH
    assert convert("coco", "--download-only") == 0
    captured = capsys.readouterr()
    assert captured.out == f"{path}\n"
    assert not (here / "data").exists()
    assert convert("coco", "--download-only", "--json", "--quiet") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"source": "coco", "files": [str(path)]}
    assert captured.err == ""
    assert convert("coco", "--download-only", "--archive", "val2017.zip") == 0
    assert fetched(site) == [TRUTH, "val2017.zip"]
    assert convert("coco", "--download-only", "--archive", "val2071.zip") == 2
    assert "did you mean `val2017.zip`" in capsys.readouterr().err


def test_what_was_interrupted_goes_on_and_converts(
    site: Site, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.answers += [Answer(cut=1000), Answer(status=404)]
    assert convert("coco", "-q") == 2
    assert "is not there: the server answered 404" in capsys.readouterr().err
    assert (here / "sources" / "coco" / f"{TRUTH}.part").stat().st_size == 1000
    assert convert("coco", "-q") == 0
    assert site.asked()[-1] == "bytes=1000-"


def test_the_second_archive_is_missing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first alone already looks like a release."""
    make_world(here / "world", "ade20k", train=1, val=1, size=48, archives=True)
    with Site() as site:
        archives = []
        for path in sorted((here / "world").glob("*[.][zt][ia][pr]")):
            address = site.put(f"/{path.name}", path.read_bytes())
            checksum = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
            archives.append({"name": path.name, "addresses": [address], "checksum": checksum})
        table = sources_table(here / "table.toml", "ade20k", *archives)
        monkeypatch.setattr(entitybench.sources, "SOURCES_FILE", table)
        site.answers += [Answer(), Answer(status=404)]
        assert convert("ade20k", "-q") == 2
        assert not (here / "data").exists()
        assert convert("ade20k", "-q") == 0
        names = ["ADEChallengeData2016.zip", "annotations_instance.tar"]
        assert fetched(site) == [f"/{name}" for name in (*names, names[1])]
    for archive in names:  # unpacked and thrown away, it is not fetched again
        shutil.unpack_archive(here / "sources" / "ade20k" / archive, here / "sources" / "ade20k")
        (here / "sources" / "ade20k" / archive).unlink()
    assert convert("ade20k", "-q") == 0


def test_a_mirror(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    data = site.files.pop(f"/zips/{TRUTH}")
    site.put(f"/mirror/coco/{TRUTH}", data)
    monkeypatch.setenv("ENTITYBENCH_MIRROR", f"{site.address}/mirror")
    assert convert("coco", "-q") == 0
    assert [request.path for request in site.log] == [f"/mirror/coco/{TRUTH}"]


def test_a_release_that_is_there_needs_no_network(
    site: Site, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENTITYBENCH_OFFLINE", "1")
    assert convert("coco") == 2
    assert "$ENTITYBENCH_OFFLINE is set" in capsys.readouterr().err
    (here / "sources").mkdir()
    (here / "world").rename(here / "sources" / "coco")
    assert convert("coco", "-q") == 0
    assert not site.log


@pytest.mark.parametrize(
    "option", [["--download-only"], ["--with-images"], ["--archive", "val2017.zip"]]
)
def test_a_release_that_is_given_is_not_fetched(
    site: Site, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("coco", "--source", "world", *option) == 2
    assert "nothing is fetched" in capsys.readouterr().err
    assert not site.log


def test_a_source_that_a_person_must_fetch(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = sources_table(here / "t.toml", "coco", steps=["sign {page}"], title="COCO")
    monkeypatch.setattr(entitybench.sources, "SOURCES_FILE", table)
    for option in ([], ["--download-only"]):
        assert convert("coco", *option) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "error: COCO must be fetched by hand\n  1. sign http://page\n" in captured.err
        assert "into `sources/coco`" in captured.err
    make_world(here / "sources" / "coco", "coco", train=0, val=1, size=48, archives=True)
    assert convert("coco", "--with-images", "-q") == 0


def test_cityscapes_tells_its_steps(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert("cityscapes", "--download-only") == 2
    errors = capsys.readouterr().err
    assert "https://www.cityscapes-dataset.com/register/" in errors
    assert "no redistribution" in errors
    assert "gtFine_trainvaltest.zip (annotations, 241 MB, md5:4237c19d" in errors
    assert "into `sources/cityscapes`" in errors


def test_a_source_that_no_table_lists(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(entitybench.sources, "SOURCES_FILE", sources_table(here / "t", "x"))
    assert convert("coco") == 2
    assert "COCO panoptic 2017 was not found without `--source`" in capsys.readouterr().err
    assert convert("coc") == 2
    assert "did you mean `coco`" in capsys.readouterr().err


def test_real_archives_come_and_convert(
    here: Path, realdata: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Site() as site:
        (here / "mini").mkdir()
        for name in (TRUTH, "val2017.zip"):
            (here / "mini" / name).write_bytes((realdata / "mini_archives" / name).read_bytes())
        publish_coco(site, here / "mini", monkeypatch)
        site.answers.append(Answer(cut=20_000))
        assert convert("coco", "--with-images", "-q") == 0
        assert site.asked()[:2] == [None, "bytes=20000-"]
    assert len(open_path(here / "data" / "coco_entity_val")) > 0
