"""The models that this process serves, and the bundles that it refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from service.bundle import MANIFEST, Bundle, read_bundle
from service.engine import Engine, open_engine, read_golden
from service.errors import BundleError, UnknownModel
from service.explainers.base import Method, Options, Tier
from service.observability import BUNDLES_REFUSED, MODEL_INFO, logger
from service.types import Grey8


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds an image, measured on the golden sample at start: of a forward pass and of a gradient."""

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


@dataclass(frozen=True, slots=True)
class Registry:
    """Models by id; `refused` holds the reason by name of the bundle's folder."""

    models: dict[str, Model]
    refused: dict[str, str]

    def model(self, name: str) -> Model:
        """Raises UnknownModel, with the names that there are."""
        if name not in self.models:
            raise UnknownModel(f"there is no such model; there are {', '.join(sorted(self.models)) or 'none'}")
        return self.models[name]


def load_models(folder: Path, *, threads: int, device: str, precision: str = "fp32") -> Registry:
    """Open every bundle below `folder`, warmed up; one that is not what it claims is refused, the rest are served."""
    models: dict[str, Model] = {}
    refused: dict[str, str] = {}
    for path in sorted(manifest.parent for manifest in folder.glob(f"*/{MANIFEST}")):
        try:
            bundle = read_bundle(path)
            if bundle.manifest.id in models:
                raise BundleError(f"bundle {path.name}: another bundle has the id {bundle.manifest.id}")
            engine = open_engine(bundle, threads=threads, device=device, precision=precision)
        except BundleError as error:
            refused[path.name] = str(error)
            logger.error("refused %s", error)
            continue
        models[bundle.manifest.id] = Model(bundle, engine, measure_costs(bundle, engine))
        MODEL_INFO.labels(bundle.manifest.id, bundle.manifest.version, engine.provider).set(1)
        logger.info(
            "serving %s %s on %s in %s",
            bundle.manifest.id,
            bundle.manifest.version,
            engine.provider,
            engine.precision,
        )
    if not models:
        logger.error("no bundle can be served from %s", folder)
    BUNDLES_REFUSED.set(len(refused))
    return Registry(models, refused)


def measure_costs(bundle: Bundle, engine: Engine) -> Costs:
    """Time the warmed-up graphs on the golden sample."""
    images: Grey8 = read_golden(bundle)["images"].astype(np.uint8)[..., 0]
    start = perf_counter()
    logits = engine.logits(images)
    forward = (perf_counter() - start) / len(images)
    if engine.gradients is None:
        return Costs(1000 * forward, 0.0)
    start = perf_counter()
    engine.gradient(images.astype(np.float32), np.ones_like(logits), free=True)
    return Costs(1000 * forward, 1000 * (perf_counter() - start) / len(images))
