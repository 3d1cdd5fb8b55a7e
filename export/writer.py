"""From graphs and a manifest to a bundle on disk: all of it, or nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from rich.console import Console

from export.card import model_card
from export.golden import phantoms
from export.gradients import gradient_graph
from export.graph import Fused
from export.onnx_file import save_sharing_weights
from export.parity import check_parity, run_module
from service.bundle import CARD, FP16, GOLDEN, GRADIENTS, GRAPH, INT8, MANIFEST, WEIGHTS, read_bundle, sha256
from service.engine import Engine, check_golden, open_graph
from service.explainers import METHODS
from service.manifest import Explanation, Manifest, Reduced
from service.types import Grey8


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


def put_in_place(bundle: Path, out: Path) -> None:
    """Put a finished bundle in the place of an older one."""
    if out.exists():
        old = bundle.parent / "old"
        out.rename(old)
        bundle.rename(out)
        shutil.rmtree(old)
    else:
        bundle.rename(out)


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
