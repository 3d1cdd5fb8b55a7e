"""How good are the maps? Every method on real test images, beside maps that know nothing of the model.

    python -m benchmarks.explanation_quality MODEL CONFIG DATA --json FILE

For test images that the model gets right, the map of the labelled class, by Quantus's metrics:

    deletion       mean probability of the class while the pixels are blurred away, the highest first (lower is better)
    insertion      the same while they are put back into the blurred image (higher is better)
    road           share still classified as before with the top 10, 30 and 50 % imputed (ROAD; lower is better)
    pointing game  the peak lies inside the tumour's outline (higher is better; brain only)
    mass           share of the positive values inside the outline (higher is better; brain only)
    randomisation  rank correlation of |map| with that of the model with shuffled weights (lower is better)
    noise, shift   rank correlation with the map of the image under noise (2 % of the range), and shifted by 4 pixels
    repeat         rank correlation with the map under another seed (higher is better)

Methods of one pass are measured on `--images`, those that ask the model again and again on the first `--others` of
these. Intervals are 95 %, bootstrapped by groups. A method is among the best of a metric where, on the images that it
shares with the one of the best mean, the interval of the difference holds 0: where many are, the metric does not rank
them. Methods with fewer than 20 images are not ranked. Every image's figures are kept in the cache, so that a stopped
run goes on; `--minutes` ends it with the images measured until then. `--precision int8` asks the quantised graph
(gradients stay float32).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import quantus
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from tqdm import tqdm

from benchmarks.harness import Cell, machine, parser, save, show
from export.gradients import gradient_graph
from export.onnx_file import save_sharing_weights, to_onnx
from export.restore import restore
from service.bundle import GRADIENTS, GRAPH, Bundle, read_bundle
from service.engine import Engine, open_engine, open_graph
from service.explainers import METHODS, offered
from service.explainers.base import Method, Options, Question, run_together
from service.explainers.masking import baseline_image
from service.types import Float, Grey8, Target
from training.bootstrap import Estimate, draw
from training.config import load_config
from training.datasets.prepared import Prepared, prepare_part
from training.datasets.sources import in_study
from training.files import write_atomically
from training.localisation import energy_inside, pointing_game

STEPS = 14
LEAST_RANKED = 20  # images
PERCENTAGES = (10, 30, 50)
NOISE = 5.0  # grey levels
SHIFT = 4  # pixels
BETTER = {
    "deletion": "lower",
    "insertion": "higher",
    "road": "lower",
    "pointing_game": "higher",
    "mass": "higher",
    "randomisation": "lower",
    "noise": "higher",
    "shift": "higher",
    "repeat": "higher",
}
Scores = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured: the model, the same with shuffled weights, and the methods."""

    bundle: Bundle
    engine: Engine
    shuffled: Engine
    methods: dict[str, Method]

    def only(self, wanted: Callable[[Method], bool]) -> Setting:
        """Keep some of the methods."""
        return replace(self, methods={name: method for name, method in self.methods.items() if wanted(method)})

    def maps(self, engine: Engine, image: Grey8, target: Target, seed: int = 0) -> dict[str, Float]:
        """One map for each method on the pixels of the model input, `[H, W]`."""
        found: dict[str, Float] = {}
        for name, method in self.methods.items():
            outputs = engine.run(image[None, ..., None], sorted(method.outputs))
            question = Question(image, outputs.row(0), (target,))
            ((attribution,),) = run_together(method, [question], engine, Options(seed=seed))
            found[name] = on_pixels(attribution.values, image.shape)
        return found


