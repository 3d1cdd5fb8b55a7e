"""LayerCAM (Jiang et al., TIP 2021), in closed form."""

from __future__ import annotations

from service.explainers.base import Method, Question, read_off
from service.types import Float, Target


def read(question: Question, target: Target) -> Float:
    """Positive gradient times activation, summed over feature maps; times h * w.

    The graph's output `layercam` holds the maps of all classes on the diagonal and of all contrasts beside it: a 1 x 1
    convolution with ReLU(W[a]) and ReLU(W[a] - W[b]).

    Returns:
        float32 `[h, w]`, logits; only what speaks for the target, never negative where the activations are not.
    """
    maps = question.outputs.more["layercam"]
    return maps[target.index, target.index if target.against is None else target.against]


METHOD = Method(
    name="layercam",
    exact=True,
    meaning="positive gradient of the target's logit times feature map, summed over maps, times h w",
    source="Jiang et al., IEEE TIP 2021, doi 10.1109/TIP.2021.3089943",
    explain=read_off("layercam", read),
    outputs=frozenset({"layercam"}),
    linear_head=True,
)
