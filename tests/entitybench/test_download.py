"""Downloads against a server on this machine: broken off, cut, changed, wrong, slow, in a race."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest

from entitybench.download import MIRROR_VARIABLE, fetch, steps
from entitybench.errors import FormatError, MissingDataError, UnknownNameError
from entitybench.sources import load_sources
from entitybench.transfer import DownloadError, NoRoomError, Patience, Transfer
from tests.http_site import Answer, Site, loopback_only, sources_table

QUICK = Patience(timeout=0.5, tries=3, pause=0.01)
ONCE = Patience(timeout=0.5, tries=1, pause=0.01)
DATA = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
PATH = "/toys.zip"


class Recorder:
    """Remembers what a download showed."""

    def __init__(self) -> None:
        self.moves: list[tuple[str, int, int | None]] = []
        self.said: list[str] = []

    def at(self, name: str, done: int, total: int | None) -> None:
        self.moves.append((name, done, total))

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(autouse=True)
def _no_other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    loopback_only(monkeypatch)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sources" / "toys"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Toys:
    """A source of one archive, which the site serves; called, it fetches it."""

    def __init__(self, site: Site, folder: Path, table: Path) -> None:
        self.site = site
        self.folder = folder
        self.table = table
        self.shown = Recorder()

    def __call__(
        self,
        *,
        data: bytes = DATA,
        patience: Patience = QUICK,
        mirror: str | None = None,
        offline: bool = False,
        **changes: Any,
    ) -> list[Path]:
        self.write_table(data, **changes)
        self.shown = Recorder()
        return fetch(
            "toys",
            self.folder,
            mirror=mirror,
            offline=offline,
            sources=self.table,
            progress=self.shown,
            patience=patience,
        )

    def write_table(self, data: bytes = DATA, **changes: Any) -> None:
        """List the archive as it is, but for some changes; what is None is not listed."""
        entry = {
            "name": "toys.zip",
            "addresses": [self.site.address + PATH],
            "bytes": len(data),
            "checksum": sha256(data),
            **changes,
        }
        sources_table(
            self.table, "toys", {key: value for key, value in entry.items() if value is not None}
        )

    @property
    def said(self) -> str:
        return "\n".join(self.shown.said)


@pytest.fixture
def get(site: Site, folder: Path, tmp_path: Path) -> Toys:
    return Toys(site, folder, tmp_path / "sources.toml")


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# --- what comes, and stays ------------------------------------------------------


def test_an_archive_comes_whole_and_is_not_fetched_twice(
    site: Site, get: Toys, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put(PATH, DATA)
    (path,) = get()
    assert path == folder / "toys.zip"
    assert path.read_bytes() == DATA
    assert visible(folder) == ["toys.zip"]
    notes = sorted(note.name for note in (folder / ".entitybench").iterdir())
    assert notes == ["toys.zip.lock", "toys.zip.verified"]
    assert "300,000 bytes, sha256 as published" in get.said
    assert "CC0" in get.said

    monkeypatch.setattr(pooch, "file_hash", lambda *_: pytest.fail("it was verified before"))
    assert get() == [path]
    assert len(site.log) == 1
    assert get.said == ""


def test_progress_counts_every_byte(site: Site, get: Toys) -> None:
    site.put(PATH, DATA)
    site.answers.append(Answer(cut=100_000))
    get()
    moves = get.shown.moves
    assert moves[-1] == ("toys.zip", 300_000, 300_000)
    counts = [done for _, done, _ in moves]
    assert counts == sorted(counts)
    assert ("toys.zip", 100_000, 300_000) in moves


@pytest.mark.parametrize("kind", ["md5", "sha1"])
def test_other_checksums(site: Site, get: Toys, kind: str) -> None:
    site.put(PATH, DATA)
    (path,) = get(checksum=f"{kind}:{hashlib.new(kind, DATA).hexdigest()}")
    assert path.read_bytes() == DATA
    path.unlink()
    with pytest.raises(DownloadError, match=f"{kind} "):
        get(checksum=f"{kind}:{hashlib.new(kind, OTHER).hexdigest()}")


def test_a_file_that_was_there_is_verified_once(site: Site, get: Toys, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "toys.zip").write_bytes(DATA)
    get()
    assert "as published" in get.said
    get()
    assert get.said == ""
    assert not site.log


def test_a_file_that_rotted_is_put_aside(site: Site, get: Toys, folder: Path) -> None:
    site.put(PATH, DATA)
    (path,) = get()
    path.write_bytes(OTHER)
    os.utime(path, ns=(1, 1))
    get()
    assert path.read_bytes() == DATA
    assert (folder / "toys.zip.refused").read_bytes() == OTHER
    assert f"has the {sha256(OTHER).replace(':', ' ')}" in get.said


def test_a_new_checksum_in_the_table_is_looked_at(site: Site, get: Toys) -> None:
    site.put(PATH, DATA)
    get()
    site.put(PATH, OTHER)
    (path,) = get(data=OTHER)
    assert path.read_bytes() == OTHER


# --- broken off -------------------------------------------------------------------


def test_a_cut_transfer_goes_on_where_it_ended(site: Site, get: Toys) -> None:
    site.put(PATH, DATA, etag='"1"')
    site.answers += [Answer(cut=100_000), Answer(cut=50_000)]
    (path,) = get()
    assert path.read_bytes() == DATA
    assert site.asked() == [None, "bytes=100000-", "bytes=150000-"]
    assert [request.if_range for request in site.log] == [None, '"1"', '"1"']
    assert [request.sent for request in site.log] == [100_000, 50_000, 150_000]


def test_the_next_call_asks_only_for_the_rest(site: Site, get: Toys, folder: Path) -> None:
    site.put(PATH, DATA, date="Wed, 21 Oct 2015 07:28:00 GMT")
    site.answers.append(Answer(cut=123_456))
    with pytest.raises(DownloadError, match="closed at 123,456 of 300,000 bytes") as caught:
        get(patience=ONCE)
    assert "the same command goes on from 123,456 bytes" in caught.value.hint
    assert visible(folder) == ["toys.zip.part"]
    (path,) = get()
    assert path.read_bytes() == DATA
    assert visible(folder) == ["toys.zip"]
    assert site.log[-1].sent == 300_000 - 123_456
    assert site.log[-1].if_range == "Wed, 21 Oct 2015 07:28:00 GMT"


def test_a_killed_process_goes_on(site: Site, get: Toys, folder: Path) -> None:
    site.put(PATH, DATA)
    site.answers.append(Answer(stall=200_000))
    get.write_table()
    process = subprocess.Popen([sys.executable, "-c", FETCH, str(folder), str(get.table)])
    part = folder / "toys.zip.part"
    wait_until(lambda: part.exists() and part.stat().st_size == 200_000)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (path,) = get()
    assert path.read_bytes() == DATA
    assert site.asked() == [None, "bytes=200000-"]
    assert site.log[-1].sent == 100_000


FETCH = """
import sys
from entitybench.download import fetch
print(fetch("toys", sys.argv[1], sources=sys.argv[2])[0])
"""


def wait_until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_all_had_come_before_it_was_killed(site: Site, get: Toys, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "toys.zip.part").write_bytes(DATA)
    (path,) = get()
    assert path.read_bytes() == DATA
    assert not site.log


def test_a_server_without_ranges_starts_again(site: Site, get: Toys) -> None:
    site.put(PATH, DATA)
    site.ranges = False
    site.answers.append(Answer(cut=100_000))
    (path,) = get()
    assert path.read_bytes() == DATA
    assert [request.status for request in site.log] == [200, 200]
    assert "the server sends it from the start" in get.said


def test_a_server_without_ranges_that_always_breaks_off_is_given_up(site: Site, get: Toys) -> None:
    site.put(PATH, DATA)
    site.ranges = False
    site.answers += [Answer(cut=100_000) for _ in range(10)]
    with pytest.raises(DownloadError, match="closed at 100,000 of 300,000 bytes"):
        get()
    assert len(site.log) == QUICK.tries


def test_a_transfer_that_gains_is_never_given_up(site: Site, get: Toys) -> None:
    site.put(PATH, DATA)
    site.answers += [Answer(cut=20_000) for _ in range(14)]
    (path,) = get()
    assert path.read_bytes() == DATA
    assert len(site.log) == 15


def test_a_part_that_is_too_long_is_dropped(site: Site, get: Toys, folder: Path) -> None:
    site.put(PATH, DATA)
    folder.mkdir(parents=True)
    (folder / "toys.zip.part").write_bytes(DATA + b"more")
    (path,) = get()
    assert path.read_bytes() == DATA
    assert site.asked() == [None]


# --- never glued together -----------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"etag": '"1"'}, {"etag": '"2"'}),
        ({"date": "Wed, 21 Oct 2015 07:28:00 GMT"}, {"date": "Thu, 22 Oct 2015 07:28:00 GMT"}),
    ],
)
@pytest.mark.parametrize("checksum", [sha256(OTHER), None])
def test_a_file_that_changed_between_attempts(
    site: Site, get: Toys, before: dict[str, str], after: dict[str, str], checksum: str | None
) -> None:
    site.put(PATH, DATA, **before)
    site.answers.append(Answer(cut=100_000))
    with pytest.raises(DownloadError):
        get(patience=ONCE, checksum=checksum, name="toys.bin")
    site.put(PATH, OTHER, **after)
    (path,) = get(checksum=checksum, name="toys.bin")
    assert path.read_bytes() == OTHER
    assert [request.status for request in site.log] == [200, 200]  # If-Range failed: all of it


def test_a_weak_etag_vouches_for_no_part(site: Site, get: Toys) -> None:
    site.put(PATH, DATA, etag='W/"1"')
    site.answers.append(Answer(cut=100_000))
    (path,) = get(checksum=None, name="toys.bin")
    assert path.read_bytes() == DATA
    assert site.asked() == [None, None]


def test_a_server_that_ignores_if_range_is_found_out_by_its_etag(site: Site, get: Toys) -> None:
    site.put(PATH, DATA, etag='"1"')
    site.answers.append(Answer(cut=100_000))
    with pytest.raises(DownloadError):
        get(patience=ONCE, checksum=None, name="toys.bin")
    site.put(PATH, OTHER, etag='"2"')
    spoilt = {"ETag": '"2"', "Content-Range": "bytes 100000-299999/300000"}
    site.answers.append(Answer(headers=spoilt, status=206))
    (path,) = get(checksum=None, name="toys.bin")
    assert path.read_bytes() == OTHER
    assert site.asked() == [None, "bytes=100000-", None]


def test_without_any_version_the_checksum_finds_the_glue(site: Site, get: Toys) -> None:
    site.put(PATH, OTHER)
    site.answers.append(Answer(cut=100_000))
    with pytest.raises(DownloadError):
        get(patience=ONCE)
    site.put(PATH, DATA)
    (path,) = get()
    assert path.read_bytes() == DATA
    assert site.asked() == [None, "bytes=100000-", None]
    assert "once more, from the start" in get.said


def test_without_version_and_checksum_nothing_is_put_together(site: Site, get: Toys) -> None:
    site.put(PATH, OTHER)
    site.answers.append(Answer(cut=100_000))
    with pytest.raises(DownloadError):
        get(patience=ONCE, checksum=None, name="toys.bin")
    site.put(PATH, DATA)
    (path,) = get(checksum=None, name="toys.bin")
    assert path.read_bytes() == DATA
    assert site.asked() == [None, None]


def test_a_file_that_shrank_starts_again(site: Site, get: Toys) -> None:
    site.put(PATH, DATA)
    site.answers.append(Answer(cut=200_000))
    with pytest.raises(DownloadError):
        get(patience=ONCE, bytes=None, checksum=sha256(DATA[:150_000]))
    site.put(PATH, DATA[:150_000])
    (path,) = get(bytes=None, checksum=sha256(DATA[:150_000]))
    assert path.read_bytes() == DATA[:150_000]
    assert [request.status for request in site.log] == [200, 416, 200]


def test_a_part_that_was_not_asked_for_is_refused(site: Site, get: Toys) -> None:
    site.put(PATH, DATA)
    site.answers += [Answer(cut=100_000), Answer(shift=7)]
    (path,) = get()
    assert path.read_bytes() == DATA
    assert site.asked() == [None, "bytes=100000-", None]


# --- wrong ----------------------------------------------------------------------------


def test_a_wrong_checksum_is_refused_and_removed(site: Site, get: Toys, folder: Path) -> None:
    address = site.put(PATH, OTHER)
    with pytest.raises(DownloadError) as caught:
        get()
    assert str(caught.value) == (
        "`toys.zip` is not the published file and was removed: "
        f"it has the sha256 {hashlib.sha256(OTHER).hexdigest()}, "
        f"expected {hashlib.sha256(DATA).hexdigest()}\n"
        f"  --> {address}\n\n"
        f"hint: with ${MIRROR_VARIABLE}=<address> it is fetched from <address>/toys/toys.zip"
    )
    assert visible(folder) == []
    assert len(site.log) == 1


def test_a_wrong_size_is_refused_before_it_comes(site: Site, get: Toys, folder: Path) -> None:
    site.put(PATH, DATA * 100)
    with pytest.raises(DownloadError, match="has 30,000,000 bytes there, expected 300,000"):
        get()
    assert visible(folder) == []


@pytest.mark.parametrize("size", [len(DATA) + 1, len(DATA) * 20])
def test_an_endless_answer_is_refused(site: Site, get: Toys, folder: Path, size: int) -> None:
    site.answers.append(Answer(body=bytes(size), drop=("Content-Length",)))
    with pytest.raises(DownloadError, match="is longer than 300,000 bytes there"):
        get()
    assert visible(folder) == []


def test_the_next_address_is_tried(site: Site, get: Toys) -> None:
    site.put("/good.zip", DATA)
    site.put("/wrong.zip", OTHER)
    names = ["none.zip", "wrong.zip", "good.zip"]
    (path,) = get(addresses=[f"{site.address}/{name}" for name in names])
    assert path.read_bytes() == DATA
    assert [request.path for request in site.log] == [f"/{name}" for name in names]
    assert get.said.count("trying another address") == 2


def test_a_second_address_goes_on_with_the_bytes_of_the_first(site: Site, get: Toys) -> None:
    site.put("/one.zip", DATA, etag='"one"')
    site.put("/two.zip", DATA, etag='"two"')
    site.answers += [Answer(cut=100_000), Answer(status=500)]
    patience = Patience(timeout=0.5, tries=1, pause=0.01)
    addresses = [f"{site.address}/{name}" for name in ("one.zip", "two.zip")]
    with pytest.raises(DownloadError):
        get(addresses=addresses, patience=patience)
    (path,) = get(addresses=addresses[1:])
    assert path.read_bytes() == DATA
    last = site.log[-1]
    assert (last.path, last.range, last.if_range) == ("/two.zip", "bytes=100000-", None)


@pytest.mark.parametrize(
    ("status", "message"), [(404, "is not there"), (410, "is not there"), (403, "was refused")]
)
def test_a_file_that_is_not_there(site: Site, get: Toys, status: int, message: str) -> None:
    site.answers.append(Answer(status=status))
    with pytest.raises(DownloadError, match=f"`toys.zip` {message}: .*{status}") as caught:
        get()
    assert caught.value.where == (site.address + PATH,)
    assert MIRROR_VARIABLE in caught.value.hint
    assert len(site.log) == 1


def test_all_addresses_are_named_when_none_works(site: Site, get: Toys) -> None:
    addresses = [f"{site.address}/{name}.zip" for name in ("one", "two")]
    with pytest.raises(DownloadError) as caught:
        get(addresses=addresses)
    assert caught.value.where == tuple(addresses)


def test_an_odd_success_is_refused(site: Site, get: Toys) -> None:
    site.answers.append(Answer(status=204))
    with pytest.raises(DownloadError, match="answered 204"):
        get()


# --- slow, busy, away -----------------------------------------------------------------


def test_a_stalled_server_is_asked_again_for_the_rest(site: Site, get: Toys) -> None:
    site.put(PATH, DATA)
    site.answers.append(Answer(stall=250_000))
    (path,) = get()
    assert path.read_bytes() == DATA
    assert site.asked() == [None, "bytes=250000-"]
    assert "nothing came for 0.5 s; trying again in 0.01 s" in get.said


def test_a_server_that_never_answers_is_given_up(site: Site, get: Toys) -> None:
    site.put(PATH, DATA)
    site.answers += [Answer(stall=0, cut=0) for _ in range(3)]
    with pytest.raises(DownloadError, match=r"nothing came for 0.5 s"):
        get()


def test_a_slow_server_is_waited_for(site: Site, get: Toys) -> None:
    site.put(PATH, DATA)
    site.answers.append(Answer(sleep=0.01))  # a second in all, twice the time-out
    (path,) = get()
    assert path.read_bytes() == DATA
    assert len(site.log) == 1


def test_a_busy_server_is_asked_again_when_it_says(site: Site, get: Toys) -> None:
    site.put(PATH, DATA)
    site.answers += [Answer(status=503, headers={"Retry-After": "1"}), Answer(status=429)]
    begun = time.monotonic()
    (path,) = get()
    assert time.monotonic() - begun >= 1
    assert path.read_bytes() == DATA
    assert "answered 503 Service Unavailable; trying again in 1 s" in get.said


def test_nobody_answers(get: Toys) -> None:
    with pytest.raises(DownloadError, match=r"the connection failed .*refused") as caught:
        get(addresses=["http://127.0.0.1:9/toys.zip"])
    assert caught.value.where == ("http://127.0.0.1:9/toys.zip",)


# --- redirects ------------------------------------------------------------------------


def test_a_redirect_is_followed_also_for_a_part(site: Site, get: Toys) -> None:
    site.put("/new.zip", DATA, etag='"1"')
    site.moved[PATH] = "/new.zip"
    site.answers += [Answer(), Answer(cut=100_000)]
    (path,) = get()
    assert path.read_bytes() == DATA
    assert [(r.path, r.range) for r in site.log] == [
        ("/toys.zip", None),
        ("/new.zip", None),
        ("/toys.zip", "bytes=100000-"),
        ("/new.zip", "bytes=100000-"),
    ]


@pytest.mark.parametrize("target", [PATH, "file:///etc/hostname", "ftp://127.0.0.1/toys.zip"])
def test_a_redirect_in_circles_or_off_the_web(site: Site, get: Toys, target: str) -> None:
    site.moved[PATH] = target
    with pytest.raises(DownloadError):
        get()


@pytest.fixture
def secure_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site with a certificate that is made now, and trusted here."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key)]
    subprocess.run(
        [openssl, *command.split(), *names, "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Site(context) as running:
        yield running


def test_https_is_not_left_by_a_redirect(site: Site, secure_site: Site, get: Toys) -> None:
    site.put(PATH, DATA)
    secure_site.put("/direct.zip", DATA)
    (path,) = get(addresses=[f"{secure_site.address}/direct.zip"])
    path.unlink()
    secure_site.moved[PATH] = site.address + PATH
    with pytest.raises(DownloadError, match="a redirect from https to http was refused"):
        get(addresses=[secure_site.address + PATH])
    assert not site.log


def test_a_certificate_that_nobody_vouches_for(
    secure_site: Site, get: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(DownloadError, match="certificate is not valid"):
        get(addresses=[secure_site.address + PATH])
    assert not secure_site.log


# --- no room --------------------------------------------------------------------------


def test_a_disk_without_room_is_refused_at_once(
    site: Site, get: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put(PATH, DATA)
    usage = shutil.disk_usage("/")._replace(free=299_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(NoRoomError, match="300,000 bytes to come, 299,999 free"):
        get()


def test_a_disk_that_fills_up_keeps_what_came(site: Site, get: Toys, folder: Path) -> None:
    site.put(PATH, DATA)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_001, before[1]))
    try:
        with pytest.raises(NoRoomError) as caught:
            get()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.where == (f"{folder / 'toys.zip.part'}: 100,001 bytes so far",)
    (path,) = get()
    assert path.read_bytes() == DATA
    assert site.asked() == [None, "bytes=100001-"]


# --- two at once ------------------------------------------------------------------------


def test_two_processes_fetch_a_file_once(site: Site, get: Toys, folder: Path) -> None:
    site.put(PATH, DATA)
    site.answers.append(Answer(sleep=0.03))  # three seconds: both are there before it ends
    get.write_table()
    command = [sys.executable, "-c", FETCH, str(folder), str(get.table)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    outputs = [process.communicate(timeout=60)[0].decode().strip() for process in processes]
    assert outputs == [str(folder / "toys.zip")] * 3
    assert (folder / "toys.zip").read_bytes() == DATA
    assert len(site.log) == 1


HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "ab") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print(flush=True)
    time.sleep(1)
"""


