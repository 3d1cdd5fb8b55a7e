"""`python -m export.extend BUNDLE CONFIG DATA`: what needs data is added to a bundle; its weights stay what they are.

Every graph is traced, checked and written anew from the weights that the bundle stores.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console

from export.conformal import TooFewCases
from export.gate import NotShipped, require_gate
from export.half_precision import to_half
from export.onnx_file import to_onnx
from export.parity import ParityError
from export.quantize import quantize
from export.refusal import fit_refusal
from export.report_images import TestImages, spread
from export.restore import CannotRestore, network_of, new_head, restore
from export.writer import write_bundle
from service.bundle import Bundle, read_bundle
from service.engine import Engine, open_graph
from service.manifest import Estimate, Manifest, Profile, Reduced, SeriesPooling
from service.types import Grey8
from training.checkpoint import CheckpointError, load_checkpoint
from training.commands import rate, run_command
from training.config import TrainConfig, load_config
from training.datasets.prepared import prepare_part
from training.datasets.record import DatasetError
from training.datasets.sources import in_study
from training.models.shapley_head import ShapleyHead

CALIBRATION_IMAGES = 128
PARITY_IMAGES = 32


def extend(
    bundle: Bundle,
    config: TrainConfig,
    data: Path,
    cache: Path,
    console: Console,
    *,
    int8: bool,
    fp16: bool,
    fastshap: Path | None,
    quality: Path | None,
    pooling: Path | None = None,
    foreign: Path | None = None,
    error_rate: float | None = None,
    command: str = "",
) -> Manifest:
    """Write the bundle anew, in its place.

    Args:
        bundle: of a network with a linear head.
        config: of the run that it comes from: names dataset and split.
        data: folder of the dataset.
        cache: for prepared images.
        console: where progress is told.
        int8: add a quantised graph, if it passes its gate on the test part. Without, none is left.
        fp16: the same, for a graph that computes in float16; judged on a GPU where there is one.
        fastshap: trained explainer (`python -m training fastshap`); None keeps the one that is there.
        quality: figures of `python -m benchmarks.explanation_quality`; None keeps those that are there.
        pooling: what `python -m export.pooling` fitted; None keeps the pooling that is there.
        foreign: images of other kinds, a folder for each, that the gate is fitted with (see `error_rate`).
        error_rate: fit gate and conformal limits, these at this rate; None keeps those that are there.
        command: that repeats it.

    Raises:
        NotShipped: a graph of less precision failed its gate.
        TooFewCases: a class has too few groups for the error rate.
        CannotRestore, ParityError: see there.
        CheckpointError, DatasetError, ValidationError: a file or the data are not what they are wanted for.
    """
    head = None
    if fastshap is not None:
        head = new_head(network_of(bundle), bundle.manifest)
        _fill(head, fastshap)
    fused = restore(bundle, head)
    manifest = bundle.manifest
    if error_rate is not None:
        refusal = fit_refusal(fused, manifest, config, data, cache, foreign, error_rate=error_rate, command=command)
        manifest = manifest.model_copy(update={"gate": refusal.gate, "conformal": refusal.conformal})
        fused = restore(bundle, head, refusal.familiarity)
    test = prepare_part(config, data, "test", cache, in_study)
    images: Grey8 = np.ascontiguousarray(test.images[..., None])
    if quality is not None:
        manifest = with_quality(manifest, _figures(quality, "methods", "default"))
    if pooling is not None:
        manifest = manifest.model_copy(update={"series_pooling": read_pooling(pooling)})
    full = to_onnx(fused.module, manifest.preprocessing.size, fused.module.names)
    reduced: dict[Reduced, onnx.ModelProto] = {}
    if fp16:
        reduced["fp16"] = to_half(full)
    if int8:
        calibration = prepare_part(config, data, "validation", cache)
        chosen = spread(TestImages(calibration.images[..., None], calibration.labels), CALIBRATION_IMAGES)
        console.print(f"quantising, calibrated on {len(chosen)} images of the validation part")
        reduced["int8"] = quantize(full, chosen)
    profiles = {name: _gate(name, full, model, images, test.labels) for name, model in reduced.items()}
    for name, profile in profiles.items():
        console.print(f"{name}: {profile}")
    manifest = manifest.model_copy(update={"profiles": profiles})
    parity = spread(TestImages(images, test.labels), PARITY_IMAGES)
    return write_bundle(bundle.path, fused, full, manifest, parity, console, reduced=reduced)


def with_quality(manifest: Manifest, figures: dict[str, object]) -> Manifest:
    """The manifest with the measured quality of each method, and the default that follows from it."""
    methods = figures["methods"]
    assert isinstance(methods, dict)  # noqa: S101 - the benchmark writes it so
    measured = {
        method: {name: Estimate.model_validate(value) for name, value in found.items()}
        for method, found in methods.items()
    }
    explanations = tuple(e.model_copy(update={"quality": measured.get(e.method, {})}) for e in manifest.explanations)
    default = str(figures["default"])
    return manifest.model_copy(update={"explanations": explanations, "default_explanation": default})


def read_pooling(file: Path) -> SeriesPooling:
    """Read what `python -m export.pooling` fitted.

    Raises:
        DatasetError, ValidationError: another command wrote the file.
    """
    return SeriesPooling.model_validate(_figures(file, "pooling")["pooling"])


def _fill(head: ShapleyHead, explainer: Path) -> None:
    try:
        head.load_state_dict(load_checkpoint(explainer))
    except RuntimeError as error:
        raise CheckpointError(f"{explainer} is not an explainer of this network") from error


def _figures(file: Path, *names: str) -> dict[str, object]:
    found = json.loads(file.read_text())
    if not isinstance(found, dict) or not set(names) <= set(cast(dict[str, object], found)):
        raise DatasetError(f"{file} does not hold {' and '.join(names)}: another command wrote it")
    return cast(dict[str, object], found)


def _gate(
    precision: Reduced, full: onnx.ModelProto, reduced: onnx.ModelProto, images: Grey8, labels: NDArray[np.int64]
) -> Profile:
    with tempfile.TemporaryDirectory() as folder:
        engines: list[Engine] = []
        for name, model in (("full.onnx", full), ("reduced.onnx", reduced)):
            onnx.save(model, Path(folder) / name)
            engines.append(open_graph(Path(folder) / name, device="cpu" if precision == "int8" else "auto"))
        return require_gate(engines[0], replace(engines[1], precision=precision), images, labels)


def main(arguments: list[str] | None = None) -> int:
    """Entry point.

    Returns:
        0 where the bundle was written, 1 where a check failed and nothing was, 2 where something is missing or wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m export.extend", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("config", type=Path, metavar="CONFIG", help="TOML file of its training run")
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of the dataset")
    parser.add_argument("--int8", action="store_true", help="add a quantised graph, if it is good enough")
    parser.add_argument("--fp16", action="store_true", help="add a graph that computes in float16, likewise")
    parser.add_argument("--fastshap", type=Path, metavar="FILE", help="trained explainer to put in")
    parser.add_argument("--quality", type=Path, metavar="FILE", help="what benchmarks.explanation_quality measured")
    parser.add_argument("--pooling", type=Path, metavar="FILE", help="what export.pooling fitted")
    parser.add_argument(
        "--error-rate", type=rate, metavar="RATE", help="fit gate and conformal limits anew, these at this error rate"
    )
    parser.add_argument("--foreign", type=Path, metavar="DIR", help="images of other kinds, a folder for each")
    parser.add_argument("--cache", type=Path, metavar="DIR", default=Path("runs/cache"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    return run_command(parser.prog, lambda: _extend(options))


def _extend(options: argparse.Namespace) -> int:
    console = Console(stderr=True, soft_wrap=True)
    try:
        manifest = extend(
            read_bundle(options.bundle),
            load_config(options.config),
            options.data,
            options.cache,
            console,
            int8=options.int8,
            fp16=options.fp16,
            fastshap=options.fastshap,
            quality=options.quality,
            pooling=options.pooling,
            foreign=options.foreign,
            error_rate=options.error_rate,
            command=f"python -m export.extend BUNDLE {options.config} DATA --error-rate {options.error_rate}",
        )
    except CannotRestore as error:
        console.print(f"cannot extend: {error}", style="red", markup=False)
        return 2
    except (ParityError, NotShipped, TooFewCases) as error:
        console.print(f"nothing written: {error}", style="red", markup=False)
        return 1
    for check in manifest.parity:
        console.print(f"  {check.check}: {check.deviation:.2g} (allowed {check.tolerance:.0e}, {check.images} images)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
