"""Files that are mapped into memory, and giving their pages back while they are still open."""

from __future__ import annotations

import mmap

View = mmap.mmap | bytes


def release(view: View, start: int, end: int) -> None:
    """Let the system have the memory of a range back; it is read again where it is needed.

    Only whole pages inside the range are released. Nothing happens to plain bytes, or where the
    system cannot do it.
    """
    first, last = -(-start // mmap.PAGESIZE), end // mmap.PAGESIZE
    if last > first and isinstance(view, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        size = (last - first) * mmap.PAGESIZE
        view.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, size)
