"""How close do Shapley values come to converged ones, and for how many evaluations?

    python -m benchmarks.shapley MODEL CONFIG DATA --json FILE

The players are the 49 cells of a 7 x 7 grid, the baseline is the blurred image, the truth Kernel SHAP with
`--converged` coalitions. Against it, as relative distance (Euclidean, over cells and classes) and rank correlation of
the predicted class's values: FastSHAP's guess, Kernel SHAP by pairs, and the halving estimator on the
same cells (whose truth is Owen's value of nested halves, near but not equal to Shapley's).

Then partition explainers as people use them, each against its own converged map on the model input's pixels: ours with
its 16 regions (converged: all contexts), and shap.PartitionExplainer with its image masker (blur) on the same engine
(converged: `--converged` evaluations).
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from tqdm import tqdm

from benchmarks.explanation_quality import choose, on_pixels
from benchmarks.harness import Cell, machine, parser, save, show
from export.fastshap import compose
from service.bundle import read_bundle
from service.engine import Engine, open_engine
from service.explainers import METHODS
from service.explainers.base import Options, Question, run_together
from service.explainers.kernelshap import shapley_regression
from service.explainers.masking import baseline_image
from service.explainers.owen import owen_values
from service.explainers.partition_shap import halves
from service.types import Float, Grey8, Target
from training.config import load_config
from training.datasets.prepared import prepare_part
from training.datasets.sources import in_study
from training.fastshap import draw_coalitions

Real = NDArray[np.float64]
GRID = 7
EXACT = 600  # evaluations that hold every context of 16 regions


class Game:
    """One image with its 49 cells as players."""

    def __init__(self, engine: Engine, image: Grey8) -> None:
        self.engine, self.image = engine, image
        self.hidden = baseline_image(image, "blur")
        outputs = engine.run(image[None, ..., None], ["shapley"])
        self.outputs = outputs.row(0)
        self.empty = engine.logits(self.hidden[None])[0].astype(np.float64)
        self.total = self.outputs.logits.astype(np.float64) - self.empty

    def scores(self, shown: NDArray[np.bool_]) -> Real:
        """f(coalition) - f(nothing), `[M, K]`, of bool `[M, 49]`."""
        images = compose(self.image, self.hidden, shown)
        logits = [self.engine.logits(images[i : i + 16]) for i in range(0, len(images), 16)]
        return np.concatenate(logits).astype(np.float64) - self.empty

    def kernel(self, coalitions: int, seed: int) -> Real:
        """Kernel SHAP's values `[49, K]`."""
        shown = draw_coalitions(coalitions, np.random.default_rng(seed))
        return shapley_regression(shown, self.scores(shown), self.total, np.ones(len(shown)))

    def halving(self, budget: int) -> Real:
        """The halving estimator's values `[49, K]`."""
        grey = self.image.reshape(GRID, -1, GRID, self.image.shape[1] // GRID).mean(axis=(1, 3)).astype(np.float32)
        asking = owen_values(
            np.ones((GRID, GRID), np.bool_),
            lambda cells: halves(cells, grey),
            self.total,
            players=GRID * GRID,
            budget=budget,
            tolerance=0.0,
            expired=lambda: False,
            random=np.random.default_rng(0),
        )
        try:
            shown = next(asking)
            while True:
                shown = asking.send(self.scores(shown.reshape(len(shown), -1)).astype(np.float32))
        except StopIteration as ended:
            found = ended.value
        flat = found.regions.reshape(len(found.regions), -1).astype(np.float64)
        return flat.T @ (found.values / flat.sum(axis=1, keepdims=True))

    def fastshap(self) -> Real:
        """The trained explainer's values `[49, K]`, the service's own way."""
        names = [Target(str(k), k) for k in range(len(self.total))]
        question = Question(self.image, self.outputs, tuple(names))
        ((*found,),) = run_together(METHODS["fastshap"], [question], self.engine, Options())
        return np.stack([a.values.ravel() for a in found], axis=1).astype(np.float64)


def distance(found: Real | Float, truth: Real | Float) -> float:
    """Euclidean, relative to the truth's length."""
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def ours(engine: Engine, game: Game, target: int, budget: int) -> Float:
    """The map of `shap` on the pixels of the model input, as density."""
    question = Question(game.image, game.outputs, (Target("target", target),))
    ((found,),) = run_together(METHODS["shap"], [question], engine, Options(budget=budget))
    return on_pixels(found.values, game.image.shape)


def library(engine: Engine, game: Game, target: int, budget: int) -> Float:
    """shap.PartitionExplainer with its image masker on the same engine."""
    import shap.explainers
    import shap.maskers

    def model(images: NDArray[Any]) -> Float:
        pixels = np.clip(np.rint(images[..., 0]), 0, 255).astype(np.uint8)
        return np.concatenate([engine.logits(pixels[i : i + 16]) for i in range(0, len(pixels), 16)])

    side = game.image.shape[0]
    masker: Any = shap.maskers.Image(f"blur({side // 5},{side // 5})", (side, side, 1))
    explainer: Any = shap.explainers.Partition(model, masker)
    image = game.image[None, ..., None].astype(np.float32)
    found = explainer(image, max_evals=budget, batch_size=16, outputs=[target], silent=True)
    return np.asarray(found.values[0, :, :, 0, 0], np.float32)


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("shapley", __doc__)
    made.add_argument("model", type=Path, metavar="MODEL", help="a bundle")
    made.add_argument("config", type=Path, metavar="CONFIG", help="TOML file of its training run")
    made.add_argument("data", type=Path, metavar="DATA", help="folder of the dataset")
    made.add_argument("--images", type=int, default=8, help="of the test part (default: %(default)s)")
    made.add_argument("--maps", type=int, default=3, help="of these, for the partition maps (default: %(default)s)")
    made.add_argument("--converged", type=int, default=4096, help="coalitions of the truth (default: %(default)s)")
    made.add_argument("--budgets", type=int, nargs="+", default=[50, 100, 500])
    made.add_argument("--cache", type=Path, default=Path("runs/cache"), help="default: %(default)s")
    options = made.parse_args(arguments)
    warnings.simplefilter("ignore")  # shap's own
    bundle = read_bundle(options.model)
    test = prepare_part(load_config(options.config), options.data, "test", options.cache, in_study)
    engine = open_engine(bundle, device="cpu")
    chosen = choose(test, engine, options.images)
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = defaultdict(list)
    maps: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for place, index in enumerate(tqdm(chosen, desc="shapley", unit="image")):
        game = Game(engine, np.ascontiguousarray(test.images[index]))
        target = int(test.labels[index])
        truth = game.kernel(options.converged, 1)
        contestants: dict[tuple[str, int], Callable[[], Real]] = {("fastshap", 1): game.fastshap}
        for budget in options.budgets:
            contestants["kernelshap on cells", budget] = partial(game.kernel, budget, 2)
            contestants["halving on cells", budget] = partial(game.halving, budget)
        for key, solve in contestants.items():
            start = time.perf_counter()
            values = solve()
            seconds = time.perf_counter() - start
            correlation: Any = spearmanr(values[:, target], truth[:, target])
            found[key].append((distance(values, truth), float(correlation.statistic), seconds))
        if place < options.maps:
            for name, solver, enough in (("shap, ours", ours, EXACT), ("shap, library", library, options.converged)):
                converged = solver(engine, game, target, enough)
                for budget in options.budgets:
                    start = time.perf_counter()
                    values = solver(engine, game, target, budget)
                    maps[name, budget].append((distance(values, converged), time.perf_counter() - start))
    rows: list[dict[str, Cell]] = [
        {
            "values": name,
            "evaluations": budget,
            "relative distance": float(np.mean([d for d, _, _ in values])),
            "rank correlation": float(np.mean([r for _, r, _ in values])),
            "seconds": float(np.median([s for _, _, s in values])),
        }
        for (name, budget), values in found.items()
    ]
    map_rows: list[dict[str, Cell]] = [
        {
            "map": name,
            "evaluations": budget,
            "relative distance": float(np.mean([d for d, _ in values])),
            "seconds": float(np.median([s for _, s in values])),
        }
        for (name, budget), values in maps.items()
    ]
    where = machine("cpu", 0)
    show(f"shapley: {bundle.manifest.id}, 49 cells, {len(chosen)} images", rows, where)
    show(
        f"shapley: {bundle.manifest.id}, maps against their own converged ones, {options.maps} images", map_rows, where
    )
    save(options, where, model=bundle.manifest.id, images=len(chosen), rows=rows, maps=map_rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
