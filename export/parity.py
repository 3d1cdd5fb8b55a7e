"""The checks that an export must pass. Each compares the graph with torch holding the same stored weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, LayerCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from tqdm import tqdm

from export.graph import Explained, Fused, Logits
from service.engine import Engine
from service.manifest import ParityCheck
from service.types import Float, Grey8, Outputs
from training.datasets.record import DatasetError

BATCH = 8
_TOLERANCES = {
    "logits_equal_torch": 1e-4,
    "gradcam_equals_pytorch_grad_cam": 1e-4,
    "cam_equals_torch": 1e-3,
    "completeness": 1e-3,
    "layercam_equals_pytorch_grad_cam": 1e-4,
    "gradcam_plusplus_equals_pytorch_grad_cam": 1e-4,
    "gradient_equals_torch": 1e-2,
    "batch_of_8_equals_8_calls": 1e-4,
}
_LIBRARY = {"gradcam": GradCAM, "layercam": LayerCAM, "gradcam_plusplus": GradCAMPlusPlus}


class ParityError(Exception):
    """The exported graph does not do what the network does; the message names every check that failed."""


def check_parity(fused: Fused, engine: Engine, images: Grey8) -> tuple[ParityCheck, ...]:
    """Compare the exported graph with the module that it was exported from.

    Args:
        fused: the module, holding the stored weights.
        engine: the service's engine on the exported graphs; gradients are checked where it has them.
        images: real images, prepared, uint8 `[N, H, W, 1]`, at least 8.

    Returns:
        One result for each check: the largest deviation over all images and classes.

    Raises:
        ParityError: a check failed.
        DatasetError: there are fewer than 8 images.
    """
    if len(images) < BATCH:
        raise DatasetError(f"parity needs at least {BATCH} images of the test part, got {len(images)}")
    names = fused.module.names
    found = _join([engine.run(images[rows], names) for rows in _batches(len(images), "graph")])
    expected = run_module(fused.module, images)
    deviations = {
        "logits_equal_torch": _distance(found.logits, expected.logits),
        "cam_equals_torch": _distance(found.cam, expected.cam) / max(1.0, float(np.abs(expected.cam).max())),
        "gradcam_equals_pytorch_grad_cam": cam_deviation("gradcam", fused.plain, found.cam, images),
        "batch_of_8_equals_8_calls": _batching_deviation(engine, images[:BATCH]),
    }
    if engine.gradients is not None:
        deviations["gradient_equals_torch"] = gradient_deviation(fused.plain, engine, images[:BATCH])
    if fused.bias is not None:
        for name in ("layercam", "gradcam_plusplus"):
            diagonal = np.moveaxis(np.diagonal(found.more[name], axis1=1, axis2=2), -1, 1)[:BATCH]
            check = f"{name}_equals_pytorch_grad_cam"
            deviations[check] = cam_deviation(name, fused.plain, diagonal, images[:BATCH])
        bias = np.asarray(fused.bias, np.float64)
        deviations["completeness"] = _distance(found.cam.astype(np.float64).mean(axis=(2, 3)) + bias, found.logits)
    checks = tuple(
        ParityCheck(check=name, deviation=value, tolerance=_TOLERANCES[name], images=_images(name, len(images)))
        for name, value in deviations.items()
    )
    failed = [
        f"{c.check}: {c.deviation:.3g} exceeds {c.tolerance:.3g}" for c in checks if not c.deviation <= c.tolerance
    ]
    if failed:
        raise ParityError("; ".join(failed))
    return checks


def run_module(module: Explained, images: Grey8) -> Outputs:
    """The module's outputs for prepared images uint8 `[N, H, W, 1]`."""
    parts: list[Outputs] = []
    with torch.no_grad():
        for rows in _batches(len(images), "torch"):
            logits, cam, *others = module(_tensor(images[rows]))
            more = {name: other.numpy() for name, other in zip(module.names, others, strict=True)}
            parts.append(Outputs(logits.numpy(), cam.numpy(), more))
    return _join(parts)


