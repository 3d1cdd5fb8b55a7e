"""`python -m export.fastshap BUNDLE CONFIG DATA OUT`: train the explainer that `python -m export.extend` puts in.

The bundle's own graph answers for masked images of the training part (the slow half; kept in OUT, so that a stopped
run goes on), then a head on its feature maps learns their Shapley values. The test part is not looked at.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn
from tqdm import tqdm

from export.restore import network_of, new_head, restore
from service.bundle import Bundle, read_bundle
from service.engine import Engine, open_graph
from service.explainers.fastshap import BASELINE
from service.explainers.masking import baseline_image
from service.types import Grey8
from training.commands import run_command
from training.config import load_config
from training.datasets.prepared import Prepared, prepare_part
from training.datasets.split import Part
from training.fastshap import MaskedOutputs, draw_coalitions, train_head
from training.files import write_atomically
from training.models.shapley_head import GRID

_BATCH = 32


def gather(
    bundle: Bundle, engine: Engine, body: nn.Module, prepared: Prepared, count: int, coalitions: int, folder: Path
) -> MaskedOutputs:
    """The model's outputs for masked images, an image a file in `folder`; what is there already is read.

    Args:
        bundle: of the model.
        engine: answers.
        body: images uint8 `[N, H, W, 1]` to feature maps.
        prepared: images.
        count: how many of them to take, spread evenly; every second one is mirrored.
        coalitions: how many for each.
        folder: where to keep them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = np.linspace(0, len(prepared) - 1, min(count, len(prepared))).astype(int)
    rows: list[dict[str, NDArray[np.float32]]] = []
    for place, index in enumerate(tqdm(chosen, desc=f"masked outputs: {folder.name}", unit="image")):
        file = folder / f"{index:06d}.npz"
        if not file.exists():
            image = prepared.images[index][:, ::-1] if place % 2 else prepared.images[index]
            found = _masked(engine, body, np.ascontiguousarray(image), coalitions, int(index))
            partial = file.with_suffix(".partial")
            with partial.open("wb") as open_file:
                np.savez(open_file, allow_pickle=False, **found)
            partial.replace(file)
        with np.load(file) as stored:
            rows.append({name: stored[name] for name in stored.files})
    return MaskedOutputs(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})  # pyright: ignore[reportArgumentType]


def _masked(
    engine: Engine, body: nn.Module, image: Grey8, coalitions: int, seed: int
) -> dict[str, NDArray[np.generic]]:
    hidden = baseline_image(image, BASELINE)
    shown = draw_coalitions(coalitions, np.random.default_rng(seed))
    images = np.concatenate([image[None], hidden[None], compose(image, hidden, shown)])
    logits = np.concatenate([engine.logits(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)])
    with torch.inference_mode():
        features = body(torch.from_numpy(image[None, ..., None])).numpy()[0]
    return {"features": features, "shown": shown, "scores": logits[2:], "whole": logits[0], "empty": logits[1]}


def compose(image: Grey8, hidden: Grey8, shown: NDArray[np.bool_]) -> Grey8:
    """Images uint8 `[M, H, W]` in which the cells bool `[M, 49]` are shown and the others hidden."""
    cell = image.shape[0] // GRID
    large = shown.reshape(-1, GRID, GRID).repeat(cell, axis=1).repeat(cell, axis=2)
    return np.where(large, image, hidden)


def main(arguments: list[str] | None = None) -> int:
    """Entry point.

    Returns:
        0 where the explainer was written, 2 where something is missing or wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m export.fastshap", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("config", type=Path, metavar="CONFIG", help="TOML file of its training run")
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of the dataset")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the run; an unfinished one is resumed")
    parser.add_argument("--images", type=int, default=1000, help="of the training part (default: %(default)s)")
    parser.add_argument("--coalitions", type=int, default=16, help="for each image (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=60, help="default: %(default)s")
    parser.add_argument("--cache", type=Path, metavar="DIR", default=Path("runs/cache"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    return run_command(parser.prog, lambda: _train(options))


def _train(options: argparse.Namespace) -> int:
    bundle, config = read_bundle(options.bundle), load_config(options.config)
    fused, engine = restore(bundle), open_graph(bundle.graph)
    sizes: tuple[tuple[Part, int], ...] = (("train", options.images), ("validation", max(1, options.images // 8)))
    parts: dict[Part, MaskedOutputs] = {
        part: gather(
            bundle,
            engine,
            fused.module.body,
            prepare_part(config, options.data, part, options.cache),
            count,
            options.coalitions,
            options.out / part,
        )
        for part, count in sizes
    }
    torch.manual_seed(0)
    head = new_head(network_of(bundle), bundle.manifest)
    history = train_head(head, parts["train"], parts["validation"], epochs=options.epochs)
    partial = options.out / "explainer.partial"
    torch.save(head.state_dict(), partial)
    partial.replace(options.out / "explainer.pt")
    write_atomically(options.out / "history.json", json.dumps({"unexplained": history}).encode())
    Console().print(f"unexplained on the validation part: {min(history):.3f}; wrote {options.out / 'explainer.pt'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
