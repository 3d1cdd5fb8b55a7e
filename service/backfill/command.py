"""What the command line asks for, put together: model, source, ledger, run, and what is said meanwhile."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from service.backfill.explaining import Explaining
from service.backfill.files import Source
from service.backfill.ledger import Ledger, Listing
from service.backfill.reading import Reading
from service.backfill.running import Cluster, run
from service.backfill.series import Objects
from service.backfill.sources import of_series, open_source
from service.bundle import MANIFEST, Bundle, read_bundle, sha256
from service.errors import BundleError, InvalidParameter, UnknownModel, UnknownTarget
from service.explainers import check_target, find_method
from service.explainers.base import Options
from service.schemas import RESEARCH_NOTICE
from service.settings import Settings
from service.site_key import read_site_key
from service.studies.answering import StudyWish

RETRIED = ("remote-unavailable",)


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for, checked."""

    arguments: argparse.Namespace
    settings: Settings
    bundle: Bundle
    explaining: Explaining

    def asked(self) -> dict[str, object]:
        """All that the answers depend on, as JSON."""
        arguments, explaining, settings = self.arguments, self.explaining, self.settings
        made = {
            "kinds": list(settings.results),
            "options": settings.result_options.model_dump(),
            "deidentify": settings.deidentify,
        }
        return {
            "source": arguments.source,
            "match": arguments.match,
            "model": self.bundle.manifest.id,
            "manifest": sha256(self.bundle.path / MANIFEST),
            "method": explaining.method,
            "target": explaining.target,
            "budget": explaining.options.budget,
            "seed": explaining.options.seed,
            "precision": explaining.precision,
            "saliency": explaining.numbers,
            "names": arguments.names,
            "dicom": made if arguments.dicom else None,
        }

    def reading(self, ledger: Ledger, source: Source, waiting: Sequence[int]) -> Reading:
        """What the tasks are told that read shards."""
        manifest, hashed = self.bundle.manifest, self.arguments.names == "hashed"
        return Reading(
            source=source,
            folder=ledger.folder,
            shards=np.array(waiting, np.int64),
            spec=manifest.preprocessing,
            kind=manifest.kind,
            batch=self.arguments.batch,
            secret=read_site_key(self.settings.site_key) if hashed else None,
        )

    def objects(self, ledger: Ledger) -> Objects | None:
        """What is made of whole series, where that is asked for."""
        if not self.arguments.dicom:
            return None
        explaining, settings = self.explaining, self.settings
        wish = StudyWish(
            model=self.bundle.manifest.id,
            method=explaining.method,
            target=explaining.target,
            options=explaining.options,
            kinds=settings.results,
            making=settings.result_options,
        )
        secret = read_site_key(settings.site_key) if settings.deidentify else None
        return Objects(wish, ledger.folder / "dicom", secret)

    def constants(self) -> dict[str, str]:
        """What is the same for every row."""
        manifest, method = self.bundle.manifest, self.explaining.method
        return {
            "model": manifest.id,
            "model_version": manifest.version,
            "method": method,
            "meaning": find_method(method, manifest).meaning,
            "notice": RESEARCH_NOTICE,
        }


def backfill(arguments: argparse.Namespace) -> None:
    """List the source, answer what has no answer yet, and say how it went.

    Raises:
        UnknownModel, UnknownMethod, UnknownTarget, UnknownSource, InvalidParameter, BundleError, ValidationError: what
            is asked for cannot be done; nothing was written.
        RunConflict: the folder belongs to another question or another process.
    """
    order = take_order(arguments)
    source = open_source(arguments.source, order.settings.archives, arguments.match)
    if arguments.dicom:
        source = of_series(source)
    console = Console(stderr=True)
    console.print(RESEARCH_NOTICE)
    ledger = Ledger(arguments.out, order.asked())
    try:
        listing = ledger.listing or _listed(ledger, source, arguments.shard, console)
        if arguments.retry:
            ledger.forget_failed(RETRIED)
        waiting = ledger.waiting(listing)
        if waiting:
            _answered(order, ledger, order.reading(ledger, source, waiting), listing, console)
        answered, failed = ledger.outcome()
    finally:
        ledger.close()
    console.print(f"{answered} images answered, {sum(failed.values())} failed, in {ledger.folder / 'results'}")
    for problem, count in sorted(failed.items()):
        console.print(f"  {problem}: {count}")


def take_order(arguments: argparse.Namespace) -> Order:
    """Check what is asked for; raises as `backfill`."""
    settings = Settings()
    bundle = find_bundle(settings.models, arguments.model)
    manifest = bundle.manifest
    method = find_method(arguments.method or manifest.default_explanation, manifest)
    if arguments.target == "all":
        raise UnknownTarget("one map is made for an image: name one class, or `predicted`")
    check_target(arguments.target, None, method, manifest)
    if min(arguments.shard, arguments.batch, arguments.ahead_mib) < 1 or arguments.engines < 0:
        raise InvalidParameter("shard, batch and ahead-mib must be at least 1, engines at least 0")
    explaining = Explaining(
        bundle=bundle.path.resolve(),
        method=method.name,
        target=arguments.target,
        options=Options(budget=arguments.budget, seed=arguments.seed),
        precision=settings.precision,
        device=settings.device,
        threads=settings.threads,
        numbers=arguments.saliency,
    )
    return Order(arguments, settings, bundle, explaining)


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


def _listed(ledger: Ledger, source: Source, size: int, console: Console) -> Listing:
    with Progress(TextColumn("listing"), TextColumn("{task.completed} entries"), console=console) as progress:
        bar = progress.add_task("listing", total=None)
        return ledger.list_entries(source.entries(), size, lambda count: progress.update(bar, completed=count))


def _answered(order: Order, ledger: Ledger, reading: Reading, listing: Listing, console: Console) -> None:
    cluster = Cluster(order.arguments.address, order.arguments.engines, order.arguments.ahead_mib)
    columns = (TextColumn("shards"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[images]} images now"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("", total=listing.shards, completed=listing.shards - len(reading.shards), images=0)
        images = 0

        def told(rows: int, shards: int) -> None:
            nonlocal images
            images += rows
            progress.update(bar, advance=shards, images=images)

        run(ledger, reading, order.explaining, cluster, order.objects(ledger), order.constants(), told)
