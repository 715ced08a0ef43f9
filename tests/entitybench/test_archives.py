"""Archives read in place: nests, damage, and what is refused."""

from __future__ import annotations

import gzip
import io
import pickle
import random
import struct
import sys
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path

import pytest

from entitybench import archives
from entitybench.archives import ArchivePlace, open_archive, plain_name
from entitybench.errors import EntityBenchError, FormatError, MissingDataError
from tests.small_releases import zipped

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
LIMIT = 1 << 30


def place_of(path: Path, data: bytes) -> ArchivePlace:
    path.write_bytes(data)
    return ArchivePlace.of_file(path)


def tar_of(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def noise(seed: int, size: int) -> bytes:
    """Bytes between random and regular, so that deflate has something to do."""
    generator = random.Random(seed)
    words = [generator.randbytes(generator.randint(1, 40)) for _ in range(50)]
    return b"".join(generator.choices(words, k=size // 20 + 1))[:size]


@pytest.mark.parametrize("compression", [STORED, DEFLATED])
def test_a_zip_is_read_in_place(tmp_path: Path, compression: int) -> None:
    members = {"a/b.bin": noise(1, 100_000), "c.txt": b"", "a/d/e": b"e"}
    archive = open_archive(place_of(tmp_path / "x.zip", zipped(members, compression)))
    assert archive.sizes == {name: len(data) for name, data in members.items()}
    assert archive.folders == {"", "a", "a/d"}
    for name, data in members.items():
        assert archive.read(name, LIMIT) == data


def test_a_tar_is_read_in_place(tmp_path: Path) -> None:
    members = {"./a/b.bin": noise(1, 100_000), "c.txt": b"", "a//d/e": b"e"}
    data = tar_of([(tarfile.TarInfo(name), data) for name, data in members.items()])
    archive = open_archive(place_of(tmp_path / "x.tar", data))
    assert archive.sizes == {"a/b.bin": 100_000, "c.txt": 0, "a/d/e": 1}
    assert archive.read("a/b.bin", LIMIT) == members["./a/b.bin"]
    assert archive.read("a/d/e", LIMIT) == b"e"


def gzipped(members: dict[str, bytes]) -> bytes:
    return gzip.compress(tar_of([(tarfile.TarInfo(n), data) for n, data in members.items()]))


@pytest.mark.parametrize("name", ["x.tgz", "x.tar.gz", "X.TGZ"])
def test_a_gzipped_tar_is_read_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(archives, "_SPACING", 20_000)
    members = {f"a/{n}.bin": noise(n, 70_000) for n in range(9)}
    archive = open_archive(place_of(tmp_path / name, gzipped(members)))
    assert archive.sizes == {member: len(data) for member, data in members.items()}
    for member in [*members, *reversed(members)]:
        assert archive.read(member, LIMIT) == members[member]
    with archive.open("a/8.bin") as last, archive.open("a/0.bin") as first:
        assert (last.read(500), first.read()) == (members["a/8.bin"][:500], members["a/0.bin"])
        assert last.read() == members["a/8.bin"][500:]


def test_a_gzipped_tar_is_inflated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {f"{n}.bin": noise(n, 300_000) for n in range(20)}
    steps = 0
    step = archives._Inflated._step

    def counted(self: archives._Inflated) -> None:
        nonlocal steps
        steps += 1
        step(self)

    monkeypatch.setattr(archives._Inflated, "_step", counted)
    archive = open_archive(place_of(tmp_path / "x.tgz", gzipped(members)))
    opened = steps
    for member, data in members.items():
        assert archive.read(member, LIMIT) == data
    assert steps <= 2 * opened + len(members)


def test_a_zip_inside_a_gzipped_tar_is_read_in_place(tmp_path: Path) -> None:
    inner = {"y.png": noise(5, 300_000)}
    place = place_of(tmp_path / "x.tgz", gzipped({"maps.zip": zipped(inner, DEFLATED)}))
    assert open_archive(place.member("maps.zip")).read("y.png", LIMIT) == inner["y.png"]


@pytest.mark.parametrize("spoil", ["cut", "size", "checksum", "middle", "empty"])
def test_a_spoiled_gzipped_tar_is_refused(tmp_path: Path, spoil: str) -> None:
    good = gzipped({"a.bin": noise(1, 50_000), "b.bin": noise(2, 50_000)})
    bad = {
        "cut": good[:-2_000],
        "size": good[:-4] + (12_345).to_bytes(4, "little"),
        "checksum": good[:-8] + b"\0\0\0\0" + good[-4:],
        "middle": good[:20_000] + bytes(40) + good[20_040:],
        "empty": b"",
    }[spoil]
    with pytest.raises(FormatError):
        read_all(place_of(tmp_path / "x.tgz", bad))


def read_all(place: ArchivePlace) -> None:
    archive = open_archive(place)
    for name in archive.sizes:
        archive.read(name, LIMIT)


@pytest.mark.parametrize("outer", [STORED, DEFLATED])
@pytest.mark.parametrize("inner", [STORED, DEFLATED])
def test_a_zip_inside_a_zip_is_read_in_place(tmp_path: Path, inner: int, outer: int) -> None:
    members = {f"d/{n}.bin": noise(n, 3_000 * n) for n in range(30)}
    data = zipped({"first": b"1" * 77, "in/ner.zip": zipped(members, inner)}, outer)
    archive = open_archive(place_of(tmp_path / "outer.zip", data).member("in/ner.zip"))
    names = list(members)
    random.Random(5).shuffle(names)
    for name in [*sorted(names), *names]:
        assert archive.read(name, LIMIT) == members[name]
    assert [path.name for path in tmp_path.iterdir()] == ["outer.zip"]  # no copy


def test_archives_nest_three_deep_and_across_kinds(tmp_path: Path) -> None:
    third = zipped({"x": noise(3, 5_000)}, DEFLATED)
    second = tar_of([(tarfile.TarInfo("t/third.zip"), third)])
    place = place_of(tmp_path / "first.zip", zipped({"second.tar": second}, DEFLATED))
    deepest = place.member("second.tar").member("t/third.zip")
    assert open_archive(deepest).read("x", LIMIT) == noise(3, 5_000)
    assert str(deepest) == f"{tmp_path}/first.zip!/second.tar!/t/third.zip"


def test_restart_points_are_few_and_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any order of reads, with restart points near together, thinned out, or none."""
    members = {f"{n}": noise(n, 20_000) for n in range(100)}
    whole = zipped(members, STORED)  # once: a zip holds the time at which it was made
    data = zipped({"i.zip": whole}, DEFLATED)
    monkeypatch.setattr(archives, "_OUTPUT", 10_000)
    for spacing, most in ((1 << 30, 4), (30_000, 1_000), (10_000, 5)):
        monkeypatch.setattr(archives, "_SPACING", spacing)
        monkeypatch.setattr(archives, "_MOST_MARKS", most)
        archives.close_archives()
        outer = open_archive(place_of(tmp_path / "o.zip", data))
        with outer.open_seekable("i.zip") as file:
            assert isinstance(file, io.BufferedReader)
            inflated = file.raw
            assert isinstance(inflated, archives._Inflated)
            generator = random.Random(spacing)
            for _ in range(200):
                first = generator.randrange(len(whole))
                file.seek(first)
                assert file.read(5_000) == whole[first : first + 5_000]
            assert 1 <= len(inflated._marks) <= most


def wrapped_zip(count: int) -> bytes:
    """Write a zip of tiny members whose 16-bit counts wrapped, without zip64: as COCO's is."""
    body, table = bytearray(), bytearray()
    for number in range(count):
        name, data = b"p/%012d.png" % number, b"%d" % number
        middle = struct.pack(
            "<HHHHHIIIHH", 10, 0, 0, 0, 33, zlib.crc32(data), *[len(data)] * 2, len(name), 0
        )
        table += b"PK\1\2\x14\0" + middle + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name
        body += b"PK\3\4" + middle + name + data
    counts = count & 0xFFFF
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, counts, counts, len(table), len(body), 0)
    return bytes(body + table + end)


@pytest.mark.parametrize("outer", [STORED, DEFLATED])
def test_more_than_65535_members_are_all_there(tmp_path: Path, outer: int) -> None:
    data = wrapped_zip(66_000)
    assert struct.unpack("<H", data[-12:-10]) == (66_000 - 65_536,)  # what lesser tools believe
    place = place_of(tmp_path / "o.zip", zipped({"i.zip": data}, outer)).member("i.zip")
    archive = open_archive(place)
    assert len(archive.sizes) == 66_000
    for number in (0, 463, 464, 65_535, 65_536, 65_999):
        assert archive.read(f"p/{number:012}.png", LIMIT) == b"%d" % number


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../../x", "..\\x", "C:/x", "C:\\x", "a/.."]
)
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match="not a plain name"):
        plain_name(name)
    with pytest.raises(FormatError, match="not a plain name") as caught:
        open_archive(place_of(tmp_path / "x.zip", zipped({"ok": b"", name: b""}, STORED)))
    assert str(tmp_path / "x.zip") in caught.value.where[0]
    with pytest.raises(FormatError, match="not a plain name"):
        open_archive(place_of(tmp_path / "x.tar", tar_of([(tarfile.TarInfo(name), b"")])))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("innocent.png")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(FormatError, match=r"`innocent.png` is a link or a special file"):
        open_archive(place_of(tmp_path / "x.tar", tar_of([(info, b"")])))


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo("innocent.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(FormatError, match=r"`innocent.png` is a link"):
        open_archive(place_of(tmp_path / "x.zip", file.getvalue()))


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    twins = [(tarfile.TarInfo("a"), b"1"), (tarfile.TarInfo("./a"), b"2")]
    with pytest.raises(FormatError, match="`a` is there twice"):
        open_archive(place_of(tmp_path / "x.tar", tar_of(twins)))


def test_litter_is_skipped(tmp_path: Path) -> None:
    litter = ["__MACOSX/a/._b", "a/.DS_Store", "Thumbs.db", "a/._c", ".DS_Store"]
    data = zipped(dict.fromkeys([*litter, "a/b", "a/Thumbs.dbx"], b""), STORED)
    assert set(open_archive(place_of(tmp_path / "x.zip", data)).sizes) == {"a/b", "a/Thumbs.dbx"}


def test_a_member_larger_than_expected_is_not_unpacked(tmp_path: Path) -> None:
    place = place_of(tmp_path / "bomb.zip", zipped({"zeros": bytes(50_000_000)}, DEFLATED))
    assert place.path.stat().st_size < 60_000
    with pytest.raises(FormatError, match="unpacks to 50,000,000 bytes, expected at most 1,000"):
        open_archive(place).read("zeros", 1_000)


def announce(data: bytes, size: int, announced: int) -> bytes:
    """Change the size that a zip announces, in both of its places."""
    old, new = struct.pack("<I", size), struct.pack("<I", announced)
    assert data.count(old) >= 2
    return data.replace(old, new)


@pytest.mark.parametrize("compression", [STORED, DEFLATED])
def test_a_member_that_lies_about_its_size_is_refused(tmp_path: Path, compression: int) -> None:
    data = announce(zipped({"x": noise(0, 70_001)}, compression), 70_001, 50_001)
    with pytest.raises(FormatError):
        open_archive(place_of(tmp_path / "x.zip", data)).read("x", LIMIT)


@pytest.mark.parametrize("announced", [60_000, 80_000])
def test_a_nested_archive_that_lies_about_its_size_is_refused(
    tmp_path: Path, announced: int
) -> None:
    inner = zipped({"x": noise(0, 70_001)}, STORED)
    data = announce(zipped({"i.zip": inner}, DEFLATED), len(inner), announced)
    with pytest.raises(FormatError, match="not a readable archive") as caught:
        open_archive(place_of(tmp_path / "x.zip", data).member("i.zip"))
    assert caught.value.where == (f"{tmp_path}/x.zip!/i.zip",)


@pytest.mark.parametrize("cut", [1, 30, 3_000, 20_000])
def test_a_truncated_archive_is_refused(tmp_path: Path, cut: int) -> None:
    data = zipped({"x": noise(0, 30_000)}, STORED)
    with pytest.raises(FormatError, match="not a readable archive") as caught:
        open_archive(place_of(tmp_path / "x.zip", data[:-cut]))
    assert "interrupted" in caught.value.hint


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tgz"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match="not a readable archive"):
        open_archive(place_of(tmp_path / name, b"<html>please log in</html>" * 100))


def test_a_flipped_bit_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    """Whatever is damaged, the outcome is a `FormatError` or the right bytes."""
    content = noise(0, 3_000)
    inner = zipped({"x": content}, DEFLATED)
    good = zipped({"i.zip": inner}, DEFLATED)
    generator = random.Random(0)
    outcomes = []
    for number in range(400):
        data = bytearray(good)
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        place = place_of(tmp_path / f"{number}.zip", bytes(data))
        outcomes.append(what_is_read(place, ["i.zip", "x"]))
    assert set(outcomes) == {content, "refused", "another name"}
    assert outcomes.count("refused") > 300


def what_is_read(place: ArchivePlace, way: list[str]) -> bytes | str:
    try:
        archive = open_archive(place)
        if way[0] not in archive.sizes:
            return "another name"
        return (
            what_is_read(place.member(way[0]), way[1:]) if way[1:] else archive.read(way[0], LIMIT)
        )
    except FormatError:
        return "refused"


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"x": b"secret"}, STORED))
    data[6] |= 1  # the flag in the local header, then in the table
    data[data.index(b"PK\1\2") + 8] |= 1
    archive = open_archive(place_of(tmp_path / "x.zip", bytes(data)))
    with pytest.raises(FormatError, match="cannot be read from its archive"):
        archive.read("x", LIMIT)
    with pytest.raises(FormatError, match="not encrypted"):
        archive.open_seekable("x")


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no file `.*gone.zip`"):
        open_archive(ArchivePlace(tmp_path / "gone.zip"))


