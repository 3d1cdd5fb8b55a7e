"""What an explanation costs: fused in the forward pass, against a backward pass by the libraries that people use.

Milliseconds an image, median over interleaved rounds, at several batch sizes, on the same threads, for one network:

    onnx predict      a graph that gives logits only (pooling, then the linear layer), in ONNX Runtime
    fused explain     the bundle's graph as the service runs it: logits and the maps of all classes, and one map taken
    torch forward     the same network in torch, in inference mode
    captum            captum.attr.LayerGradCam at the same layer, for one known class
    pytorch-grad-cam  pytorch_grad_cam.GradCAM at the same layer, for one known class
    ..., tuned        the same with batch normalisation folded and weights in channels-last order, which nobody does for
                      these libraries by default, but could

A second table has every method of the service and its peers (`benchmarks.method_cost`).

The torch network has random weights: its cost does not depend on them. Captum and pytorch-grad-cam are given the
class, so that they need no forward pass of their own to find it.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import cast

import numpy as np
import onnx
import torch
from captum.attr import LayerGradCam
from onnx import helper, numpy_helper
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from benchmarks.harness import Cell, interleaved, machine, parser, save, show
from benchmarks.method_cost import measure_methods
from export.golden import phantoms
from export.graph import Body, Logits, Trunk, fuse_network
from export.parity import ChannelsFirst
from export.restore import network_of
from service.bundle import Bundle, read_bundle
from service.cuda import Session
from service.engine import Engine, open_graph
from service.explainers import METHODS
from service.explainers.base import DEFAULTS, Question, run_together
from service.types import Grey8, Target


def predict_only(model: onnx.ModelProto, bias: Sequence[float]) -> onnx.ModelProto:
    """The graph of a bundle with a linear head, without its maps: pooled features times the weights, plus the bias."""
    plain = copy.deepcopy(model)
    graph = plain.graph
    (maps,) = [node for node in graph.node if "cam" in node.output]
    if maps.op_type != "Conv":
        raise ValueError(f"the maps come from {maps.op_type}, not from a 1 x 1 convolution")
    features, weight = maps.input[0], maps.input[1]
    stored = {tensor.name.removesuffix(".half"): numpy_helper.to_array(tensor) for tensor in graph.initializer}
    matrix = stored[weight].astype(np.float32).reshape(stored[weight].shape[:2])
    kept = _needed(graph, features)
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(
        [
            numpy_helper.from_array(matrix, "predict.weight"),
            numpy_helper.from_array(np.array(bias, np.float32), "predict.bias"),
            numpy_helper.from_array(np.array([2, 3], np.int64), "predict.axes"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("ReduceMean", [features, "predict.axes"], ["predict.pooled"], keepdims=0),
            helper.make_node(
                "Gemm", ["predict.pooled", "predict.weight", "predict.bias"], ["logits"], alpha=1.0, beta=1.0, transB=1
            ),
        ]
    )
    used = {name for node in graph.node for name in node.input}
    held = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(held)
    outputs = [output for output in graph.output if output.name == "logits"]
    del graph.output[:]
    graph.output.extend(outputs)
    onnx.checker.check_model(plain, full_check=True)
    return plain


def _needed(graph: onnx.GraphProto, tensor: str) -> list[onnx.NodeProto]:
    """The nodes that a tensor is computed from, in their order."""
    makers = {output: number for number, node in enumerate(graph.node) for output in node.output}
    waiting, wanted = [tensor], set[int]()
    while waiting:
        number = makers.get(waiting.pop())
        if number is not None and number not in wanted:
            wanted.add(number)
            waiting += graph.node[number].input
    return [graph.node[number] for number in sorted(wanted)]


def contestants(
    bundle: Bundle, predictor: Session, engine: Engine, images: Grey8, size: int
) -> dict[str, Callable[[], object]]:
    """One call each, by name."""
    manifest = bundle.manifest
    network = network_of(bundle).eval()
    tuned = fuse_network(network, size, half=False).plain.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    target = (Target(manifest.class_names[0], 0),)

    def fused() -> object:
        outputs = engine.run(images)
        questions = [Question(image[..., 0], outputs.row(row), target) for row, image in enumerate(images)]
        return run_together(METHODS["gradcam"], questions, engine, DEFAULTS)

    return {
        "onnx predict": lambda: predictor.run(["logits"], {"images": images}),
        "fused explain": fused,
        **libraries(Logits(Body(Trunk(network), network.neck), network).eval(), images, ""),
        **libraries(tuned, images, ", tuned"),
    }


def libraries(plain: Logits, images: Grey8, suffix: str) -> dict[str, Callable[[], object]]:
    """Torch's forward pass, and the two libraries' Grad-CAM at the end of the trunk."""
    module = ChannelsFirst(plain)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    captum = LayerGradCam(module, plain.body)
    grad_cam = GradCAM(model=module, target_layers=[plain.body])
    targets = [cast(nn.Module, ClassifierOutputTarget(0))] * len(images)

    def forward() -> object:
        with torch.inference_mode():
            return module(pixels)

    return {
        f"torch forward{suffix}": forward,
        f"captum{suffix}": lambda: captum.attribute(pixels, target=0, relu_attributions=True),
        f"pytorch-grad-cam{suffix}": lambda: grad_cam(pixels, targets),
    }


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("explain_cost", __doc__)
    made.add_argument("--bundle", type=Path, default=Path("models/brain-mri-resnet50"), help="default: %(default)s")
    made.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    made.add_argument("--rounds", type=int, default=15, help="default: %(default)s; a quarter of them at 32 and above")
    made.add_argument("--threads", type=int, default=0, help="default: one for each core")
    made.add_argument("--method-rounds", type=int, default=2, help="of the table of all methods; 0 leaves it out")
    options = made.parse_args(arguments)
    warnings.filterwarnings("ignore", module="shap|torch|lime|captum")
    threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    bundle = read_bundle(options.bundle)
    size = bundle.manifest.preprocessing.size
    engine = open_graph(bundle.graph, threads=threads, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "predict.onnx"
        onnx.save(predict_only(onnx.load(bundle.graph), bundle.manifest.graph.bias or ()), plain)
        predictor = open_graph(plain, threads=threads, device="cpu").session
    _check_equal(predictor, engine, size)
    rows = [row for batch in options.batches for row in measure(bundle, predictor, engine, batch, options, size)]
    where = machine("cpu", threads)
    show(f"explain_cost: {bundle.manifest.id}, ms an image", rows, where)
    methods: list[dict[str, Cell]] = []
    if options.method_rounds:
        gradients = open_graph(bundle.gradients, threads=threads, device="cpu").session if bundle.gradients else None
        full = Engine(engine.session, "cpu", gradients)
        int8 = open_graph(bundle.int8, threads=threads, device="cpu") if bundle.int8 else None
        network = network_of(bundle).eval()
        plain = Logits(Body(Trunk(network), network.neck), network).eval()
        methods = measure_methods(bundle, full, int8, plain, phantoms(size)[0, ..., 0], options.method_rounds)
        show(f"explain_cost: {bundle.manifest.id}, every method, one image and one class", methods, where)
    save(options, where, rows=rows, methods=methods)
    return 0


def measure(
    bundle: Bundle,
    predictor: Session,
    engine: Engine,
    batch: int,
    options: argparse.Namespace,
    size: int,
) -> list[dict[str, Cell]]:
    """Rows of one batch size: the median, and how many times `fused explain` and `onnx predict` it takes."""
    drawn = [phantoms(size, seed) for seed in range(-(-batch // 4))]
    images = np.concatenate(drawn)[:batch]
    runs = contestants(bundle, predictor, engine, images, size)
    rounds = options.rounds if batch < 32 else max(3, options.rounds // 4)
    seconds = {name: median(values) for name, values in interleaved(runs, rounds, f"batch {batch}").items()}
    return [
        {
            "batch": batch,
            "what": name,
            "ms an image": 1000 * value / batch,
            "times fused explain": value / seconds["fused explain"],
            "times onnx predict": value / seconds["onnx predict"],
        }
        for name, value in seconds.items()
    ]


def _check_equal(predictor: Session, engine: Engine, size: int) -> None:
    """What is timed must predict the same."""
    images = phantoms(size)
    logits = np.asarray(predictor.run(["logits"], {"images": images})[0])
    np.testing.assert_allclose(logits, engine.run(images).logits, atol=1e-4)


if __name__ == "__main__":
    sys.exit(main())