def gradient_deviation(plain: Logits, engine: Engine, images: Grey8) -> float:
    """Largest distance of the gradient graph from torch's autograd, over images and classes, relative to its length.

    The Euclidean distance, because single values jump: where an activation lies within rounding of a kink of its
    non-linearity, one side or the other is right.
    """
    largest = 0.0
    pixels = _tensor(images).float().requires_grad_()
    for target, row in enumerate(plain(pixels).unbind(dim=1)):
        (wanted,) = torch.autograd.grad(row.sum(), pixels, retain_graph=True)
        weights = np.zeros((len(images), plain.network.head.out_features), np.float32)
        weights[:, target] = 1
        found = engine.gradient(images[..., 0].astype(np.float32), weights)
        expected = wanted[..., 0].numpy()
        distance = np.linalg.norm(found - expected, axis=(1, 2)) / np.linalg.norm(expected, axis=(1, 2))
        largest = max(largest, float(distance.max()))
    return largest


def cam_deviation(method: str, plain: Logits, cam: Float, images: Grey8) -> float:
    """Largest distance, over images, classes and pixels, from pytorch-grad-cam at the end of the trunk.

    Both maps are scaled as it scales its own: to 0..1, resampled to the image's size, and to 0..1 again.

    Args:
        method: `gradcam`, `layercam` or `gradcam_plusplus`.
        plain: the network without explanation.
        cam: our maps, `[N, K, h, w]`.
        images: uint8 `[N, H, W, 1]`.
    """
    classes = cam.shape[1]
    factor = 1 if method == "gradcam_plusplus" else cam.shape[2] * cam.shape[3]  # the library adds 1e-7 to a divisor
    side = (images.shape[2], images.shape[1])
    largest = 0.0
    with _LIBRARY[method](model=ChannelsFirst(plain), target_layers=[plain.body]) as reference:
        for rows in _batches(len(images), "pytorch-grad-cam"):
            pixels = _tensor(images[rows]).permute(0, 3, 1, 2)
            for target in range(classes):
                wanted = reference(pixels, [cast(nn.Module, ClassifierOutputTarget(target))] * len(pixels))
                ours = scale_cam_image(scale_cam_image(np.maximum(cam[rows, target] / factor, 0), side))
                largest = max(largest, _distance(np.asarray(ours), np.asarray(wanted)))
    return largest


class ChannelsFirst(nn.Module):
    """The axes that pytorch-grad-cam takes the map's size from."""

    def __init__(self, plain: Logits) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images `[N, 1, H, W]`."""
        return self.plain(images.permute(0, 2, 3, 1))


def _batching_deviation(engine: Engine, images: Grey8) -> float:
    together = engine.run(images)
    singles = _join([engine.run(images[row : row + 1]) for row in range(len(images))])
    scale = max(1.0, float(np.abs(singles.cam).max()))
    return max(_distance(together.logits, singles.logits), _distance(together.cam, singles.cam) / scale)


def _images(check: str, count: int) -> int:
    return BATCH if check.startswith(("batch", "gradient", "layercam", "gradcam_plusplus")) else count


def _batches(count: int, label: str) -> Iterator[slice]:
    for start in tqdm(range(0, count, BATCH), desc=f"parity: {label}", unit="batch", leave=False):
        yield slice(start, start + BATCH)


def _tensor(images: Grey8) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images))


def _join(parts: list[Outputs]) -> Outputs:
    more = {name: np.concatenate([p.more[name] for p in parts]) for name in parts[0].more}
    return Outputs(np.concatenate([p.logits for p in parts]), np.concatenate([p.cam for p in parts]), more)


def _distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Largest absolute difference; not a number where either holds one."""
    if a.shape != b.shape:
        raise ParityError(f"shapes differ: {a.shape} and {b.shape}")
    return float(np.abs(a - b).max())
