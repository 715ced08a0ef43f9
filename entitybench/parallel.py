"""One ordered map for everything that is a pure function of one image.

The results come in the order of the items, whatever runs them: this process, processes here,
or any executor in the style of `concurrent.futures` (a Dask cluster has one).  Only a bounded
window of work is in flight, so that memory stays flat however many items there are.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    MutableSequence,
    Sequence,
    Sized,
)
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from entitybench.errors import WorkerError

_T = TypeVar("_T")
_R = TypeVar("_R")

_LARGEST_CHUNK = 8  # sending one item costs about 0.2 ms; eight make that small beside 5 ms of work
_CHUNKS_PER_WORKER = 3  # one at work, two waiting: nobody idles while the first is awaited
_FOREIGN_WORKERS = 32  # taken for granted where the number of workers is not ours to know
_MOST_ON_WINDOWS = 61  # processes that one wait can watch there
_IDLE = -1


def ordered_map(
    function: Callable[[_T], _R],
    items: Iterable[_T],
    *,
    jobs: int = 1,
    executor: Executor | None = None,
    describe: Callable[[_T], str] = str,
) -> Generator[_R, None, None]:
    """Apply a function to each item; yield the results in the items' order.

    Args:
        function: A pure function. With workers it is pickled, and so are items and results.
        items: Taken as they are needed, a bounded window ahead of the results.
        jobs: Processes to use; 1 works in this process. With `executor`, how many workers it
            has, if more than 32: it bounds the work in flight.
        executor: Any `concurrent.futures.Executor`; it is not shut down.
        describe: How an error names an item.

    Yields:
        One result per item. What the function raises comes out as itself, after the results
        of the items before; what has not begun by then is cancelled.

    Raises:
        WorkerError: A worker died; names the item that it held.

    >>> list(ordered_map(abs, [-2, 3, -1]))
    [2, 3, 1]
    """
    if executor is not None:
        workers = max(jobs, _FOREIGN_WORKERS)
        conveyor = _Conveyor(function, executor, workers * _CHUNKS_PER_WORKER)
        yield from _told(conveyor, _chunks(items, workers), describe, slots=())
    elif jobs <= 1:
        yield from map(function, items)
    else:
        yield from _in_processes(function, items, jobs, describe)


def _in_processes(
    function: Callable[[_T], _R], items: Iterable[_T], jobs: int, describe: Callable[[_T], str]
) -> Iterator[_R]:
    # spawn, so that Linux does what macOS and Windows do, and no thread is forked in mid-lock
    context = multiprocessing.get_context("spawn")
    slots: MutableSequence[int] = context.RawArray("q", [_IDLE] * 2 * jobs)
    workers = min(jobs, _MOST_ON_WINDOWS) if sys.platform == "win32" else jobs
    started = context.Value("i", 0)
    with ProcessPoolExecutor(workers, context, _begin_worker, (slots, started)) as pool:
        conveyor = _Conveyor(function, pool, jobs * _CHUNKS_PER_WORKER)
        yield from _told(conveyor, _chunks(items, jobs), describe, slots)


@dataclass(frozen=True, slots=True)
class _Chunk(Generic[_T]):
    """Items that travel together; `first` is the number of the first."""

    first: int
    items: tuple[_T, ...]


def _chunks(items: Iterable[_T], workers: int) -> Iterator[_Chunk[_T]]:
    """Cut the items: small chunks where there are few items for each worker."""
    share = len(items) // (workers * _CHUNKS_PER_WORKER) if isinstance(items, Sized) else 1
    size = max(1, min(share, _LARGEST_CHUNK))
    iterator, first = iter(items), 0
    while batch := tuple(islice(iterator, size)):
        yield _Chunk(first, batch)
        first += len(batch)


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[_R]):
    """What came of a chunk: the results up to the first item that raised, and what it raised."""

    results: list[_R]
    error: Exception | None = None
    trace: str = ""


class _WorkerTraceError(Exception):
    """Shows, as a cause, where in a worker an error arose."""


# --- on this side ------------------------------------------------------------


@dataclass(slots=True)
class _Conveyor(Generic[_T, _R]):
    """Keeps a window of chunks in flight and hands out their results in order."""

    function: Callable[[_T], _R]
    executor: Executor
    window: int
    flying: deque[tuple[Future[_Outcome[_R]], _Chunk[_T]]] = field(default_factory=deque)
    processes: set[BaseProcess] = field(default_factory=set)

    def run(self, chunks: Iterator[_Chunk[_T]]) -> Iterator[_R]:
        try:
            self._launch(islice(chunks, self.window))
            while self.flying:
                outcome = self.flying[0][0].result()
                self.flying.popleft()
                yield from outcome.results
                if outcome.error is not None:
                    raise outcome.error from _WorkerTraceError(f"\n{outcome.trace}")
                self._launch(islice(chunks, 1))
        finally:
            for future, _ in self.flying:
                future.cancel()

    def _launch(self, chunks: Iterable[_Chunk[_T]]) -> None:
        for chunk in chunks:
            self.flying.append((self.executor.submit(_work, self.function, chunk), chunk))
            self.processes.update(multiprocessing.active_children())

    def numbers_awaited(self) -> list[int]:
        """Return the numbers of the items whose results come next."""
        chunks = [chunk for _, chunk in self.flying][:1]
        return [number for c in chunks for number in range(c.first, c.first + len(c.items))]

    def items_in_flight(self) -> dict[int, _T]:
        """Return the items in flight by their numbers."""
        return {
            number: item
            for _, chunk in self.flying
            for number, item in enumerate(chunk.items, chunk.first)
        }


def _deaths() -> tuple[type[Exception], ...]:
    """Return how executors tell the death of a worker: Dask, where it is in use, in its own way."""
    dask = sys.modules.get("distributed.scheduler")
    own = (dask.KilledWorker, dask.NoWorkerError) if dask else ()
    return (BrokenExecutor, CancelledError, *own)


def _told(
    conveyor: _Conveyor[_T, _R],
    chunks: Iterator[_Chunk[_T]],
    describe: Callable[[_T], str],
    slots: Sequence[int],
) -> Iterator[_R]:
    """Run the conveyor, and tell the death of a worker as what it is."""
    try:
        yield from conveyor.run(chunks)
    except _deaths() as error:
        if slots:
            conveyor.executor.shutdown()  # from here on every process has its exit code
        reason, numbers = _post_mortem(slots, conveyor.processes)
        items = conveyor.items_in_flight()
        if not isinstance(error, BrokenExecutor):  # of a cluster: it tells which call it was
            numbers = conveyor.numbers_awaited()
        held = [describe(items[number]) for number in numbers if number in items]
        hint = "out of memory? try fewer `--jobs`; what was written is kept"
        if slots and not held:
            hint = "a script that starts processes needs `if __name__ == '__main__':`"
        msg = f"a worker process died{reason}"
        raise WorkerError(
            msg, where=held or list(map(describe, items.values())), hint=hint
        ) from error


def _post_mortem(slots: Sequence[int], processes: Iterable[BaseProcess]) -> tuple[str, list[int]]:
    """Return why workers died, and the numbers of the items that they held.

    A pool that lost one worker ends the others itself, by SIGTERM: those held items too, and
    are not to blame.
    """
    held = dict(zip(slots[::2], slots[1::2], strict=True))
    spared = (None, 0, -signal.SIGTERM)
    codes = {process.pid: process.exitcode for process in processes if process.pid in held}
    dead = {pid: code for pid, code in codes.items() if code not in spared}
    numbers = sorted(held[pid] for pid in dead or held if pid is not None)
    reason = ", ".join(sorted({_reason(code) for code in dead.values() if code is not None}))
    return f" ({reason})" * bool(reason), [number for number in numbers if number != _IDLE]


def _reason(exit_code: int) -> str:
    """Name an exit code: a negative one is a signal.

    >>> _reason(-9)
    'SIGKILL'
    """
    names = {int(number): number.name for number in signal.Signals}
    return names.get(-exit_code, f"exit code {exit_code}")


# --- in a worker -------------------------------------------------------------

_notebook: tuple[MutableSequence[int], int] | None = None


def _begin_worker(slots: MutableSequence[int], started: Any) -> None:
    """Set up a worker process: its slot for post-mortems, Ctrl-C, and its end."""
    global _notebook  # one per process, by its nature
    with started.get_lock():
        place, started.value = started.value, started.value + 1
    slots[2 * place] = os.getpid()
    _notebook = slots, 2 * place + 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, and ends the work
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """Leave when the parent is gone: a killed one cannot say goodbye to its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _note(number: int) -> None:
    if _notebook is not None:
        slots, place = _notebook
        slots[place] = number


def _work(function: Callable[[_T], _R], chunk: _Chunk[_T]) -> _Outcome[_R]:
    results: list[_R] = []
    try:
        for number, item in enumerate(chunk.items, chunk.first):
            _note(number)
            results.append(function(item))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the caller's
        return _Outcome(results, _sendable(error), traceback.format_exc())
    finally:
        _note(_IDLE)
    return _Outcome(results)


def _sendable(error: Exception) -> Exception:
    """Return the error if it survives a pickle; one that does not would break the pool."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  # pickling runs foreign code
        return WorkerError(f"{type(error).__name__}: {error}")
    return error
