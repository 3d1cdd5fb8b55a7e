"""What one training run of a segmentation network is: read from a TOML file, kept in the checkpoint."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from training.config import StagedConfig


class SegmentationConfig(StagedConfig):
    """One run.

    `classes` are the dataset's labels; images of those in `healthy` hold nothing to outline, and `empty_share` is their
    share of an epoch of `epoch_images` images. Images of the other classes without an outline are left out. `channels`
    are the U-Net's feature maps by level, finest first.
    """

    task: Literal["segmentation"] = "segmentation"
    network: Literal["unet"] = "unet"
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    batch: int = Field(default=16, ge=2)
    epoch_images: int = Field(default=1600, ge=2)
    empty_share: float = Field(default=0.15, ge=0, lt=1)
    learning_rate: float = 2e-3
    warm_up: float = 0.1
    weight_decay: float = 0.01
    validate_every: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _sides_divide(self) -> Self:
        step = 2 ** (len(self.channels) - 1)
        for size in (self.preprocessing.size, *(stage.size for stage in self.stages)):
            if size % step:
                raise ValueError(f"side {size} is not a multiple of {step}, which {len(self.channels)} levels need")
        return self
