"""One graph that predicts and explains: logits and the activation maps of every class from one forward pass.

Behind global average pooling and one linear layer, with `A [N, D, h, w]` the last feature maps, `W [K, D]`, `b [K]`:

    cam[n, c] = sum_d W[c, d] A[n, d]        a 1 x 1 convolution
    logit[n, c] = mean(cam[n, c]) + b[c]     exactly: pooling and the linear layer commute

The gradient of logit c with respect to feature map d is W[c, d] / (h w) in every cell, so that Grad-CAM (Selvaraju et
al., ICCV 2017) and HiResCAM (Draelos & Carin, 2020) are ReLU(cam) / (h w). Other heads: see `export.tail`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.tail import TargetGradients
from training.models.network import Neck, Network, summary_of

LARGEST_HALF = 65504.0
RESPONSE = ("principal",)
_SQUARINGS, _ITERATIONS = 6, 24  # together the 1536th power
_TINY = 1e-20
_GRADCAM_PLUSPLUS_EPSILON = 1e-6  # pytorch-grad-cam's


class Trunk(nn.Module):
    """Images uint8 `[N, H, W, 1]` to the trunk's feature maps, finest first."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalise and run the trunk."""
        return self.network.pyramid(self.network.normalise(images.permute(0, 3, 1, 2)))


class Body(nn.Module):
    """Images uint8 `[N, H, W, 1]` to evidence maps float32 `[N, D, h, w]`: what the explanations look at."""

    def __init__(self, trunk: nn.Module, neck: nn.Module) -> None:
        super().__init__()
        self.trunk, self.neck = trunk, neck

    def forward(self, images: Tensor) -> Tensor:
        """Run both."""
        return self.neck(self.trunk(images))


