"""`python -m training`: describe and split data, train, evaluate, analyse reader studies."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.generation.commands import add_commands as add_generate
from training.segmentation.commands import add_commands as add_segment

if TYPE_CHECKING:
    from training.datasets.record import Record
    from training.datasets.split import Split

# Torch and the image libraries are imported inside the commands, so that --help answers at once.


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when done, 1 when `data` found a split that leaks, 2 when input is missing or wrong.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser(argv[0] if argv else None)
    arguments = parser.parse_args(argv)
    from training.commands import run_command

    return run_command(parser.prog, lambda: arguments.run(arguments))


def _parser(command: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Data, training, evaluation, reader studies."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_data(commands.add_parser("data", help="describe a dataset, or split it"))
    _add_train(commands.add_parser("train", help="train a network"))
    study = commands.add_parser("study", help="analyse a reader study, plan one, compare models on the same cases")
    if command == "study":
        from training.study.commands import add_arguments as add_study

        add_study(study)
    evaluate = commands.add_parser("evaluate", help="measure a checkpoint on a part of the data")
    evaluate.set_defaults(run=_evaluate)
    if command == "evaluate":  # its arguments come with its imports
        from training.evaluate import add_arguments

        add_arguments(evaluate)
    _add_compare(commands.add_parser("compare", help="our models in the form of the study's two tables"))
    add_segment(commands.add_parser("segment", help="train and measure a U-Net on outlined images"))
    add_generate(commands.add_parser("generate", help="train a generator, and find out whether its images help"))
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="data_command", required=True)
    describe = commands.add_parser("describe", help="print counts, sizes, duplicates and a split's check")
    describe.add_argument("directory", type=Path, metavar="DIR")
    describe.add_argument("--adapter", help="name of the dataset adapter (default: guessed from the files)")
    describe.add_argument("--json", type=Path, metavar="FILE", help="write the description as JSON too")
    describe.add_argument("--split", type=Path, metavar="FILE", help="check this split of the dataset")
    describe.set_defaults(run=_describe)
    split = commands.add_parser("split", help="split by patient or block; near duplicates stay together")
    split.add_argument("directory", type=Path, metavar="DIR")
    split.add_argument("out", type=Path, metavar="OUT", help="the split file to write")
    split.add_argument("--adapter", help="name of the dataset adapter (default: guessed from the files)")
    split.add_argument("--seed", type=int, default=0)
    split.add_argument("--test", type=_share, default=0.15, help="share of all images (default: %(default)s)")
    split.add_argument("--validation", type=_share, default=0.2, help="share of the rest (default: %(default)s)")
    split.add_argument(
        "--guard",
        type=_count,
        default=8,
        help="leave out slices this close to another part, where patients are unknown (default: %(default)s)",
    )
    split.add_argument(
        "--extend", type=Path, metavar="FILE", help="keep this split's parts and deal the other images by patient"
    )
    split.add_argument(
        "--place",
        type=_place,
        action="append",
        default=[],
        metavar="PATIENT=PART",
        help="with --extend: put a patient into a part",
    )
    split.set_defaults(run=_split)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="TOML file, see training/configs")
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of the dataset")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the run; an unfinished run is resumed")
    parser.add_argument("--init", type=Path, metavar="FILE", help="state dict of a pre-trained network")
    parser.add_argument("--devices", type=_devices, default="auto", help="how many devices (default: %(default)s)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder for prepared images (default: OUT/cache)")
    parser.set_defaults(run=_train)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    reports = Path("docs/reports")
    parser.add_argument("--reports", type=Path, default=reports, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="the study's figures (default: those known here)")
    parser.add_argument("--into", type=Path, metavar="FILE", help="put the tables between the marks of a document")
    parser.set_defaults(run=_compare)


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _place(text: str) -> tuple[str, str]:
    patient, _, part = text.rpartition("=")
    if not patient or part not in ("train", "validation", "test"):
        raise argparse.ArgumentTypeError(f"{text} is not PATIENT=PART, with train, validation or test for PART")
    return patient, part


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _devices(text: str) -> str:
    if text != "auto" and not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} is neither a number from 1 nor auto")
    return text


def _describe(arguments: argparse.Namespace) -> int:
    from training.datasets.split import Split

    split = Split.load(arguments.split) if arguments.split else None
    return _report(_records(arguments), split, arguments.json)


def _split(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from training.datasets.describe import check_split
    from training.datasets.duplicates import clusters, near_pairs, perceptual_hashes
    from training.datasets.sources import extend_split
    from training.datasets.split import Split, make_split
    from training.datasets.tables import print_split

    records = _records(arguments)
    pairs = near_pairs(perceptual_hashes(records))
    if arguments.extend is not None:
        split = extend_split(records, Split.load(arguments.extend), dict(arguments.place))
    else:
        split = make_split(
            records,
            pairs,
            seed=arguments.seed,
            test_share=arguments.test,
            validation_share=arguments.validation,
            guard=arguments.guard,
        )
    split.save(arguments.out)
    check = check_split(records, split, clusters(len(records), pairs))
    print_split(check, Console())
    return 0 if check.sound else 1


def _report(records: list[Record], split: Split | None, json: Path | None) -> int:
    from rich.console import Console

    from training.datasets.describe import describe
    from training.datasets.tables import print_description
    from training.files import write_atomically

    description = describe(records, split)
    print_description(description, Console())
    if json is not None:
        write_atomically(json, (description.model_dump_json(indent=1) + "\n").encode())
    return 0 if description.split is None or description.split.sound else 1


def _records(arguments: argparse.Namespace) -> list[Record]:
    from training.datasets import read_dataset
    from training.datasets.guess import guess_adapter

    adapter = arguments.adapter
    if adapter is None:
        adapter = guess_adapter(arguments.directory)
        sys.stdout.write(f"adapter: {adapter} (guessed from the files)\n")
    return read_dataset(adapter, arguments.directory)


def _train(arguments: argparse.Namespace) -> int:
    from training.config import load_config
    from training.datasets import read_dataset
    from training.datasets.duplicates import near_pairs, perceptual_hashes
    from training.datasets.prepared import prepare_records
    from training.datasets.split import Split, make_split
    from training.loop import make_fabric, train

    config = load_config(arguments.config)
    records = read_dataset(config.data.adapter, arguments.data, **config.data.options)
    if not config.data.split.exists():
        make_split(records, near_pairs(perceptual_hashes(records)), seed=config.data.split_seed).save(config.data.split)
    split = Split.load(config.data.split)
    cache = arguments.cache or arguments.out / "cache"
    fabric = make_fabric(arguments.devices)
    fabric.launch()
    with fabric.rank_zero_first(local=True):  # the others find what the first one has prepared
        parts = {
            part: prepare_records(split.select(records, part), config.classes, config.preprocessing, cache)
            for part in ("train", "validation")
        }
    train(config, parts["train"], parts["validation"], arguments.out, fabric=fabric, initial=arguments.init)
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from training.compare import FIGURES, compare, load_figures, put_between_marks

    text = compare(arguments.reports, load_figures(arguments.figures or FIGURES))
    if arguments.into is None:
        sys.stdout.write(text + "\n")
    else:
        put_between_marks(arguments.into, text)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from training.evaluate import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
