"""The training loop: resumable and reproducible, on the best device there is."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from monai.losses.dice import DiceCELoss
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from service.types import Float, Grey8
from training.augment import augment, resized
from training.checkpoint import load_run, load_unfinished, save_checkpoint
from training.datasets.prepared import Prepared
from training.models.unet import UNet
from training.segmentation.config import SegmentationConfig


@dataclass
class _Run:
    config: SegmentationConfig
    fabric: Fabric
    network: nn.Module
    averaged: AveragedModel
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    loss: nn.Module
    steps: int

    @property
    def averaged_steps(self) -> Tensor:
        """Steps that went into the average, a scalar."""
        return self.averaged.n_averaged


def train(config: SegmentationConfig, training: Prepared, validation: Prepared, out: Path, *, fabric: Fabric) -> Path:
    """Train to the end, from the last finished epoch where `out` holds an unfinished run.

    The loss is Dice's over the batch (so that empty masks have one) plus cross-entropy, on masks cut at half coverage
    (Isensee et al., "nnU-Net", Nature Methods 2021). Every random number depends on the seed, the epoch and the step
    alone, so that a run that was killed and resumed ends as one that was not.

    Args:
        config: the run.
        training: the images to learn from.
        validation: the images that the averaged weights are watched on.
        out: folder for `last.pt` (state to resume from) and `log.csv`.
        fabric: device and precision.

    Returns:
        The path of `last.pt`, whose averaged weights are the result.
    """
    run = _start(config, fabric)
    last = out / "last.pt"
    first = _resume(run, last) if last.exists() else 0
    for epoch in range(first, config.epochs):
        row: dict[str, float] = {"epoch": epoch, "size": config.size_at(epoch), "loss": _epoch(run, training, epoch)}
        if (epoch + 1) % config.validate_every == 0 or epoch + 1 == config.epochs:
            network = cast(UNet, run.averaged.module)
            found = predict_masks(network, validation.images, fabric, config.size_at(epoch))
            row["val_dice"] = _mean_dice(found, validation)
        _save(run, last, epoch)
        _log(out / "log.csv", row)
        tqdm.write("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
    return last


def load_unet(path: Path) -> tuple[UNet, SegmentationConfig]:
    """The averaged network of a checkpoint, in evaluation mode, and the configuration that it was trained with.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is none.
        ValidationError: the checkpoint is not of a segmentation run (pydantic's).
    """
    content = load_run(path)
    config = SegmentationConfig.model_validate_json(content["config"])
    network = UNet(config.channels)
    network.load_state_dict(content["averaged"])
    return network.eval(), config


def predict_masks(network: UNet, images: Grey8, fabric: Fabric, size: int, batch: int = 32) -> Float:
    """Probabilities float32 `[N, size, size]` of prepared images uint8 `[N, S, S]`, shrunk to `size`."""
    network.eval()
    rows: list[Float] = []
    with torch.inference_mode(), fabric.autocast():
        for start in tqdm(range(0, len(images), batch), desc="outlining", unit="batch", leave=False):
            pixels = resized(fabric.to_device(_pixels(images[start : start + batch])), size)
            rows.append(torch.sigmoid(network(pixels).float())[:, 0].cpu().numpy())
    return np.concatenate(rows)


def _start(config: SegmentationConfig, fabric: Fabric) -> _Run:
    torch.manual_seed(config.seed)
    network = UNet(config.channels).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    steps = max(1, config.epoch_images // config.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=steps * config.epochs, pct_start=config.warm_up
    )
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
    averaged = cast(AveragedModel, fabric.to_device(averaged))
    model, optimiser = fabric.setup(network, optimiser)
    loss = DiceCELoss(sigmoid=True, batch=True)
    return _Run(config, fabric, model, averaged, optimiser, schedule, loss, steps)


def _resume(run: _Run, last: Path) -> int:
    """Load the state after the last finished epoch; returns the next one."""
    state = load_unfinished(last, run.config)
    run.network.load_state_dict(state["network"])
    run.averaged.module.load_state_dict(state["averaged"])
    run.averaged_steps.fill_(state["steps"])
    run.optimiser.load_state_dict(state["optimiser"])
    run.schedule.load_state_dict(state["schedule"])
    return state["epoch"] + 1


def _save(run: _Run, last: Path, epoch: int) -> None:
    content = {
        "task": run.config.task,
        "epoch": epoch,
        "steps": int(run.averaged_steps),
        "config": run.config.model_dump_json(),
        "network": run.network.state_dict(),
        "averaged": run.averaged.module.state_dict(),
        "optimiser": run.optimiser.state_dict(),
        "schedule": run.schedule.state_dict(),
    }
    save_checkpoint(last, content)


def _epoch(run: _Run, training: Prepared, epoch: int) -> float:
    """One pass; returns the mean loss."""
    run.network.train()
    label = f"epoch {epoch + 1}/{run.config.epochs}"
    total = 0.0
    bar = tqdm(_batches(run, training, epoch), total=run.steps, desc=label)
    for number, (images, masks) in enumerate(bar):
        loss = run.loss(run.network(images).float(), masks)
        run.fabric.backward(loss)
        run.fabric.clip_gradients(run.network, run.optimiser, max_norm=5.0)
        run.optimiser.step()
        run.optimiser.zero_grad(set_to_none=True)
        run.schedule.step()
        run.averaged.update_parameters(run.network)
        total += float(loss.detach())
        bar.set_postfix(loss=f"{total / (number + 1):.3f}")
    return total / run.steps


def _batches(run: _Run, data: Prepared, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented images 0..255 and masks 0 or 1, both `[B, 1, S, S]`, at this epoch's size."""
    config, size = run.config, run.config.size_at(epoch)
    order = _order(config, data, epoch)
    for step in range(run.steps):
        rows = np.sort(order[step * config.batch : (step + 1) * config.batch])
        generator = torch.Generator().manual_seed(hash((config.seed, epoch, step)) & (2**62 - 1))
        images, masks = augment(_pixels(data.images[rows]), _pixels(data.masks[rows]), config.augmentation, generator)
        images = resized(images, size).contiguous(memory_format=torch.channels_last)
        yield run.fabric.to_device(images), run.fabric.to_device((resized(masks, size) > 127).float())


def _order(config: SegmentationConfig, data: Prepared, epoch: int) -> NDArray[np.int64]:
    """Indices of one epoch, shuffled: outlined images, and the share of empty ones."""
    random = np.random.default_rng([config.seed, epoch])
    empty = np.isin(data.labels, [config.classes.index(name) for name in config.healthy])
    wanted = round(config.epoch_images * config.empty_share) if empty.any() else 0
    rows: list[NDArray[np.int64]] = []
    for members, count in ((data.has_mask & ~empty, config.epoch_images - wanted), (empty, wanted)):
        indices = np.flatnonzero(members)
        repeats = -(-count // max(len(indices), 1))
        rows.append(np.concatenate([random.permutation(indices) for _ in range(max(repeats, 1))])[:count])
    return random.permutation(np.concatenate(rows))


def _mean_dice(found: Float, data: Prepared) -> float:
    """Mean Dice at 0.5 of the outlined images, on the network's grid."""
    outlined = np.flatnonzero(data.has_mask)
    scores: list[float] = []
    for row in outlined:
        truth = resized(_pixels(data.masks[row : row + 1]), found.shape[-1])[0, 0].numpy() > 127
        called = found[row] >= 0.5
        total = int(truth.sum()) + int(called.sum())
        scores.append(2 * int((truth & called).sum()) / total if total else 1.0)
    return float(np.mean(scores)) if scores else float("nan")


def _pixels(images: Grey8) -> Tensor:
    """uint8 `[N, S, S]` to float32 `[N, 1, S, S]`."""
    return torch.from_numpy(np.array(images)).unsqueeze(1).float()


def _log(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "size", "loss", "val_dice"], restval="")
        if new:
            writer.writeheader()
        writer.writerow(row)
