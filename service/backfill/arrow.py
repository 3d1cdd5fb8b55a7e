"""Names for signatures: Arrow brings no types of its own."""

from __future__ import annotations

from importlib import import_module
from typing import Any, TypeAlias

Table: TypeAlias = Any  # pyarrow.Table
Array: TypeAlias = Any  # pyarrow.Array
Store: TypeAlias = Any  # pyarrow.fs.FileSystem
compute: Any = import_module("pyarrow.compute")
