"""From a checkpoint and its report to a bundle on disk: all of it, or nothing."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from rich.console import Console

from export.card import model_card
from export.description import Description
from export.golden import phantoms
from export.gradients import gradient_graph
from export.graph import Fused, fuse_network
from export.onnx_file import OPSET, save_sharing_weights, to_onnx
from export.parity import check_parity, run_module
from service.bundle import CARD, FP16, GOLDEN, GRADIENTS, GRAPH, INT8, MANIFEST, WEIGHTS, read_bundle, sha256
from service.engine import Engine, check_golden, open_graph
from service.explainers import METHODS
from service.manifest import (
    Estimate,
    Evaluation,
    Explanation,
    Finding,
    Graph,
    Manifest,
    OperatingPoint,
    Provenance,
    Reduced,
)
from service.types import Grey8
from training.bootstrap import Estimate as Measured
from training.calibration import probabilities
from training.checkpoint import load_network
from training.config import TrainConfig
from training.datasets.prepared import cached_at
from training.inference import make_runner
from training.models.network import Network
from training.report import Report, load_report

PARITY_IMAGES = 32


class ExportError(Exception):
    """The parts do not belong together, or one is missing; the message says which and what to run."""


@dataclass(frozen=True, slots=True)
class TestImages:
    """The images that the report stands on: prepared, uint8 `[N, H, W, 1]`, with labels int64 `[N]`."""

    __test__ = False  # not a test, whatever pytest makes of the name

    images: Grey8
    labels: NDArray[np.int64]


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
        findings=_findings(description, report),
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
        provenance=_provenance(network, config, report, description, checkpoint_digest),
        evaluation=_evaluation(report, {}),
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


def write_bundle(
    out: Path,
    fused: Fused,
    graph: onnx.ModelProto,
    manifest: Manifest,
    images: Grey8,
    console: Console,
    *,
    reduced: Mapping[Reduced, onnx.ModelProto] = MappingProxyType({}),
    complete: Callable[[Engine, Manifest], Manifest] = lambda engine, manifest: manifest,
) -> Manifest:
    """Check and write: all of it, or nothing. An older bundle at `out` is replaced.

    Args:
        out: the bundle's folder.
        fused: the network.
        graph: traced from it (`to_onnx`, with every output that it has).
        manifest: what is known already; graphs, explanations (but for their quality), parity and digests are filled in.
        images: real images for the checks, prepared, uint8 `[N, H, W, 1]`.
        console: where progress is told.
        reduced: graphs of less precision that are to be shipped.
        complete: adds to the manifest what needs the engine.

    Raises:
        ParityError: the graphs do not do what the network does.
    """
    size = manifest.preprocessing.size
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        bundle = Path(folder) / out.name
        bundle.mkdir()
        graphs = {GRAPH: graph, GRADIENTS: gradient_graph(fused.module, size)}
        if "fp16" in reduced:
            graphs[FP16] = reduced["fp16"]
        save_sharing_weights(graphs, bundle)
        if "int8" in reduced:
            onnx.save(reduced["int8"], bundle / INT8)
        sessions = [open_graph(bundle / name, device="cpu").session for name in (GRAPH, GRADIENTS)]
        engine = Engine(sessions[0], "cpu", sessions[1])
        console.print("checking the graphs against torch and pytorch-grad-cam")
        parity = check_parity(fused, engine, images)
        golden = _golden(fused, size, bundle / INT8 if "int8" in reduced else None)
        np.savez_compressed(bundle / GOLDEN, allow_pickle=False, **golden)
        names = (*graphs, WEIGHTS, GOLDEN, *((INT8,) if "int8" in reduced else ()))
        files = {name: sha256(bundle / name) for name in names}
        cam = golden["cam"]
        described = manifest.graph.model_copy(
            update={"grid": (cam.shape[2], cam.shape[3]), "outputs": fused.module.names, "bias": fused.bias}
        )
        manifest = manifest.model_copy(
            update={
                "graph": described,
                "explanations": _explanations(fused, manifest.explanations),
                "parity": parity,
                "files": files,
            }
        )
        manifest = complete(engine, manifest)
        (bundle / CARD).write_text(model_card(manifest))
        manifest = manifest.model_copy(update={"files": files | {CARD: sha256(bundle / CARD)}})
        (bundle / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
        check_golden(read_bundle(bundle), engine)
        put_in_place(bundle, out)
    return manifest


def _golden(fused: Fused, size: int, int8: Path | None) -> dict[str, NDArray[np.generic]]:
    """Drawn images with what torch makes of them, and ONNX Runtime of the quantised graph."""
    images = phantoms(size)
    expected = run_module(fused.module, images)
    pixels = torch.from_numpy(images.astype(np.float32)).requires_grad_()
    (gradient,) = torch.autograd.grad(fused.plain(pixels)[:, 0].sum(), pixels)
    golden: dict[str, NDArray[np.generic]] = {
        "images": images,
        "logits": expected.logits,
        "cam": expected.cam,
        **expected.more,
        "gradient": gradient[..., 0].numpy(),
    }
    if int8 is not None:
        found = open_graph(int8, device="cpu").run(images, fused.module.names)
        golden |= {"int8.logits": found.logits, "int8.cam": found.cam}
        golden |= {f"int8.{name}": value for name, value in found.more.items()}
    return golden


def read_test_images(report_folder: Path, config: TrainConfig) -> TestImages:
    """Images and labels of a report, from its predictions and its cache.

    Raises:
        ExportError: the report has no predictions, or its prepared images are gone.
    """
    predictions = report_folder / "predictions.csv"
    if not predictions.exists():
        raise ExportError(f"{predictions} is missing; run python -m training evaluate")
    with predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))
    path = cached_at(report_folder / "cache", [row["id"] for row in rows], config.preprocessing)
    if not path.exists():
        raise ExportError(f"{path} is missing; run python -m training evaluate without --cache")
    images = np.load(path, mmap_mode="r")[:, 0]
    labels = np.array([config.classes.index(row["label"]) for row in rows], np.int64)
    return TestImages(images[..., None], labels)


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


def spread(test: TestImages, count: int) -> Grey8:
    """About `count` images, the same number of every class, spread over each."""
    classes = np.unique(test.labels)
    each = -(-count // len(classes))
    rows: list[int] = []
    for label in classes:
        members = np.flatnonzero(test.labels == label)
        rows += members[np.linspace(0, len(members) - 1, min(each, len(members))).astype(int)].tolist()
    return np.ascontiguousarray(test.images[np.unique(rows)])


def _findings(description: Description, report: Report) -> tuple[Finding, ...]:
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


def _explanations(fused: Fused, known: Sequence[Explanation]) -> tuple[Explanation, ...]:
    """What the bundle can explain with; the quality that is known of a method stays."""
    quality = {explanation.method: explanation.quality for explanation in known}
    linear = fused.cam == "class_activation"
    return tuple(
        Explanation(
            method=name,
            exact=method.exact,
            meaning=method.meaning,
            source=method.source,
            quality=quality.get(name, {}),
        )
        for name, method in METHODS.items()
        if method.outputs <= set(fused.module.names) and (linear or not method.linear_head)
    )


def _provenance(
    network: Network, config: TrainConfig, report: Report, description: Description, checkpoint_digest: str
) -> Provenance:
    return Provenance(
        network=config.network,
        parameters=sum(p.numel() for p in network.parameters()),
        training_data=description.training_data,
        data_sha256=report.data_digest,
        split_sha256=report.split_digest,
        checkpoint_sha256=checkpoint_digest,
        initial_weights=description.initial_weights,
        epochs=config.epochs,
    )


def _evaluation(report: Report, half: dict[str, float]) -> Evaluation:
    def estimates(values: Mapping[str, Measured]) -> dict[str, Estimate]:
        return {name: Estimate(value=v.value, low=v.low, high=v.high) for name, v in values.items()}

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


def put_in_place(bundle: Path, out: Path) -> None:
    """Put a finished bundle in the place of an older one."""
    if out.exists():
        old = bundle.parent / "old"
        out.rename(old)
        bundle.rename(out)
        shutil.rmtree(old)
    else:
        bundle.rename(out)