class Judged:
    """The engine as Quantus asks a model: float images `[N, 1, H, W]` in, probabilities `[N, K]` out."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def predict(self, x: NDArray[Any]) -> Float:
        """Softmax of the logits."""
        images = np.clip(np.rint(x[:, 0]), 0, 255).astype(np.uint8)
        logits = np.concatenate([self._engine.logits(images[i : i + 16]) for i in range(0, len(images), 16)])
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)

    def shape_input(self, x: NDArray[Any], *_: object, **__: object) -> NDArray[Any]:
        """As it comes."""
        return x


def on_pixels(values: Float, shape: tuple[int, ...]) -> Float:
    """The map on the model input's pixels, bilinear."""
    return np.asarray(cv2.resize(values, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def blind_maps(image: Grey8, seed: int) -> dict[str, Float]:
    """Maps that know nothing of the model: noise on a 7 x 7 grid, a Gaussian in the centre, the image's edges."""
    side = image.shape[0]
    noise = np.random.default_rng(seed).random((7, 7), np.float32)
    axis = np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (side / 6)) ** 2).astype(np.float32)
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.5)
    edges = cv2.magnitude(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    return {
        "(random)": on_pixels(noise, image.shape),
        "(centred Gaussian)": np.outer(axis, axis),
        "(edge detector)": np.asarray(edges, np.float32),
    }


def judge(setting: Setting, image: Grey8, mask: Grey8 | None, label: int, seed: int) -> Scores:
    """Compute all figures of one image."""
    target = Target(setting.bundle.manifest.class_names[label], label)
    maps = setting.maps(setting.engine, image, target) | blind_maps(image, seed)
    names, stack = list(maps), np.stack(list(maps.values()))
    scores: Scores = {name: {} for name in names}

    def note(metric: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            scores[name][metric] = float(value)

    hidden = baseline_image(image, "blur")
    model = Judged(setting.engine)
    note("deletion", dict(zip(names, flipped(model, image, hidden, stack, label), strict=True)))
    note("insertion", dict(zip(names, flipped(model, hidden, image, stack, label), strict=True)))
    if mask is not None:
        note("pointing_game", {name: pointing_game(values, mask) for name, values in maps.items()})
        note("mass", {name: energy_inside(values, mask) for name, values in maps.items()})
    note("road", dict(zip(names, road(model, image, stack, label), strict=True)))
    shuffled = setting.maps(setting.shuffled, image, target)
    note("randomisation", {name: rank(np.abs(maps[name]), np.abs(values)) for name, values in shuffled.items()})
    noise = np.random.default_rng(seed).normal(0, NOISE, image.shape)
    noisy = np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
    note("noise", {n: rank(maps[n], v) for n, v in setting.maps(setting.engine, noisy, target).items()})
    moved = setting.maps(setting.engine, np.roll(image, SHIFT, axis=1), target)
    note("shift", {n: rank(maps[n], np.roll(v, -SHIFT, axis=1)) for n, v in moved.items()})
    note("repeat", {n: rank(maps[n], v) for n, v in setting.maps(setting.engine, image, target, seed=1).items()})
    return scores


def flipped(model: Judged, start: Grey8, end: Grey8, maps: Float, label: int) -> list[float]:
    """Quantus's PixelFlipping: the mean probability while `start` becomes `end`, each map's highest pixels first."""
    count = len(maps)
    ends = np.repeat(end.reshape(1, -1), count, axis=0).astype(np.float32)

    def perturb(arr: NDArray[Any], indices: NDArray[np.intp], **_: object) -> NDArray[Any]:
        out = arr.copy()
        np.put_along_axis(out, indices, np.take_along_axis(ends, indices, axis=1), axis=1)
        return out

    metric: Any = quantus.PixelFlipping(
        features_in_step=start.size // STEPS, perturb_func=perturb, normalise=False, disable_warnings=True
    )
    images = np.repeat(start[None, None].astype(np.float32), count, axis=0)
    labels = np.full(count, label)
    curves = metric.evaluate_batch(model, images, labels, maps[:, None])
    first = model.predict(images[:1])[0, label]
    return [float(np.trapezoid([first, *curve]) / len(curve)) for curve in curves]


def road(model: Judged, image: Grey8, maps: Float, label: int) -> list[float]:
    """Quantus's ROAD: noisy linear imputation of the top pixels; the share of steps at which the class is kept."""
    metric: Any = quantus.ROAD(percentages=list(PERCENTAGES), normalise=False, disable_warnings=True)
    metric.a_size = image.size
    images = np.repeat(image[None, None].astype(np.float32), len(maps), axis=0)
    (kept,) = metric.evaluate_batch(model, images, np.full(len(maps), label), maps[:, None])
    return [float(np.mean(row)) for row in kept]


def rank(a: Float, b: Float) -> float:
    """Spearman's rank correlation; 0 where a map is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(cast(Any, spearmanr(a[::4, ::4].ravel(), b[::4, ::4].ravel())).statistic)


def shuffled_engine(bundle: Bundle, folder: Path) -> Engine:
    """The same network with every weight tensor shuffled in itself (Adebayo et al., NeurIPS 2018: all layers)."""
    fused, size = restore(bundle), bundle.manifest.preprocessing.size
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in fused.module.parameters():
            if parameter.ndim > 1:
                order = torch.randperm(parameter.numel(), generator=generator)
                parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))
    graphs = {GRAPH: to_onnx(fused.module, size, fused.module.names), GRADIENTS: gradient_graph(fused.module, size)}
    save_sharing_weights(graphs, folder)
    sessions = [open_graph(folder / name, device="cpu").session for name in graphs]
    return Engine(sessions[0], "cpu", sessions[1])


def choose(prepared: Prepared, engine: Engine, count: int) -> list[int]:
    """Images that the model gets right, spread over classes and places; lesions with an outline where there are any."""
    logits = [engine.logits(np.ascontiguousarray(prepared.images[i : i + 16])) for i in range(0, len(prepared), 16)]
    right = np.concatenate(logits).argmax(axis=1) == prepared.labels
    possible = np.flatnonzero(right & prepared.has_mask) if prepared.has_mask.any() else np.flatnonzero(right)
    classes = np.unique(prepared.labels[possible])
    order: list[int] = []
    queues = [list(np.random.default_rng(0).permutation(possible[prepared.labels[possible] == c])) for c in classes]
    while len(order) < min(count, len(possible)):
        order += [int(queue.pop()) for queue in queues if queue]
    return order[:count]


def everywhere(setting: Setting, prepared: Prepared) -> dict[str, dict[str, Estimate | None]]:
    """Pointing game and mass on every outlined image that the model gets right, for methods without evaluations."""
    cheap = setting.only(lambda method: method.budget <= 1 and not method.gradients)
    rows = choose(prepared, setting.engine, len(prepared)) if prepared.has_mask.any() else []
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for index in tqdm(rows, desc="localisation", unit="image", leave=False):
        image, label = np.ascontiguousarray(prepared.images[index]), int(prepared.labels[index])
        mask = np.asarray(prepared.masks[index]) > 127
        if not mask.any():
            continue
        target = Target(setting.bundle.manifest.class_names[label], label)
        for name, values in (cheap.maps(setting.engine, image, target) | blind_maps(image, index)).items():
            found[name]["pointing_game"].append(float(pointing_game(values, mask)))
            found[name]["mass"].append(energy_inside(values, mask))
            found[name]["row"].append(float(index))
    return {
        name: {
            metric: estimate(np.array(values[metric]), [prepared.groups[int(i)] for i in values["row"]])
            for metric in ("pointing_game", "mass")
        }
        for name, values in found.items()
    }


def estimate(values: NDArray[np.float64], groups: list[str]) -> Estimate | None:
    """Mean with its interval, by groups."""
    return draw(groups, np.zeros(len(groups), np.int64), 1000, 0).ratio(values)


def default_method(methods: Mapping[str, Mapping[str, Estimate | None]], inline: set[str]) -> str:
    """The method with the best mean rank over all measures, among those that cost no evaluations."""
    ranks: dict[str, list[float]] = defaultdict(list)
    for metric, better in BETTER.items():
        values = {n: e.value for n, found in methods.items() if n in inline and (e := found.get(metric)) is not None}
        if len(set(values.values())) < 2:
            continue
        ordered = sorted(values.values(), reverse=better == "higher")
        for name, value in values.items():
            ranks[name].append(ordered.index(value))
    return min(ranks, key=lambda name: float(np.mean(ranks[name])))


def measure(
    setting: Setting, prepared: Prepared, options: argparse.Namespace
) -> dict[str, dict[int, dict[str, float]]]:
    """Judge the images, as many as there is time for: figures by method, image and metric."""
    end = time.monotonic() + 60 * options.minutes
    stamp = hashlib.sha256((setting.bundle.manifest.files[GRAPH] + options.precision).encode()).hexdigest()[:12]
    chosen = choose(prepared, setting.engine, options.images)
    parts = {
        "one pass": (setting.only(lambda method: method.budget <= 1), chosen),
        "evaluations": (setting.only(lambda method: method.budget > 1), chosen[: options.others]),
    }
    found: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for part, (some, rows) in parts.items():
        folder = options.cache / "quality" / f"{setting.bundle.manifest.id}-{stamp}" / part.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        for index in tqdm(rows, desc=f"quality, {part}", unit="image"):
            file = folder / f"{index}.json"
            if not file.exists():
                if time.monotonic() > end:
                    break
                image = np.ascontiguousarray(prepared.images[index])
                mask = np.asarray(prepared.masks[index]) > 127 if prepared.has_mask[index] else None
                judged = judge(some, image, cast(Any, mask), int(prepared.labels[index]), index)
                write_atomically(file, json.dumps(judged).encode())
            for name, scores in json.loads(file.read_text()).items():
                found[name].setdefault(index, scores)
    return found


def summed(
    found: Mapping[str, Mapping[int, Mapping[str, float]]], groups: Sequence[str]
) -> dict[str, dict[str, Estimate | None]]:
    """Average over images, with intervals, by method and metric; `groups` are those of all images."""
    summary: dict[str, dict[str, Estimate | None]] = {name: {} for name in found}
    for name, images in found.items():
        for metric in BETTER:
            rows = {index: scores[metric] for index, scores in images.items() if metric in scores}
            if rows:
                values = np.array(list(rows.values()))
                summary[name][metric] = estimate(values, [groups[index] for index in rows])
    return summary


def best(found: Mapping[str, Mapping[int, Mapping[str, float]]], groups: Sequence[str]) -> dict[str, list[str]]:
    """Name by metric the methods that cannot be told from the one of the best mean, which comes first.

    Methods that were measured on fewer than `LEAST_RANKED` images are left out: nothing follows from so few.
    """
    told: dict[str, list[str]] = {}
    for metric, better in BETTER.items():
        values = {
            name: {index: scores[metric] for index, scores in images.items() if metric in scores}
            for name, images in found.items()
            if not name.startswith("(")
        }
        values = {name: rows for name, rows in values.items() if len(rows) >= LEAST_RANKED}
        if not values:
            continue
        sign = 1 if better == "higher" else -1
        first, *rest = sorted(values, key=lambda name: -sign * float(np.mean(list(values[name].values()))))
        told[metric] = [first, *(name for name in rest if alike(values[first], values[name], groups))]
    return told


def alike(one: Mapping[int, float], other: Mapping[int, float], groups: Sequence[str]) -> bool:
    """Say whether the interval of the mean difference on the images of both holds 0."""
    shared = [index for index in one if index in other]
    difference = (
        estimate(np.array([one[i] - other[i] for i in shared]), [groups[i] for i in shared]) if shared else None
    )
    return difference is None or difference.low <= 0 <= difference.high


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("explanation_quality", __doc__)
    made.add_argument("model", type=Path, metavar="MODEL", help="a bundle")
    made.add_argument("config", type=Path, metavar="CONFIG", help="TOML file of its training run")
    made.add_argument("data", type=Path, metavar="DATA", help="folder of the dataset")
    made.add_argument("--images", type=int, default=200, help="of the test part (default: %(default)s)")
    made.add_argument("--others", type=int, default=60, help="of these, for methods with evaluations (%(default)s)")
    made.add_argument("--precision", choices=["fp32", "int8"], default="fp32", help="of the graph (%(default)s)")
    made.add_argument("--minutes", type=float, default=240.0, help="begin no image after (default: %(default)s)")
    made.add_argument("--cache", type=Path, default=Path("runs/cache"), help="default: %(default)s")
    options = made.parse_args(arguments)
    warnings.simplefilter("ignore")  # Quantus's own
    bundle = read_bundle(options.model)
    test = prepare_part(load_config(options.config), options.data, "test", options.cache, in_study)
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(bundle, device="cpu", precision=options.precision)
        setting = Setting(bundle, engine, shuffled_engine(bundle, Path(folder)), offered(bundle.manifest))
        found = measure(setting, test, options)
        summary = summed(found, test.groups)
        for name, located in everywhere(setting, test).items():
            summary[name] |= located
    inline = {name for name in setting.methods if METHODS[name].budget <= 1 and not METHODS[name].gradients}
    targeted = {name for name in inline if METHODS[name].targeted}
    rows: list[dict[str, Cell]] = []
    for name, of_method in summary.items():
        cells: dict[str, Cell] = {metric: str(of_method.get(metric) or "") for metric in BETTER}
        rows.append({"method": name} | cells)
    where = machine("cpu", torch.get_num_threads())
    default = default_method(summary, targeted)
    show(f"explanation_quality: {bundle.manifest.id}; default: {default}", rows, where)
    ranked = best(found, test.groups)
    told: list[dict[str, Cell]] = [
        {"metric": metric, "best": first, "not told from it": ", ".join(rest)}
        for metric, (first, *rest) in ranked.items()
    ]
    show("what ranks", told, where)
    methods = {n: {m: e.model_dump() for m, e in of.items() if e is not None} for n, of in summary.items()}
    images = {name: len(rows) for name, rows in found.items()}
    about: dict[str, object] = {"model": bundle.manifest.id, "precision": options.precision, "images": images}
    save(options, where, **about, better=BETTER, default=default, best=ranked, methods=methods)
    return 0


if __name__ == "__main__":
    sys.exit(main())
