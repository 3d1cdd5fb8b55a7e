"""Answers for invented series, as the pipeline would give them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from service.assessment import Assessment
from service.manifest import Manifest
from service.prediction import predict
from service.rendering import on_frame
from service.series.answer import SeriesAnswer, SeriesFinding, SlicePrediction
from service.series.reading import Series, read_series
from service.types import Attribution, Region, Target
from tests.dicom_writers import classic_mr, enhanced_mr, ophthalmic_tomography, saved

MODELS = Path(__file__).parents[3] / "models"
BRAIN, RETINA = "brain-mri-resnet50", "retinal-oct-oculusnet"
NOWHERE = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "FrameOfReferenceUID": None}


def images(count: int = 4, rows: int = 40, columns: int = 32) -> list[np.ndarray]:
    """Grey images, uint8, all different."""
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (rows, columns)).astype(np.uint8) for _ in range(count)]


def answer_for(source: list[Dataset], model: str = BRAIN, shift: float = 0.2) -> SeriesAnswer:
    """An answer for a series, with saliency around `shift`."""
    (series,) = read_series(saved(ds) for ds in source)
    return answer_to(series, model, shift)


def answer_to(series: Series, model: str = BRAIN, shift: float = 0.2) -> SeriesAnswer:
    manifest = read_manifest(model)
    rng = np.random.default_rng(3)
    target = Target(manifest.labels[0].name, 0)
    slices, saliency = [], []
    for one in series.slices:
        height, width = one.frame.pixels.shape
        region = Region(width * 0.1, height * 0.1, width * 0.8, height * 0.8)
        values = rng.normal(shift, 1, (7, 7)).astype(np.float32)
        logits = rng.normal(size=len(manifest.labels)).astype(np.float32)
        slices.append(
            SlicePrediction(
                predict(logits, manifest),
                region,
                Attribution("gradcam", target, values, exact=True),
                Assessment(),
            )
        )
        saliency.append(on_frame(values, region, (height, width)))
    pooled = slices[0].prediction
    findings = tuple(
        SeriesFinding(one.name, one.probability, one.decision, tuple(range(len(slices)))[:2]) for one in pooled.findings
    )
    return SeriesAnswer(
        series=series,
        manifest=manifest,
        method="gradcam",
        slices=tuple(slices),
        findings=findings,
        label=pooled.label,
        probabilities=pooled.probabilities,
        saliency=np.stack(saliency),
        assessment=Assessment(),
    )


@cache
def read_manifest(model: str) -> Manifest:
    return Manifest.model_validate_json((MODELS / model / "manifest.json").read_bytes())


@cache
def answer(source: str) -> SeriesAnswer:
    """An answer for each of `SOURCES`."""
    return SOURCES[source]()


def _without_pixels_of(answer: SeriesAnswer, index: int) -> SeriesAnswer:
    """The same answer with a slice left out."""
    kept = [i for i in range(len(answer.slices)) if i != index]
    series = replace(answer.series, slices=tuple(answer.series.slices[i] for i in kept))
    return replace(answer, series=series, slices=tuple(answer.slices[i] for i in kept), saliency=answer.saliency[kept])


def _weakened(answer: SeriesAnswer, index: int) -> SeriesAnswer:
    """The same answer with little evidence in one slice."""
    share = np.ones((len(answer.slices), 1, 1), np.float32)
    share[index] = 0.1
    slices = list(answer.slices)
    saliency = slices[index].saliency
    slices[index] = replace(slices[index], saliency=replace(saliency, values=saliency.values * np.float32(0.1)))
    return replace(answer, saliency=answer.saliency * share, slices=tuple(slices))


def repeated(count: int = 2) -> list[Dataset]:
    """A series whose places are each imaged twice, as over time."""
    times = [classic_mr(images()[:count], f"time {time}") for time in range(2)]
    for series in times:
        for ds in series:
            ds.StudyInstanceUID = times[0][0].StudyInstanceUID
            ds.SeriesInstanceUID = times[0][0].SeriesInstanceUID
            ds.FrameOfReferenceUID = times[0][0].FrameOfReferenceUID
    for index, ds in enumerate(ds for series in times for ds in series):
        ds.InstanceNumber = index + 1
        ds.AcquisitionTime = f"10{index:02}00"
        ds.PixelData = np.roll(np.frombuffer(ds.PixelData, np.uint16), index).tobytes()
    return [ds for series in times for ds in series]


SOURCES = {
    "classic": lambda: answer_for(classic_mr(images(), window=(128, 256))),
    "classic, one slice": lambda: answer_for(classic_mr(images(1))),
    "enhanced": lambda: answer_for([enhanced_mr(images())]),
    "enhanced, a frame left out": lambda: _without_pixels_of(answer_for([enhanced_mr(images())]), 1),
    "tomography": lambda: answer_for([ophthalmic_tomography(images())], RETINA),
    "left eye": lambda: answer_for([ophthalmic_tomography(images(2), "left", laterality="L")], RETINA),
    "repeated": lambda: answer_for(repeated()),
    "nowhere": lambda: answer_for(classic_mr(images(), "nowhere", **NOWHERE)),
    "nowhere, weak slices": lambda: _weakened(answer("nowhere"), 1),
    "inverse": lambda: answer_for(classic_mr(images(), "inverse", PhotometricInterpretation="MONOCHROME1")),
}
