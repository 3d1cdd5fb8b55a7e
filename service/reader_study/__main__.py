"""`python -m service.reader_study`: make a reader study, watch it, export it."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from time import time

from service.commands import run_command
from service.reader_study.rows import open_database
from service.reader_study.store import Study, StudyStore
from service.settings import Settings

# What runs models is imported inside `create`, so that the other commands answer at once.

_DESCRIPTION = (
    "Make a reader study from a folder of cases, watch it, export it. Uses the service's settings (RADIOLUCENT_...)."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when done, 2 when something is missing or wrong.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    return run_command(parser.prog, lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    engine = open_database(Settings().reader_studies)
    try:
        arguments.run(StudyStore(engine), arguments)
    finally:
        engine.dispose()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service.reader_study", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_create(commands.add_parser("create", help="make a study; the same command again goes on where it stopped"))
    example = commands.add_parser("example", help="write a folder of drawn cases, to try a study with")
    example.set_defaults(run=_example)
    example.add_argument("folder", type=Path, metavar="FOLDER")
    progress = commands.add_parser("progress", help="how far the readers are")
    progress.set_defaults(run=_progress)
    progress.add_argument("study", nargs="?", help="its name; all of them where left out")
    renew = commands.add_parser("renew", help="a new code for a reader; the old one no longer opens")
    renew.set_defaults(run=_renew)
    renew.add_argument("study")
    renew.add_argument("reader")
    _add_address(renew)
    export = commands.add_parser("export", help="write study.json, cases.csv and readings.csv")
    export.set_defaults(run=_export)
    export.add_argument("study")
    export.add_argument("out", type=Path, metavar="OUT/")
    delete = commands.add_parser("delete", help="forget a study: images, readers, answers")
    delete.set_defaults(run=_delete)
    delete.add_argument("study")
    delete.add_argument("--yes", action="store_true", required=True, help="it cannot be undone")
    return parser


def _add_create(create: argparse.ArgumentParser) -> None:
    create.set_defaults(run=_create)
    create.add_argument("folder", type=Path, metavar="FOLDER", help="of images: PNG, JPEG, DICOM")
    create.add_argument("--cases", type=Path, metavar="CSV", help="file,truth,training[,region]; FOLDER/cases.csv")
    create.add_argument("--name", help="of the study; the folder's where left out")
    create.add_argument("--model", required=True, help="a bundle's id")
    create.add_argument("--method", default="", help="an explanation method; the model's default where left out")
    create.add_argument("--readers", nargs="+", required=True, help="a number, or names by which you know them")
    create.add_argument("--design", choices=("crossover", "parallel"), default="crossover")
    create.add_argument("--washout-days", type=float, default=28.0, help="between the periods of a crossover (28)")
    create.add_argument("--seed", type=int, default=0, help="of orders and arms")
    _add_address(create)


def _add_address(command: argparse.ArgumentParser) -> None:
    command.add_argument("--address", default="http://127.0.0.1:3000", help="of the service, for the readers' links")


def _create(store: StudyStore, arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import track

    from service.pipeline import Pipeline
    from service.reader_study.cases import read_cases
    from service.reader_study.freeze import Terms, classes_of, freeze_cases, open_study, plan_of

    folder: Path = arguments.folder
    console = Console(stderr=True)
    with console.status("loading the models"):
        pipeline = Pipeline(Settings())
    manifest = pipeline.registry.model(arguments.model).bundle.manifest
    classes = [one.name for one in classes_of(manifest)]
    cases = read_cases(arguments.cases or folder / "cases.csv", folder, classes)
    terms = Terms(
        name=arguments.name or folder.resolve().name,
        design=arguments.design,
        washout_days=arguments.washout_days,
        seed=arguments.seed,
        readers=_names(arguments.readers),
        model=arguments.model,
        method=arguments.method,
    )
    study = store.add(plan_of(terms, cases, pipeline))
    if study.opened is not None:
        _say(f"{study.plan.name}: made before, nothing to do. Codes are stored as hashes: `renew` makes new ones.")
        return
    left = len(cases) - len(store.case_codes(study))
    answers = freeze_cases(store, study, cases, pipeline)
    warnings = Counter(text for one in track(answers, "cases", total=left, console=console) for text in one.warnings)
    codes = open_study(store, study)
    _say(f"{study.plan.name}: {len(cases)} cases, {len(codes)} readers, {study.plan.design}, seed {study.plan.seed}")
    for warning, count in warnings.items():
        _say(f"warning, {count} cases: {warning}")
    _say_links(codes, arguments.address)


def _example(store: StudyStore, arguments: argparse.Namespace) -> None:
    from service.reader_study.example import write_example

    count = write_example(arguments.folder)
    folder = quote(str(arguments.folder))
    _say(f"{count} cases, drawn, no patients; next:\n  python -m service.reader_study create {folder} \\")
    _say("    --model brain-mri-resnet50 --readers 2 --washout-days 0")


def _names(readers: Sequence[str]) -> tuple[str, ...]:
    if len(readers) == 1 and readers[0].isdecimal():
        count = int(readers[0])
        return tuple(f"R{number:0{max(2, len(str(count)))}}" for number in range(1, count + 1))
    return tuple(readers)


def _renew(store: StudyStore, arguments: argparse.Namespace) -> None:
    from service.reader_study.codes import lock_of, new_code

    code = new_code()
    store.change_lock(store.study(arguments.study), arguments.reader, lock_of(code))
    _say_links({arguments.reader: code}, arguments.address)


def _progress(store: StudyStore, arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    for study in [store.study(arguments.study)] if arguments.study else store.studies():
        if study.opened is None:
            _say(f"{study.plan.name}: not open, {len(store.case_codes(study))} cases so far; `create` goes on with it")
            continue
        table = Table("reader", "answered", "of", "state", "last answer", title=study.plan.name)
        for row in _states(store, study):
            table.add_row(*row)
        Console().print(table)


def _states(store: StudyStore, study: Study) -> list[tuple[str, str, str, str, str]]:
    from service.reader_study.session import place_of

    rows: list[tuple[str, str, str, str, str]] = []
    for reader, readings in store.readings(study).items():
        place = place_of(readings, study.plan.washout_days, time())
        last = max((reading.answered for reading in readings if reading.answered), default=None)
        state = f"washout until {_minute(place.opens)}" if place.opens else place.state if place.done else "not begun"
        rows.append((reader, str(place.done), str(place.total), state, _minute(last)))
    return rows


def _export(store: StudyStore, arguments: argparse.Namespace) -> None:
    from service.reader_study.export import export

    written = export(store, store.study(arguments.study), arguments.out)
    _say(f"{written} readings written; next: python -m training study analyse {quote(str(arguments.out))} REPORT/")


def _delete(store: StudyStore, arguments: argparse.Namespace) -> None:
    store.delete(store.study(arguments.study))
    _say("deleted")


def _minute(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC") if seconds else ""


def _say_links(codes: Mapping[str, str], address: str) -> None:
    _say("Give each reader their own link; it is shown this once:")
    for reader, code in codes.items():
        _say(f"  {reader}  {address.rstrip('/')}/study#{code}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
