"""Explanation methods, by name. A method is one file here and one line in `EXPLAINERS`."""

from __future__ import annotations

from service.bundle import Manifest
from service.errors import UnknownMethod, UnknownTarget
from service.explainers import gradcam, hirescam
from service.explainers.base import Explainer
from service.types import Attribution, Float

EXPLAINERS: dict[str, Explainer] = {gradcam.METHOD: gradcam.explain, hirescam.METHOD: hirescam.explain}


def check_method(method: str, manifest: Manifest) -> None:
    """Raises UnknownMethod where the bundle does not offer the method; there is no falling back to another one."""
    offered = [e.method for e in manifest.explanations if e.method in EXPLAINERS]
    if method not in offered:
        raise UnknownMethod(f"model {manifest.id} does not explain by this method; it offers {', '.join(offered)}")


def check_target(target: str, manifest: Manifest) -> None:
    """Raises UnknownTarget where `target` is neither `predicted`, `all` nor a class of the model."""
    if target not in {"predicted", "all", *manifest.class_names}:
        names = ", ".join(manifest.class_names)
        raise UnknownTarget(f"the target must be predicted, all, or a class of model {manifest.id}: {names}")


def explain(method: str, cam: Float, target: str, predicted: str, manifest: Manifest) -> list[Attribution]:
    """Attributions of one image: one for each target.

    Args:
        method: a name that passed `check_method`.
        cam: float32 `[K, h, w]`.
        target: a name that passed `check_target`.
        predicted: name of the predicted class.
        manifest: of the bundle that made the map.
    """
    names = manifest.class_names
    targets = names if target == "all" else (predicted if target == "predicted" else target,)
    return [EXPLAINERS[method](cam, names.index(name), manifest) for name in targets]
