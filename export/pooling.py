"""`python -m export.pooling BUNDLE CONFIG DATA OUT.json`: calibrate a bundle for series.

The bundle's own graph answers for the validation part, on which the pooling is fitted, and for the test part, on which
it is measured. `--put-in`, or `python -m export.extend --pooling OUT.json` later, puts it into the bundle.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from tqdm import tqdm

from export.conformal import Answered, Limits, TooFewCases, fit_findings, judge, rates
from export.rewrite import rewrite
from service.bundle import Bundle, read_bundle
from service.engine import Engine, open_engine
from service.manifest import Bounds, Estimate, SeriesPooling
from training.bootstrap import Array
from training.bootstrap import Estimate as Measured
from training.commands import rate, run_command
from training.config import TrainConfig, load_config
from training.datasets import read_dataset
from training.datasets.prepared import prepare_records
from training.datasets.record import DatasetError
from training.datasets.split import Part, Split
from training.files import write_atomically
from training.findings import healthy_classes
from training.measure import independent_groups
from training.pooling import DEALT, Fit, Samples, fit, measure, series_of, series_probabilities
from training.provenance import describe_machine

_BATCH = 16
_PLAIN = Fit(1, 1.0, 0.0, {})
_MEAN = Fit(1 << 20, 1.0, 0.0, {})
_FITTED_ON = (
    "the images of one weighting of each patient or block of the validation part; where they show a finding, those "
    f"without are one more series; images of unknown patients without a finding, {DEALT} together"
)


def calibrate(
    bundle: Bundle,
    config: TrainConfig,
    data: Path,
    cache: Path,
    *,
    error_rate: float | None,
    resamples: int,
    seed: int,
    threads: int,
    command: str,
) -> dict[str, object]:
    """Fit on the validation part, measure on the test part; what is written as JSON.

    Args:
        bundle: of a model with healthy labels.
        config: of the run that it comes from: names dataset and split.
        data: folder of the dataset.
        cache: for prepared images.
        error_rate: of the limits of the findings; None: no limits.
        resamples: how many bootstrap resamples the intervals come from.
        seed: of the resamples.
        threads: of ONNX Runtime, 0 for one each core.
        command: that repeats it.

    Raises:
        DatasetError: the dataset is not what the configuration says, or no class of it is healthy.
        TooFewCases: there are too few groups for the error rate.
    """
    if not config.healthy:
        raise DatasetError("pooling needs a healthy class: series are ranked by what speaks against it")
    engine = open_engine(bundle, threads=threads, device="cpu")
    healthy = healthy_classes(config)
    unhealthy = [number for number in range(len(config.classes)) if number not in healthy]
    known, test = (_part(engine, config, data, part, cache) for part in ("validation", "test"))
    temperature = bundle.manifest.temperature
    found = fit(known[0] / temperature, known[1], unhealthy)
    threshold = bundle.manifest.findings[0].operating_point.threshold

    def judge(rule: Fit, samples: Samples) -> dict[str, Measured]:
        probs = series_probabilities(test[0] / temperature, samples, unhealthy, rule)
        return measure(probs, samples, unhealthy, threshold, resamples=resamples, seed=seed)

    limits, errors = _limits(bundle, config, known, test, unhealthy, found, error_rate) if error_rate else ({}, {})
    pooling = SeriesPooling(
        strongest=found.strongest,
        scale=found.scale,
        offset=found.offset,
        error_rate=error_rate,
        findings=limits,
        fitted_on=_FITTED_ON,
        groups=_clusters(known[1]),
        test_groups=_clusters(test[1]),
        metrics={k: Estimate.model_validate(v.model_dump()) for k, v in judge(found, test[1]).items()} | errors,
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    rules = {"fitted": found, "strongest slice, not calibrated": _PLAIN, "mean of all slices, not calibrated": _MEAN}
    return {
        "pooling": pooling.model_dump(),
        "cross_validated_loss": {str(count): loss for count, loss in found.losses.items()},
        "threshold": threshold,
        "series": {"validation": _counts(known[1], config), "test": _counts(test[1], config)},
        "compared": {name: _plain(judge(rule, test[1])) for name, rule in rules.items()},
        "machine": describe_machine(engine.provider).model_dump(),
    }


def _part(engine: Engine, config: TrainConfig, data: Path, part: Part, cache: Path) -> tuple[Array, Samples]:
    """Logits `[N, K]` of the images of a part, and its series."""
    records = Split.load(config.data.split).select(read_dataset(config.data.adapter, data, **config.data.options), part)
    prepared = prepare_records(records, config.classes, config.preprocessing, cache)
    starts = tqdm(range(0, len(prepared), _BATCH), desc=part, unit="batch", leave=False)
    rows = [engine.logits(np.ascontiguousarray(prepared.images[i : i + _BATCH])) for i in starts]
    logits: Array = np.concatenate(rows).astype(np.float64)
    return logits, series_of(prepared, independent_groups(records), healthy_classes(config))


def _limits(
    bundle: Bundle,
    config: TrainConfig,
    known: tuple[Array, Samples],
    test: tuple[Array, Samples],
    unhealthy: list[int],
    rule: Fit,
    error_rate: float,
) -> tuple[dict[str, Bounds], dict[str, Estimate]]:
    """Fit limits of the findings of series on the first part, and measure their error rates on the second."""
    findings = {finding.name: finding.labels for finding in bundle.manifest.findings}

    def answered(logits: Array, series: Samples) -> Answered:
        return Answered(
            series_probabilities(logits / bundle.manifest.temperature, series, unhealthy, rule),
            series.labels,
            series.clusters.astype(np.str_),
            np.array(series.kinds),
        )

    found = Limits({}, fit_findings(answered(*known), config.classes, findings, error_rate))
    unseen = answered(*test)
    return found.findings, rates(unseen, judge(unseen, config.classes, findings, found))


def _counts(samples: Samples, config: TrainConfig) -> dict[str, dict[str, int]]:
    """Series and independent groups by class, and images in a series."""
    sizes: NDArray[np.int64] = np.array([len(rows) for rows in samples.rows], np.int64)
    return {
        "series": {name: int((samples.labels == n).sum()) for n, name in enumerate(config.classes)},
        "groups": {
            name: len(np.unique(samples.clusters[samples.labels == n])) for n, name in enumerate(config.classes)
        },
        "images": {"least": int(sizes.min()), "median": int(np.median(sizes)), "most": int(sizes.max())},
    }


def _clusters(samples: Samples) -> int:
    return len(np.unique(samples.clusters))


def _plain(found: dict[str, Measured]) -> dict[str, dict[str, float]]:
    return {name: value.model_dump() for name, value in found.items()}


def main(arguments: list[str] | None = None) -> int:
    """Entry point.

    Returns:
        0 where the file was written, 1 where there are too few groups for the error rate, 2 where something is missing
        or wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m export.pooling", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("config", type=Path, metavar="CONFIG", help="TOML file of its training run")
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of the dataset")
    parser.add_argument("out", type=Path, metavar="OUT.json", help="file to write")
    parser.add_argument(
        "--error-rate", type=rate, metavar="RATE", help="also fit limits of findings, at this error rate"
    )
    parser.add_argument("--put-in", action="store_true", help="also write it into the bundle's manifest")
    parser.add_argument("--bootstrap", type=int, default=2000, metavar="N", help="resamples (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=0, help="default: one each core")
    parser.add_argument("--cache", type=Path, metavar="DIR", default=Path("runs/cache"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    return run_command(parser.prog, lambda: _calibrate(options))


def _calibrate(options: argparse.Namespace) -> int:
    console = Console(stderr=True, soft_wrap=True)
    words = ["python -m export.pooling BUNDLE CONFIG DATA OUT.json", f"--bootstrap {options.bootstrap}"]
    words += [f"--error-rate {options.error_rate}"] if options.error_rate else []
    try:
        found = _fitted(options, " ".join([*words, f"--seed {options.seed}"]))
    except TooFewCases as error:
        console.print(f"nothing written: {error}", style="red", markup=False)
        return 1
    write_atomically(options.out, (json.dumps(found, indent=1) + "\n").encode())
    console.print(json.dumps(found["compared"], indent=1), markup=False)
    if options.put_in and rewrite(options.bundle, {"series_pooling": found["pooling"]}):
        console.print(f"{options.bundle}: sign it again", markup=False)
    return 0


def _fitted(options: argparse.Namespace, command: str) -> dict[str, object]:
    return calibrate(
        read_bundle(options.bundle),
        load_config(options.config),
        options.data,
        options.cache,
        error_rate=options.error_rate,
        resamples=options.bootstrap,
        seed=options.seed,
        threads=options.threads,
        command=command,
    )


if __name__ == "__main__":
    sys.exit(main())
