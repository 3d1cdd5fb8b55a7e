"""Targets that do what the fuzzer looks for, each when the file says so."""

from __future__ import annotations

import os
import time

_kept: list[bytes] = []


def target(content: bytes) -> str:
    if b"raise" in content:
        raise KeyError("outside the tree")
    if b"die" in content:
        os.abort()
    if b"sleep" in content:
        time.sleep(60)
    if b"grow" in content:
        _kept.append(b"x" * (8 * 2**20))
    return "image"
