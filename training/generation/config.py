"""What a generator's run and the experiment on its images are: read from a TOML file, kept in the checkpoint."""

from __future__ import annotations

from pydantic import Field

from service.types import PreprocessingSpec
from service.validation import Strict
from training.config import DataConfig


class ClassifierConfig(Strict):
    """The small classifier of the experiment, the same in every arm: `steps` batches, whatever they are drawn from."""

    steps: int = Field(ge=1)
    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05


class ExperimentConfig(Strict):
    """`shares` of generated images are added to all real ones of the training part."""

    shares: tuple[float, ...] = (0.25, 0.5, 1.0)
    classifier: ClassifierConfig


class GeneratorConfig(Strict):
    """One run. Images are `size` x `size`, a power of two; `width` scales both networks' feature maps.

    `preprocessing.size` is what images are prepared at, a multiple of `size`; `ema` is the decay of the averaged
    generator, per step, which is the result.
    """

    classes: tuple[str, ...]
    data: DataConfig
    preprocessing: PreprocessingSpec
    size: int = Field(default=64, ge=16)
    width: int = Field(default=32, ge=4)
    latent: int = Field(default=96, ge=1)
    seed: int = 0
    batch: int = Field(default=32, ge=2)
    epochs: int = Field(ge=1)
    epoch_images: int = Field(ge=2)
    generator_rate: float = 2e-4
    discriminator_rate: float = 4e-4
    ema: float = 0.995
    experiment: ExperimentConfig
