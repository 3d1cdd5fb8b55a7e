"""From a checkpoint and a dataset to a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.types import Grey8, Outputs
from training import shortcut as shortcuts
from training.bootstrap import Array, Estimate, Resamples, draw
from training.calibration import calibration_metrics, fit_temperature, probabilities, reliability
from training.checkpoint import load_network
from training.config import TrainConfig
from training.datasets import read_dataset
from training.datasets.duplicates import clusters, near_pairs, perceptual_hashes
from training.datasets.prepared import Prepared, prepare_records
from training.datasets.record import DatasetError, Record
from training.datasets.sources import in_study
from training.datasets.split import Part, Split
from training.findings import finding_called, finding_score, findings, healthy_classes
from training.inference import make_runner
from training.localisation import centre_map, energy_inside, pointing_game, random_map
from training.metrics import binary, classification, confusion
from training.provenance import data_digest, describe_machine, file_digest
from training.report import CallRule, OperatingPoint, Report, SourceReport
from training.sources import Answers, large_lesion_rule, lesion_shares
from training.sources import measure as measure_sources

_RANDOM_MAPS = 8  # for each image


@dataclass(frozen=True, slots=True)
class AllSources:
    """Images of all sources, their group numbers `[N]`, and what the network says of them."""

    data: Prepared
    groups: NDArray[np.int64]
    answers: Answers


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A report and what it was computed from: images, their group numbers `[N]`, calibrated probabilities `[N, K]`.

    Where records know their source, these are the images of the study's, and `sources` holds all of them.
    """

    report: Report
    data: Prepared
    groups: NDArray[np.int64]
    probabilities: Array
    sources: AllSources | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """A network that is measured.

    Attributes:
        runner: logits and class activation maps of prepared images uint8 `[N, S, S]`, and what the progress says.
        config: of its training run.
        size: side of its input in pixels.
        device: that it runs on.
        checkpoint_digest: SHA-256 of the checkpoint that it comes from.
    """

    runner: Callable[[Grey8, str], Outputs]
    config: TrainConfig
    size: int
    device: str
    checkpoint_digest: str


def evaluate(
    checkpoint: Path,
    root: Path,
    cache: Path,
    *,
    part: Part = "test",
    resamples: int = 2000,
    size: int | None = None,
    seed: int = 0,
    shortcut: bool = True,
    command: str = "",
) -> Evaluation:
    """Measure a checkpoint.

    Args:
        checkpoint: `last.pt` of a run.
        root: the dataset's folder.
        cache: folder for prepared images.
        part: the part to report on. Temperature and thresholds are chosen on the validation part.
        resamples: how many bootstrap resamples the intervals come from.
        size: input side in pixels; None for the side that images are prepared at.
        seed: of the resamples.
        shortcut: also measure the source shortcut, where there are outlines and healthy classes.
        command: what the report says it was made with.

    Raises:
        DatasetError: the dataset is not what the checkpoint was trained on, or a part is empty.
        FileNotFoundError: checkpoint or split file is missing.
    """
    network, config = load_network(checkpoint)
    runner = make_runner(network, size or config.preprocessing.size)
    measured = Measured(runner, config, runner.size, str(runner.fabric.device), file_digest(checkpoint))
    return evaluate_network(
        measured, root, cache, part=part, resamples=resamples, seed=seed, shortcut=shortcut, command=command
    )


