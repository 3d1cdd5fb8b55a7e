"""What holds for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# The networks of the tests are small: threads of OpenMP wait for each other longer than they compute. It is read when
# torch and NumPy are loaded, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_TOGETHER = Path(__file__).parent / "export"  # its files share networks whose tracing takes most of their time


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several processes (`--dist loadgroup`) one runs all tests of a file, or of that folder."""
    for item in items:
        group = _TOGETHER if item.path.is_relative_to(_TOGETHER) else item.path
        item.add_marker(pytest.mark.xdist_group(str(group.relative_to(Path(__file__).parent))))
