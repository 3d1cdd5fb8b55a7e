"""What the command line asks for, put together: model, source, ledger, run, and what is said meanwhile."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from service.backfill.explaining import Explaining
from service.backfill.ledger import Ledger, Listing
from service.backfill.reading import Reading
from service.backfill.running import Cluster, run
from service.backfill.sources import Source, open_source
from service.bundle import MANIFEST, Bundle, read_bundle, sha256
from service.errors import BundleError, InvalidParameter, UnknownModel, UnknownTarget
from service.explainers import check_target, find_method
from service.explainers.base import Options
from service.schemas import RESEARCH_NOTICE
from service.settings import Settings
from service.site_key import read_site_key

RETRIED = ("remote-unavailable",)


def backfill(arguments: argparse.Namespace) -> None:
    """List the source, answer what has no answer yet, and say how it went.

    Raises:
        UnknownModel, UnknownMethod, UnknownTarget, UnknownSource, InvalidParameter, BundleError: what is asked for
            cannot be done; nothing was written.
        RunConflict: the folder belongs to another question or another process.
    """
    settings = Settings()
    bundle = find_bundle(settings.models, arguments.model)
    explaining = _explaining(arguments, settings, bundle)
    if min(arguments.shard, arguments.batch) < 1 or min(arguments.engines, 0) < 0:
        raise InvalidParameter("shard and batch must be at least 1, engines at least 0")
    source = open_source(arguments.source, settings.archives, arguments.match)
    ledger = Ledger(arguments.out, _asked(arguments, explaining, bundle))
    try:
        _work(ledger, source, arguments, explaining, bundle, settings)
    finally:
        ledger.close()


def find_bundle(models: Path, name: str) -> Bundle:
    """The classifier of that id.

    Raises:
        UnknownModel: none is.
        BundleError: its bundle is not what it claims.
    """
    folder = models / name
    if folder.parent != models or not (folder / MANIFEST).is_file():
        raise UnknownModel("there is no such model")
    bundle = read_bundle(folder)
    if bundle.manifest.id != name:
        raise BundleError(f"bundle {name}: its id is another one than its folder's name")
    return bundle


def _explaining(arguments: argparse.Namespace, settings: Settings, bundle: Bundle) -> Explaining:
    manifest = bundle.manifest
    method = find_method(arguments.method or manifest.default_explanation, manifest)
    if arguments.target == "all":
        raise UnknownTarget("one map is made for an image: name one class, or `predicted`")
    check_target(arguments.target, None, method, manifest)
    return Explaining(
        bundle=bundle.path.resolve(),
        method=method.name,
        target=arguments.target,
        options=Options(budget=arguments.budget, seed=arguments.seed),
        precision=settings.precision,
        device=settings.device,
        threads=settings.threads,
        numbers=arguments.saliency,
    )


def _asked(arguments: argparse.Namespace, explaining: Explaining, bundle: Bundle) -> dict[str, object]:
    return {
        "source": arguments.source,
        "match": arguments.match,
        "model": bundle.manifest.id,
        "manifest": sha256(bundle.path / MANIFEST),
        "method": explaining.method,
        "target": explaining.target,
        "budget": explaining.options.budget,
        "seed": explaining.options.seed,
        "precision": explaining.precision,
        "saliency": explaining.numbers,
        "names": arguments.names,
    }


def _work(
    ledger: Ledger,
    source: Source,
    arguments: argparse.Namespace,
    explaining: Explaining,
    bundle: Bundle,
    settings: Settings,
) -> None:
    console = Console(stderr=True)
    console.print(RESEARCH_NOTICE)
    listing = ledger.listing or _listed(ledger, source, arguments.shard, console)
    if arguments.retry:
        ledger.forget_failed(RETRIED)
    waiting = ledger.waiting(listing)
    if waiting:
        manifest = bundle.manifest
        reading = Reading(
            source=source,
            folder=ledger.folder,
            shards=np.array(waiting, np.int64),
            spec=manifest.preprocessing,
            kind=manifest.kind,
            batch=arguments.batch,
            secret=read_site_key(settings.site_key) if arguments.names == "hashed" else None,
        )
        cluster = Cluster(arguments.address, arguments.engines, arguments.ahead_mib)
        _run(ledger, listing, reading, explaining, cluster, bundle, console)
    answered, failed = ledger.outcome()
    console.print(f"{answered} images answered, {sum(failed.values())} failed, in {ledger.folder / 'results'}")
    for problem, count in sorted(failed.items()):
        console.print(f"  {problem}: {count}")


def _listed(ledger: Ledger, source: Source, size: int, console: Console) -> Listing:
    with Progress(TextColumn("listing"), TextColumn("{task.completed} entries"), console=console) as progress:
        bar = progress.add_task("listing", total=None)
        return ledger.list_entries(source.entries(), size, lambda count: progress.update(bar, completed=count))


def _run(
    ledger: Ledger,
    listing: Listing,
    reading: Reading,
    explaining: Explaining,
    cluster: Cluster,
    bundle: Bundle,
    console: Console,
) -> None:
    manifest = bundle.manifest
    constants = {
        "model": manifest.id,
        "model_version": manifest.version,
        "method": explaining.method,
        "meaning": find_method(explaining.method, manifest).meaning,
        "notice": RESEARCH_NOTICE,
    }
    columns = (TextColumn("shards"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[images]} images now"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("", total=listing.shards, completed=listing.shards - len(reading.shards), images=0)
        images = 0

        def told(rows: int, shards: int) -> None:
            nonlocal images
            images += rows
            progress.update(bar, advance=shards, images=images)

        run(ledger, reading, explaining, cluster, constants, told)
