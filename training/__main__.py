"""`python -m training`: describe and split data, train, evaluate."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.config import load_config
from training.datasets import read_dataset


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train a network")
    train.add_argument("config", type=Path)
    train.add_argument("data", type=Path)
    train.add_argument("out", type=Path)
    train.add_argument("--init", type=Path, default=None)
    arguments = parser.parse_args()
    from training.datasets.duplicates import near_pairs, perceptual_hashes
    from training.datasets.prepared import prepare_records
    from training.datasets.split import Split, make_split
    from training.loop import make_fabric, train as run

    config = load_config(arguments.config)
    records = read_dataset(config.data.adapter, arguments.data, **config.data.options)
    if not config.data.split.exists():
        make_split(records, near_pairs(perceptual_hashes(records)), seed=config.data.split_seed).save(config.data.split)
    split = Split.load(config.data.split)
    parts = {
        p: prepare_records(split.select(records, p), config.classes, config.preprocessing, arguments.out / "cache")
        for p in ("train", "validation")
    }
    run(config, parts["train"], parts["validation"], arguments.out, fabric=make_fabric(), initial=arguments.init)


if __name__ == "__main__":
    sys.exit(main())
