"""Fit when a bundle does not answer: gate and conformal limits, from its own network and the data of its run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from export.assess import Others, Own, fit_gate
from export.conformal import Answered, fit_conformal
from export.familiarity import Familiarity
from export.foreign import Foreign, join, kinds_in, make_foreign, read_foreign
from export.graph import Fused
from service.manifest import Conformal, Gate, Manifest
from service.types import Float, Grey8
from training.calibration import probabilities
from training.config import TrainConfig
from training.datasets.prepared import Prepared, prepare_part
from training.models.network import summary_of

TYPE_REASON = "which finding it is can be told on T1-weighted images after contrast only"
_JUDGED = "T1 post"  # the weighting on which labels are known
_OF_A_SOURCE = 400  # images of the training part at most, of each source and weighting
_OF_A_KIND = 60  # foreign images to fit on at most; half as many others measure
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was fitted: the scores for the graph, and what the manifest says."""

    familiarity: Familiarity
    gate: Gate
    conformal: Conformal


def fit_refusal(
    fused: Fused,
    manifest: Manifest,
    config: TrainConfig,
    data: Path,
    cache: Path,
    foreign: Path | None,
    *,
    error_rate: float,
    command: str,
) -> Refusal:
    """Fit the gate on training images and foreign ones, limits on the validation part; measure on the test part.

    Args:
        fused: the network.
        manifest: of its bundle; the temperature is taken from it.
        config: of its run.
        data: folder of its dataset.
        cache: for prepared images.
        foreign: a folder with one folder of files for each kind of foreign images; None: only those that are made.
        error_rate: of the conformal limits, 0..1.
        command: that repeats it.

    Raises:
        TooFewCases: a class has too few groups for the error rate.
        DatasetError: the data are not what the configuration says.
    """
    parts = {part: prepare_part(config, data, part, cache) for part in ("train", "validation", "test")}
    rows = _spread(parts["train"])
    seen = {"train": _forward(fused, np.asarray(parts["train"].images[rows]), "train")}
    for part in ("validation", "test"):
        seen[part] = _forward(fused, parts[part].images, part)
    everything = {"train": rows, **{part: np.arange(len(parts[part])) for part in ("validation", "test")}}
    weightings = set(parts["train"].weightings)
    typed = _JUDGED in weightings and len(weightings) > 1
    own = {
        part: Own(
            summaries=seen[part][1],
            sources=np.array([parts[part].sources[row] or "own" for row in chosen.tolist()]),
            groups=np.array([parts[part].groups[row] for row in chosen.tolist()]),
            typed=np.array([parts[part].weightings[row] == _JUDGED for row in chosen.tolist()]) if typed else None,
        )
        for part, chosen in everything.items()
    }
    fitting, testing = _foreign(parts["train"].images[rows], parts["test"].images, foreign, config)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    familiarity, gate = fit_gate(
        own["train"],
        own["validation"],
        Others(_forward(fused, fitting.images, "foreign")[1], fitting.kinds),
        fitted_on=f"{len(rows)} images of the training part, limits on {len(parts['validation'])} of the validation "
        f"part, {len(fitting)} foreign images of {len(np.unique(fitting.kinds))} kinds",
        type_reason=TYPE_REASON if typed else "",
        test=own["test"],
        foreign_test=Others(_forward(fused, testing.images, "foreign")[1], testing.kinds),
        command=command,
        date=date,
    )
    known, unseen = (
        _answered(parts[part], probabilities(seen[part][0], manifest.temperature)) for part in ("validation", "test")
    )
    findings = {finding.name: finding.labels for finding in manifest.findings}
    fit = partial(
        fit_conformal,
        names=manifest.class_names,
        error_rate=error_rate,
        fitted_on="the validation part",
        command=command,
        date=date,
    )
    labelled = fit(known.pick(parts["validation"].typed), findings={}, test=unseen.pick(parts["test"].typed))
    found = fit(known, findings=findings, test=unseen)
    of_findings = {name: value for name, value in found.metrics.items() if name.split("/")[0] in findings}
    return Refusal(
        familiarity,
        gate,
        found.model_copy(update={"labels": labelled.labels, "metrics": labelled.metrics | of_findings}),
    )


def _forward(fused: Fused, images: Grey8, what: str) -> tuple[Float, Float]:
    """Logits `[N, K]` and summaries `[N, F]` of prepared images uint8 `[N, S, S]`."""
    logits: list[Float] = []
    summaries: list[Float] = []
    body = fused.module.body
    with torch.inference_mode():
        for start in tqdm(range(0, len(images), _BATCH), desc=f"features: {what}", unit="batch", leave=False):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH])[..., None])
            pyramid = body.trunk(batch)
            logits.append(fused.module.tail(body.neck(pyramid))[0].numpy())
            summaries.append(summary_of(pyramid).numpy())
    return np.concatenate(logits), np.concatenate(summaries)


def _spread(data: Prepared) -> NDArray[np.int64]:
    """Rows of the training part: of every source and weighting so many at most, drawn by chance."""
    random = np.random.default_rng(0)
    kinds = np.array([f"{s}/{w}" for s, w in zip(data.sources, data.weightings, strict=True)])
    chosen = [random.permutation(np.flatnonzero(kinds == kind))[:_OF_A_SOURCE] for kind in np.unique(kinds)]
    return np.sort(np.concatenate(chosen))


def _foreign(train: Grey8, test: Grey8, folder: Path | None, config: TrainConfig) -> tuple[Foreign, Foreign]:
    """Foreign images to fit on, and others to measure with."""
    half = _OF_A_KIND // 2
    fitting, testing = make_foreign(train, _OF_A_KIND, 0), make_foreign(test, half, 1)
    if folder is None:
        return fitting, testing
    files = kinds_in(folder)
    first = {kind: paths[::2] for kind, paths in files.items()}
    second = {kind: paths[1::2] for kind, paths in files.items() if len(paths) > 1}
    spec = config.preprocessing
    return join(fitting, read_foreign(first, spec, _OF_A_KIND)), join(testing, read_foreign(second, spec, half))


def _answered(data: Prepared, probs: NDArray[np.float64]) -> Answered:
    return Answered(
        probabilities=probs,
        labels=data.labels,
        groups=np.array(data.groups),
        sources=np.array([source or "own" for source in data.sources]),
    )
