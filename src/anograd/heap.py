"""Memory that was freed: kept by the process, for the next batch, or given back."""

import ctypes
import gc
import os
import sys
from contextlib import suppress

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # as glibc numbers them
KEPT, MAPPED = 256 * 2**20, 32 * 2**20  # bytes
ASKED = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let this process keep up to 256 MiB that were freed, and return whether it does.

    glibc hands memory back to the system whenever the tensors of a batch are freed, and the system clears
    every page that the next batch asks for, which takes up to a third of the time that R2-AD2 scores in. For
    processes of our own only: it is for a program, not for a library, to say how memory is kept. Without
    glibc, and where the environment says how, nothing is done.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in ASKED):
        return False
    try:
        set_to = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl's has none
        return False
    return bool(set_to(TRIM_THRESHOLD, KEPT) and set_to(MMAP_THRESHOLD, MAPPED))


def give_freed_memory_back() -> None:
    """Let the system have what this process has freed and kept, so that what it uses from now on shows."""
    gc.collect()
    with suppress(OSError, AttributeError):  # without glibc
        ctypes.CDLL(None).malloc_trim(0)
