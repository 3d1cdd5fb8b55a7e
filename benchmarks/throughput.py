"""Images a second by batch size, on a GPU where there is one: predict, Grad-CAM and Shapley values, ours and peers'.

    python -m benchmarks.throughput [--device cuda] [--json FILE]

    predict            the bundle's graph, logits and class activation maps fetched
    gradcam            the same, and one map taken for each image
    shapley 500        500 images through the model for each image, in batches of that size
    pytorch-grad-cam   pytorch_grad_cam.GradCAM on the same device
    captum             captum.attr.LayerGradCam on the same device
    torch forward      the network in inference mode

The last column is the share of the device's peak for float32 matrix products, as one large product reaches it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Cell, interleaved, machine, parser, save, show
from export.golden import phantoms
from export.parity import ChannelsFirst
from export.restore import restore
from service.bundle import read_bundle
from service.engine import open_engine
from service.explainers import METHODS
from service.explainers.base import DEFAULTS, Question, run_together
from service.types import Grey8, Target


def matrix_peak(device: str, side: int = 4096) -> float:
    """Floating-point operations a second of one large float32 product."""
    a = torch.rand(side, side, device=device)
    for _ in range(2):
        torch.matmul(a, a)
    _settle(device)
    start = time.perf_counter()
    for _ in range(4):
        torch.matmul(a, a)
    _settle(device)
    return 4 * 2 * side**3 / (time.perf_counter() - start)


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("throughput", __doc__)
    made.add_argument("--bundle", type=Path, default=Path("models/brain-mri-resnet50"), help="default: %(default)s")
    made.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 64, 128, 256])
    made.add_argument("--rounds", type=int, default=10, help="default: %(default)s")
    made.add_argument("--shapley", type=int, default=500, help="evaluations for one image (default: %(default)s)")
    made.add_argument("--peak-side", type=int, default=4096, help="of the product that the peak is taken from")
    options = made.parse_args(arguments)
    device: str = options.device
    bundle = read_bundle(options.bundle)
    size = bundle.manifest.preprocessing.size
    engine = open_engine(bundle, device=device)
    plain = restore(bundle).plain.to(device)
    module = ChannelsFirst(plain)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(torch.zeros(1, 1, size, size, device=device))
    operations, peak = counter.get_total_flops(), matrix_peak(device, options.peak_side)
    target = (Target(bundle.manifest.class_names[0], 0),)
    rows: list[dict[str, Cell]] = []
    for batch in options.batches:
        images = np.concatenate([phantoms(size, seed) for seed in range(-(-batch // 4))])[:batch]
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(device)
        grad_cam = GradCAM(model=module, target_layers=[plain.body])
        captum = LayerGradCam(module, plain.body)
        wanted = [cast(nn.Module, ClassifierOutputTarget(0))] * batch

        def explain(images: Grey8 = images) -> object:
            outputs = engine.run(images)
            questions = [Question(image[..., 0], outputs.row(row), target) for row, image in enumerate(images)]
            return run_together(METHODS["gradcam"], questions, engine, DEFAULTS)

        def forward(pixels: torch.Tensor = pixels) -> object:
            with torch.inference_mode():
                return module(pixels).cpu()

        runs: dict[str, Callable[[], object]] = {
            "predict": lambda images=images: engine.run(images),
            "gradcam": explain,
            "torch forward": forward,
            "captum": lambda pixels=pixels, captum=captum: captum.attribute(pixels, target=0),
            "pytorch-grad-cam": lambda pixels=pixels, wanted=wanted, cam=grad_cam: cam(pixels, wanted),
        }
        for name, values in interleaved(runs, options.rounds, f"batch {batch}").items():
            rate = batch / float(np.median(values))
            rows.append({"batch": batch, "what": name, "images a second": rate, "of peak": rate * operations / peak})
        start = time.perf_counter()
        for _ in range(0, options.shapley, batch):
            engine.run(images)
        explained = 1 / (time.perf_counter() - start)
        rows.append(
            {"batch": batch, "what": f"shapley {options.shapley}", "images a second": explained, "of peak": None}
        )
    where = machine(engine.provider, 0)
    show(f"throughput: {bundle.manifest.id}", rows, where)
    save(options, where, peak_operations_a_second=peak, operations_an_image=operations, rows=rows)
    return 0


def _settle(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
