"""The ordered map: the same results whatever runs them, flat memory, deaths told by name."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import active_children, get_context
from pathlib import Path
from types import ModuleType

import pytest

from entitybench.errors import FormatError, WorkerError
from entitybench.parallel import ordered_map

WORK = '''
"""Work for spawned processes, which can import this file and not a test."""

import os, signal, time
from entitybench.errors import FormatError

def square(n): return n * n
def who(n): return os.getpid()
def slow_first(n): time.sleep(0.2 if n == 0 else 0); return n
def refuse_13(n):
    if n == 13: raise FormatError("unlucky", where="13", hint="skip it")
    return n
def broken(n): raise ZeroDivisionError("one over zero")
class Odd(Exception):
    def __init__(self, a, b): super().__init__(a)
def odd(n): raise Odd(1, 2)
def die_at_13(n):
    if n == 13: os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return n
def leave_at_3(n):
    if n == 3: os._exit(7)
    return n
def unsendable(n): return lambda: n
def linger(path):
    open(path, "w").write(str(os.getpid())); time.sleep(600)
'''


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    name = f"work_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module(name)
    del sys.modules[name]


@pytest.mark.parametrize("count", [0, 1, 2, 17, 300])
def test_processes_give_what_a_loop_gives(work: ModuleType, count: int) -> None:
    expected = [n * n for n in range(count)]
    assert list(ordered_map(work.square, range(count), jobs=1)) == expected
    assert list(ordered_map(work.square, range(count), jobs=2)) == expected
    assert list(ordered_map(work.square, iter(range(count)), jobs=2)) == expected


def test_a_slow_item_does_not_change_the_order(work: ModuleType) -> None:
    assert list(ordered_map(work.slow_first, range(40), jobs=2)) == list(range(40))


def test_processes_are_others_and_leave_nobody_behind(work: ModuleType) -> None:
    pids = set(ordered_map(work.who, range(30), jobs=2))
    assert pids
    assert os.getpid() not in pids
    assert not active_children()


def test_any_executor_serves_and_stays_open() -> None:
    with ThreadPoolExecutor(3) as threads:
        assert list(ordered_map(str, range(100), executor=threads)) == [str(n) for n in range(100)]
        assert threads.submit(int, "7").result() == 7


@pytest.mark.parametrize("sized", [True, False])
def test_work_in_flight_is_bounded(sized: bool) -> None:
    """An item is taken only shortly before its result is: 5,000 never wait at once."""
    taken = 0

    class Counted(list[int]):
        def __iter__(self) -> Iterator[int]:
            nonlocal taken
            for item in range(len(self)):
                taken += 1
                yield item

    items = Counted([0] * 5_000)
    farthest = 0
    with ThreadPoolExecutor(2) as threads:
        results = ordered_map(str, items if sized else iter(items), executor=threads)
        for done, _ in enumerate(results):
            farthest = max(farthest, taken - done)
    assert taken == 5_000
    assert farthest <= 32 * 3 * 8 + 8


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_comes_out_as_itself_after_the_results_before(work: ModuleType, jobs: int) -> None:
    results = ordered_map(work.refuse_13, range(300), jobs=jobs)
    got: list[int] = []
    with pytest.raises(FormatError, match="unlucky") as caught:
        got.extend(results)  # extend keeps what came before
    assert caught.value.where == ("13",)
    assert caught.value.hint == "skip it"
    assert got == list(range(13))


def test_an_error_of_a_worker_shows_where_it_arose(work: ModuleType) -> None:
    with pytest.raises(ZeroDivisionError, match="one over zero") as caught:
        list(ordered_map(work.broken, range(3), jobs=2))
    assert "in broken" in str(caught.value.__cause__)


def test_an_error_that_cannot_be_sent_is_told_all_the_same(work: ModuleType) -> None:
    with pytest.raises(TypeError):  # the premise
        pickle.loads(pickle.dumps(work.Odd(1, 2)))
    with pytest.raises(WorkerError, match="Odd: 1"):
        list(ordered_map(work.odd, range(3), jobs=2))


def test_a_result_that_cannot_be_sent_is_an_error(work: ModuleType) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError), match=r"[Pp]ickle"):
        list(ordered_map(work.unsendable, range(3), jobs=2))


def test_the_death_of_a_worker_names_what_it_held_and_nothing_else(work: ModuleType) -> None:
    with pytest.raises(WorkerError, match=r"a worker process died \(SIGKILL\)") as caught:
        list(ordered_map(work.die_at_13, range(60), jobs=2, describe=lambda n: f"image {n}"))
    assert caught.value.where == ("image 13",)
    assert "--jobs" in caught.value.hint
    assert not active_children()


def test_a_worker_that_exits_is_dead_too(work: ModuleType) -> None:
    with pytest.raises(WorkerError, match=r"\(exit code 7\)") as caught:
        list(ordered_map(work.leave_at_3, range(5), jobs=2))
    assert caught.value.where == ("3",)


def test_a_death_in_a_foreign_pool_names_what_was_in_flight(work: ModuleType) -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        results = ordered_map(work.leave_at_3, range(5), executor=pool)
        with pytest.raises(WorkerError, match="a worker process died") as caught:
            list(results)
    assert "3" in caught.value.where
    assert "0" not in caught.value.where


def test_what_has_not_begun_is_cancelled_when_the_caller_stops() -> None:
    begun = []
    gate = threading.Event()

    def hold(n: int) -> int:
        begun.append(n)
        if n:
            gate.wait(10)
        return n

    with ThreadPoolExecutor(1) as threads:
        results = ordered_map(hold, range(90), executor=threads)
        assert next(results) == 0
        results.close()
        gate.set()
    assert begun in ([0], [0, 1])


class _Inline(Executor):
    """Runs at once what is submitted: the least that an executor can be."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        from concurrent.futures import Future

        self.submitted += 1
        future: Future[object] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_items_travel_in_chunks_where_there_are_many() -> None:
    inline = _Inline()
    assert list(ordered_map(str, range(4_000), executor=inline)) == [str(n) for n in range(4_000)]
    assert inline.submitted == 500


