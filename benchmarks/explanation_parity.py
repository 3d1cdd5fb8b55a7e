"""Every explanation method against the library that people trust, or against its definition, on real images.

    python -m benchmarks.explanation_parity MODEL CONFIG DATA --json FILE

The reference computes in torch with the weights that the bundle stores; ours is the service's method on the service's
engine. Deviations are the largest over images, classes and pixels, relative to the largest absolute value of the
reference's map, unless the row says otherwise. Every class is a target; batches of one and of eight.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import captum.attr
import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import EigenCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.harness import Cell, machine, parser, save, show
from export.graph import Logits
from export.parity import ChannelsFirst
from export.report_images import TestImages, spread
from export.restore import restore
from service.bundle import Bundle, read_bundle
from service.engine import Engine, open_engine
from service.explainers import METHODS, gradient_shap, kernelshap, lime, occlusion, smoothgrad, targets
from service.explainers.base import Options, Question, run_together
from service.explainers.masking import Labels, baseline_image, composed, superpixels
from service.explainers.owen import Cells, Real, owen_values
from service.types import Float, Grey8
from training.config import load_config
from training.datasets.prepared import prepare_part
from training.datasets.sources import in_study

Array = NDArray[np.floating]
BUDGETS = {"integrated_gradients": 16, "gradient_shap": 8, "smoothgrad": 8, "lime": 128, "occlusion": 49}


@dataclass(frozen=True, slots=True)
class Subject:
    """What is compared: the service's engine and torch with the same weights, and images uint8 `[N, H, W]`."""

    bundle: Bundle
    engine: Engine
    plain: Logits
    images: Grey8

    @property
    def classes(self) -> int:
        """K."""
        return len(self.bundle.manifest.labels)

    @property
    def torch_model(self) -> ChannelsFirst:
        """Pixels 0..255 float `[N, 1, H, W]` to logits."""
        return ChannelsFirst(self.plain)

    @property
    def pixels(self) -> Tensor:
        """The images for it."""
        return torch.from_numpy(self.images[:, None].astype(np.float32))

    def ours(self, method: str, batch: int, options: Options) -> Float:
        """Maps of every class, `[N, K, h, w]`, in batches of `batch` images."""
        manifest, found = self.bundle.manifest, list[Float]()
        for start in range(0, len(self.images), batch):
            rows = np.ascontiguousarray(self.images[start : start + batch])
            outputs = self.engine.run(rows[..., None], METHODS[method].outputs)
            asked = targets("all", None, manifest.class_names[0], manifest)
            questions = [Question(image, outputs.row(row), asked) for row, image in enumerate(rows)]
            answers = run_together(METHODS[method], questions, self.engine, options, batch=batch)
            found += [np.stack([attribution.values for attribution in answer]) for answer in answers]
        return np.stack(found)

    def score(self, images: Grey8) -> Array:
        """Torch's logits `[M, K]` of images uint8 `[M, H, W]`."""
        with torch.inference_mode():
            pixels = torch.from_numpy(images[:, None].astype(np.float32))
            return np.concatenate([self.torch_model(part).numpy() for part in pixels.split(16)])


Reference = Callable[[Subject], Array]
CAMS: dict[str, Any] = {
    "gradcam": GradCAM,
    "hirescam": HiResCAM,
    "gradcam++": GradCAMPlusPlus,
    "layercam": LayerCAM,
    "xgradcam": XGradCAM,
    "eigencam": EigenCAM,
}


def grad_cam_library(method: str) -> Reference:
    """pytorch-grad-cam's map before its scaling, positive part, `[N, K, h, w]`."""

    def reference(subject: Subject) -> Array:
        maps: list[Array] = []
        with CAMS[method](model=subject.torch_model, target_layers=[subject.plain.body]) as cam:
            for target in range(subject.classes):
                wanted = [cast(nn.Module, ClassifierOutputTarget(target))] * len(subject.images)
                cam(subject.pixels, wanted)
                activations = cam.activations_and_grads.activations[0].cpu().data.numpy()
                gradients = cam.activations_and_grads.gradients
                grads = gradients[0].cpu().data.numpy() if gradients else np.zeros_like(activations)
                image = cam.get_cam_image(subject.pixels, subject.plain.body, wanted, activations, grads, False)
                maps.append(image)
        return np.stack(maps, axis=1)

    return reference


