"""Real images posted to the running service: is it as accurate as its manifest says, and do its maps mark the lesion?

Posts the test part of a dataset (as files, as a client would), reads the answers, and measures on the pixels of the
source images, through the `region` that the answer states:

    accuracy        against the manifest's
    pointing game   share of outlined images where the map's peak lies inside the outline
    energy inside   share of the map's positive values inside the outline

for the labelled class and for the predicted one, against a map that marks the image's centre and against noise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from tqdm import tqdm

from benchmarks.harness import Cell, machine, parser, save, show
from benchmarks.served import post, service
from service.rendering import on_frame
from service.types import Float, Region
from training.datasets import read_dataset
from training.datasets.record import Record
from training.datasets.split import Split
from training.localisation import centre_map, energy_inside, pointing_game, random_map

BATCH = 16
_RANDOM_MAPS = 8


@dataclass(frozen=True, slots=True)
class Answered:
    """A record and the service's answer for it."""

    record: Record
    result: dict[str, Any]

    @property
    def right(self) -> bool:
        """Whether the label is the record's."""
        return self.result["label"] == self.record.label

    def map_of(self, target: str, shape: tuple[int, ...]) -> Float:
        """The saliency map of a class on the pixels of the source image, float32 `[H, W]`."""
        (found,) = [e for e in self.result["explanations"] if e["target"] == target]
        return on_frame(np.array(found["saliency"], np.float32), Region(*self.result["region"]), shape)


def answers(url: str, model: str, records: Sequence[Record]) -> Iterator[Answered]:
    """Post every record's file for an explanation of all classes."""
    with httpx.Client(base_url=url, timeout=300) as client:
        for start in tqdm(range(0, len(records), BATCH), desc=f"posting to {model}", unit="request", leave=False):
            rows = records[start : start + BATCH]
            files = [(row.picture.name, row.picture.read_bytes()) for row in rows if row.picture is not None]
            fields = {"model": model, "target": "all"}
            for record, result in zip(rows, post(client, "/v1/explain", fields, files), strict=True):
                yield Answered(record, result)


def measure(answered: Sequence[Answered]) -> list[dict[str, Cell]]:
    """Pointing game and energy for the network's maps and the baselines, on the records with an outline."""
    random = np.random.default_rng(0)
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in ("label", "predicted", "centre", "random")}
    for answer in tqdm(answered, desc="localisation", unit="image", leave=False):
        if answer.record.load_mask is None:
            continue
        mask = answer.record.load_mask() > 0
        if not mask.any():
            continue
        explained = answer.result["explanations"][0]
        grid = (int(explained["shape"][0]), int(explained["shape"][1]))
        maps = {
            "label": [answer.map_of(answer.record.label, mask.shape)],
            "predicted": [answer.map_of(answer.result["label"], mask.shape)],
            "centre": [centre_map(grid)],
            "random": [random_map(grid, random) for _ in range(_RANDOM_MAPS)],
        }
        for name, group in maps.items():
            hits = float(np.mean([pointing_game(values, mask) for values in group]))
            scores[name].append((hits, float(np.mean([energy_inside(values, mask) for values in group]))))
    return [
        {"map of": name, "images": len(rows), "pointing game": means[0], "energy inside": means[1]}
        for name, rows in scores.items()
        if rows
        for means in [np.mean(rows, axis=0).tolist()]
    ]


def main(arguments: list[str] | None = None) -> int:
    """Entry point: 1 where the service is less accurate than its manifest says."""
    made = parser("localisation", __doc__)
    made.add_argument("data", type=Path, metavar="DATA", help="folder of the dataset")
    made.add_argument("--model", default="brain-mri-resnet50", help="default: %(default)s")
    made.add_argument("--adapter", default="brain_folders", help="default: %(default)s")
    made.add_argument("--split", type=Path, default=Path("training/splits/brain-mri.json"), help="default: %(default)s")
    made.add_argument("--url", help="a service that runs already (default: one is started)")
    options = made.parse_args(arguments)
    records = Split.load(options.split).select(read_dataset(options.adapter, options.data), "test")
    with service(options.url) as served:
        models = httpx.get(f"{served.url}/v1/models", timeout=60).json()["models"]
        (described,) = [model for model in models if model["id"] == options.model]
        answered = list(answers(served.url, options.model, records))
    accuracy = float(np.mean([answer.right for answer in answered]))
    claimed = float(described["evaluation"]["metrics"]["accuracy"]["value"])
    rows: list[dict[str, Cell]] = [{"images": len(answered), "accuracy served": accuracy, "manifest": claimed}]
    where = machine(described["provider"], 0)
    located = measure(answered)
    show(f"localisation: {options.model}, accuracy", rows, where)
    if located:
        show(f"localisation: {options.model}, where the maps lie", located, where)
    save(options, where, rows=rows, localisation=located)
    if abs(accuracy - claimed) > 0.5 / len(answered) + 1e-9:
        sys.stderr.write(f"served accuracy {accuracy:.4f} is not the manifest's {claimed:.4f}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
