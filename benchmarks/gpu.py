"""What a CUDA device makes of the shipped models, beside the CPU of the same machine.

    python -m benchmarks.gpu [--json FILE]

    planning   milliseconds of a pass of 8 images after one of 8, and after one of 1: in one session of ONNX Runtime,
               by the way cuDNN looks for algorithms, and in sessions of fixed sizes (`service.cuda`)
    forward    milliseconds of a pass by precision and batch size, and the largest deviation of logits and maps from
               the CPU's, as a share of the largest value
    methods    milliseconds of an explanation of one image for one class by every method that the model offers, on the
               GPU and on the CPU (all cores), and how far the map deviates

Images are phantoms. Times are medians over the rounds, those of methods on the CPU one run each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness import Cell, machine, parser, save, show
from export.golden import phantoms
from service.bundle import Bundle, read_bundle
from service.cuda import SIZES
from service.engine import Engine, open_engine, open_graph, session_options
from service.explainers import offered
from service.explainers.base import Method, Options, Question, run_together
from service.types import Attribution, Float, Grey8, Target

BUNDLES = ("brain-mri-resnet50", "retinal-oct-oculusnet")
SEARCHES = ("HEURISTIC", "EXHAUSTIVE")
MAPS = ("logits", "cam")


def images_of(bundle: Bundle, count: int) -> Grey8:
    """So many phantoms, uint8 `[N, H, W, 1]`."""
    size = bundle.manifest.preprocessing.size
    return np.concatenate([phantoms(size, seed) for seed in range(-(-count // 4))])[:count]


def milliseconds(run: Callable[[], object], rounds: int, before: Callable[[], object] | None = None) -> float:
    """Median time of a call, each after a call of `before`."""
    took: list[float] = []
    for _ in range(rounds + 1):
        if before is not None:
            before()
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return 1000 * float(np.median(took[1:]))


def planning(bundle: Bundle, rounds: int) -> list[dict[str, Cell]]:
    """What a change of the batch size costs."""
    import onnxruntime

    one, eight = images_of(bundle, 1), images_of(bundle, 8)
    sessions: dict[str, Any] = {"sessions of fixed sizes": open_graph(bundle.graph, device="cuda").session}
    for search in SEARCHES:
        providers = [("CUDAExecutionProvider", {"cudnn_conv_algo_search": search}), "CPUExecutionProvider"]
        sessions[f"one session, {search.lower()}"] = onnxruntime.InferenceSession(
            bundle.graph, session_options(1), providers=providers
        )
    rows: list[dict[str, Cell]] = []
    for name, session in sessions.items():

        def run(images: Grey8, session: Any = session) -> object:  # noqa: ANN401 - onnxruntime.InferenceSession
            return session.run(list(MAPS), {"images": images})

        same = milliseconds(lambda run=run: run(eight), rounds)
        other = milliseconds(lambda run=run: run(eight), rounds, before=lambda run=run: run(one))
        rows.append({"model": bundle.path.name, "what": name, "after 8, ms": same, "after 1, ms": other})
    return rows


def forward(bundle: Bundle, cpu: Engine, rounds: int) -> list[dict[str, Cell]]:
    """Time and deviation by precision and batch size."""
    expected = cpu.run(images_of(bundle, max(SIZES)))
    opened = {
        "fp32": (bundle.graph, False),
        "fp32, products in TF32": (bundle.graph, True),
        **({"fp16": (bundle.fp16, True)} if bundle.fp16 else {}),
    }
    rows: list[dict[str, Cell]] = []
    for name, (graph, tf32) in opened.items():
        engine = open_graph(graph, device="cuda", tf32=tf32)
        found = engine.run(images_of(bundle, max(SIZES)))
        row: dict[str, Cell] = {"model": bundle.path.name, "precision": name}
        for size in SIZES:
            images = images_of(bundle, size)
            row[f"{size}, ms"] = milliseconds(lambda engine=engine, images=images: engine.run(images), rounds)
        row["logits deviate"] = deviation(found.logits, expected.logits)
        row["maps deviate"] = deviation(found.cam, expected.cam)
        rows.append(row)
    images = images_of(bundle, max(SIZES))
    row = {"model": bundle.path.name, "precision": "CPU, fp32"}
    for size in SIZES:
        row[f"{size}, ms"] = milliseconds(lambda size=size: cpu.run(images[:size]), max(1, rounds // 10))
    rows.append(row | {"logits deviate": 0.0, "maps deviate": 0.0})
    return rows


def methods(bundle: Bundle, engines: Mapping[str, Engine], rounds: int) -> list[dict[str, Cell]]:
    """Every method with its default budget, on either device."""
    image = images_of(bundle, 1)[0, ..., 0]
    rows: list[dict[str, Cell]] = []
    for name, method in tqdm(offered(bundle.manifest).items(), desc=bundle.path.name, leave=False):
        runs = {device: partial(explanation, method, image, bundle, engine) for device, engine in engines.items()}
        start = time.perf_counter()
        expected = runs["CPU"]()
        on_cpu = 1000 * (time.perf_counter() - start)
        found = runs["GPU"]()
        rows.append(
            {
                "model": bundle.path.name,
                "method": name,
                "evaluations": found.evaluations,
                "GPU, ms": milliseconds(runs["GPU"], rounds),
                "CPU, ms": on_cpu,
                "map deviates": deviation(found.values, expected.values),
            }
        )
    return rows


def explanation(method: Method, image: Grey8, bundle: Bundle, engine: Engine) -> Attribution:
    """Of one image uint8 `[H, W]`, for the first class."""
    outputs = engine.run(image[None, ..., None], sorted(method.outputs)).row(0)
    question = Question(image, outputs, (Target(bundle.manifest.class_names[0], 0),))
    ((found,),) = run_together(method, [question], engine, Options(), batch=max(SIZES))
    return found


def deviation(found: Float, expected: Float) -> float:
    """Largest difference as a share of the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("gpu", __doc__)
    made.add_argument("--models", type=Path, default=Path("models"), help="default: %(default)s")
    made.add_argument("--rounds", type=int, default=20, help="default: %(default)s")
    options = made.parse_args(arguments)
    planned: list[dict[str, Cell]] = []
    passes: list[dict[str, Cell]] = []
    explained: list[dict[str, Cell]] = []
    for name in BUNDLES:
        bundle = read_bundle(options.models / name)
        engines = {"GPU": open_engine(bundle, device="cuda"), "CPU": open_engine(bundle, device="cpu")}
        planned += planning(bundle, max(3, options.rounds // 4))
        passes += forward(bundle, engines["CPU"], options.rounds)
        explained += methods(bundle, engines, max(2, options.rounds // 4))
    where = machine("cuda", 0)
    show("a pass of 8 images", planned, where)
    show("forward passes by batch size", passes, where)
    show("explanations", explained, where)
    save(options, where, planning=planned, forward=passes, methods=explained)
    return 0


if __name__ == "__main__":
    sys.exit(main())
