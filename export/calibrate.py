"""`python -m export.calibrate BUNDLE CASES [--error-rate 0.1]`: fit a bundle's conformal limits on a site's own cases.

CASES is a CSV file with the columns file, label and perhaps patient (files are looked for beside it), or a folder that
holds a folder of files for each label. The files, PNG, JPEG or DICOM, are read, prepared and answered as by the
service. A label is one of the model's, or, where only the finding is known, the finding's name or `none`: then only the
finding's limits change. Weights and temperature stay. The limits hold for new patients of the same site: they are
measured by fitting on four fifths of the patients and answering the other fifth, in turn.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from export.conformal import (
    Answered,
    Happened,
    Limits,
    TooFewCases,
    fewest_groups,
    fit_findings,
    fit_limits,
    judge,
    rates,
)
from export.errors import ExportError
from export.rewrite import rewrite
from service.bundle import Bundle, read_bundle
from service.engine import Engine, open_engine
from service.errors import UnreadableImage
from service.images.reading import read_frames, sniff
from service.manifest import Conformal, Manifest
from service.preprocessing import prepare
from service.types import Float, Grey8
from training.calibration import probabilities
from training.commands import rate, run_command
from training.datasets.record import DatasetError

NONE = "none"  # the label of a case without the finding
_FOLDS = 5
_BATCH = 16


@dataclass(frozen=True, slots=True)
class Case:
    """One labelled file; `patient` is None where it is not said."""

    path: Path
    label: str
    patient: str | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """A site's cases with the model's answers, and what they can calibrate.

    Attributes:
        answered: the cases.
        names: of the classes that the answers are in: the model's labels, or `none` and the finding.
        findings: labels of each finding, by name.
        typed: whether the labels of the model are known, and not only the finding.
    """

    answered: Answered
    names: tuple[str, ...]
    findings: dict[str, tuple[str, ...]]
    typed: bool

    def fit(self, known: Answered, error_rate: float) -> Limits:
        """Fit what the labels allow; raises TooFewCases."""
        if self.typed:
            return fit_limits(known, self.names, self.findings, error_rate)
        return Limits({}, fit_findings(known, self.names, self.findings, error_rate))


def read_cases(source: Path) -> list[Case]:
    """Read a CSV file of cases, or list a folder of class folders.

    Raises:
        DatasetError: a column is missing, a row is not complete, or there is no case.
    """
    if source.is_dir():
        cases = [
            Case(path, folder.name)
            for folder in sorted(source.iterdir())
            if folder.is_dir()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        ]
    else:
        cases = _read_table(source)
    if not cases:
        raise DatasetError(f"{source}: no cases")
    return cases


def _read_table(source: Path) -> list[Case]:
    with source.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if missing := {"file", "label"} - set(reader.fieldnames or ()):
            raise DatasetError(f"{source}: no column {' and no column '.join(sorted(missing))}")
        cases: list[Case] = []
        for row in reader:
            if not row["file"] or not row["label"]:
                raise DatasetError(f"{source}, line {reader.line_num}: file or label is empty")
            cases.append(Case(source.parent / row["file"], row["label"], row.get("patient") or None))
    return cases


def answer_cases(bundle: Bundle, cases: list[Case], console: Console) -> Site:
    """Read, prepare and answer cases as the service does.

    Images that the bundle's gate refuses are left out, because the service does not answer them.

    Raises:
        DatasetError: a label is unknown, or a file cannot be read or holds several images.
    """
    manifest = bundle.manifest
    numbers, names, findings, typed = _classes(manifest, [case.label for case in cases])
    engine = open_engine(bundle, device="cpu", gradients=False)
    logits: list[Float] = []
    refused: list[NDArray[np.bool_]] = []
    patients: list[str] = []
    for start in tqdm(range(0, len(cases), _BATCH), desc="cases", unit="batch", leave=False):
        batch = [_read(case, manifest) for case in cases[start : start + _BATCH]]
        patients += [patient for _, patient in batch]
        found, turned_away = _answer(engine, manifest, np.stack([pixels for pixels, _ in batch])[..., np.newaxis])
        logits.append(found)
        refused.append(turned_away)
    probs = probabilities(np.concatenate(logits), manifest.temperature)
    if not typed:
        inside = np.isin(manifest.class_names, manifest.findings[0].labels)
        probs = np.stack([probs[:, ~inside].sum(axis=1), np.minimum(probs[:, inside].sum(axis=1), 1)], axis=1)
    if unnamed := sum(patient == str(case.path) for case, patient in zip(cases, patients, strict=True)):
        console.print(f"{unnamed} of {len(cases)} files name no patient, and each counts as one", markup=False)
    kept = ~np.concatenate(refused)
    if not kept.all():
        console.print(f"left out: {int((~kept).sum())} of {len(kept)} cases that the gate refuses", markup=False)
    sources = np.full(len(cases), "site", np.str_)
    answered = Answered(probs, numbers, np.array(patients, np.str_), sources)
    return Site(answered.pick(kept), names, findings, typed)


def _classes(
    manifest: Manifest, labels: list[str]
) -> tuple[NDArray[np.int64], tuple[str, ...], dict[str, tuple[str, ...]], bool]:
    """Number the labels: by the model's classes, or, where one of them is none of these, by absence and presence."""
    names = manifest.class_names
    if set(labels) <= set(names):
        numbers = np.array([names.index(label) for label in labels], np.int64)
        return numbers, names, {finding.name: finding.labels for finding in manifest.findings}, True
    allowed = [*names]
    if len(manifest.findings) == 1:
        (finding,) = manifest.findings
        allowed += [finding.name, NONE]
        if set(labels) <= set(allowed):
            present = np.isin(labels, [finding.name, *finding.labels])
            return present.astype(np.int64), (NONE, finding.name), {finding.name: (finding.name,)}, False
    strangers = sorted(set(labels) - set(allowed))
    raise DatasetError(f"labels {strangers} are unknown; a case is one of {allowed}")