def evaluate_network(
    measured: Measured,
    root: Path,
    cache: Path,
    *,
    part: Part = "test",
    resamples: int = 2000,
    seed: int = 0,
    shortcut: bool = True,
    command: str = "",
) -> Evaluation:
    """Measure a network; arguments and errors as of `evaluate`."""
    runner, config = measured.runner, measured.config
    records = read_dataset(config.data.adapter, root, **config.data.options)
    split = Split.load(config.data.split)
    wanted: tuple[Part, ...] = ("validation", part)
    whole: dict[Part, list[Record]] = {name: split.select(records, name) for name in wanted}
    chosen = {name: [record for record in rows if in_study(record)] for name, rows in whole.items()}
    for name, rows in chosen.items():
        if not rows:
            raise DatasetError(f"{config.data.split}: the {name} part is empty")
    parts = {n: prepare_records(rows, config.classes, config.preprocessing, cache) for n, rows in chosen.items()}
    data, validation = parts[part], parts["validation"]
    known = runner(validation.images, "validation")
    outputs = known if part == "validation" else runner(data.images, part)
    temperature = fit_temperature(known.logits, validation.labels)
    raw, probs = probabilities(outputs.logits), probabilities(outputs.logits, temperature)
    groups = inseparable_groups(chosen[part])
    drawn = draw(groups, data.labels, resamples, seed)
    metrics = classification(data.labels, probs, config.classes, drawn)
    metrics |= calibration_metrics(raw, data.labels, drawn, "before")
    metrics |= calibration_metrics(probs, data.labels, drawn, "after")
    found, points = findings(
        config, probs, data.labels, drawn, probabilities(known.logits, temperature), validation.labels
    )
    located, counts = localisation(outputs, data, drawn, seed)
    leaked: dict[str, Estimate] = {}
    if shortcut and located and len(np.unique(np.isin(data.labels, healthy_classes(config)))) == 2:
        leaked, numbers = source_shortcut(config, runner, outputs, data, validation, drawn)
        counts |= numbers
    beside: AllSources | None = None
    sourced: SourceReport | None = None
    if config.healthy and any(record.source for record in whole[part]):
        answered: dict[Part, tuple[Prepared, Outputs]] = {"validation": (validation, known), part: (data, outputs)}
        beside, rule = across_sources(measured, whole, answered, part, groups, temperature, cache)
        if rule is not None:
            points = (*points, operating_point(config, rule, probs, data.labels, drawn))
        sourced = measure_sources(
            beside.data,
            beside.answers,
            beside.groups,
            [CallRule(name=point.name, threshold=point.threshold, chosen_by=point.chosen_by) for point in points],
            lambda images, text: runner(images, text).logits / temperature,
            resamples=resamples,
            seed=seed,
        )
    report = Report(
        network=config.network,
        classes=config.classes,
        healthy=config.healthy,
        part=part,
        size=measured.size,
        images=len(data),
        groups=drawn.groups,
        groups_by_class={
            name: len(np.unique(groups[data.labels == number])) for number, name in enumerate(config.classes)
        },
        temperature=temperature,
        metrics=metrics | found,
        operating_points=points,
        confusion=tuple(map(tuple, confusion(data.labels, probs.argmax(axis=1), len(config.classes)).tolist())),
        reliability_before=reliability(raw, data.labels),
        reliability_after=reliability(probs, data.labels),
        localisation=located,
        shortcut=leaked,
        sources=sourced,
        counts=counts,
        resamples=resamples,
        seed=seed,
        checkpoint_digest=measured.checkpoint_digest,
        split_digest=split.digest(),
        data_digest=data_digest(records),
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=describe_machine(measured.device),
    )
    return Evaluation(report, data, groups, probs, beside)


def across_sources(
    measured: Measured,
    records: Mapping[Part, Sequence[Record]],
    study: Mapping[Part, tuple[Prepared, Outputs]],
    part: Part,
    groups: NDArray[np.int64],
    temperature: float,
    cache: Path,
) -> tuple[AllSources, CallRule | None]:
    """Ask a network about the sources that are not the study's, too.

    Args:
        measured: the network.
        records: the records of all sources, by part.
        study: prepared images of the study's sources and the answers for them, by part.
        part: the part to report on.
        groups: group numbers of the study's images of that part.
        temperature: that logits are divided by.
        cache: folder for prepared images.

    Returns:
        The images of all sources of the part, the study's first, and the rule that the validation part's large lesions
        give; None where it holds none.
    """
    config = measured.config
    healthy = healthy_classes(config)
    joined: dict[Part, tuple[Prepared, Answers]] = {}
    for name, (data, outputs) in study.items():
        rest = [record for record in records[name] if not in_study(record)]
        if rest:
            more = prepare_records(rest, config.classes, config.preprocessing, cache)
            answered = measured.runner(more.images, f"{name}, other sources")
            data = data.joined(more)
            outputs = Outputs(
                np.concatenate([outputs.logits, answered.logits]), np.concatenate([outputs.cam, answered.cam])
            )
        joined[name] = data, Answers(outputs.logits / temperature, outputs.cam, healthy)
    known, answers = joined["validation"]
    kinds = [f"{source}/{weighting}" for source, weighting in zip(known.sources, known.weightings, strict=True)]
    rule = large_lesion_rule(answers.scores, lesion_shares(known), kinds)
    others = other_groups([record for record in records[part] if not in_study(record)])
    numbers = np.concatenate([groups, others + int(groups.max()) + 1])
    return AllSources(joined[part][0], numbers, joined[part][1]), rule


def operating_point(
    config: TrainConfig, rule: CallRule, probs: Array, labels: NDArray[np.int64], drawn: Resamples
) -> OperatingPoint:
    """What comes of a rule with a threshold on probabilities `[N, K]`."""
    healthy = healthy_classes(config)
    called = finding_score(probs, healthy) >= (rule.threshold or 0.0)
    return OperatingPoint(
        name=rule.name,
        threshold=rule.threshold,
        chosen_by=rule.chosen_by,
        measured=binary(~np.isin(labels, healthy), called, drawn),
    )


