"""The models that this process serves, and the bundles that it refused."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np

from service.bundle import MANIFEST, Bundle, read_bundle
from service.cuda import SIZES
from service.engine import Engine, open_engine, read_golden
from service.errors import BundleError, UnknownModel, WrongTask
from service.explainers.base import Method, Options, Tier
from service.manifest import Described
from service.observability import BUNDLES_REFUSED, MODEL_INFO, logger
from service.observability.drift import expect_predictions
from service.segmenter import Segmenter, is_segmentation, open_segmenter
from service.signature import check_signature
from service.types import Grey8

T = TypeVar("T")
_BATCH = 16  # images of a step of a method, by which its cost on CUDA is judged
_STEP_MS = 60.0  # that a step of a slow method holds the engine on the CPU, where nobody makes it stop
_STEP_CUDA_MS = 4.0  # the same on CUDA, where what the device has been given is not taken back


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds of an image of the golden sample, measured at start: of a forward pass and of a gradient."""

    forward: float
    gradient: float

    def of(self, method: Method, options: Options, targets: int = 1) -> float:
        """What an explanation by the method is expected to take, the prediction included."""
        each = self.gradient if method.gradients else self.forward
        budget = 0 if method.budget == 0 else options.budget or method.budget
        return self.forward + budget * each * (targets if method.per_target else 1)

    def tier(self, method: Method) -> Tier:
        """How long its default takes here: within a second, within ten, or longer."""
        typical = self.of(method, Options())
        return "inline" if typical <= 1000 else "budgeted" if typical <= 10_000 else "job"


@dataclass(frozen=True, slots=True)
class Model:
    """A bundle with its running graphs, and what they cost here."""

    bundle: Bundle
    engine: Engine
    costs: Costs

    def step(self, method: Method) -> int:
        """Images of a step of a slow method: few enough that a prediction which comes meanwhile need not wait long."""
        each = self.costs.gradient if method.gradients else self.costs.forward
        if self.engine.provider == "cpu":
            return max(1, min(64, int(_STEP_MS / each)))
        few, *larger = SIZES[1:]  # one image takes as long as a few
        return max([few, *(size for size in larger if size * each <= _STEP_CUDA_MS)])


@dataclass(frozen=True, slots=True)
class Registry:
    """Classifiers and segmentation models by id; `refused` holds the reason by name of the bundle's folder."""

    models: dict[str, Model]
    refused: dict[str, str]
    segmenters: dict[str, Segmenter] = field(default_factory=dict[str, Segmenter])

    @property
    def names(self) -> tuple[str, ...]:
        """Ids of all that are served."""
        return (*self.models, *self.segmenters)

    def version(self, name: str) -> str:
        """Of the bundle with this id; empty where there is none."""
        if name in self.segmenters:
            return self.segmenters[name].manifest.version
        return self.models[name].bundle.manifest.version if name in self.models else ""

    def model(self, name: str) -> Model:
        """Raises UnknownModel, with the names that there are, or WrongTask."""
        if name in self.segmenters:
            raise WrongTask("this model outlines findings and predicts no class: ask POST /v1/segment")
        return self._find(name, self.models)

    def segmenter(self, name: str) -> Segmenter:
        """Raises UnknownModel, with the names that there are, or WrongTask."""
        if name in self.models:
            raise WrongTask("this model classifies and draws no outline: ask POST /v1/predict or POST /v1/explain")
        return self._find(name, self.segmenters)

    def _find(self, name: str, served: dict[str, T]) -> T:
        if name not in served:
            raise UnknownModel(f"there is no such model; there are {', '.join(sorted(self.names)) or 'none'}")
        return served[name]


def load_models(
    folder: Path,
    *,
    threads: int,
    device: str,
    precision: str = "fp32",
    keys: Sequence[Path] = (),
    shared: Path | None = None,
) -> Registry:
    """Open every bundle below `folder`, warmed up; one that is not what it claims is refused, the rest are served.

    Where `keys` (files of public keys) are given, one of them must have signed it. `shared` is the folder of a server
    whose workers share their weights (`service.shared_graphs`).
    """
    models: dict[str, Model] = {}
    segmenters: dict[str, Segmenter] = {}
    refused: dict[str, str] = {}
    for path in sorted(manifest.parent for manifest in folder.glob(f"*/{MANIFEST}")):
        try:
            check_signature(path, keys)
            if is_segmentation(path):
                opened = open_segmenter(path, threads=threads, device=device, shared=shared)
                _check_new(path, opened.manifest.id, (*models, *segmenters))
                segmenters[opened.manifest.id] = opened
                _announce(opened.manifest, opened.provider, "fp32")
                continue
            bundle = read_bundle(path)
            _check_new(path, bundle.manifest.id, (*models, *segmenters))
            engine = open_engine(bundle, threads=threads, device=device, precision=precision, shared=shared)
        except BundleError as error:
            refused[path.name] = str(error)
            logger.error("refused %s", error)
            continue
        models[bundle.manifest.id] = Model(bundle, engine, measure_costs(bundle, engine))
        _announce(bundle.manifest, engine.provider, engine.precision)
        expect_predictions(bundle.manifest.id, bundle.manifest.class_names)
    if not models and not segmenters:
        logger.error("no bundle can be served from %s", folder)
    BUNDLES_REFUSED.set(len(refused))
    return Registry(models, refused, segmenters)


def _check_new(path: Path, name: str, taken: Collection[str]) -> None:
    if name in taken:
        raise BundleError(f"bundle {path.name}: another bundle has the id {name}")


def _announce(manifest: Described, provider: str, precision: str) -> None:
    MODEL_INFO.labels(manifest.id, manifest.version, provider).set(1)
    logger.info("serving %s %s on %s in %s", manifest.id, manifest.version, provider, precision)


def measure_costs(bundle: Bundle, engine: Engine) -> Costs:
    """Time the graphs on the golden sample, which has warmed them up.

    On the CPU one image is as dear as in a batch; on CUDA a batch takes hardly longer than one image, and methods ask
    their questions in batches.
    """
    count = 1 if engine.provider == "cpu" else _BATCH
    golden: Grey8 = read_golden(bundle)["images"].astype(np.uint8)[..., 0]
    images = np.resize(golden, (count, *golden.shape[1:]))
    start = perf_counter()
    logits = engine.logits(images)
    forward = 1000 * (perf_counter() - start) / count
    if engine.gradients is None:
        return Costs(forward, 0.0)
    start = perf_counter()
    engine.gradient(images.astype(np.float32), np.ones_like(logits))
    return Costs(forward, 1000 * (perf_counter() - start) / count)
