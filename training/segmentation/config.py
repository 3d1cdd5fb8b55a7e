"""What one training run of a segmentation network is: read from a TOML file, kept in the checkpoint."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from service.types import PreprocessingSpec
from service.validation import Strict
from training.augment import Augmentation
from training.config import DataConfig, StageConfig


class SegmentationConfig(Strict):
    """One run.

    `classes` are the dataset's labels; images of those in `healthy` hold nothing to outline, so that their mask is
    known to be empty, and `empty_share` is their share of an epoch of `epoch_images` images. Images of the other
    classes without an outline are left out. `channels` are the U-Net's feature maps by level, finest first. `stages`
    are as in `training.config`; `ema` is the decay of the averaged weights, per step.
    """

    task: Literal["segmentation"] = "segmentation"
    network: Literal["unet"] = "unet"
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    classes: tuple[str, ...]
    healthy: tuple[str, ...] = ()
    data: DataConfig
    preprocessing: PreprocessingSpec
    augmentation: Augmentation = Augmentation()
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    seed: int = 0
    batch: int = Field(default=16, ge=2)
    epoch_images: int = Field(default=1600, ge=2)
    empty_share: float = Field(default=0.15, ge=0, lt=1)
    learning_rate: float = 2e-3
    warm_up: float = 0.1
    weight_decay: float = 0.01
    ema: float = 0.99
    validate_every: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _sides_divide(self) -> Self:
        step = 2 ** (len(self.channels) - 1)
        for size in (self.preprocessing.size, *(stage.size for stage in self.stages)):
            if size % step:
                raise ValueError(f"side {size} is not a multiple of {step}, which {len(self.channels)} levels need")
        return self

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    def size_at(self, epoch: int) -> int:
        """Input side in pixels during `epoch` (from 0)."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage.size
            epoch -= stage.epochs
        return self.stages[-1].size


def load_config(path: Path) -> SegmentationConfig:
    """Read a TOML file; raises pydantic's ValidationError, naming every field that is wrong."""
    with path.open("rb") as file:
        return SegmentationConfig.model_validate(tomllib.load(file))
