from __future__ import annotations

import os
import subprocess
import sys

import pytest

from service.memory import few_pools

_POOLS = """
import re, sys, threading
from service.memory import few_pools
if sys.argv[1] == "few":
    assert few_pools()
barrier, kept = threading.Barrier(12), []
def take():
    barrier.wait()
    kept.append([bytearray(5000) for _ in range(200)])
    barrier.wait()
threads = [threading.Thread(target=take) for _ in range(12)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
starts = [int(line.split("-")[0], 16) for line in open("/proc/self/maps") if "rw-p 00000000 00:00 0" in line]
print(sum(start % (64 << 20) == 0 for start in starts))
"""


def _pools(which: str) -> int:
    return int(subprocess.run([sys.executable, "-c", _POOLS, which], capture_output=True, check=True).stdout)


def test_threads_share_two_pools():
    assert _pools("few") <= 2 < _pools("many")


@pytest.mark.parametrize(
    "environment", [{"MALLOC_ARENA_MAX": "4"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=4:glibc.malloc.check=0"}]
)
def test_who_sets_the_number_of_pools_is_obeyed(environment: dict[str, str]):
    assert not few_pools(environment)


_NUMERICS = """
import os
import service.app
import numpy as np
square = np.ones((512, 512))
square @ square
print(len(os.listdir("/proc/self/task")))
"""


def test_numerics_start_no_threads_of_their_own():
    """OpenBLAS would have one for each core, which spin between products, on the cores that requests need."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    ran = subprocess.run([sys.executable, "-c", _NUMERICS], capture_output=True, text=True, check=True, env=environment)
    assert int(ran.stdout.split()[-1]) == 1
