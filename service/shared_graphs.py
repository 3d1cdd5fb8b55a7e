"""Graphs as ONNX Runtime has optimised them for this processor, in a file that all workers of a server map.

What a session makes of the weights (constants folded, convolutions laid out for the processor's vectors) is private
memory of its process; mapped from a file, the pages are in memory once, however many workers there are. Nothing is
computed otherwise. `docs/scaling.md` says what it saves.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.observability import logger
from service.server_folder import turn

_TURN, _GRAPHS = "graphs", "graphs"
_INLINE = 1024  # bytes of a weight that stays in the graph's own file


def shared_graph(graph: Path, folder: Path, save: Callable[[Path], None]) -> Path | None:
    """Where the optimised graph is; the first worker makes it while the others wait.

    Args:
        graph: of a verified bundle.
        folder: of this server (`service.server_folder`): it lasts as long as the files may be used, and the user's own.
        save: opens a session that writes the optimised graph to a path.

    Returns:
        Its path, or None where there is no room for it: every worker then has weights of its own.
    """
    name = hashlib.sha256(str(graph.resolve()).encode()).hexdigest()[:16]
    place = folder / _GRAPHS / name
    with turn(folder, _TURN):
        if not place.exists():
            part = place.with_name(f"{name}.part")
            shutil.rmtree(part, ignore_errors=True)  # of a worker that died over it
            part.mkdir(mode=0o700, parents=True)
            try:
                save(part / graph.name)
            except Exception as error:  # noqa: BLE001 - ONNX Runtime's of a full disk is a RuntimeException
                shutil.rmtree(part, ignore_errors=True)
                logger.warning("workers do not share the weights of %s: %s", graph.parent.name, type(error).__name__)
                return None
            part.rename(place)
    return place / graph.name


def save_to(options: Any, path: Path) -> None:  # noqa: ANN401 - onnxruntime.SessionOptions, which has no type
    """Have the session of these options write its optimised graph, the weights in a file beside it."""
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_file_name", path.with_suffix(".weights").name
    )
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", str(_INLINE))


def forget_graphs(folder: Path) -> None:
    """Delete them, when the server stops: sessions that are open keep theirs, and a worker to come makes them anew."""
    with turn(folder, _TURN):
        shutil.rmtree(folder / _GRAPHS, ignore_errors=True)