def independent_groups(records: Sequence[Record]) -> NDArray[np.int64]:
    """Number the groups of records, int64 `[N]`: the study's by `inseparable_groups`, others by `other_groups`."""
    study = np.array([in_study(record) for record in records], np.bool_)
    numbers = np.zeros(len(records), np.int64)
    for chosen, number in ((study, inseparable_groups), (~study, other_groups)):
        if chosen.any():
            rows = np.flatnonzero(chosen)
            numbers[rows] = number([records[row] for row in rows.tolist()]) + numbers.max() + 1
    return numbers


def other_groups(records: Sequence[Record]) -> NDArray[np.int64]:
    """Group number of each record, `[N]`: the patient and, where patients are unknown, near duplicates of one another.

    Whole volumes of known patients are not compared by their looks: top slices of all heads are alike.
    """
    names = [record.group for record in records]
    unknown = [row for row, record in enumerate(records) if record.group == record.id]
    if unknown:
        alike = inseparable_groups([records[row] for row in unknown])
        for row, number in zip(unknown, alike.tolist(), strict=True):
            names[row] = f"alike/{number}"
    return np.unique(np.array(names, np.str_), return_inverse=True)[1].astype(np.int64)


def inseparable_groups(records: Sequence[Record]) -> NDArray[np.int64]:
    """Group number of each record, `[N]`: one patient or block, and near duplicates of one another, are one group."""
    _, group = np.unique([record.group for record in records], return_inverse=True)
    order = np.argsort(group, kind="stable")
    links = [(a, b) for a, b in pairwise(order.tolist()) if group[a] == group[b]]
    alike = near_pairs(perceptual_hashes(records))
    pairs = np.concatenate([alike, np.array(links, np.int64).reshape(-1, 2)])
    return clusters(len(records), pairs).astype(np.int64)


def localisation(
    outputs: Outputs, data: Prepared, drawn: Resamples, seed: int
) -> tuple[dict[str, Estimate], dict[str, int]]:
    """Both measures of `training.localisation` on the images with an outline, for the network and the baselines."""
    outlined = data.has_mask & np.array([bool((mask > 127).any()) for mask in data.masks], np.bool_)
    if not outlined.any():
        return {}, {}
    random = np.random.default_rng(seed)
    grid = (outputs.cam.shape[2], outputs.cam.shape[3])
    predicted = outputs.logits.argmax(axis=1)
    names = ("", "_predicted", "_centre", "_random")
    hits, energy = (np.zeros((len(names), len(data))) for _ in range(2))
    for row in tqdm(np.flatnonzero(outlined).tolist(), desc="localisation", unit="image", leave=False):
        mask = np.asarray(data.masks[row]) > 127
        rows = outputs.cam[row]
        noise = [random_map(grid, random) for _ in range(_RANDOM_MAPS)]
        maps = [[rows[data.labels[row]]], [rows[predicted[row]]], [centre_map(grid)], noise]
        for kind, group in enumerate(maps):
            hits[kind, row] = np.mean([pointing_game(values, mask) for values in group])
            energy[kind, row] = np.mean([energy_inside(values, mask) for values in group])
    found = {
        measure + name: drawn.ratio(values[kind], outlined)
        for measure, values in (("pointing_game", hits), ("energy_inside", energy))
        for kind, name in enumerate(names)
    }
    counts = {measure: int(outlined.sum()) for measure in ("pointing_game", "energy_inside")}
    return {name: value for name, value in found.items() if value is not None}, counts


def source_shortcut(
    config: TrainConfig,
    runner: Callable[[Grey8, str], Outputs],
    outputs: Outputs,
    data: Prepared,
    validation: Prepared,
    drawn: Resamples,
) -> tuple[dict[str, Estimate], dict[str, int]]:
    """The measurements of `training.shortcut` for a network with healthy classes."""
    healthy = healthy_classes(config)
    slices, known = (
        shortcuts.Slices(d.images, d.masks, d.has_mask, ~np.isin(d.labels, healthy)) for d in (data, validation)
    )

    def classify(images: Grey8, description: str) -> Array:
        return probabilities(runner(images, description).logits)

    found, counts = shortcuts.measure(
        slices, finding_called(probabilities(outputs.logits), healthy), healthy, classify, drawn
    )
    return found | shortcuts.probe(known, slices, drawn), counts | {"probe/thumbnail": len(data)}