def _read(case: Case, manifest: Manifest) -> tuple[Grey8, str]:
    """Read and prepare one case: pixels uint8 `[S, S]`, and the patient; without one each file is a patient."""
    content = case.path.read_bytes()
    try:
        frames = read_frames(content, case.path.name)
    except UnreadableImage as error:
        raise DatasetError(f"{case.path}: {error}") from error
    if len(frames) != 1:
        raise DatasetError(f"{case.path}: holds {len(frames)} images; a case is one image with its own label")
    patient = case.patient
    if patient is None and sniff(content) == "dicom":
        header = pydicom.dcmread(BytesIO(content), stop_before_pixels=True, force=True, specific_tags=["PatientID"])
        patient = str(header.get("PatientID", "")) or None
    return prepare(frames[0], manifest.preprocessing).pixels, patient or str(case.path)


def _answer(engine: Engine, manifest: Manifest, images: Grey8) -> tuple[Float, NDArray[np.bool_]]:
    """Give logits `[N, K]` of prepared images, and which of these the gate refuses, `[N]`."""
    if manifest.gate is None:
        return engine.run(images).logits, np.zeros(len(images), np.bool_)
    found = engine.run(images, ["gate"])
    limits = np.array([score.refused for score in manifest.gate.scores])
    return found.logits, np.asarray((~(found.more["gate"][:, : len(limits)] < limits)).any(axis=1), np.bool_)


