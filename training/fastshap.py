"""FastSHAP (Jethani et al., ICLR 2022): a head that learns to guess Shapley values from the model's masked outputs.

The values phi of an image minimise, over coalitions S drawn by the Shapley kernel,

    E_S [ (f(S) - f(nothing) - sum of phi over S)^2 ]    with the sum over all players fixed,

so a head trained on that loss over many images needs no Shapley value to learn from. What its guess misses of
f(everything) - f(nothing) is spread evenly over the players before the loss (additive efficient normalisation).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from service.types import Float
from training.models.shapley_head import GRID, ShapleyHead


@dataclass(frozen=True, slots=True)
class MaskedOutputs:
    """What the head learns from: N images, M coalitions each.

    Attributes:
        features: the network's last feature maps, float32 `[N, D, h, w]`.
        shown: bool `[N, M, 49]`: the cells that each coalition shows, row by row.
        scores: logits float32 `[N, M, K]` of the image with the rest hidden.
        whole: logits float32 `[N, K]` of the whole image.
        empty: logits float32 `[N, K]` of the image with everything hidden.
    """

    features: Float
    shown: NDArray[np.bool_]
    scores: Float
    whole: Float
    empty: Float

    def __len__(self) -> int:
        return len(self.whole)


def draw_coalitions(count: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Coalitions of the 49 cells drawn by the Shapley kernel, bool `[count, 49]`, each followed by its opposite."""
    players = GRID * GRID
    sizes = np.arange(1, players)
    chances = 1 / (sizes * (players - sizes))
    drawn = random.choice(sizes, count // 2, p=chances / chances.sum())
    ranks = random.random((count // 2, players)).argsort(axis=1).argsort(axis=1)
    shown = ranks < drawn[:, None]
    return np.stack([shown, ~shown], axis=1).reshape(-1, players)


def train_head(
    head: ShapleyHead,
    data: MaskedOutputs,
    validation: MaskedOutputs,
    *,
    epochs: int,
    seed: int = 0,
    batch: int = 32,
    learning_rate: float = 1e-3,
) -> list[float]:
    """Train the head in place; the weights of the best epoch on the validation images are kept.

    Returns:
        For each epoch, the share of the validation scores' variance that the values leave unexplained.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, total_steps=epochs * -(-len(data) // batch), pct_start=0.1
    )
    best, history = copy.deepcopy(head.state_dict()), list[float]()
    for _ in tqdm(range(epochs), desc="fastshap", unit="epoch"):
        head.train()
        for rows in torch.randperm(len(data), generator=generator).split(batch):
            loss = _loss(head, data, rows.numpy()).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        history.append(unexplained(head, validation))
        if history[-1] <= min(history):
            best = copy.deepcopy(head.state_dict())
    head.load_state_dict(best)
    head.eval()
    return history


def unexplained(head: ShapleyHead, data: MaskedOutputs) -> float:
    """Mean squared error of the additive model of coalitions, over the variance of their scores about f(nothing)."""
    head.eval()
    with torch.inference_mode():
        parts = [_loss(head, data, rows) for rows in np.array_split(np.arange(len(data)), max(1, len(data) // 32))]
    spread = np.square(data.scores - data.empty[:, None]).mean()
    return float(torch.cat(parts).mean()) / float(spread)


def efficient(values: Tensor, total: Tensor) -> Tensor:
    """Spread what the values `[N, K, g, g]` miss of `total` `[N, K]` evenly over the cells."""
    missing = total - values.sum(dim=(2, 3))
    return values + (missing / (values.shape[2] * values.shape[3]))[..., None, None]


def _loss(head: ShapleyHead, data: MaskedOutputs, rows: NDArray[np.int64]) -> Tensor:
    """Squared errors `[n, M, K]`."""
    features, shown = torch.from_numpy(data.features[rows]), torch.from_numpy(data.shown[rows]).float()
    whole, empty = torch.from_numpy(data.whole[rows]), torch.from_numpy(data.empty[rows])
    values = efficient(head(features), whole - empty)
    guessed = torch.einsum("nmp,nkp->nmk", shown, values.flatten(2))
    return (torch.from_numpy(data.scores[rows]) - empty[:, None] - guessed).square()
