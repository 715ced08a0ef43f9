"""One process at a time."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_POLL = 0.2  # seconds
_HELD = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
_UNKNOWN_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock while the block runs; the system releases it if the process dies.

    A filesystem without locks (some network mounts) gives none: what is guarded must then be
    found out by its checksum.

    Args:
        path: The lock file; made where it is not, and left there.
        waiting: Called once if another process holds it.
    """
    with path.open("ab") as file:
        if not _acquire(file):
            waiting()
            while not _acquire(file):
                time.sleep(_POLL)
        yield


def _acquire(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno not in _UNKNOWN_HERE:
            raise
    return True