class ClassActivation(nn.Module):
    """Feature maps float32 `[N, D, h, w]` to logits `[N, K]`, class activation maps `[N, K, h, w]`, and their kin."""

    names = ("layercam", "gradcam_plusplus", *RESPONSE)

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.maps = nn.Conv2d(head.in_features, head.out_features, kernel_size=1, bias=False)
        self.maps.weight = nn.Parameter(head.weight.detach().clone()[:, :, None, None])
        self.bias = nn.Parameter(head.bias.detach().clone())

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """The maps first, their means after."""
        cam = self.maps(features)
        return (cam.mean(dim=(2, 3)) + self.bias, cam, *self.kin(features), principal(features))

    def kin(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """LayerCAM and Grad-CAM++ of every class and every contrast, `[N, K, K, h, w]`; see `service.explainers`."""
        weights = self.maps.weight[:, :, 0, 0]
        classes, cells = len(weights), features.shape[2] * features.shape[3]
        others = torch.ones(classes, classes) - torch.eye(classes)
        contrasts = (weights[:, None] - others[:, :, None] * weights[None]).flatten(0, 1)
        flat = features.flatten(2)
        layercam = torch.relu(contrasts) @ flat
        gradients = contrasts / cells
        square = gradients**2
        share = square / (2 * square + flat.sum(dim=2)[:, None] * square * gradients + _GRADCAM_PLUSPLUS_EPSILON)
        plusplus = (cells * torch.relu(gradients) * share) @ flat
        shape = (-1, classes, classes, features.shape[2], features.shape[3])
        return layercam.reshape(shape), plusplus.reshape(shape)


def principal(features: Tensor) -> Tensor:
    """The projection of feature maps `[N, D, h, w]` on their first principal component, `[N, h, w]` (Eigen-CAM).

    By power iteration on the smaller of both Gram matrices of the centred cells, squared a few times. The sign is that
    with which cells of a larger uncentred norm are positive.
    """
    cells = features.flatten(2).transpose(1, 2)
    centred = cells - cells.mean(dim=1, keepdim=True)
    wide = centred.shape[2] >= centred.shape[1]  # more channels than cells
    gram = centred @ centred.transpose(1, 2) if wide else centred.transpose(1, 2) @ centred
    for _ in range(_SQUARINGS):
        gram = gram / gram.square().sum(dim=(1, 2), keepdim=True).sqrt().clamp(min=_TINY)
        gram = gram @ gram
    strength = cells.square().sum(dim=2, keepdim=True).sqrt()
    strength = strength - strength.mean(dim=1, keepdim=True)
    vector = strength if wide else centred.transpose(1, 2) @ strength
    for _ in range(_ITERATIONS):
        vector = gram @ vector
        vector = vector / vector.square().sum(dim=(1, 2), keepdim=True).sqrt().clamp(min=_TINY)
    if wide:  # X v = u |X^T u|, with u the first left singular vector
        component = vector * (centred.transpose(1, 2) @ vector).square().sum(dim=(1, 2), keepdim=True).sqrt()
    else:
        component = centred @ vector
    positive = (component * strength).sum(dim=(1, 2), keepdim=True) >= 0
    return torch.where(positive, component, -component).reshape(-1, features.shape[2], features.shape[3])


class Explained(nn.Module):
    """Images uint8 `[N, H, W, 1]` to logits float32 `[N, K]`, cam float32 `[N, K, h, w]`, and the outputs `names`."""

    def __init__(
        self,
        body: Body,
        tail: ClassActivation | TargetGradients,
        shapley: nn.Module | None,
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.body, self.tail, self.shapley, self.gate = body, tail, shapley, gate
        self.names = tail.names if isinstance(tail, ClassActivation) else RESPONSE
        if gate is not None:
            self.names = (*self.names, "gate")
        if shapley is not None:
            self.names = (*self.names, "shapley")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """One pass."""
        pyramid = self.body.trunk(images)
        features = self.body.neck(pyramid)
        found = self.tail(features)
        if isinstance(self.tail, TargetGradients):
            found = (*found, principal(features))
        if self.gate is not None:
            found = (*found, self.gate(summary_of(pyramid)))
        return found if self.shapley is None else (*found, self.shapley(features))


class Logits(nn.Module):
    """Images uint8 `[N, H, W, 1]` to logits `[N, K]`, without explanation: what an explanation is checked against."""

    def __init__(self, body: Body, network: Network) -> None:
        super().__init__()
        self.body, self.network = body, network

    def forward(self, images: Tensor) -> Tensor:
        """Run the trunk and the network's own head."""
        return self.network.classify(self.body(images))


@dataclass(frozen=True, slots=True)
class Fused:
    """A network made ready for export.

    `module` is what is exported, `plain` the same trunk with the network's own head, both holding the weights that are
    stored. `cam` and `bias` are as in the manifest's `Graph`.
    """

    module: Explained
    plain: Logits
    cam: Literal["class_activation", "gradient"]
    bias: tuple[float, ...] | None


def fuse_network(
    network: Network,
    size: int,
    *,
    half: bool = True,
    shapley: nn.Module | None = None,
    gate: nn.Module | None = None,
) -> Fused:
    """Fold batch normalisation into the convolutions and put the explanation behind the trunk; the network is copied.

    Args:
        network: in evaluation mode.
        size: side of the input in pixels.
        half: round every weight with two axes or more to half precision, as it will be stored.
        shapley: FastSHAP's trained explainer, `[N, D, h, w]` to `[N, K, g, g]`, where there is one.
        gate: the trunk's summary `[N, F]` to `[N, G]`, where there is one (`export.familiarity`).

    Raises:
        ValueError: the network is in training mode, where normalisation depends on the batch, or a weight lies beyond
            half precision's range.
    """
    if network.training:
        raise ValueError("the network is in training mode; call eval() first")
    network = copy.deepcopy(network).to("cpu", memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    fold_neck(network.neck)
    body = Body(fuse(fx.symbolic_trace(Trunk(network))), network.neck)
    shapley, gate = (copy.deepcopy(each).eval() if each is not None else None for each in (shapley, gate))
    if half:
        for each in (shapley, gate):
            if each is not None:
                round_to_half(each)
        round_to_half(body)
        round_to_half(network)  # its trunk is in `body` already, its head is yet to be taken
    plain = Logits(body, network).eval()
    if network.pools_into_linear:
        tail = ClassActivation(network.head)
        return Fused(Explained(body, tail, shapley, gate).eval(), plain, "class_activation", tuple(tail.bias.tolist()))
    with torch.no_grad():
        features = body(torch.zeros(2, size, size, 1, dtype=torch.uint8))
    tail = TargetGradients(network.classify, features)
    return Fused(Explained(body, tail, shapley, gate).eval(), plain, "gradient", None)


def fold_neck(neck: nn.Module) -> None:
    """Fold the normalisations of a neck into its convolutions, in place.

    That of the laterals' sum goes into each of them: resampling keeps an affine map.
    """
    if not isinstance(neck, Neck) or not isinstance(norm := neck.norm, nn.BatchNorm2d):
        return
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101
    laterals = [cast(nn.Conv2d, lateral) for lateral in neck.laterals]
    with torch.no_grad():
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        for lateral in laterals:
            lateral.weight.mul_(scale[:, None, None, None])
            cast(Tensor, lateral.bias).mul_(scale)
        cast(Tensor, laterals[0].bias).add_(norm.bias - norm.running_mean * scale)
    neck.norm = nn.Identity()
    neck.middle = fuse_conv_bn_eval(cast(nn.Conv2d, neck.middle), cast(nn.BatchNorm2d, neck.settle))
    neck.settle = nn.Identity()


def round_to_half(module: nn.Module) -> None:
    """Round in place; biases and what normalisation holds stay as they are."""
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            if tensor.ndim < 2:
                continue
            if float(tensor.abs().max()) > LARGEST_HALF:
                raise ValueError(f"{name} holds a weight beyond {LARGEST_HALF:.0f}, which half precision cannot store")
            tensor.copy_(tensor.half().float())
