"""Gives files to a target in a process that may die: `python -m tests.fuzz.child MODULE:FUNCTION`, for the runner.

On standard input a file is its length (8 bytes, big endian) and its bytes; for each, one line of JSON is answered.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from typing import TextIO

ADDRESS_SPACE = 8 * 2**30


def main() -> None:
    """Answer until standard input ends."""
    module, _, name = sys.argv[1].partition(":")
    target: Callable[[bytes], str] = getattr(importlib.import_module(module), name)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print does not end up among the answers
    print_to(answers, {"ready": True})
    while head := sys.stdin.buffer.read(8):
        content = sys.stdin.buffer.read(int.from_bytes(head, "big"))
        start = time.perf_counter()
        outcome, fault = "", ""
        try:
            outcome = target(content)
        except Exception:  # noqa: BLE001 - whatever gets here is what is looked for
            fault = traceback.format_exc()
        seconds = time.perf_counter() - start
        print_to(answers, {"outcome": outcome, "fault": fault, "seconds": seconds, **_memory()})


def print_to(answers: TextIO, line: dict[str, object]) -> None:
    answers.write(json.dumps(line) + "\n")
    answers.flush()


def _memory() -> dict[str, float]:
    """Resident memory now and at most so far, MiB."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"resident": pages * resource.getpagesize() / 2**20, "peak": peak}


if __name__ == "__main__":
    main()
