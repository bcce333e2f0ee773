"""Memory that is kept: what a step frees, the next one uses again.

glibc gives large blocks back to the system as soon as they are freed, and the system hands out zeroed pages one fault
at a time. Steps of training and of drawing make and free the same tensors over and over: where a fault is slow, as in a
virtual machine, that takes most of the time of what is computed element by element (4 MB plus 1: 2.0 ms, then 0.12).
"""

from __future__ import annotations

import ctypes
import sys

#: glibc's numbers of what `mallopt` sets, and the values: blocks up to this size are kept (the most that it allows),
#: and so much free memory stays at the end of the heap
_MMAP_THRESHOLD, _LARGEST_KEPT = -3, 32 * 2**20
_TRIM_THRESHOLD, _MOST_KEPT = -1, 2**30


def keep_freed_memory() -> bool:
    """Have this process keep memory that it frees, up to 1 GiB; whether it can (Linux with glibc)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    if sys.platform != "linux":
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)) and bool(mallopt(_TRIM_THRESHOLD, _MOST_KEPT))
