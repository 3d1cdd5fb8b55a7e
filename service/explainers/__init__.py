"""Explanation methods, by name. A method is one file here and one line in `METHODS`."""

from __future__ import annotations

from service.errors import UnknownMethod, UnknownTarget
from service.explainers import (
    eigencam,
    fastshap,
    gradcam,
    gradcam_plusplus,
    gradient_shap,
    hirescam,
    input_x_gradient,
    integrated_gradients,
    kernelshap,
    layercam,
    lime,
    occlusion,
    partition_shap,
    recipro_cam,
    rise,
    smoothgrad,
    xgradcam,
)
from service.explainers.base import Method
from service.manifest import Manifest
from service.types import Target

METHODS: dict[str, Method] = {
    module.METHOD.name: module.METHOD
    for module in (
        gradcam,
        hirescam,
        gradcam_plusplus,
        layercam,
        xgradcam,
        eigencam,
        recipro_cam,
        fastshap,
        partition_shap,
        kernelshap,
        integrated_gradients,
        gradient_shap,
        smoothgrad,
        input_x_gradient,
        occlusion,
        rise,
        lime,
    )
}


def offered(manifest: Manifest) -> dict[str, Method]:
    """The methods that a bundle explains with, in the manifest's order."""
    return {e.method: METHODS[e.method] for e in manifest.explanations if e.method in METHODS}


def find_method(name: str, manifest: Manifest) -> Method:
    """The method of that name.

    Raises:
        UnknownMethod: the bundle does not offer it; there is no falling back to another one.
    """
    methods = offered(manifest)
    if name not in methods:
        raise UnknownMethod(f"model {manifest.id} does not explain by this method; it offers {', '.join(methods)}")
    return methods[name]


def check_target(target: str, against: str | None, method: Method, manifest: Manifest) -> None:
    """Refuse what `targets` could not resolve.

    Raises:
        UnknownTarget: `target` is neither `predicted`, `all` nor a class of the model, `against` is no class or the
            target itself, or the method knows no targets to contrast.
    """
    names = manifest.class_names
    listed = ", ".join(names)
    if target not in {"predicted", "all", *names}:
        raise UnknownTarget(f"the target must be predicted, all, or a class of model {manifest.id}: {listed}")
    if against is None:
        return
    if against not in names:
        raise UnknownTarget(f"against must be a class of model {manifest.id}: {listed}")
    if against == target:
        raise UnknownTarget("a class cannot be contrasted with itself")
    if not method.targeted:
        raise UnknownTarget(f"{method.name} gives the same map for every class: there is nothing to contrast")


def targets(target: str, against: str | None, predicted: str, manifest: Manifest) -> tuple[Target, ...]:
    """What one image is asked for.

    Args:
        target: a name that passed `check_target`.
        against: as there.
        predicted: name of the predicted class.
        manifest: of the bundle.

    Returns:
        One target, or one for each class where `target` is `all`: without the class `against`, if there is one.

    Raises:
        UnknownTarget: the predicted class is `against` itself.
    """
    names = manifest.class_names
    if target == "all":
        chosen = [name for name in names if name != against]
    else:
        chosen = [predicted if target == "predicted" else target]
    if against in chosen:
        raise UnknownTarget("the predicted class is the one to contrast with; name another")
    index = None if against is None else names.index(against)
    return tuple(Target(name, names.index(name), against, index) for name in chosen)
