from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
OURS = {"service", "training", "export", "loadtests", "benchmarks", "deploy", "tests"}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_package_is_pinned_by_hash_and_no_index_is_named(lock):
    text = lock.read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(lines) > 50
    for line in lines:
        assert re.match(r"[A-Za-z0-9][\w.-]*(\[[\w,-]+\])?==[^\s;]+", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line), line
        assert not re.search(r"https?:|file:|--index|--extra-index|--find-links|git\+", line), line


@cache
def _provided() -> dict[str, set[str]]:
    return {name: {canonicalize_name(one) for one in makers} for name, makers in packages_distributions().items()}


def _declared(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    words = [*project["dependencies"], *(each for name in extras for each in project["optional-dependencies"][name])]
    return {canonicalize_name(Requirement(each).name) for each in words}


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imported(folder: str, but: str = "") -> dict[str, str]:
    """Third-party modules that the files of a folder import, each with a file that does."""
    found: dict[str, str] = {}
    for file in sorted((ROOT / folder).rglob("*.py")):
        if but and but in file.parts:
            continue
        tree = ast.parse(file.read_text())
        types = [each for node in ast.walk(tree) if _is_for_types(node) for each in ast.walk(node)]
        for node in set(ast.walk(tree)) - set(types):
            named = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                named = [node.module or ""]
            found |= {name.partition(".")[0]: str(file.relative_to(ROOT)) for name in named}
    ours = OURS | {file.stem for file in (ROOT / "tests").iterdir()}
    return {name: file for name, file in found.items() if name not in sys.stdlib_module_names | ours}


@pytest.mark.parametrize(
    ("folder", "but", "extras"),
    [
        ("service", "backfill", ("traces",)),
        ("service/backfill", "", ("backfill",)),
        ("training", "", ("train",)),
        ("export", "", ("train",)),
        ("loadtests", "", ("load",)),
        ("benchmarks", "", ("train", "load", "backfill", "dev")),
        ("tests", "", ("train", "load", "backfill", "traces", "dev")),
    ],
)
def test_what_is_imported_is_declared_and_not_there_by_chance(folder, but, extras):
    imported = _imported(folder, but)
    assert "numpy" in imported
    declared = _declared(*extras)
    chance = {name: file for name, file in imported.items() if not declared & _provided().get(name, set())}
    assert chance == {}
