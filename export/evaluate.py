"""`python -m export.evaluate BUNDLE CONFIG DATA OUT`: measure a bundle anew with its own graph.

For a bundle whose preprocessing changed: temperature, operating points and figures follow from what its graph answers.
The report goes to OUT as that of `python -m training evaluate`, and into the manifest.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from tqdm import tqdm

from export.classifier import evaluation_of, findings_of
from export.description import SHIPPED, load_description
from export.gate import NotShipped, require_gate
from export.rewrite import rewrite
from export.segmentation import evaluation_of as outlining_evaluation
from service.bundle import FP16, INT8, read_bundle
from service.engine import Engine, open_engine, open_graph
from service.manifest import OperatingPoint, Reduced
from service.segmenter import is_segmentation, open_segmenter
from service.types import Grey8, Outputs
from training.commands import run_command
from training.config import load_config, read_config
from training.evaluate import save_evaluation
from training.measure import Measured, evaluate_network
from training.segmentation.config import SegmentationConfig
from training.segmentation.measure import Outlining, evaluate_outlining
from training.segmentation.report import save_report as save_segmentation

_BATCH = 16
_GRAPHS: dict[Reduced, str] = {"int8": INT8, "fp16": FP16}


def main(arguments: list[str] | None = None) -> int:
    """Entry point.

    Returns:
        0 where report and manifest were written, 1 where a graph of less precision fails its gate, 2 where something is
        missing or wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m export.evaluate", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="its folder")
    parser.add_argument("config", type=Path, metavar="CONFIG", help="TOML file of its training run")
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of the dataset")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the report")
    parser.add_argument("--bootstrap", type=int, default=2000, metavar="N", help="resamples (default: %(default)s)")
    parser.add_argument("--description", type=Path, metavar="FILE", help="default: the one shipped for BUNDLE's name")
    parser.add_argument("--cache", type=Path, metavar="DIR", default=Path("runs/cache"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    return run_command(parser.prog, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    console = Console(stderr=True, soft_wrap=True)
    try:
        changes = _outlines(options) if is_segmentation(options.bundle) else _classes(options)
    except NotShipped as error:
        console.print(f"nothing written to the bundle: {error}", style="red", markup=False)
        return 1
    dropped = rewrite(options.bundle, changes)
    note = "; sign it again" if dropped else ""
    console.print(f"{options.bundle}: measured anew{note}", markup=False)
    return 0


def _words(options: argparse.Namespace, name: str) -> str:
    return f"python -m export.evaluate {name} CONFIG DATA OUT --bootstrap {options.bootstrap}"


def _outlines(options: argparse.Namespace) -> dict[str, object]:
    """Measure a segmentation model."""
    segmenter = open_segmenter(options.bundle, device="cpu")
    manifest = segmenter.manifest
    config = read_config(options.config, SegmentationConfig)
    measured = Outlining(
        lambda images: segmenter.run(images[..., np.newaxis]).probabilities,
        config.model_copy(update={"preprocessing": manifest.preprocessing}),
        "cpu",
        manifest.provenance.checkpoint_sha256,
    )
    report, scores = evaluate_outlining(
        measured, options.data, options.cache, resamples=options.bootstrap, command=_words(options, manifest.id)
    )
    save_segmentation(report, scores, options.out)
    return {
        "operating_point": OperatingPoint(threshold=report.threshold, chosen_by=report.threshold_chosen_by),
        "evaluation": outlining_evaluation(report, manifest.evaluation.half_precision),
    }


def _classes(options: argparse.Namespace) -> dict[str, object]:
    """Measure a classifier."""
    bundle = read_bundle(options.bundle)
    manifest = bundle.manifest
    description = load_description(options.description or SHIPPED / f"{manifest.id}.toml")
    config = load_config(options.config).model_copy(update={"preprocessing": manifest.preprocessing})
    engine = open_engine(bundle, device="cpu")
    measured = Measured(
        lambda images, text: _outputs(engine, images, text),
        config,
        manifest.preprocessing.size,
        "cpu",
        manifest.provenance.checkpoint_sha256,
    )
    evaluation = evaluate_network(
        measured, options.data, options.cache, resamples=options.bootstrap, command=_words(options, manifest.id)
    )
    save_evaluation(evaluation, options.out)
    report = evaluation.report
    images = np.ascontiguousarray(evaluation.data.images[..., np.newaxis])
    return {
        "profiles": {
            name: require_gate(engine, reduced, images, evaluation.data.labels).model_dump()
            for name in manifest.profiles
            for reduced in [replace(open_graph(options.bundle / _GRAPHS[name], device="cpu"), precision=name)]
        },
        "temperature": report.temperature,
        "findings": [finding.model_dump() for finding in findings_of(description, report)],
        "evaluation": evaluation_of(report, manifest.evaluation.half_precision),
    }


def _outputs(engine: Engine, images: Grey8, text: str) -> Outputs:
    """Answer prepared images uint8 `[N, S, S]`."""
    starts = tqdm(range(0, len(images), _BATCH), desc=text, unit="batch", leave=False)
    rows = [engine.run(np.ascontiguousarray(images[start : start + _BATCH])[..., np.newaxis]) for start in starts]
    return Outputs(np.concatenate([row.logits for row in rows]), np.concatenate([row.cam for row in rows]))


if __name__ == "__main__":
    sys.exit(main())
