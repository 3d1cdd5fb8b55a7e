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


class SamplingConfig(Strict):
    """How the batches of a run are made up.

    Images are drawn by groups of one source, one weighting, with or without a finding; a group of n images is drawn as
    often as max(n, `smallest`) to the power `power` says.

    Attributes:
        power: 1 draws every image alike, 0 every group.
        smallest: groups of fewer images count as this many.
        finding_share: share of a batch with a finding.
        painted: share of the other images that are images with a finding painted out (`training.painting`).
        paired: share of images with a finding that bring one without, of the same patient and weighting and a near
            level, where there is one.
        touched: share of the other images with something painted that is no finding, so that paint tells nothing.
        stripped: share of images without, and with a finding, whose skull is taken off.
    """

    power: float = Field(default=0.65, ge=0, le=1)
    smallest: int = Field(default=60, ge=1)
    finding_share: float = Field(default=0.5, gt=0, lt=1)
    painted: float = Field(default=0.0, ge=0, le=1)
    paired: float = Field(default=0.0, ge=0, le=1)
    touched: float = Field(default=0.0, ge=0, le=1)
    stripped: tuple[float, float] = (0.0, 0.0)


class LossConfig(Strict):
    """Weights of the losses; see `training.losses`."""

    label: float = 0.4
    cells: float = 3.0
    cell_label: float = 0.2
    overlap: float = 0.5
    sparse: float = 0.02


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

    `epoch_images` are drawn in an epoch (default: as many as the training part has). The neck learns at `head_rate`
    times the `learning_rate` of the trunk, the head faster still. Layers whose names begin with one of `frozen` stay
    as the weights have them that a run starts from.
    """

    network: str
    batch: int = 24
    epoch_images: int | None = None
    sampling: SamplingConfig = SamplingConfig()
    losses: LossConfig = LossConfig()
    learning_rate: float = 4e-4
    head_rate: float = 2.5
    frozen: tuple[str, ...] = ()
    warm_up: float = 0.12
    weight_decay: float = 0.03
    validate_every: int = 2

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
