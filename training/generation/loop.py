"""Training the generator: hinge losses, differentiable augmentation, averaged weights; resumable and reproducible."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from service.types import Grey8
from training.augment import resized
from training.checkpoint import load_run, load_unfinished, save_checkpoint
from training.datasets.prepared import Prepared
from training.generation.config import GeneratorConfig
from training.generation.networks import Discriminator, Generator

_BETAS = (0.0, 0.9)


@dataclass
class _Run:
    config: GeneratorConfig
    fabric: Fabric
    generator: nn.Module
    discriminator: nn.Module
    averaged: AveragedModel
    optimisers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]
    steps: int

    @property
    def averaged_steps(self) -> Tensor:
        """Steps that went into the average, a scalar."""
        return self.averaged.n_averaged


def train(config: GeneratorConfig, training: Prepared, out: Path, *, fabric: Fabric) -> Path:
    """Train to the end, from the last finished epoch where `out` holds an unfinished run.

    Both networks see augmented images, real and generated alike, so that the discriminator does not learn the few real
    ones by heart and the augmentation does not leak into what is generated (Zhao et al., "Differentiable augmentation
    for data-efficient GAN training", NeurIPS 2020).

    Args:
        config: the run.
        training: the images of the training part; no others are ever seen.
        out: folder for `last.pt` (state to resume from) and `log.csv`.
        fabric: device and precision.

    Returns:
        The path of `last.pt`, whose averaged generator is the result.
    """
    run = _start(config, fabric)
    last = out / "last.pt"
    first = _resume(run, last) if last.exists() else 0
    images = shrunk(training.images, config.size)
    for epoch in range(first, config.epochs):
        losses = _epoch(run, images, training.labels, epoch)
        _save(run, last, epoch)
        row = {"epoch": epoch, "loss_discriminator": losses[0], "loss_generator": losses[1]}
        _log(out / "log.csv", row)
        tqdm.write("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
    return last


def load_generator(path: Path) -> tuple[Generator, GeneratorConfig]:
    """The averaged generator of a checkpoint, in evaluation mode, and its run's configuration as far as it got.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is none.
        ValidationError: the checkpoint is not of a generator's run (pydantic's).
    """
    content = load_run(path)
    config = GeneratorConfig.model_validate_json(content["config"])
    config = config.model_copy(update={"epochs": content["epoch"] + 1})
    generator = _new_generator(config)
    generator.load_state_dict(content["averaged"])
    return generator.eval(), config


def generate(generator: Generator, labels: NDArray[np.int64], seed: int, batch: int = 128) -> Grey8:
    """Images uint8 `[N, S, S]` of classes int64 `[N]`, 0..255 as prepared images are."""
    random = torch.Generator().manual_seed(seed)
    rows: list[Grey8] = []
    with torch.inference_mode():
        for start in tqdm(range(0, len(labels), batch), desc="generating", unit="batch", leave=False):
            wanted = torch.from_numpy(labels[start : start + batch])
            noise = torch.randn(len(wanted), generator.latent, generator=random)
            pixels = (generator(noise, wanted)[:, 0] + 1) * 127.5
            rows.append(pixels.round().clamp(0, 255).to(torch.uint8).numpy())
    return np.concatenate(rows)


def shrunk(images: Grey8, size: int, batch: int = 256) -> Grey8:
    """Prepared images uint8 `[N, S, S]` at the generator's size, averaged over areas."""
    rows = [
        resized(torch.from_numpy(np.array(images[start : start + batch])).unsqueeze(1).float(), size)[:, 0]
        for start in range(0, len(images), batch)
    ]
    return torch.cat(rows).round().to(torch.uint8).numpy()


def _new_generator(config: GeneratorConfig) -> Generator:
    return Generator(config.size, len(config.classes), config.width, config.latent)


