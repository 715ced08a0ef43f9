"""What the tests share: slow ones on demand, real samples where they are, small worlds."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

REALDATA = "ENTITYBENCH_REALDATA"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests as well")


def pytest_configure() -> None:
    """Let tests interrupt processes even where the shell started this one with Ctrl-C ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real samples; tests that use it are skipped where it is not given."""
    folder = os.environ.get(REALDATA)
    if not folder:
        pytest.skip(f"${REALDATA} is not set")
    return Path(folder).resolve()


@pytest.fixture(autouse=True)
def _plain_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No setting of the machine changes a result, and nothing is left on it."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("ENTITYBENCH_CACHE", str(cache))
    monkeypatch.setenv("ENTITYBENCH_OFFLINE", "1")  # no test leaves the machine by accident
    for name in (
        "ENTITYBENCH_DATA",
        "ENTITYBENCH_MIRROR",
        "ENTITYBENCH_SOURCES",
        "ENTITYBENCH_JOBS",
    ):
        monkeypatch.delenv(name, raising=False)
