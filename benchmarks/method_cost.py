"""Contestants of `benchmarks.explain_cost`: every method of the service and its peers, one image, one class.

Where a method asks the model many questions, the number of evaluations is the same on both sides or stated.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any, cast

import captum.attr
import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from benchmarks.explanation_parity import CAMS
from benchmarks.harness import Cell, interleaved
from export.graph import Logits
from export.parity import ChannelsFirst
from service.bundle import Bundle
from service.engine import Engine
from service.explainers import lime as our_lime
from service.explainers import occlusion, offered
from service.explainers.base import Options, Question, run_together
from service.explainers.masking import baseline_image, superpixels
from service.types import Float, Grey8, Target

BUDGETS = {"kernelshap": 128, "rise": 128, "lime": 128}
PARTITION, GRADIENT, STEPS = 500, 20, 50


def measure_methods(
    bundle: Bundle, engine: Engine, int8: Engine | None, plain: Logits, image: Grey8, rounds: int
) -> list[dict[str, Cell]]:
    """Seconds of each method and each peer, with its evaluations, in one interleaved run."""
    counts: dict[str, int] = {}
    runs: dict[str, Callable[[], object]] = {
        "predict": lambda: engine.run(image[None, ..., None]),
        **_ours(bundle, engine, image, counts, ""),
        **_peers(plain, image, counts),
    }
    if int8 is not None:
        runs["predict, int8"] = lambda: int8.run(image[None, ..., None])
        both = _ours(bundle, int8, image, counts, ", int8")
        runs |= {name: both[name] for name in ("gradcam, int8", "shap, int8", "kernelshap, int8", "fastshap, int8")}
    seconds = {name: float(np.median(values)) for name, values in interleaved(runs, rounds, "methods").items()}
    return [
        {
            "what": name,
            "evaluations": counts.get(name, 0),
            "ms": 1000 * value,
            "ms an evaluation": 1000 * value / counts[name] if counts.get(name) else None,
            "times predict": value / seconds["predict"],
        }
        for name, value in seconds.items()
    ]


def _ours(
    bundle: Bundle, engine: Engine, image: Grey8, counts: dict[str, int], suffix: str
) -> dict[str, Callable[[], object]]:
    target = (Target(bundle.manifest.class_names[0], 0),)

    def run(name: str) -> None:
        method = offered(bundle.manifest)[name]
        outputs = engine.run(image[None, ..., None], sorted(method.outputs)).row(0)
        question = Question(image, outputs, target)
        ((found,),) = run_together(method, [question], engine, Options(budget=BUDGETS.get(name)))
        counts[name + suffix] = found.evaluations

    return {name + suffix: lambda name=name: run(name) for name in offered(bundle.manifest)}


def _peers(plain: Logits, image: Grey8, counts: dict[str, int]) -> dict[str, Callable[[], object]]:
    module = ChannelsFirst(plain)
    pixels = torch.from_numpy(image[None, None].astype(np.float32))
    hidden = torch.from_numpy(baseline_image(image, "blur")[None, None].astype(np.float32))
    runs: dict[str, Callable[[], object]] = {}
    wanted = [cast(nn.Module, ClassifierOutputTarget(0))]
    for name, library in CAMS.items():
        cam = library(model=module, target_layers=[plain.body])
        runs[f"{name}: pytorch-grad-cam"] = lambda cam=cam: cam(pixels, wanted)
    gradients = captum.attr.IntegratedGradients(module)
    runs["integrated_gradients: captum"] = lambda: gradients.attribute(
        pixels, hidden, target=0, n_steps=STEPS, internal_batch_size=16
    )
    expected = captum.attr.GradientShap(module)
    runs["gradient_shap: captum"] = lambda: expected.attribute(pixels, hidden, n_samples=32, target=0)
    window, step = occlusion.window_for(image.shape[0], 169)
    sides, steps = (1, window, window), (1, step, step)
    occluding = captum.attr.Occlusion(module)

    def occlude() -> None:
        with torch.inference_mode():
            occluding.attribute(pixels, sides, steps, hidden, target=0, perturbations_per_eval=16)

    runs["occlusion: captum"] = occlude
    runs["shap: shap partition"] = _shap_partition(module, image)
    runs["gradient_shap: shap GradientExplainer"] = _shap_gradient(module, pixels, hidden)
    runs["lime: lime"] = _lime(module, image)
    counts |= {
        "integrated_gradients: captum": STEPS,
        "gradient_shap: captum": 32,
        "occlusion: captum": 169,
        "shap: shap partition": PARTITION,
        "gradient_shap: shap GradientExplainer": GRADIENT,
        "lime: lime": BUDGETS["lime"],
    }
    return runs


def _predictor(module: nn.Module) -> Callable[[NDArray[Any]], Float]:
    """Images `[M, H, W, C]` to logits `[M, K]`."""

    def predict(images: NDArray[Any]) -> Float:
        with torch.inference_mode():
            return module(torch.from_numpy(np.asarray(images, np.float32)[..., 0][:, None])).numpy()

    return predict


def _shap_partition(module: nn.Module, image: Grey8) -> Callable[[], object]:
    import shap.explainers
    import shap.maskers

    side = image.shape[0]
    masker: Any = shap.maskers.Image(f"blur({side // 5},{side // 5})", (side, side, 1))
    explainer: Any = shap.explainers.Partition(_predictor(module), masker)
    rows = image[None, ..., None].astype(np.float32)
    return lambda: explainer(rows, max_evals=PARTITION, batch_size=16, outputs=[0], silent=True)


def _shap_gradient(module: nn.Module, pixels: Tensor, hidden: Tensor) -> Callable[[], object]:
    import shap

    explainer: Any = shap.GradientExplainer(module, cast(Any, hidden))
    return lambda: explainer.shap_values(pixels, nsamples=GRADIENT, ranked_outputs=1)


def _lime(module: nn.Module, image: Grey8) -> Callable[[], object]:
    from lime.lime_image import LimeImageExplainer

    explainer: Any = LimeImageExplainer(random_state=0)
    labels, predict = superpixels(image, our_lime.PLAYERS) + 1, _predictor(module)

    def run() -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            explainer.explain_instance(
                image.astype(np.float64), predict, hide_color=0, num_samples=BUDGETS["lime"], batch_size=16,
                segmentation_fn=lambda _: labels,
            )  # fmt: skip

    return run