def recipro_cam(subject: Subject) -> Array:
    """Its definition, cell by cell: features masked by the 3 x 3 kernel, through the network's own head."""
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    maps: list[Array] = []
    with torch.inference_mode():
        features = subject.plain.body(torch.from_numpy(subject.images[..., None]))
        h, w = features.shape[2:]
        masks = torch.zeros(h * w, 1, h + 2, w + 2)
        for cell in range(h * w):
            y, x = divmod(cell, w)
            masks[cell, 0, y : y + 3, x : x + 3] = kernel
        masks = masks[:, :, 1:-1, 1:-1]
        empty = subject.plain.network.classify(torch.zeros_like(features[:1])).softmax(dim=1)
        for image in features:
            change = subject.plain.network.classify(image * masks).softmax(dim=1) - empty
            maps.append(change.T.reshape(-1, h, w).numpy())
    return np.stack(maps)


def _baselines(subject: Subject, kind: str) -> Tensor:
    hidden = [baseline_image(image, kind) for image in subject.images]  # pyright: ignore[reportArgumentType]
    return torch.from_numpy(np.stack(hidden)[:, None].astype(np.float32))


def captum_integrated_gradients(subject: Subject) -> Array:
    """captum.attr.IntegratedGradients, Gauss-Legendre, the blurred baseline."""
    found = captum.attr.IntegratedGradients(subject.torch_model)
    maps = [
        found.attribute(
            subject.pixels,
            _baselines(subject, "blur"),
            target=k,
            n_steps=BUDGETS["integrated_gradients"],
            internal_batch_size=64,
        )
        for k in range(subject.classes)
    ]
    return torch.stack(maps, dim=1)[:, :, 0].detach().numpy()


def captum_input_x_gradient(subject: Subject) -> Array:
    """captum.attr.InputXGradient."""
    found = captum.attr.InputXGradient(subject.torch_model)
    maps = [found.attribute(subject.pixels.requires_grad_(), target=k) for k in range(subject.classes)]
    return torch.stack(maps, dim=1)[:, :, 0].detach().numpy()


def captum_gradient_shap(subject: Subject) -> Array:
    """Captum's InputBaselineXGradient, the step inside its GradientShap, at the points that ours draws."""
    options, maps = Options(), list[Array]()
    for image in subject.images:
        random = np.random.default_rng(options.seed)
        count = BUDGETS["gradient_shap"]
        hidden = np.stack([baseline_image(image, kind) for kind in ("blur", "mean", "black")])
        chosen = torch.from_numpy(hidden[np.arange(count) % 3].astype(np.float32))[:, None]
        shares = torch.from_numpy(random.random((count, 1, 1), np.float32))[:, None]
        noise = random.normal(0, gradient_shap.NOISE, (count, *image.shape)).astype(np.float32)
        noisy = torch.from_numpy(image + noise)[:, None]
        points = (chosen + shares * (noisy - chosen)).requires_grad_()
        rows: list[Array] = []
        for target in range(subject.classes):
            gradient = captum.attr.Saliency(subject.torch_model).attribute(points, target=target, abs=False)
            rows.append((gradient * (noisy - chosen)).mean(dim=0)[0].detach().numpy())
        maps.append(np.stack(rows))
    return np.stack(maps)


def captum_smoothgrad(subject: Subject) -> Array:
    """captum.attr.Saliency, signed, at the points that ours draws (NoiseTunnel draws its own)."""
    maps: list[Array] = []
    for image in subject.images:
        random = np.random.default_rng(0)
        shape = (BUDGETS["smoothgrad"], *image.shape)
        noise = random.normal(0, smoothgrad.NOISE * float(np.ptp(image)), shape).astype(np.float32)
        points = torch.from_numpy(image + noise)[:, None].requires_grad_()
        found = captum.attr.Saliency(subject.torch_model)
        rows = [found.attribute(points, target=k, abs=False).mean(dim=0)[0] for k in range(subject.classes)]
        maps.append(torch.stack(rows).detach().numpy())
    return np.stack(maps)


