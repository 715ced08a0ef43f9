"""One tree for folders, archives and nests: what unpacking would give."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest

from entitybench.converters.source_tree import SourceTree
from entitybench.errors import FormatError, MissingDataError
from entitybench.photographs import read_photograph
from tests.small_releases import jpeg, tarred, zipped

FILES = {
    "annotations/table.json": b"{}",
    "annotations/maps/1.png": b"one",
    "annotations/maps/deep/2.png": b"two",
    "photos/1.jpg": b"jpeg",
}


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def unpacked(root: Path) -> Path:
    return write(root, FILES)


def one_zip(root: Path) -> Path:
    return write(root, {"all.zip": zipped(FILES, zipfile.ZIP_DEFLATED)})


def nested(root: Path) -> Path:
    maps = {"maps/1.png": b"one", "maps/deep/2.png": b"two"}
    outer = {
        "annotations/table.json": b"{}",
        "annotations/maps.zip": zipped(maps, zipfile.ZIP_DEFLATED),
    }
    photos = zipped({"photos/1.jpg": b"jpeg"}, zipfile.ZIP_STORED)
    return write(root, {"all.zip": zipped(outer, zipfile.ZIP_DEFLATED), "photos.zip": photos})


def half_unpacked(root: Path) -> Path:
    """The table and one map on disk, the other map in a tar, and an older copy in a zip."""
    tar = tarred({"maps/1.png": b"an older one", "maps/deep/2.png": b"two"})
    files = {n: FILES[n] for n in ("annotations/table.json", "annotations/maps/1.png")}
    photos = zipped({"photos/1.jpg": b"jpeg"}, zipfile.ZIP_STORED)
    return write(root, {**files, "annotations/maps.tar": tar, "photos.zip": photos})


LAYOUTS = [unpacked, one_zip, nested, half_unpacked]
ARCHIVES = ("all.zip", "annotations/maps.zip", "annotations/maps.tar", "photos.zip", "none.zip")


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.__name__)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> SourceTree:
    return SourceTree.at(request.param(tmp_path / "source")).with_archives(*ARCHIVES)


def test_every_layout_shows_the_same_files(tree: SourceTree) -> None:
    shown = [name for name in tree.names() if not name.endswith((".zip", ".tar"))]
    assert shown == sorted(FILES)
    for name, data in FILES.items():
        assert name in tree
        assert tree.read(name) == data
        with tree.open(name) as file:
            assert file.read(2) == data[:2]


def test_every_layout_has_the_same_folders(tree: SourceTree) -> None:
    assert tree.folders() == ["annotations", "photos"]
    assert tree.has_folder("annotations/maps")
    assert tree.has_folder("annotations/maps/deep")
    assert not tree.has_folder("annotations/map")
    assert not tree.has_folder("annotations/table.json")
    assert tree.names("annotations/maps") == [
        "annotations/maps/1.png",
        "annotations/maps/deep/2.png",
    ]
    assert tree.names("annotations", suffix=".json") == ["annotations/table.json"]
    assert tree.names("nowhere") == []
    assert "annotations" not in tree
    assert "annotations/none.png" not in tree


def test_a_part_of_the_tree_is_a_tree(tree: SourceTree) -> None:
    part = tree.below("annotations").below("maps")
    assert part.names() == ["1.png", "deep/2.png"]
    assert part.folders() == ["deep"]
    assert part.read("deep/2.png") == b"two"
    assert "1.png" in part


def test_a_tree_crosses_a_process_border_and_is_small(tree: SourceTree) -> None:
    assert tree.read("photos/1.jpg") == b"jpeg"
    data = pickle.dumps(tree)
    assert len(data) < 2_000
    assert pickle.loads(data).read("photos/1.jpg") == b"jpeg"


def test_what_is_missing_is_named(tree: SourceTree) -> None:
    with pytest.raises(MissingDataError, match="no file `annotations/none"):
        tree.read("annotations/none.png")
    with pytest.raises(MissingDataError, match="no file"):
        tree.open("annotations/none.png")


def test_no_name_leaves_the_tree(tree: SourceTree, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    for name in ("../secret", "annotations/../../secret", str(tmp_path / "secret"), "..\\secret"):
        for use in (tree.read, tree.open, tree.names, tree.below, tree.place, tree.has_folder):
            with pytest.raises(FormatError, match="not a plain name"):
                use(name)
        with pytest.raises(FormatError, match="not a plain name"):
            assert name in tree


def test_a_file_larger_than_expected_is_not_read(tree: SourceTree) -> None:
    assert tree.read("photos/1.jpg", limit=4) == b"jpeg"
    with pytest.raises(FormatError, match="4 bytes, expected at most 3"):
        tree.read("photos/1.jpg", limit=3)


def test_a_file_on_disk_comes_before_one_in_an_archive(tmp_path: Path) -> None:
    write(tmp_path, {"x/1": b"disk", "x.zip": zipped({"x/1": b"zip", "x/2": b"zip"}, 0)})
    tree = SourceTree.at(tmp_path).with_archives("x.zip")
    assert (tree.read("x/1"), tree.read("x/2")) == (b"disk", b"zip")
    assert tree.names("x") == ["x/1", "x/2"]


def test_places_tell_where_a_file_is_or_would_be(tmp_path: Path) -> None:
    tree = SourceTree.at(nested(tmp_path)).with_archives(*ARCHIVES)
    assert (
        tree.place("annotations/maps/1.png")
        == f"{tmp_path}/all.zip!/annotations/maps.zip!/maps/1.png"
    )
    assert tree.place("photos") == f"{tmp_path}/photos.zip!/photos"
    assert tree.place("nowhere/1.png") == f"{tmp_path}/nowhere/1.png"
    assert str(tree.below("photos")) == f"{tmp_path}/photos.zip!/photos"
    assert str(tree) == str(tmp_path)


def test_locations_are_what_a_set_can_read_photographs_from(tmp_path: Path) -> None:
    tree = SourceTree.at(nested(tmp_path / "n")).with_archives(*ARCHIVES)
    assert tree.location("photos") == f"{tmp_path}/n/photos.zip!/photos"
    assert tree.location("annotations/maps") == f"{tmp_path}/n/all.zip!/annotations/maps.zip!/maps"
    assert tree.location("nowhere") is None
    tree = SourceTree.at(unpacked(tmp_path / "u"))
    assert tree.location("photos") == f"{tmp_path}/u/photos"
    tree = SourceTree.at(half_unpacked(tmp_path / "h")).with_archives("annotations/maps.tar")
    (tmp_path / "h" / "photos").mkdir()
    assert tree.location("photos") is None  # empty


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz", "zip in a zip"])
def test_a_location_in_an_archive_is_read_back(tmp_path: Path, kind: str) -> None:
    files = {"photos/sub/1.jpg": jpeg((4, 5))}
    inner = f"photos.{kind[:3]}"
    packed = {"zip": zipped(files), "tar": tarred(files), "tgz": tarred(files, "w:gz")}[kind[:3]]
    whole = {"all.zip": zipped({inner: packed})} if " in " in kind else {inner: packed}
    tree = SourceTree.at(write(tmp_path, whole)).with_archives("all.zip", inner)
    location = tree.location("photos")
    assert location == "!/".join([*tree.place(inner).split("!/"), "photos"])
    assert read_photograph(location, "sub/1.jpg").size == (5, 4)
    with pytest.raises(MissingDataError, match=r"no photograph `sub/2.jpg`"):
        read_photograph(location, "sub/2.jpg")


def test_one_archive_is_a_tree_too(tmp_path: Path) -> None:
    path = nested(tmp_path) / "all.zip"
    tree = SourceTree.at(path).with_archives("annotations/maps.zip")
    assert tree.folders() == ["annotations"]
    assert tree.read("annotations/maps/1.png") == b"one"
    assert "photos/1.jpg" not in tree  # what lies beside the archive was not given
    assert tree.location("annotations") == f"{path}!/annotations"


def test_what_is_no_folder_and_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="does not exist"):
        SourceTree.at(tmp_path / "gone")
    (tmp_path / "table.json").write_text("{}")
    with pytest.raises(MissingDataError, match="neither a folder nor an archive"):
        SourceTree.at(tmp_path / "table.json")


def test_litter_on_disk_is_skipped(tmp_path: Path) -> None:
    write(tmp_path, {"a/1.png": b"", "a/._1.png": b"", "a/.DS_Store": b"", "__MACOSX/a/1.png": b""})
    assert SourceTree.at(tmp_path).names() == ["a/1.png"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_user_may_link_folders_on_disk(tmp_path: Path) -> None:
    """Unlike in an archive, links here are the user's own."""
    write(tmp_path / "elsewhere", {"1.jpg": b"jpeg"})
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "photos").symlink_to(tmp_path / "elsewhere")
    tree = SourceTree.at(tmp_path / "source")
    assert tree.names("photos") == ["photos/1.jpg"]
    assert tree.read("photos/1.jpg") == b"jpeg"
