"""Memory of long runs on the processor."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process keep freed memory for reuse instead of returning it to the system.

    glibc maps every large tensor anew and the kernel clears each page of it; that costs full-batch training
    about a quarter of the time, and networks on images up to half of it. Affects the whole process, so only
    command lines and the workers of a sweep call it. Does nothing where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
