"""The run itself: reading tasks and engines on Ray, the rows back here, a file for every shard."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from service.backfill.arrow import Table, compute
from service.backfill.explaining import Explainer, Explaining
from service.backfill.ledger import Ledger
from service.backfill.reading import Reading, read_shards
from service.backfill.series import Objects, SeriesExplainer

_MIB = 2**20
_MOST_ON_A_NODE = 16  # each holds the model; threads of one forward pass wait for each other, engines do not
_OURS = ("shard", "entries", "entry", "number", "rows_of_entry")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where it runs.

    Attributes:
        address: of a running Ray; empty: on this machine, as long as the run takes.
        engines: actors that hold the model; 0: one for each GPU, or without any one for each core, at most 16 a node.
        ahead_mib: memory of the images that are read ahead of the engines; Ray waits with reading beyond it.
    """

    address: str = ""
    engines: int = 0
    ahead_mib: int = 256


def run(
    ledger: Ledger,
    reading: Reading,
    explaining: Explaining,
    cluster: Cluster,
    objects: Objects | None,
    constants: dict[str, str],
    told: Callable[[int, int], None],
) -> None:
    """Answer all shards of `reading`; what is committed stays, whatever ends the run.

    Args:
        ledger: where the answers go.
        reading: what is read.
        explaining: how it is answered.
        cluster: where it runs.
        objects: what is made of whole series; None: single images are answered.
        constants: further columns, the same in every row, and metadata of the files.
        told: rows and shards done since the last call.

    Raises:
        RuntimeError: the rows of a shard are not those that were read.
    """
    ray = start(cluster)
    try:
        gathering = Gathering()
        for batch in _batches(ray, reading, explaining, objects, cluster):
            done = gathering.add(batch)
            for shard, table in done:
                ledger.commit(shard, _described(table, constants))
            told(batch.num_rows, len(done))
    finally:
        ray.shutdown()


def start(cluster: Cluster) -> Any:  # noqa: ANN401 - the module
    """Ray on this machine, or a connection to one that runs; usage is reported to nobody.

    Ray's own ports on this machine answer only those who know a secret of this run: whoever may talk to them can run
    code as this user.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what it says of its own workings is not for this terminal
    if not cluster.address:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import ray
    from ray.data import DataContext

    if cluster.address:
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        ray.init(
            num_cpus=len(os.sched_getaffinity(0)),
            object_store_memory=max(128, 2 * cluster.ahead_mib) * _MIB,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return ray


def _batches(
    ray: Any,  # noqa: ANN401 - the module
    reading: Reading,
    explaining: Explaining,
    objects: Objects | None,
    cluster: Cluster,
) -> Iterator[Table]:
    nodes = sum(node["Alive"] for node in ray.nodes())
    gpus = 0 if explaining.device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
    cores = int(ray.cluster_resources().get("CPU", nodes))
    engines = cluster.engines or gpus or min(cores, _MOST_ON_A_NODE * nodes)
    told = replace(explaining, share=-(-engines // nodes))
    context = ray.data.DataContext.get_current()
    # A block is a batch: it leaves a reading task at once, and an engine gets it as one piece.
    context.target_max_block_size = reading.batch * reading.spec.size**2
    context.execution_options.resource_limits = ray.data.ExecutionResources(
        object_store_memory=cluster.ahead_mib * _MIB
    )
    # On a CPU an engine shares the cores with the reading tasks; one that held them for itself would starve.
    pool = {
        "compute": ray.data.ActorPoolStrategy(size=engines),
        "num_cpus": 0,
        "num_gpus": 1 if gpus else 0,
    }
    places = ray.data.range(len(reading.shards), override_num_blocks=len(reading.shards))
    if objects is None:
        prepared = places.map_batches(
            read_shards, batch_size=None, batch_format="numpy", fn_kwargs={"reading": reading}
        )
        batches = {"batch_size": reading.batch, "batch_format": "pyarrow"}
        answered = prepared.map_batches(Explainer, fn_constructor_args=(told,), **batches, **pool)
    else:
        given = (told, reading, objects)
        answered = places.map_batches(
            SeriesExplainer, fn_constructor_args=given, batch_size=1, batch_format="numpy", **pool
        )
    yield from answered.iter_batches(batch_size=None, batch_format="pyarrow")


class Gathering:
    """Puts rows together that arrive in any order, until their shard is complete."""

    def __init__(self) -> None:
        self._parts: dict[int, list[Table]] = {}

    def add(self, batch: Table) -> list[tuple[int, Table]]:
        """Take rows; returns the shards that they complete, each in the order of its listing."""
        done: list[tuple[int, Table]] = []
        for shard in batch.column("shard").unique().to_pylist():
            parts = self._parts.setdefault(shard, [])
            parts.append(batch.filter(compute.equal(batch.column("shard"), shard)))
            if _complete(parts):
                table = pa.concat_tables(self._parts.pop(shard)).sort_by(
                    [("entry", "ascending"), ("number", "ascending")]
                )
                _check(shard, table)
                done.append((shard, table.drop_columns(list(_OURS))))
        return done


def _complete(parts: list[Table]) -> bool:
    """Every entry's last row is here, and as many rows as the last ones say."""
    announced = [part.column("rows_of_entry").to_numpy() for part in parts]
    ended = sum(int(np.count_nonzero(each)) for each in announced)
    rows = sum(part.num_rows for part in parts)
    return ended >= parts[0].column("entries")[0].as_py() and rows >= sum(int(each.sum()) for each in announced)


def _check(shard: int, table: Table) -> None:
    pairs = table.group_by(["entry", "number"]).aggregate([])
    entries = compute.count_distinct(table.column("entry")).as_py()
    if pairs.num_rows != table.num_rows or entries != table.column("entries")[0].as_py():
        raise RuntimeError(f"shard {shard}: rows came twice or not at all; nothing of it was written")


def _described(table: Table, constants: dict[str, str]) -> Table:
    for name in ("model", "model_version", "method"):
        table = table.append_column(name, pa.array([constants[name]] * table.num_rows))
    return table.replace_schema_metadata(constants)
