from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from bright import write_bundle_into
from postgres import find_postgres, fresh_schema, running_postgres


@pytest.fixture
def write_bundle(tmp_path: Path) -> Callable[[str], Path]:
    """Writes `tmp_path/models/<name>`."""
    return partial(write_bundle_into, tmp_path / "models")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL that runs as long as the tests."""
    programs = find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    with running_postgres(programs) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path) -> str:
    """URL of an empty database; it also stands in a file beside the folder, for what knows that alone."""
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'store.sqlite'}" if sqlite else fresh_schema(request.getfixturevalue("postgres"))
    tmp_path.with_name(f"{tmp_path.name}.url").write_text(url)
    return url