SCRIPT = """
import sys
from entitybench.parallel import ordered_map
import {name} as work
if __name__ == "__main__":
    for _ in ordered_map(work.linger, [sys.argv[1], sys.argv[2]], jobs=2):
        pass
"""


def linger(work: ModuleType, folder: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """Start a script whose two workers sleep; return it and their process ids."""
    script = folder / "script.py"
    script.write_text(SCRIPT.format(name=work.__name__))
    marks = [folder / "one", folder / "two"]
    process = subprocess.Popen(
        [sys.executable, str(script), *map(str, marks)],
        env=os.environ | {"PYTHONPATH": str(folder)},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for(lambda: all(mark.exists() and mark.read_text() for mark in marks))
    return process, [int(mark.read_text()) for mark in marks]


def wait_for(condition: object, seconds: float = 30) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    if state.parent.parent.joinpath("self").exists():
        return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_workers_leave_when_their_parent_is_killed(work: ModuleType, tmp_path: Path) -> None:
    process, workers = linger(work, tmp_path)
    process.kill()
    process.communicate(timeout=30)
    wait_for(lambda: not any(map(is_running, workers)))


INTERRUPTED = """
import sys, time
from entitybench.parallel import ordered_map
import {name} as work
if __name__ == "__main__":
    try:
        for n in ordered_map(work.slow_first, range(100_000_000), jobs=2):
            if n == 0:
                print("begun", flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_cleanly(work: ModuleType, tmp_path: Path) -> None:
    """A terminal interrupts the whole group: one exit, and no worker speaks."""
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED.format(name=work.__name__))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    time.sleep(0.3)  # both workers are up
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == b""