def captum_occlusion(subject: Subject) -> Array:
    """captum.attr.Occlusion with the same windows and the blurred baseline."""
    window, step = occlusion.window_for(subject.images.shape[1], BUDGETS["occlusion"])
    found = captum.attr.Occlusion(subject.torch_model)
    maps: list[Tensor] = []
    with torch.inference_mode():
        for target in range(subject.classes):
            maps.append(
                found.attribute(
                    subject.pixels,
                    sliding_window_shapes=(1, window, window),
                    strides=(1, step, step),
                    baselines=_baselines(subject, "blur"),
                    target=target,
                    perturbations_per_eval=16,
                )
            )
    return torch.stack(maps, dim=1)[:, :, 0].numpy()


def lime_library(subject: Subject) -> Array:
    """Lime's own regression (LimeBase, Ridge, no feature selection) on the coalitions that ours draws."""
    from lime.lime_base import LimeBase
    from sklearn.metrics import pairwise_distances

    base = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / lime.KERNEL_WIDTH**2)))
    maps: list[Array] = []
    for image in subject.images:
        hidden, labels = baseline_image(image, "blur"), superpixels(image, lime.PLAYERS)
        players = int(labels.max()) + 1
        masks = np.random.default_rng(0).integers(0, 2, (BUDGETS["lime"], players))
        masks[0] = 1
        logits = subject.score(composed(image, hidden, labels, masks.astype(np.bool_)))
        distances = pairwise_distances(masks, masks[:1], metric="cosine").ravel()
        rows: list[Array] = []
        for target in range(subject.classes):
            fitted: Any = base.explain_instance_with_data(masks, logits, distances, target, players, "none")
            values = np.zeros(players + 1)
            for player, value in fitted[1]:
                values[player] = value
            rows.append(values[labels])
        maps.append(np.stack(rows))
    return np.stack(maps)


def options_of(method: str) -> Options:
    """Fewer evaluations than by default: agreement does not need them."""
    return Options(budget=BUDGETS.get(method))


def map_deviation(subject: Subject, method: str, reference: Reference, transform: Callable[[Float], Array]) -> float:
    """Largest deviation over batches of 1 and 8, relative to the reference's largest value, image by image."""
    expected = reference(subject)
    largest = 0.0
    for batch in (1, 8):
        found = transform(subject.ours(method, batch, options_of(method)))
        scale = np.abs(expected).max(axis=(1, 2, 3), keepdims=True)
        largest = max(largest, float((np.abs(found - expected) / scale).max()))
    return largest


def unsigned(maps: Array) -> Array:
    """A principal component has no sign: the one whose largest value is positive."""
    peak = np.take_along_axis(
        maps.reshape(*maps.shape[:2], -1),
        np.abs(maps.reshape(*maps.shape[:2], -1)).argmax(axis=2)[..., None],
        axis=2,
    )
    return maps * np.sign(peak)[..., None]


