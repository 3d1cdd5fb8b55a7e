from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from bright import write_bundle_into


@pytest.fixture
def write_bundle(tmp_path: Path) -> Callable[[str], Path]:
    """Writes `tmp_path/models/<name>`."""
    return partial(write_bundle_into, tmp_path / "models")
