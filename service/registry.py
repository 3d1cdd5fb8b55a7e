"""The models that this process serves, and the bundles that it refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from service.bundle import MANIFEST, Bundle, read_bundle
from service.engine import Engine, open_engine
from service.errors import BundleError, UnknownModel
from service.observability import BUNDLES_REFUSED, MODEL_INFO, logger


@dataclass(frozen=True, slots=True)
class Model:
    """A bundle with its running graph."""

    bundle: Bundle
    engine: Engine


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


def load_models(folder: Path, *, threads: int, device: str) -> Registry:
    """Open every bundle below `folder`, warmed up; one that is not what it claims is refused, the rest are served."""
    models: dict[str, Model] = {}
    refused: dict[str, str] = {}
    for path in sorted(manifest.parent for manifest in folder.glob(f"*/{MANIFEST}")):
        try:
            bundle = read_bundle(path)
            if bundle.manifest.id in models:
                raise BundleError(f"bundle {path.name}: another bundle has the id {bundle.manifest.id}")
            engine = open_engine(bundle, threads=threads, device=device)
        except BundleError as error:
            refused[path.name] = str(error)
            logger.error("refused %s", error)
            continue
        models[bundle.manifest.id] = Model(bundle, engine)
        MODEL_INFO.labels(bundle.manifest.id, bundle.manifest.version, engine.provider).set(1)
        logger.info("serving %s %s on %s", bundle.manifest.id, bundle.manifest.version, engine.provider)
    if not models:
        logger.error("no bundle can be served from %s", folder)
    BUNDLES_REFUSED.set(len(refused))
    return Registry(models, refused)