def shap_partition(subject: Subject) -> float:
    """Owen values against shap's PartitionExplainer: the same 8 regions and tree, the same baseline, all contexts."""
    import shap

    largest = 0.0
    for image in tqdm(subject.images, desc="shap partition", leave=False):
        hidden, side = baseline_image(image, "blur"), image.shape[0]
        labels = (np.arange(side) * 8 // side)[:, None].repeat(side, axis=1)  # eight bands, halved and halved again
        tree = np.array(
            [[0, 1, 1, 2], [2, 3, 1, 2], [4, 5, 1, 2], [6, 7, 1, 2], [8, 9, 2, 4], [10, 11, 2, 4], [12, 13, 3, 8.0]]
        )
        model = partial(_bands, subject, image, hidden, labels)
        explainer = shap.explainers.Partition(model, _BandMasker(tree))
        explanation: Any = explainer(np.ones((1, 8)), max_evals=2000, silent=True)
        expected = explanation.values[0]
        found = _owen_of_bands(model, subject.classes)
        largest = max(largest, float(np.abs(found - expected).max() / np.abs(expected).max()))
    return largest


def _bands(subject: Subject, image: Grey8, hidden: Grey8, labels: Labels, rows: NDArray[Any]) -> Array:
    return subject.score(composed(image, hidden, labels, np.asarray(rows, np.bool_)))


class _BandMasker:
    """Shows some of eight bands; what shap asks of a masker."""

    def __init__(self, clustering: NDArray[np.float64]) -> None:
        self.clustering = clustering
        self.shape = (1, 8)
        self.mask_shapes = [(8,)]

    def __call__(self, mask: NDArray[np.bool_], x: NDArray[np.float64]) -> tuple[NDArray[np.float64]]:
        return ((x * mask)[None] > 0,)  # pyright: ignore[reportReturnType]


def _owen_of_bands(model: Callable[[NDArray[np.bool_]], Array], classes: int) -> Real:
    def halves(cells: Cells) -> tuple[Cells, Cells] | None:
        rows = np.flatnonzero(cells[:, 0])
        if len(rows) == 1:
            return None
        first = np.zeros_like(cells)
        first[rows[: len(rows) // 2]] = True
        return first, cells & ~first

    ends = model(np.array([[False] * 8, [True] * 8]))
    asking = owen_values(
        np.ones((8, 1), np.bool_),
        halves,
        (ends[1] - ends[0]).astype(np.float64),
        players=8,
        budget=10_000,
        tolerance=0.0,
        expired=lambda: False,
        random=np.random.default_rng(0),
    )
    try:
        shown = next(asking)
        while True:
            shown = asking.send(model(shown[:, :, 0]).astype(np.float32))
    except StopIteration as ended:
        found = ended.value
    values = np.zeros((8, classes))
    for region, value in zip(found.regions, found.values, strict=True):
        values[np.flatnonzero(region[:, 0])[0]] = value
    return values


def exact_shapley(subject: Subject) -> float:
    """Kernel SHAP's regression on all coalitions of 8 superpixels against the sum over coalitions (Shapley 1953)."""
    from math import factorial

    largest = 0.0
    for image in tqdm(subject.images, desc="exact Shapley values", leave=False):
        hidden, labels = baseline_image(image, "blur"), superpixels(image, 8)
        players = int(labels.max()) + 1
        masks = (np.arange(2**players)[:, None] >> np.arange(players) & 1).astype(np.bool_)
        images = composed(image, hidden, labels, masks)
        logits = np.concatenate([subject.engine.logits(images[i : i + 16]) for i in range(0, len(images), 16)])
        scores = logits.astype(np.float64) - logits[0]
        expected = np.zeros((players, subject.classes))
        for number, mask in enumerate(masks):
            for player in np.flatnonzero(~mask):
                size = int(mask.sum())
                weight = factorial(size) * factorial(players - size - 1) / factorial(players)
                expected[player] += weight * (scores[number | 1 << int(player)] - scores[number])
        inner = masks[1:-1]
        found = kernelshap.shapley_regression(inner, scores[1:-1], scores[-1], kernelshap.kernel(inner))
        largest = max(largest, float(np.abs(found - expected).max() / np.abs(expected).max()))
    return largest


@dataclass(frozen=True, slots=True)
class Check:
    """One row: the tolerance is what float32 needs along the way, and why it is no tighter."""

    method: str
    reference: str
    deviation: Callable[[Subject], float]
    tolerance: float
    reason: str


def _cam(method: str, transform: Callable[[Subject, Float], Array], tolerance: float, reason: str) -> Check:
    def deviation(subject: Subject) -> float:
        return map_deviation(subject, method, grad_cam_library(method), lambda maps: transform(subject, maps))

    return Check(method, f"pytorch-grad-cam {CAMS[method].__name__}", deviation, tolerance, reason)


def _per_cell(subject: Subject, maps: Float) -> Array:
    return maps / (maps.shape[2] * maps.shape[3])


def _map(method: str, name: str, reference: Reference, tolerance: float, reason: str) -> Check:
    return Check(method, name, lambda s: map_deviation(s, method, reference, lambda maps: maps), tolerance, reason)


_ROUNDING = "float32 rounding through the network"
_KINKS = "gradients jump where an activation lies within rounding of a kink"
CHECKS = (
    _cam("gradcam", _per_cell, 1e-4, _ROUNDING),
    _cam("hirescam", _per_cell, 1e-4, _ROUNDING),
    _cam("gradcam++", lambda s, maps: maps, 1e-4, _ROUNDING),
    _cam("layercam", _per_cell, 1e-4, _ROUNDING),
    _cam("xgradcam", _per_cell, 1e-4, _ROUNDING + "; the library adds 1e-7 to a divisor"),
    Check(
        "eigencam",
        "pytorch-grad-cam EigenCAM, up to sign",
        lambda s: map_deviation(s, "eigencam", lambda x: unsigned(grad_cam_library("eigencam")(x)), unsigned),
        1e-3,
        _ROUNDING + ", squared in the Gram matrix",
    ),
    _map("recipro-cam", "its definition, cell by cell", recipro_cam, 1e-3, _ROUNDING + "; small differences of shares"),
    Check("shap", "shap.PartitionExplainer, same tree and baseline", shap_partition, 1e-4, _ROUNDING),
    Check("kernelshap", "exact enumeration over 8 players", exact_shapley, 1e-6, "a regression in float64"),
    _map("integrated_gradients", "captum IntegratedGradients", captum_integrated_gradients, 2e-2, _KINKS),
    _map("gradient_shap", "captum Saliency at the same points", captum_gradient_shap, 5e-2, _KINKS),
    _map("smoothgrad", "captum Saliency at the same points", captum_smoothgrad, 5e-2, _KINKS),
    _map("input_x_gradient", "captum InputXGradient", captum_input_x_gradient, 1e-1, _KINKS),
    _map("occlusion", "captum Occlusion", captum_occlusion, 1e-4, _ROUNDING),
    _map("lime", "lime LimeBase on the same coalitions", lime_library, 1e-4, _ROUNDING),
)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; status 1 where a method deviates by more than its tolerance."""
    made = parser("explanation_parity", __doc__)
    made.add_argument("model", type=Path, metavar="MODEL", help="a bundle")
    made.add_argument("config", type=Path, metavar="CONFIG", help="TOML file of its training run")
    made.add_argument("data", type=Path, metavar="DATA", help="folder of the dataset")
    made.add_argument("--images", type=int, default=8, help="of the test part (default: %(default)s)")
    made.add_argument(
        "--cache", type=Path, default=Path("runs/cache"), help="of prepared images (default: %(default)s)"
    )
    made.add_argument("--methods", nargs="+", help="only these")
    options = made.parse_args(arguments)
    bundle = read_bundle(options.model)
    test = prepare_part(load_config(options.config), options.data, "test", options.cache, in_study)
    images = spread(TestImages(test.images[..., None], test.labels), options.images)[..., 0]
    subject = Subject(bundle, open_engine(bundle, device="cpu"), restore(bundle).plain, np.ascontiguousarray(images))
    rows: list[dict[str, Cell]] = []
    failed = 0
    for check in tqdm([c for c in CHECKS if not options.methods or c.method in options.methods], desc="parity"):
        deviation = check.deviation(subject)
        failed += not deviation <= check.tolerance
        rows.append(
            {
                "method": check.method,
                "reference": check.reference,
                "largest deviation": deviation,
                "tolerance": check.tolerance,
                "because of": check.reason,
            }
        )
    where = machine("cpu", torch.get_num_threads())
    show(f"explanation_parity: {bundle.manifest.id}, {len(images)} images, every class", rows, where)
    save(options, where, model=bundle.manifest.id, images=len(images), rows=rows)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
