"""The training loop: resumable, reproducible, on CPU, one GPU or several."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers import TensorBoardLogger
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics.functional.classification import multiclass_accuracy
from tqdm import tqdm

from training.augment import augment, resized
from training.checkpoint import load_checkpoint, load_network, save_checkpoint
from training.config import TrainConfig
from training.datasets.prepared import Prepared
from training.losses import Batch, Student
from training.models import build
from training.models.network import Network


def make_fabric(devices: str = "auto") -> Fabric:
    """Fabric on the best device there is; bfloat16 where the hardware computes in it."""
    if torch.cuda.is_available():
        precision = "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    else:
        native = torch.cpu.get_capabilities()
        precision = "bf16-mixed" if native.get("avx512_bf16") or native.get("amx_bf16") else "32-true"
    return Fabric(accelerator="auto", devices=devices, precision=precision)


def train(
    config: TrainConfig,
    training: Prepared,
    validation: Prepared,
    out: Path,
    *,
    fabric: Fabric,
    initial: Path | None = None,
) -> Path:
    """Train to the end, from the last finished epoch where `out` holds an unfinished run.

    Every random number depends on the seed, the epoch and the step alone, so that a run that was killed and
    resumed ends as one that was not.

    Args:
        config: the run.
        training: the images to learn from.
        validation: the images that the averaged weights are watched on.
        out: folder for `last.pt` (state to resume from), `log.csv` and TensorBoard's files.
        fabric: device, precision and processes.
        initial: state dict of a pre-trained network.

    Returns:
        The path of `last.pt`, whose averaged weights are the result.
    """
    torch.manual_seed(config.seed)
    network = build(config.network, len(config.classes))
    if initial is not None:
        network.load_initial(load_checkpoint(initial))
    teacher = None if config.teacher is None else fabric.to_device(load_network(config.teacher.checkpoint)[0])
    student = Student(network, config).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = torch.optim.AdamW(_parameter_groups(student, config), lr=config.learning_rate)
    steps = len(_order(config, training, 0)) // (config.batch * fabric.world_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=steps * config.epochs, pct_start=config.warm_up
    )
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
    averaged = fabric.to_device(averaged)
    model, optimiser = fabric.setup(student, optimiser)
    last, first = out / "last.pt", 0
    if last.exists():
        state = load_checkpoint(last)
        first = state["epoch"] + 1
        student.load_state_dict(state["student"])
        averaged.module.load_state_dict(state["averaged"])
        averaged.n_averaged.fill_(state["steps"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
    logger = TensorBoardLogger(out, name="tensorboard", version=0)
    for epoch in range(first, config.epochs):
        sums: dict[str, float] = {}
        model.train()
        batches = _batches(config, training, epoch, steps, fabric)
        bar = tqdm(batches, total=steps, desc=f"epoch {epoch + 1}/{config.epochs}", disable=not fabric.is_global_zero)
        for number, batch in enumerate(bar):
            losses: dict[str, Tensor] = model(_taught(batch, teacher, config, epoch))
            total = torch.stack(list(losses.values())).sum()
            fabric.backward(total)
            fabric.clip_gradients(model, optimiser, max_norm=5.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            schedule.step()
            averaged.update_parameters(network)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            bar.set_postfix({name: f"{value / (number + 1):.3f}" for name, value in sums.items()})
        row: dict[str, Any] = {"epoch": epoch, "size": config.size_at(epoch), "rate": schedule.get_last_lr()[0]}
        row |= {f"loss_{name}": value / steps for name, value in sums.items()}
        if (epoch + 1) % config.validate_every == 0 or epoch + 1 == config.epochs:
            logits = predict_logits(averaged.module, validation.images, fabric, config.size_at(epoch))
            row |= _scores(logits, validation.labels, len(config.classes))
        if fabric.is_global_zero:
            save_checkpoint(
                last,
                {
                    "epoch": epoch,
                    "steps": int(averaged.n_averaged),
                    "config": config.model_dump_json(),
                    "student": student.state_dict(),
                    "averaged": averaged.module.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                },
            )
            _log(out / "log.csv", row)
            logger.log_metrics({k: float(v) for k, v in row.items()}, step=epoch)
            tqdm.write("  ".join(f"{k} {v:.4g}" for k, v in row.items()))
        fabric.barrier()
    return last


def predict_logits(network: Network, images: NDArray[np.uint8], fabric: Fabric, size: int, batch: int = 32) -> Tensor:
    """Logits float32 `[N, K]` of prepared images uint8 `[N, S, S]`, shrunk to `size`."""
    network.eval()
    rows: list[Tensor] = []
    with torch.inference_mode(), fabric.autocast():
        for start in range(0, len(images), batch):
            pixels = fabric.to_device(_pixels(images[start : start + batch]))
            rows.append(network(resized(pixels, size)).float().cpu())
    return torch.cat(rows)


def _scores(logits: Tensor, labels: NDArray[np.int64], classes: int) -> dict[str, float]:
    target = torch.from_numpy(labels)
    overall = multiclass_accuracy(logits, target, num_classes=classes, average="micro")
    balanced = multiclass_accuracy(logits, target, num_classes=classes, average="macro")
    loss = torch.nn.functional.cross_entropy(logits, target)
    return {"val_accuracy": float(overall), "val_balanced": float(balanced), "val_loss": float(loss)}


def _parameter_groups(student: Student, config: TrainConfig) -> list[dict[str, Any]]:
    """Weights decay; biases and normalisation do not."""
    decayed = [p for p in student.parameters() if p.ndim > 1]
    plain = [p for p in student.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]


def _order(config: TrainConfig, data: Prepared, epoch: int) -> NDArray[np.int64]:
    """Indices of one epoch, shuffled; every class as often as its share asks, each image as often as the others."""
    random = np.random.default_rng([config.seed, epoch])
    total = config.epoch_images or len(data)
    rows: list[NDArray[np.int64]] = []
    for number, name in enumerate(config.classes):
        members = np.flatnonzero(data.labels == number)
        share = config.shares[name] if config.shares else len(members) / len(data)
        wanted = round(total * share)
        repeats = -(-wanted // max(len(members), 1))
        rows.append(np.concatenate([random.permutation(members) for _ in range(repeats)])[:wanted])
    return random.permutation(np.concatenate(rows))


def _batches(config: TrainConfig, data: Prepared, epoch: int, steps: int, fabric: Fabric) -> Iterator[Batch]:
    """This process's augmented batches of one epoch."""
    order = _order(config, data, epoch)
    healthy = torch.tensor([name in config.healthy for name in config.classes])
    for step in range(steps):
        start = (step * fabric.world_size + fabric.global_rank) * config.batch
        rows = np.sort(order[start : start + config.batch])
        generator = torch.Generator().manual_seed(hash((config.seed, epoch, step, fabric.global_rank)) & (2**62 - 1))
        images, masks = augment(_pixels(data.images[rows]), _pixels(data.masks[rows]), config.augmentation, generator)
        labels = torch.from_numpy(data.labels[rows])
        known = torch.from_numpy(data.has_mask[rows]) | healthy[labels]
        yield fabric.to_device(Batch(images, labels, masks, known))


def _taught(batch: Batch, teacher: Network | None, config: TrainConfig, epoch: int) -> Batch:
    """The batch at this epoch's size, with the teacher's logits at the teacher's."""
    opinion = None
    if teacher is not None and config.teacher is not None:
        with torch.no_grad():
            opinion = teacher(resized(batch.images, config.teacher.size))
    size = config.size_at(epoch)
    images = resized(batch.images, size).contiguous(memory_format=torch.channels_last)
    return Batch(images, batch.labels, resized(batch.masks, size), batch.has_mask, opinion)


def _pixels(images: NDArray[np.uint8]) -> Tensor:
    """uint8 `[N, S, S]` to float32 `[N, 1, S, S]`."""
    return torch.from_numpy(np.ascontiguousarray(images)).unsqueeze(1).float()


def _log(path: Path, row: dict[str, Any]) -> None:
    """Append a row; the columns of the first epoch hold for all, with the validation scores always among them."""
    names = [*(k for k in row if not k.startswith("val_")), "val_accuracy", "val_balanced", "val_loss"]
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, names, restval="", extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow(row)