def test_a_place_is_small_and_a_process_opens_it_once(tmp_path: Path) -> None:
    data = zipped({f"{n}": b"" for n in range(1_000)}, STORED)
    place = place_of(tmp_path / "x.zip", data)
    assert len(pickle.dumps(place)) < 400
    assert open_archive(pickle.loads(pickle.dumps(place))) is open_archive(place)


def test_an_archive_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    old = place_of(tmp_path / "x.zip", zipped({"x": b"old"}, STORED))
    assert open_archive(old).read("x", LIMIT) == b"old"
    new = place_of(tmp_path / "x.zip", zipped({"x": b"newer"}, STORED))
    assert open_archive(new).read("x", LIMIT) == b"newer"


@pytest.mark.parametrize("nested", [True, False])
def test_threads_may_read_one_archive(tmp_path: Path, nested: bool) -> None:
    members = {f"{n}": noise(n, 30_000) for n in range(20)}
    place = place_of(tmp_path / "x.zip", zipped(members, DEFLATED))
    if nested:
        outer = zipped({"i.zip": zipped(members, DEFLATED)}, DEFLATED)
        place = place_of(tmp_path / "o.zip", outer).member("i.zip")
    archive, wrong = open_archive(place), list[str]()

    def read(seed: int) -> None:
        for name in random.Random(seed).choices(list(members), k=40):
            try:
                good = archive.read(name, LIMIT) == members[name]
            except EntityBenchError:
                good = False
            if not good:
                wrong.append(name)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert wrong == []
