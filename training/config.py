"""What one training run is: read from a TOML file, kept in the checkpoint."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, field_validator

from service.types import PreprocessingSpec
from service.validation import Strict
from training.augment import Augmentation
from training.models import NETWORKS

Config = TypeVar("Config", bound=Strict)


class DataConfig(Strict):
    """An adapter of `training.datasets.ADAPTERS`, its options, and the split file (made where it is missing)."""

    adapter: str
    options: dict[str, Any] = Field(default_factory=dict[str, Any])
    split: Path
    split_seed: int = 0


class StageConfig(Strict):
    """`epochs` at one input size in pixels; small first, because early epochs need no detail."""

    size: int
    epochs: int


class TeacherConfig(Strict):
    """A trained checkpoint that the student also learns from.

    `weight` is the share of its softened probabilities in the label loss (Hinton et al., 2015); `feature_weight` weighs
    the distance of the student's feature maps, projected, from the teacher's (Romero et al., "FitNets", ICLR 2015).
    `blend` is the probability that an image is mixed with another one of its batch, so that the student sees the
    teacher's answer between images too (Beyer et al., "Knowledge distillation: a good teacher is patient and
    consistent", CVPR 2022). A blended image keeps its label, so `weight` should be close to 1 with it, and has no
    known lesion.
    """

    checkpoint: Path
    size: int
    weight: float = 0.5
    temperature: float = 2.0
    feature_weight: float = 0.0
    blend: float = Field(default=0.0, ge=0, le=1)


class StagedConfig(Strict):
    """What runs in stages have in common.

    `healthy` names the classes whose images hold no lesion, so that their lesion mask is known to be empty. `ema` is
    the decay of the averaged weights, per step.
    """

    classes: tuple[str, ...]
    healthy: tuple[str, ...] = ()
    data: DataConfig
    preprocessing: PreprocessingSpec
    augmentation: Augmentation = Augmentation()
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    seed: int = 0
    ema: float = 0.99

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


class TrainConfig(StagedConfig):
    """One run.

    `shares` are the classes' shares of an epoch of `epoch_images` images (default: as in the training part).
    `map_weight` weighs the loss that keeps a class activation map inside the lesion, `lesion_weight` the loss
    of an auxiliary lesion segmentation; both need masks.
    """

    network: str
    batch: int = 32
    epoch_images: int | None = None
    shares: dict[str, float] | None = None
    learning_rate: float = 1e-3
    warm_up: float = 0.15
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    map_weight: float = 0.0
    lesion_weight: float = 0.0
    validate_every: int = 2
    teacher: TeacherConfig | None = None

    @field_validator("network")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in NETWORKS:
            raise ValueError(f"no network {name!r}; there are {', '.join(sorted(NETWORKS))}")
        return name


def read_config(path: Path, kind: type[Config]) -> Config:
    """Read a TOML file.

    Args:
        path: the file.
        kind: what it must hold.

    Raises:
        TOMLDecodeError: it is no TOML.
        ValidationError: pydantic's, naming every field that is wrong.
    """
    with path.open("rb") as file:
        return kind.model_validate(tomllib.load(file))


def load_config(path: Path) -> TrainConfig:
    """A classifier's run; see `read_config`."""
    return read_config(path, TrainConfig)
