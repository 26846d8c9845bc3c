"""Pages that a batch has freed are there for the next one."""

import os
import platform
import subprocess
import sys

import pytest

from anograd.heap import ASKED

FAULTS = """
import resource, sys
import numpy as np
from anograd.heap import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "kept" else False
faults = []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    batch = [np.ones(2**19) for _ in range(10)]  # 4 MiB each
    del batch
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, faults[-1])
"""


def faults(how: str, **variables: str) -> tuple[str, int]:
    """Return whether memory is kept, and how many pages the last of equal batches asked the system for."""
    plain = {name: value for name, value in os.environ.items() if name not in ASKED}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], env=plain | variables, capture_output=True, text=True, check=True
    )
    kept, count = done.stdout.split()
    return kept, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told")
def test_a_batch_like_the_last_one_asks_for_no_new_pages():
    _, without = faults("plain")
    kept, count = faults("kept")
    assert kept == "True"
    assert count < 100 < 1_000 < without  # of 10,240


def test_what_the_environment_says_is_left():
    assert faults("kept", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
