"""FastSHAP's explainer (Jethani et al., ICLR 2022) as a head on a trained network's last feature maps."""

from __future__ import annotations

from torch import Tensor, nn

GRID = 7
HIDDEN = 128


class ShapleyHead(nn.Module):
    """Feature maps `[N, D, h, w]` to the Shapley values `[N, K, 7, 7]` of the cells of a 7 x 7 grid, in logits.

    The network itself stays as it was trained: the head reads its feature maps and nothing else, so that predicting
    and explaining remain one forward pass. Larger feature maps are averaged down to the grid.
    """

    def __init__(self, width: int, classes: int, cells: int) -> None:
        """Make a head for feature maps of `width` channels and `cells` x `cells` cells.

        Raises:
            ValueError: the cells cannot be averaged to a 7 x 7 grid.
        """
        super().__init__()
        if cells % GRID:
            raise ValueError(f"feature maps of {cells} x {cells} cells do not divide into {GRID} x {GRID}")
        self.layers = nn.Sequential(
            nn.Conv2d(width, HIDDEN, 1),
            nn.ReLU(),
            nn.AvgPool2d(cells // GRID) if cells > GRID else nn.Identity(),
            nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(HIDDEN, classes, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Shapley values, before what they miss of the total is spread (see `service.explainers.fastshap`)."""
        return self.layers(features)
