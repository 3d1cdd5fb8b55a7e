"""`python -m training generate`: train a conditional generator, and find out whether its images help."""

from __future__ import annotations

import argparse
from pathlib import Path

# Torch and MONAI are imported inside the commands, so that --help answers at once.


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Declare `train`, `sheet` and `experiment`."""
    commands = parser.add_subparsers(dest="generate_command", required=True)
    train = commands.add_parser("train", help="train a conditional generator on the training part")
    train.add_argument("config", type=Path, metavar="CONFIG", help="TOML file, see training/configs")
    train.add_argument("data", type=Path, metavar="DATA", help="folder of the dataset")
    train.add_argument("out", type=Path, metavar="OUT", help="folder of the run; an unfinished run is resumed")
    train.add_argument("--cache", type=Path, metavar="DIR", help="folder for prepared images (default: OUT/cache)")
    train.set_defaults(run=_train)
    sheet = commands.add_parser("sheet", help="a picture of generated images, a row for each class")
    sheet.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="last.pt of a run")
    sheet.add_argument("out", type=Path, metavar="PNG", help="the picture to write")
    sheet.add_argument("--seed", type=int, default=0, help="of the images (default: %(default)s)")
    sheet.set_defaults(run=_sheet)
    trial = commands.add_parser("experiment", help="train classifiers with and without generated images, and compare")
    trial.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="last.pt of a run")
    trial.add_argument("data", type=Path, metavar="DATA", help="folder of the dataset")
    trial.add_argument("out", type=Path, metavar="OUT", help="folder for the report; an unfinished one is resumed")
    trial.add_argument("--cache", type=Path, metavar="DIR", help="folder for prepared images (default: OUT/cache)")
    trial.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each arm (default: %(default)s)")
    trial.add_argument("--bootstrap", type=int, default=2000, metavar="N", help="resamples (default: %(default)s)")
    trial.set_defaults(run=_experiment)


def _train(arguments: argparse.Namespace) -> int:
    from training.config import read_config
    from training.datasets import read_dataset
    from training.datasets.prepared import prepare_records
    from training.datasets.split import Split
    from training.generation.config import GeneratorConfig
    from training.generation.loop import train
    from training.loop import make_fabric

    config = read_config(arguments.config, GeneratorConfig)
    records = read_dataset(config.data.adapter, arguments.data, **config.data.options)
    chosen = Split.load(config.data.split).select(records, "train")
    arguments.out.mkdir(parents=True, exist_ok=True)
    cache = arguments.cache or arguments.out / "cache"
    train(
        config,
        prepare_records(chosen, config.classes, config.preprocessing, cache),
        arguments.out,
        fabric=make_fabric("1"),
    )
    return 0


def _sheet(arguments: argparse.Namespace) -> int:
    from io import BytesIO

    import numpy as np
    from PIL import Image

    from training.files import write_atomically
    from training.generation.loop import generate, load_generator

    generator, config = load_generator(arguments.checkpoint)
    classes, columns, side = len(config.classes), 10, config.size
    images = generate(generator, np.repeat(np.arange(classes), columns), arguments.seed)
    rows = images.reshape(classes, columns, side, side).transpose(0, 2, 1, 3).reshape(classes * side, columns * side)
    buffer = BytesIO()
    Image.fromarray(rows).save(buffer, "PNG", optimize=True)
    write_atomically(arguments.out, buffer.getvalue())
    return 0


def _experiment(arguments: argparse.Namespace) -> int:
    from training.generation.experiment import experiment
    from training.generation.report import save_experiment
    from training.loop import make_fabric

    checkpoint: Path = arguments.checkpoint
    run = f"{checkpoint.resolve().parent.name}/{checkpoint.name}"
    report = experiment(
        checkpoint,
        arguments.data,
        arguments.out,
        arguments.cache or arguments.out / "cache",
        fabric=make_fabric("1"),
        seeds=arguments.seeds,
        resamples=arguments.bootstrap,
        command=f"python -m training generate experiment {run} DATA OUT --seeds {arguments.seeds} "
        f"--bootstrap {arguments.bootstrap}",
    )
    save_experiment(report, arguments.out)
    return 0
