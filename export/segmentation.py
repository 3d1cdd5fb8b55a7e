"""From a segmentation checkpoint and its report to a bundle of task `segmentation`: all of it, or nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

import numpy as np
import torch
from rich.console import Console
from torch import fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.card import segmentation_card
from export.description import Description
from export.errors import ExportError
from export.golden import phantoms
from export.graph import round_to_half
from export.onnx_file import OPSET, save_sharing_weights, trace
from export.parity import ParityError
from export.provenance import estimates, provenance
from export.writer import put_in_place
from service.bundle import CARD, GOLDEN, GRAPH, MANIFEST, WEIGHTS, sha256
from service.manifest import Evaluation, OperatingPoint, ParityCheck
from service.segmenter import SegmentationManifest, open_segmenter
from service.types import Float, Grey8
from training.datasets.prepared import cached_at
from training.models.unet import MaskGraph, UNet
from training.segmentation.config import SegmentationConfig
from training.segmentation.loop import load_unet
from training.segmentation.report import SegmentationReport, load_report, load_scores

PARITY_IMAGES = 32
TOLERANCE = 1e-4  # of a probability
_BATCH = 16


def export_segmentation(
    checkpoint: Path, out: Path, report_folder: Path, description: Description, console: Console
) -> SegmentationManifest:
    """Write the bundle of a checkpoint; an older one at `out` is replaced once the new one is complete and verified.

    Args:
        checkpoint: `last.pt` of a run.
        out: the bundle's folder.
        report_folder: what `python -m training segment evaluate` wrote, with its cache of prepared images.
        description: the model in words; its one label is what is outlined.
        console: where progress is told.

    Raises:
        ExportError: checkpoint, report and description do not belong together.
        ParityError: the graph does not do what the network does. Nothing is written.
    """
    network, config = load_unet(checkpoint)
    report = load_report(report_folder)
    digest = sha256(checkpoint)
    if report.checkpoint_digest != digest:
        raise ExportError("the report is of another checkpoint; run python -m training segment evaluate again")
    if len(description.labels) != 1:
        raise ExportError(f"a segmentation model outlines one label; the description has {len(description.labels)}")
    images = _test_images(report_folder, config)
    out.parent.mkdir(parents=True, exist_ok=True)
    console.print("folding and tracing")
    stored = folded(network)
    round_to_half(stored)
    size = config.preprocessing.size
    graph = trace(stored, {"images": torch.zeros(2, size, size, 1, dtype=torch.uint8)}, ["mask"])
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        bundle = Path(folder) / out.name
        bundle.mkdir()
        save_sharing_weights({GRAPH: graph}, bundle)
        golden = phantoms(size)
        np.savez_compressed(bundle / GOLDEN, allow_pickle=False, images=golden, mask=masks_of(stored, golden))
        console.print("checking the graph against torch on test images")
        parity, half = _check(bundle, MaskGraph(network).eval(), stored, images, report.threshold)
        files = {name: sha256(bundle / name) for name in (GRAPH, WEIGHTS, GOLDEN)}
        manifest = _manifest(network, config, report, description, digest).model_copy(
            update={"parity": parity, "files": files}
        )
        evaluation = manifest.evaluation.model_copy(update={"half_precision": half})
        manifest = manifest.model_copy(update={"evaluation": evaluation})
        (bundle / CARD).write_text(segmentation_card(manifest))
        manifest = manifest.model_copy(update={"files": files | {CARD: sha256(bundle / CARD)}})
        (bundle / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
        open_segmenter(bundle, device="cpu")
        put_in_place(bundle, out)
    return manifest


def folded(network: UNet) -> nn.Module:
    """The graph to export, in which batch normalisation is folded into the convolutions before it; a copy.

    What is folded here need not be folded by the exporter, after which weights would no longer be the rounded ones.

    Args:
        network: in evaluation mode.
    """
    traced = cast(fx.GraphModule, fuse(fx.symbolic_trace(MaskGraph(network).eval())))  # copies; plain convolutions
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        norm, before = modules.get(str(node.target)), node.args[0] if node.args else None
        if not isinstance(norm, nn.BatchNorm2d) or not isinstance(before, fx.Node):
            continue
        risen = modules.get(str(before.target))
        if isinstance(risen, nn.ConvTranspose2d) and len(before.users) == 1:
            traced.set_submodule(str(before.target), fuse_conv_bn_eval(risen, norm, transpose=True))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.recompile()
    return traced


def masks_of(graph: nn.Module, images: Grey8) -> Float:
    """Probabilities float32 `[N, H, W]` of prepared images uint8 `[N, H, W, 1]`, by torch in float32."""
    with torch.inference_mode():
        rows = [graph(torch.from_numpy(np.array(images[i : i + _BATCH]))) for i in range(0, len(images), _BATCH)]
    return torch.cat(rows).numpy()


def _test_images(report_folder: Path, config: SegmentationConfig) -> Grey8:
    """Test images that the report stands on, spread over all: uint8 `[N, S, S, 1]`."""
    ids = [score.id for score in load_scores(report_folder)]
    path = cached_at(report_folder / "cache", ids, config.preprocessing)
    if not path.exists():
        raise ExportError(f"{path} is missing; run python -m training segment evaluate without --cache")
    stack = np.load(path, mmap_mode="r")
    rows = np.unique(np.linspace(0, len(stack) - 1, min(PARITY_IMAGES, len(stack))).astype(int))
    return np.array(stack[rows, 0])[..., None]


def _check(
    bundle: Path, full: nn.Module, stored: nn.Module, images: Grey8, threshold: float
) -> tuple[tuple[ParityCheck, ...], dict[str, float]]:
    """The graph against torch with the same weights, and against the weights before they were rounded."""
    import onnxruntime

    session = onnxruntime.InferenceSession(bundle / GRAPH, providers=["CPUExecutionProvider"])
    rows = [session.run(["mask"], {"images": images[i : i + _BATCH]})[0] for i in range(0, len(images), _BATCH)]
    found = np.concatenate([np.asarray(row, np.float32) for row in rows])
    deviation = float(np.abs(found - masks_of(stored, images)).max())
    if not deviation <= TOLERANCE:
        raise ParityError(f"mask_equals_torch: {deviation:.2g}, allowed {TOLERANCE:.0e}")
    before = masks_of(full, images)
    half = {
        "images": float(len(images)),
        "largest_probability_change": float(np.abs(before - found).max()),
        "pixels_changed": float(((before >= threshold) != (found >= threshold)).mean()),
    }
    return (ParityCheck(check="mask_equals_torch", deviation=deviation, tolerance=TOLERANCE, images=len(images)),), half


def evaluation_of(report: SegmentationReport, half: dict[str, float]) -> Evaluation:
    """Put into the manifest what a report measured; `half` is what storing half-precision weights changed."""
    return Evaluation(
        part=report.part,
        images=report.outlined_images + report.empty_images,
        groups=report.groups,
        command=report.command,
        date=report.date,
        metrics=estimates(report.metrics),
        half_precision=half,
        localisation={},
        shortcut={},
    )


def _manifest(
    network: UNet, config: SegmentationConfig, report: SegmentationReport, description: Description, digest: str
) -> SegmentationManifest:
    return SegmentationManifest(
        id=description.id,
        version=description.version,
        title=description.title,
        task="segmentation",
        label=description.labels[0],
        operating_point=OperatingPoint(threshold=report.threshold, chosen_by=report.threshold_chosen_by),
        opset=OPSET,
        weights="float16",
        kind=description.kind,
        preprocessing=config.preprocessing,
        provenance=provenance(network, config, report, description, digest),
        evaluation=evaluation_of(report, {}),
        parity=(),
        intended_use=description.intended_use,
        limits=description.limits,
        licence=description.licence,
        references=description.references,
        files={},
    )
