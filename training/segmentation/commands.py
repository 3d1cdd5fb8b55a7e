"""`python -m training segment`: train a U-Net, and measure it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# Torch and MONAI are imported inside the commands, so that --help answers at once.


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Declare `train` and `evaluate`."""
    commands = parser.add_subparsers(dest="segment_command", required=True)
    train = commands.add_parser("train", help="train a U-Net on outlined images")
    train.add_argument("config", type=Path, metavar="CONFIG", help="TOML file, see training/configs")
    train.add_argument("data", type=Path, metavar="DATA", help="folder of the dataset")
    train.add_argument("out", type=Path, metavar="OUT", help="folder of the run; an unfinished run is resumed")
    train.add_argument("--cache", type=Path, metavar="DIR", help="folder for prepared images (default: OUT/cache)")
    train.set_defaults(run=_train)
    evaluate = commands.add_parser("evaluate", help="measure outlines on a part of the data")
    evaluate.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="last.pt of a run")
    evaluate.add_argument("data", type=Path, metavar="DATA", help="folder of the dataset")
    evaluate.add_argument("out", type=Path, metavar="OUT", help="folder for the report")
    evaluate.add_argument("--bootstrap", type=int, default=2000, metavar="N", help="resamples (default: %(default)s)")
    evaluate.add_argument("--seed", type=int, default=0, help="of the resamples (default: %(default)s)")
    evaluate.add_argument("--cache", type=Path, metavar="DIR", help="folder for prepared images (default: OUT/cache)")
    evaluate.set_defaults(run=_evaluate)


def _train(arguments: argparse.Namespace) -> int:
    from training.config import read_config
    from training.datasets import read_dataset
    from training.datasets.prepared import prepare_records
    from training.datasets.split import Split
    from training.loop import make_fabric
    from training.segmentation.config import SegmentationConfig
    from training.segmentation.loop import train

    config = read_config(arguments.config, SegmentationConfig)
    records = read_dataset(config.data.adapter, arguments.data, **config.data.options)
    split = Split.load(config.data.split)
    cache = arguments.cache or arguments.out / "cache"
    arguments.out.mkdir(parents=True, exist_ok=True)
    training, validation = (
        prepare_records(split.select(records, part), config.classes, config.preprocessing, cache)
        for part in ("train", "validation")
    )
    train(config, training, validation, arguments.out, fabric=make_fabric("1"))
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from training.segmentation.measure import evaluate
    from training.segmentation.report import save_report

    checkpoint: Path = arguments.checkpoint
    run = f"{checkpoint.resolve().parent.name}/{checkpoint.name}"
    report, scores = evaluate(
        checkpoint,
        arguments.data,
        arguments.cache or arguments.out / "cache",
        resamples=arguments.bootstrap,
        seed=arguments.seed,
        command=f"python -m training segment evaluate {run} DATA OUT --bootstrap {arguments.bootstrap} "
        f"--seed {arguments.seed}",
    )
    save_report(report, scores, arguments.out)
    for name, value in report.metrics.items():
        sys.stdout.write(f"{name}: {value}\n")
    return 0