def test_waiting_for_another_process_is_said(site: Site, get: Toys, folder: Path) -> None:
    site.put(PATH, DATA)
    notes = folder / ".entitybench"
    notes.mkdir(parents=True)
    command = [sys.executable, "-c", HOLD, str(notes / "toys.zip.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        get()
    assert "another process is fetching it; waiting" in get.said


# --- mirrors, and no network ------------------------------------------------------------


def test_a_mirror_serves_instead(site: Site, get: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put("/deep/toys/toys.zip", DATA)
    monkeypatch.setenv(MIRROR_VARIABLE, f"{site.address}/deep/")
    (path,) = get(addresses=["http://elsewhere.invalid/toys.zip"])
    assert path.read_bytes() == DATA
    assert [request.path for request in site.log] == ["/deep/toys/toys.zip"]


def test_a_mirror_is_verified_too(site: Site, get: Toys, folder: Path) -> None:
    site.put("/toys/toys.zip", OTHER)
    with pytest.raises(DownloadError, match="not the published file and was removed") as caught:
        get(mirror=site.address)
    assert caught.value.hint == f"${MIRROR_VARIABLE} names this mirror"
    assert visible(folder) == []


@pytest.mark.parametrize("mirror", ["ftp://host", "/a/folder", "http://me:secret@host/", "http://"])
def test_a_mirror_must_be_an_address(get: Toys, mirror: str) -> None:
    with pytest.raises(FormatError, match="is not an http or https address") as caught:
        get(mirror=mirror)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", ["1", "true"])
def test_offline_nothing_is_asked(
    site: Site, get: Toys, folder: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    address = site.put(PATH, DATA)
    monkeypatch.setenv("ENTITYBENCH_OFFLINE", value)
    with pytest.raises(DownloadError, match=r"\$ENTITYBENCH_OFFLINE is set") as caught:
        get()
    assert caught.value.where == (address,)
    assert not folder.exists()
    monkeypatch.setenv("ENTITYBENCH_OFFLINE", "0")
    (path,) = get()
    assert get(offline=True) == [path]
    assert len(site.log) == 1


def test_offline_a_wrong_file_is_told_and_left(get: Toys, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "toys.zip").write_bytes(OTHER)
    with pytest.raises(FormatError, match="is not the published file"):
        get(offline=True)
    assert (folder / "toys.zip").read_bytes() == OTHER


# --- no checksum is published -------------------------------------------------------------


def packed(kind: str) -> bytes:
    """An archive of each kind with the toys in it."""
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as pack:
            pack.writestr("toys.bin", DATA)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tgz" else "w") as tar:
            entry = tarfile.TarInfo("toys.bin")
            entry.size = len(DATA)
            tar.addfile(entry, io.BytesIO(DATA))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tgz", "tar"])
def test_what_cannot_be_verified_is_said(site: Site, get: Toys, kind: str) -> None:
    data = packed(kind)
    site.put(PATH, data)
    unknown: dict[str, Any] = {"name": f"toys.{kind}", "bytes": None, "checksum": None}
    (path,) = get(**unknown)
    assert path.read_bytes() == data
    assert f"could not be verified, for no checksum is published; {sha256(data)}" in get.said
    assert get(**unknown) == [path]
    assert len(site.log) == 1


@pytest.mark.parametrize("kind", ["zip", "tgz", "tar"])
def test_a_page_in_place_of_an_archive_is_refused(
    site: Site, get: Toys, folder: Path, kind: str
) -> None:
    site.put(PATH, b"<html>please log in</html>" * 100)
    with pytest.raises(DownloadError, match="was removed: it is not a whole archive"):
        get(name=f"toys.{kind}", bytes=None, checksum=None)
    assert visible(folder) == []


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_an_archive_that_ends_early_is_refused(site: Site, get: Toys, kind: str) -> None:
    body = packed(kind)[:-1000]
    site.answers.append(Answer(body=body, drop=("Content-Length",)))  # no way to know its size
    with pytest.raises(DownloadError, match="not a whole archive"):
        get(name=f"toys.{kind}", bytes=None, checksum=None)


# --- by hand --------------------------------------------------------------------------------


@pytest.fixture
def gated(site: Site, tmp_path: Path) -> Path:
    site.put("/old.zip", DATA)
    return sources_table(
        tmp_path / "gated.toml",
        "streets",
        {
            "name": "truth.zip",
            "about": "241 MB",
            "checksum": f"md5:{hashlib.md5(DATA).hexdigest()}",
        },
        {"name": "photographs.zip", "holds": "images", "about": "11 GB"},
        {
            "name": "old.zip",
            "optional": True,
            "bytes": len(DATA),
            "addresses": [f"{site.address}/old.zip"],
        },
        title="Streets",
        page="https://streets.example/register",
        steps=["register at {page} and accept the licence"],
    )


def test_steps_for_a_person(gated: Path, folder: Path) -> None:
    text = steps("streets", "sources/streets", sources=gated)
    assert text == (
        "Streets must be fetched by hand\n"
        "  1. register at https://streets.example/register and accept the licence\n"
        "  2. put these files, as they are, into `sources/streets`\n"
        f"       truth.zip (annotations, 241 MB, md5:{hashlib.md5(DATA).hexdigest()})\n"
        "       photographs.zip (images, 11 GB)\n"
        "  3. run the same command again\n"
        "without registration: old.zip (annotations, 300,000 bytes), by\n"
        "       entitybench convert streets --download-only --archive old.zip"
    )
    with pytest.raises(MissingDataError) as caught:
        fetch("streets", "sources/streets", sources=gated)
    assert str(caught.value) == text


def test_what_a_person_put_there_is_verified(gated: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "truth.zip").write_bytes(DATA)
    assert fetch("streets", folder, sources=gated) == [folder / "truth.zip"]
    with pytest.raises(MissingDataError, match="by hand"):
        fetch("streets", folder, sources=gated, with_images=True)
    (folder / "truth.zip").write_bytes(OTHER)
    with pytest.raises(
        FormatError, match=r"`truth\.zip` is not the published file: it has the md5"
    ):
        fetch("streets", folder, sources=gated)
    assert (folder / "truth.zip").read_bytes() == OTHER


def test_a_public_archive_of_a_gated_source(gated: Path, folder: Path, site: Site) -> None:
    table = gated.read_text().replace("bytes = 300000", f'checksum = "{sha256(DATA)}"')
    gated.write_text(table)
    (path,) = fetch("streets", folder, sources=gated, archives=["old.zip"])
    assert path.read_bytes() == DATA


def test_a_public_source_has_no_steps() -> None:
    assert "`entitybench convert coco --download-only` fetches it" in steps("coco", "x")


# --- real archives ---


@pytest.mark.parametrize(
    "name",
    [
        "panoptic_annotations_trainval2017.zip",
        "ADEChallengeData2016.zip",
        "annotations_instance.tar",
        "gtFine_trainvaltest.zip",
    ],
)
def test_real_archives_come_in_pieces(site: Site, get: Toys, realdata: Path, name: str) -> None:
    data = (realdata / "mini_archives" / name).read_bytes()
    site.put(PATH, data)
    site.answers += [Answer(cut=len(data) // 3), Answer(cut=1)]
    (path,) = get(data=data, name=name)
    assert path.read_bytes() == data
    assert [request.sent for request in site.log] == [
        len(data) // 3,
        1,
        len(data) - len(data) // 3 - 1,
    ]


# --- the table --------------------------------------------------------------------------------


def test_the_table_of_entitybench() -> None:
    listings = load_sources()
    assert {"coco", "ade20k", "cityscapes", "bsds500", "ade20k-full"} <= listings.keys()
    coco = listings["coco"].choose()[0]
    assert coco.bytes == 860_725_834
    assert coco.checksum is not None
    assert coco.checksum.startswith("sha256:c05f76d2129b6b56")
    for listing in listings.values():
        names = [archive.name for archive in listing.archives]
        assert len(set(names)) == len(names)
        for archive in listing.archives:
            assert archive.addresses or listing.steps, archive.name
            for address in archive.addresses:
                assert address.endswith(f"/{archive.name}")


def test_which_archives_are_wanted() -> None:
    coco = load_sources()["coco"]

    def names(**choice: Any) -> list[str]:
        return [archive.name for archive in coco.choose(**choice)]

    truth = "panoptic_annotations_trainval2017.zip"
    assert names() == [truth]
    assert names(with_images=True) == [truth, "val2017.zip", "train2017.zip"]
    assert names(with_images=True, splits=["val"]) == [truth, "val2017.zip"]
    assert names(names=["test2017.zip", "test2017.zip"]) == ["test2017.zip"]
    with pytest.raises(UnknownNameError, match=r"did you mean `val2017\.zip`"):
        names(names=["val2071.zip"])
    with pytest.raises(UnknownNameError, match="unknown source `coc`, did you mean `coco`"):
        fetch("coc", "x")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../toys.zip"},
        {"name": "/toys.zip"},
        {"name": ".."},
        {"name": "a/b.zip"},
        {"name": "a\\b.zip"},
        {"name": ".hidden"},
        {"name": "toys.zip\n"},
        {"addresses": ["ftp://host/toys.zip"]},
        {"addresses": ["file:///toys.zip"]},
        {"addresses": ["http://me:secret@host/toys.zip"]},
        {"addresses": ["http://host/a b"]},
        {"checksum": "sha256:00"},
        {"checksum": "crc32:00000000"},
        {"bytes": 0},
        {"bytes": "many"},
        {"holds": "videos"},
        {"sha256": "0"},
    ],
)
def test_a_table_that_is_not_one(tmp_path: Path, change: dict[str, Any]) -> None:
    table = sources_table(tmp_path / "t.toml", "toys", {"name": "toys.zip", **change})
    with pytest.raises(FormatError, match="not a table of sources") as caught:
        load_sources(table)
    assert caught.value.where == (str(table),)


def test_a_table_that_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text("[toys")
    with pytest.raises(FormatError, match="not a table of sources"):
        load_sources(tmp_path / "t.toml")


def test_a_part_file_holds_what_came_of_a_drip(site: Site, tmp_path: Path) -> None:
    """Bytes count as they come, not when a buffer is full: a slow line that breaks gains too."""
    address = site.put(PATH, DATA)
    site.answers.append(Answer(stall=10))
    part = tmp_path / "part"
    transfer = Transfer(address, part, tmp_path / "note", "n", None, True, Recorder(), ONCE)
    with contextlib.suppress(DownloadError):
        transfer.run()
    assert part.read_bytes() == DATA[:10]
    assert json.loads((tmp_path / "note").read_text()) == {"address": address, "size": 300_000}
