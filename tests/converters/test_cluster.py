"""The same bytes whatever runs a conversion: this process, processes, Dask, or shards."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from entitybench.cli import main
from entitybench.cluster import Cluster, check_address, open_cluster
from entitybench.converters import convert
from entitybench.errors import FormatError, MissingDataError, WorkerError
from entitybench.merging import merge_sets

Release = Any  # tests/converters/conftest.py: tests cannot import one another
FilesOf = Callable[[Path], dict[str, bytes]]

distributed = pytest.importorskip("distributed")
# what its event loop leaves behind when a cluster closes
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:There is no current event loop:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two workers here, for all tests of this file: to start them takes seconds."""
    with open_cluster("local:2") as opened:
        yield opened


def test_serial_processes_dask_and_shards_write_the_same_bytes(
    release: Release, tmp_path: Path, files_of: FilesOf, cluster: Cluster
) -> None:
    for number in range(20, 60):
        release.val.add(number, release.val.ids["000000000700"].copy())
    root = release.write_archives(tmp_path / "coco", 0, 8)
    convert("coco", root, tmp_path / "serial")
    convert("coco", root, tmp_path / "processes", jobs=2)
    jobs = cluster.workers
    convert("coco", root, tmp_path / "dask", jobs=jobs, executor=cluster.executor)
    for index in (1, 2, 3):
        convert("coco", root, tmp_path / "parts", shard=(index, 3))
    merge_sets((tmp_path / "parts").iterdir(), tmp_path / "shards")
    expected = files_of(tmp_path / "serial")
    assert len(expected) == 2 * 2 + 43 + 2
    for way in ("processes", "dask", "shards"):
        assert files_of(tmp_path / way) == expected


def test_the_command_takes_a_scheduler(
    release: Release, tmp_path: Path, files_of: FilesOf, cluster: Cluster
) -> None:
    root = release.write(tmp_path / "coco")
    address = cluster.executor._client.scheduler.address  # type: ignore[attr-defined]
    arguments = ["convert", "coco", "--source", str(root), "-q", "--out"]
    assert main([*arguments, str(tmp_path / "a"), "--cluster", address]) == 0
    assert main([*arguments, str(tmp_path / "b"), "-j", "1"]) == 0
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_shards_and_merge_on_the_command_line(
    release: Release, tmp_path: Path, files_of: FilesOf
) -> None:
    root = release.write(tmp_path / "coco")
    arguments = ["convert", "coco", "--source", str(root), "-q", "-j", "1", "--out"]
    for shard in ("1/2", "2/2"):
        assert main([*arguments, str(tmp_path / "parts"), "--shard", shard]) == 0
    parts = sorted(map(str, (tmp_path / "parts").iterdir()))
    assert len(parts) == 4
    assert main(["merge", *parts, "--out", str(tmp_path / "a"), "-q", "-j", "1"]) == 0
    assert main([*arguments, str(tmp_path / "b")]) == 0
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert main(["merge", *parts[:3], "--out", str(tmp_path / "c"), "-j", "1"]) == 2
    assert main([*arguments, str(tmp_path / "d"), "--shard", "3/2"]) == 2
    assert main([*arguments, str(tmp_path / "d"), "--z-order", "area"]) == 2  # COCO has none


def test_an_error_in_a_worker_is_the_users(
    release: Release, tmp_path: Path, cluster: Cluster
) -> None:
    root = release.write(tmp_path / "coco")
    broken = root / "annotations" / "panoptic_val2017" / "000000000700.png"
    broken.write_bytes(b"nothing")
    with pytest.raises(FormatError, match="not a PNG") as caught:
        convert("coco", root, tmp_path / "out", splits=["val"], executor=cluster.executor)
    assert broken.name in str(caught.value)


def die(item: int) -> int:
    if item == 5:
        import os

        os._exit(9)
    return item


def test_a_worker_that_dies_is_reported_with_what_it_held(cluster: Cluster) -> None:
    """Dask tries again on other workers before it gives up: so the one to blame is known."""
    from entitybench.parallel import ordered_map

    results = ordered_map(
        die, range(9), executor=cluster.executor, describe=lambda item: f"image {item}"
    )
    assert list(islice(results, 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(WorkerError, match="a worker process died") as caught:
        next(results)
    assert caught.value.where == ("image 5",)
    assert list(ordered_map(abs, [-1, 2], executor=cluster.executor)) == [1, 2]  # it goes on


@pytest.mark.parametrize(
    "address", ["", "local", "local:0", "local:-1", "4", "tcp://", "host:8786"]
)
def test_what_is_no_cluster_is_refused(address: str) -> None:
    with pytest.raises(FormatError, match="is not a cluster"):
        check_address(address)


def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entitybench.cluster._PATIENCE", "1s")
    with (
        pytest.raises(MissingDataError, match="no Dask scheduler answers at `tcp://127"),
        open_cluster("tcp://127.0.0.1:9"),
    ):
        pass


def test_without_dask_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    true_import = builtins.__import__

    def without(name: str, *more: Any, **kwargs: Any) -> Any:
        if name.startswith("distributed"):
            raise ImportError(name)
        return true_import(name, *more, **kwargs)

    monkeypatch.delitem(sys.modules, "distributed")
    monkeypatch.setattr(builtins, "__import__", without)
    arguments = ["convert", "coco", "--source", str(tmp_path), "--cluster", "local:2"]
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        "error: `--cluster` needs Dask, which is not installed\n\n"
        'hint: pip install "entitybench[cluster]"\n'
    )
