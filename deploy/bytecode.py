"""Bytecode for every module that the service imports, when it starts or later, and for none of the others.

Installed packages are mostly what nobody here imports; its bytecode would be a tenth of the image. What is imported
after all is compiled then, in memory. Fails where an import does, and so shows that nothing is missing. Bytecode is not
compared with its source: nothing of an image changes. Set PYTHONPYCACHEPREFIX, here and when it is used, so that the
standard library's, which some images lack, is there as well.

python deploy/bytecode.py service
"""

from __future__ import annotations

import ast
import importlib
import py_compile
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# Started as processes or found by name, so that no import of the service tells of them.
BY_NAME = (
    "_bentoml_impl.server.serving",
    "_bentoml_impl.worker.service",
    "bentoml_cli.cli",
    "circus.arbiter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
)


def modules(package: Path, left_out: Sequence[str] = ()) -> Iterator[str]:
    """Names of the package's own modules, and of all that they import, within functions, too.

    Args:
        package: its folder.
        left_out: folders of it that are passed over, as seen from the folder around it.
    """
    folders = [package.parent / folder for folder in left_out]
    for path in sorted(package.rglob("*.py")):
        if any(path.is_relative_to(folder) for folder in folders):
            continue
        if path.name != "__main__.py":
            yield ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (each.name for each in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module


def main() -> None:
    """Entry point."""
    for name in (*modules(Path(sys.argv[1])), *BY_NAME):
        importlib.import_module(name)
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    sources = sorted(file for file in files if file and file.endswith(".py"))
    for file in sources:
        py_compile.compile(file, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    sys.stdout.write(f"bytecode of {len(sources)} modules\n")


if __name__ == "__main__":
    main()
