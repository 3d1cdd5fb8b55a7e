"""From a classifier's checkpoint and its report to a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console

from export.description import Description
from export.errors import ExportError
from export.graph import fuse_network
from export.onnx_file import OPSET, to_onnx
from export.provenance import estimates, provenance
from export.report_images import TestImages, read_test_images, spread
from export.writer import write_bundle
from service.bundle import sha256
from service.engine import Engine
from service.manifest import (
    Evaluation,
    Explanation,
    Finding,
    Graph,
    Manifest,
    OperatingPoint,
)
from training.calibration import probabilities
from training.checkpoint import load_network
from training.config import TrainConfig
from training.inference import make_runner
from training.models.network import Network
from training.report import Report, load_report

PARITY_IMAGES = 32


def export(checkpoint: Path, out: Path, report_folder: Path, description: Description, console: Console) -> Manifest:
    """Write the bundle of a checkpoint; an older one at `out` is replaced once the new one is complete and verified.

    Args:
        checkpoint: `last.pt` of a run.
        out: the bundle's folder.
        report_folder: what `python -m training evaluate` wrote, with its cache of prepared images.
        description: the model in words.
        console: where progress is told.

    Raises:
        ExportError: checkpoint, report and description do not belong together.
        ParityError: the graph does not do what the network does. Nothing is written.
    """
    network, config = load_network(checkpoint)
    report = load_report(report_folder)
    checkpoint_digest = sha256(checkpoint)
    _belong_together(config, report, description, checkpoint_digest)
    test = read_test_images(report_folder, config)
    out.parent.mkdir(parents=True, exist_ok=True)
    console.print("folding, fusing and tracing")
    fused = fuse_network(network, config.preprocessing.size)
    manifest = Manifest(
        id=description.id,
        version=description.version,
        title=description.title,
        labels=description.labels,
        findings=findings_of(description, report),
        kind=description.kind,
        preprocessing=config.preprocessing,
        graph=Graph(
            opset=OPSET,
            grid=(1, 1),  # `write_bundle` fills in what it makes
            outputs=(),
            cam=fused.cam,
            target_layer="the last feature maps before pooling",
            weights="float16",
            bias=fused.bias,
        ),
        explanations=(Explanation(method="gradcam", exact=True, meaning="", source=""),),
        default_explanation="gradcam",
        temperature=report.temperature,
        provenance=provenance(network, config, report, description, checkpoint_digest),
        evaluation=evaluation_of(report, {}),
        parity=(),
        intended_use=description.intended_use,
        limits=description.limits,
        licence=description.licence,
        references=description.references,
        files={},
    )

    def with_half(engine: Engine, manifest: Manifest) -> Manifest:
        console.print("measuring what half precision costs")
        half = half_precision_loss(network, engine, test, report.temperature)
        evaluation = manifest.evaluation.model_copy(update={"half_precision": half})
        return manifest.model_copy(update={"evaluation": evaluation})

    graph = to_onnx(fused.module, config.preprocessing.size, fused.module.names)
    return write_bundle(out, fused, graph, manifest, spread(test, PARITY_IMAGES), console, complete=with_half)


def half_precision_loss(network: Network, engine: Engine, test: TestImages, temperature: float) -> dict[str, float]:
    """What storing half-precision weights changes on the test images, against the network in float32."""
    runner = make_runner(network, test.images.shape[1])
    full = probabilities(runner(test.images[..., 0], "float32 network").logits, temperature)
    logits = [engine.run(np.ascontiguousarray(test.images[i : i + 32])).logits for i in range(0, len(test.labels), 32)]
    stored = probabilities(np.concatenate(logits), temperature)
    before, after = full.argmax(axis=1), stored.argmax(axis=1)
    return {
        "images": float(len(test.labels)),
        "accuracy_float32": float((before == test.labels).mean()),
        "accuracy_stored": float((after == test.labels).mean()),
        "labels_changed": float((before != after).sum()),
        "largest_probability_change": float(np.abs(full - stored).max()),
    }


def _belong_together(config: TrainConfig, report: Report, description: Description, checkpoint_digest: str) -> None:
    if report.checkpoint_digest != checkpoint_digest:
        raise ExportError("the report is of another checkpoint; run python -m training evaluate again")
    if report.part != "test":
        raise ExportError(f"the report is of the {report.part} part; a bundle states what the test part gave")
    if report.size != config.preprocessing.size:
        raise ExportError(f"the report is of input size {report.size}, the bundle's is {config.preprocessing.size}")
    names = tuple(label.name for label in description.labels)
    if names != config.classes:
        raise ExportError(f"the description's labels {list(names)} are not the checkpoint's {list(config.classes)}")
    healthy = {label.name for label in description.labels if label.healthy}
    if healthy != set(config.healthy):
        raise ExportError(f"the description calls {sorted(healthy)} healthy, the checkpoint {sorted(config.healthy)}")


def findings_of(description: Description, report: Report) -> tuple[Finding, ...]:
    """Every finding is any label that is not healthy: that is what the report's operating points are chosen for."""
    points = {point.name: point for point in report.operating_points if point.threshold is not None}
    labels = tuple(label.name for label in description.labels if not label.healthy)
    found: list[Finding] = []
    for finding in description.findings:
        if finding.operating_point not in points:
            raise ExportError(f"the report has no operating point {finding.operating_point!r}; it has {sorted(points)}")
        point = points[finding.operating_point]
        operating = OperatingPoint(threshold=point.threshold or 0.0, chosen_by=point.chosen_by)
        found.append(
            Finding(
                name=finding.name,
                display=finding.display,
                labels=labels,
                code=finding.code,
                operating_point=operating,
            )
        )
    return tuple(found)


def evaluation_of(report: Report, half: dict[str, float]) -> Evaluation:
    """Put into the manifest what a report measured; `half` is what storing half-precision weights changed."""
    points = {
        f"finding_{metric}_at_{point.name}": value
        for point in report.operating_points
        if point.threshold is not None
        for metric, value in point.measured.items()
    }
    return Evaluation(
        part=report.part,
        images=report.images,
        groups=report.groups,
        command=report.command,
        date=report.date,
        metrics=estimates(report.metrics | points),
        half_precision=half,
        localisation=estimates(report.localisation),
        shortcut=estimates(report.shortcut),
    )