def _start(config: GeneratorConfig, fabric: Fabric) -> _Run:
    torch.manual_seed(config.seed)
    generator = _new_generator(config)
    discriminator = Discriminator(config.size, len(config.classes), config.width)
    averaged = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
    averaged = cast(AveragedModel, fabric.to_device(averaged))
    first = torch.optim.Adam(generator.parameters(), config.generator_rate, betas=_BETAS)
    second = torch.optim.Adam(discriminator.parameters(), config.discriminator_rate, betas=_BETAS)
    making, first = fabric.setup(generator, first)
    judging, second = fabric.setup(discriminator, second)
    return _Run(config, fabric, making, judging, averaged, (first, second), config.epoch_images // config.batch)


def _resume(run: _Run, last: Path) -> int:
    """Load the state after the last finished epoch; returns the next one."""
    state = load_unfinished(last, run.config)
    run.generator.load_state_dict(state["generator"])
    run.discriminator.load_state_dict(state["discriminator"])
    run.averaged.module.load_state_dict(state["averaged"])
    run.averaged_steps.fill_(state["steps"])
    for optimiser, saved in zip(run.optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    return state["epoch"] + 1


def _save(run: _Run, last: Path, epoch: int) -> None:
    content = {
        "task": "generation",
        "epoch": epoch,
        "steps": int(run.averaged_steps),
        "config": run.config.model_dump_json(),
        "generator": run.generator.state_dict(),
        "discriminator": run.discriminator.state_dict(),
        "averaged": run.averaged.module.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in run.optimisers],
    }
    save_checkpoint(last, content)


def _epoch(run: _Run, images: Grey8, labels: NDArray[np.int64], epoch: int) -> tuple[float, float]:
    """One pass; returns the mean losses of discriminator and generator."""
    run.generator.train()
    sums = torch.zeros(2)
    label = f"epoch {epoch + 1}/{run.config.epochs}"
    for real, classes, random in tqdm(_batches(run, images, labels, epoch), total=run.steps, desc=label):
        sums += torch.stack([_judge(run, real, classes, random), _make(run, classes, random)])
    first, second = (sums / run.steps).tolist()
    return first, second


def _batches(
    run: _Run, images: Grey8, labels: NDArray[np.int64], epoch: int
) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
    """Real images `[B, 1, S, S]`, -1 to 1, with their classes, every class as often as the others, and randomness."""
    config = run.config
    random = np.random.default_rng([config.seed, epoch])
    members = [np.flatnonzero(labels == number) for number in np.unique(labels)]
    for step in range(run.steps):
        rows = np.array([random.choice(members[k]) for k in random.integers(0, len(members), config.batch)])
        real = torch.from_numpy(images[rows]).unsqueeze(1).float() / 127.5 - 1
        generator = torch.Generator().manual_seed(hash((config.seed, epoch, step)) & (2**62 - 1))
        yield run.fabric.to_device(real), run.fabric.to_device(torch.from_numpy(labels[rows])), generator


def _judge(run: _Run, real: Tensor, classes: Tensor, random: torch.Generator) -> Tensor:
    """A step of the discriminator (hinge loss, Lim & Ye, 2017); returns the loss."""
    with torch.no_grad():
        made = run.generator(_noise(run, len(real), random), classes).float()
    seen = torch.cat([_altered(real, random), _altered(made, random)])
    own, other = run.discriminator(seen, torch.cat([classes, classes])).float().chunk(2)
    loss = functional.relu(1 - own).mean() + functional.relu(1 + other).mean()
    _step(run, loss, run.optimisers[1])
    return loss.detach().cpu()


def _make(run: _Run, classes: Tensor, random: torch.Generator) -> Tensor:
    """A step of the generator; returns the loss."""
    made = run.generator(_noise(run, len(classes), random), classes)
    loss = -run.discriminator(_altered(made, random), classes).float().mean()
    _step(run, loss, run.optimisers[0])
    run.averaged.update_parameters(run.generator)
    return loss.detach().cpu()


def _step(run: _Run, loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    for each in run.optimisers:
        each.zero_grad(set_to_none=True)
    run.fabric.backward(loss)
    optimiser.step()


def _noise(run: _Run, count: int, random: torch.Generator) -> Tensor:
    return run.fabric.to_device(torch.randn(count, run.config.latent, generator=random))


def _altered(images: Tensor, random: torch.Generator) -> Tensor:
    """Brightness, contrast, a shift by up to an eighth and a hidden square, differentiable, each image its own."""
    n, side = len(images), images.shape[-1]
    offset, gain = (torch.rand(2, n, 1, 1, 1, generator=random) - 0.5).to(images)
    images = (images + offset * 0.6) * (1 + gain * 0.8)
    grid = functional.affine_grid(torch.eye(2, 3).repeat(n, 1, 1), [n, 1, side, side], align_corners=False)
    grid = grid + (torch.rand(n, 1, 1, 2, generator=random) - 0.5) * 0.5
    images = functional.grid_sample(images, grid.to(images), padding_mode="border", align_corners=False)
    place = torch.arange(side)
    centre = torch.rand(n, 2, generator=random) * side
    near = [(place - centre[:, axis : axis + 1]).abs() < side / 5 for axis in (0, 1)]
    hidden = (near[0][:, None, :, None] & near[1][:, None, None, :]).to(images.device)
    return images.masked_fill(hidden, 0.0)


def _log(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