def calibrate(manifest: Manifest, site: Site, *, error_rate: float, resamples: int, command: str) -> Conformal:
    """Fit limits on a site's cases, and measure them by fitting without each fifth of the patients in turn.

    Args:
        manifest: of the bundle; labels keep its limits where the cases say only the finding.
        site: the cases.
        error_rate: share of the images of each class that may be answered wrongly, 0..1.
        resamples: how many bootstrap resamples the intervals come from.
        command: that repeats it.

    Raises:
        TooFewCases: a class has too few patients for the error rate.
        ExportError: the bundle's labels have limits for another error rate, and the cases have no labels.
    """
    before = manifest.conformal
    if not site.typed and before is not None and before.error_rate != error_rate:
        raise ExportError(
            f"labels have limits for an error rate of {before.error_rate:g}, and the cases say only the finding; "
            f"give --error-rate {before.error_rate:g}, or cases with the model's labels"
        )
    limits = site.fit(site.answered, error_rate)
    fitted_on = f"cases of the site that uses the model: {len(site.answered)}"
    judged = cross_fitted(site, error_rate)
    metrics = rates(site.answered, judged, resamples=resamples) if judged else {}
    labels = limits.labels
    if not site.typed:
        labels = dict.fromkeys(manifest.class_names, 0.0) if before is None else before.labels
        fitted_on += "; labels have no limits" if before is None else f"; limits of labels: {before.fitted_on}"
        kept = {} if before is None else before.metrics
        metrics = {name: value for name, value in kept.items() if name.split("/")[0] not in site.findings} | metrics
    return Conformal(
        error_rate=error_rate,
        labels=labels,
        findings=limits.findings,
        fitted_on=fitted_on,
        images=len(site.answered),
        groups=len(np.unique(site.answered.groups)),
        metrics=metrics,
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def cross_fitted(site: Site, error_rate: float, seed: int = 0) -> dict[str, Happened]:
    """Judge every case by limits that were fitted without its patient's fifth; nothing where there are too few."""
    images = site.answered
    _, group = np.unique(images.groups, return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(int(group.max()) + 1) % _FOLDS)[group]
    judged: dict[str, Happened] = {}
    for number in range(_FOLDS):
        rows = fold == number
        if not rows.any():
            return {}
        try:
            limits = site.fit(images.pick(~rows), error_rate)
        except TooFewCases:  # no error: the limits of all cases hold, and the caller says that they are not measured
            return {}
        for name, one in judge(images.pick(rows), site.names, site.findings, limits).items():
            whole = judged.setdefault(name, Happened(np.zeros(len(images), np.bool_), np.zeros(len(images), np.bool_)))
            whole.event[rows], whole.among[rows] = one.event, one.among
    return judged


def changes(before: Conformal | None, after: Conformal) -> Table:
    """Show what changes."""
    table = Table("limit", "before", "after")
    old, new = ({} if one is None else _numbers(one) for one in (before, after))
    for name, value in new.items():
        table.add_row(name, f"{old[name]:.4f}" if name in old else "none", f"{value:.4f}")
    for name, value in after.metrics.items():
        measured = None if before is None else before.metrics.get(name)
        interval = "" if value.low is None or value.high is None else f" ({value.low:.3f} to {value.high:.3f})"
        table.add_row(name, "none" if measured is None else f"{measured.value:.3f}", f"{value.value:.3f}{interval}")
    return table


def _numbers(limits: Conformal) -> Mapping[str, float]:
    bounds = {
        f"{name}, {side}": value
        for name, both in limits.findings.items()
        for side, value in {"absent to": both.absent_to, "present from": both.present_from}.items()
    }
    return {"error rate": limits.error_rate} | {f"{k}, from": v for k, v in limits.labels.items()} | bounds


def main(arguments: list[str] | None = None) -> int:
    """Entry point.

    Returns:
        0 where the limits were written into the bundle, 1 where there are too few cases for the error rate and nothing
        was written, 2 where something is missing or wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m export.calibrate", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="its folder")
    parser.add_argument("cases", type=Path, metavar="CASES", help="CSV file (file,label[,patient]) or class folders")
    parser.add_argument(
        "--error-rate",
        type=rate,
        default=0.1,
        metavar="RATE",
        help="share of each class that may be answered wrongly (default: %(default)s)",
    )
    parser.add_argument("--bootstrap", type=int, default=2000, metavar="N", help="resamples (default: %(default)s)")
    options = parser.parse_args(arguments)
    return run_command(parser.prog, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    console = Console(stderr=True, soft_wrap=True)
    bundle = read_bundle(options.bundle)
    try:
        site = answer_cases(bundle, read_cases(options.cases), console)
        found = calibrate(
            bundle.manifest,
            site,
            error_rate=options.error_rate,
            resamples=options.bootstrap,
            command=f"python -m export.calibrate {bundle.manifest.id} CASES --error-rate {options.error_rate:g}",
        )
        console.print(changes(bundle.manifest.conformal, found))
        if not found.metrics:
            needed = fewest_groups(options.error_rate)
            console.print(f"too few cases to measure the limits: that needs some more than {needed} patients a class")
        changes_made: dict[str, object] = {"conformal": found}
        pooling = bundle.manifest.series_pooling
        if pooling is not None and pooling.findings:
            changes_made["series_pooling"] = pooling.model_copy(update={"findings": {}, "error_rate": None})
            console.print("limits of series, which were fitted on other data, are gone: those of images decide series")
        dropped = rewrite(options.bundle, changes_made)
    except TooFewCases as error:
        console.print(f"nothing written: {error}", style="red", markup=False)
        return 1
    except ExportError as error:
        console.print(f"nothing written: {error}", style="red", markup=False)
        return 2
    console.print(f"{options.bundle}: calibrated{'; sign it again' if dropped else ''}", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
