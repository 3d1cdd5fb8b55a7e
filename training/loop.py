"""The training loop: resumable, reproducible, on CPU, one GPU or several."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers.tensorboard import TensorBoardLogger
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics.functional.classification import multiclass_accuracy
from tqdm import tqdm

from service.types import Grey8
from training.augment import augment, resized
from training.checkpoint import CheckpointError, load_checkpoint, load_unfinished, save_checkpoint
from training.config import TrainConfig
from training.datasets.prepared import Prepared
from training.losses import Batch, Student
from training.models import build_opposed
from training.models.folded import load_folded
from training.models.network import Network
from training.painting import paint_out, strip_skull, touch_elsewhere
from training.sampling import Draw, Sampler

_HEAD = 4.0  # how much faster the head learns than the neck
_INITIAL_IMAGES = 64  # that the normalisation of a bundle's network is measured on


def make_fabric(devices: str = "auto") -> Fabric:
    """Fabric on the best devices there are; bfloat16 where the hardware computes in it.

    Processes that `torchrun` started work together, on CPUs as well. `launch` must be called before anything else.
    """
    if torch.cuda.is_available():
        precision = "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    else:
        native = torch.cpu.get_capabilities()
        precision = "bf16-mixed" if native.get("avx512_bf16") or native.get("amx_bf16") else "32-true"
    world, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    together = world > 1 or (devices == "auto" and torch.cuda.device_count() > 1) or devices not in ("auto", "1")
    # a batch without outlines may leave a parameter without a gradient
    strategy = "ddp_find_unused_parameters_true" if together else "auto"
    return Fabric(
        accelerator="auto",
        devices=local if world > 1 else devices,
        num_nodes=world // local,
        strategy=strategy,
        precision=precision,
    )


@dataclass
class _Run:
    """A run's moving parts; `averaged` holds the exponential moving average of `student.network`."""

    config: TrainConfig
    fabric: Fabric
    student: Student
    model: Callable[[Batch], dict[str, Tensor]]
    averaged: AveragedModel
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    sampler: Sampler
    steps: int

    @property
    def result(self) -> Network:
        """The averaged network."""
        return cast(Network, self.averaged.module)

    @property
    def averaged_steps(self) -> Tensor:
        """Steps that went into the average, a scalar."""
        return self.averaged.n_averaged


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
        initial: a bundle's folder, the checkpoint of another run of the same network, or the state dict of a
            pre-trained one.

    Returns:
        The path of `last.pt`, whose averaged weights are the result.
    """
    run = _start(config, training, fabric, initial)
    last = out / "last.pt"
    first = _resume(run, last) if last.exists() else 0
    logger = TensorBoardLogger(out, name="tensorboard", version=0)
    for epoch in range(first, config.epochs):
        row: dict[str, float] = {"epoch": epoch, "size": config.size_at(epoch)} | _epoch(run, training, epoch)
        if (epoch + 1) % config.validate_every == 0 or epoch + 1 == config.epochs:
            logits = predict_logits(run.result, validation.images, fabric, config.size_at(epoch))
            row |= _scores(logits, validation.labels, len(config.classes))
        if fabric.is_global_zero:
            _save(run, last, epoch)
            _log(out / "log.csv", row)
            logger.log_metrics(row, step=epoch)
            tqdm.write("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
        fabric.barrier()
    return last


def _start(config: TrainConfig, training: Prepared, fabric: Fabric, initial: Path | None) -> _Run:
    torch.manual_seed(config.seed)
    healthy = [number for number, name in enumerate(config.classes) if name in config.healthy]
    network = build_opposed(config.network, len(config.classes), healthy)
    if initial is not None:
        _initialise(network, initial, training)
    elif config.frozen:
        raise CheckpointError("layers stay as they began only where a run starts from trained weights: give --init")
    for name, parameter in network.named_parameters():
        if name.startswith(config.frozen):
            parameter.requires_grad_(False)
    student = Student(network, config).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    groups = _parameter_groups(student, config)
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    steps = max(1, (config.epoch_images or len(training)) // (config.batch * fabric.world_size))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [group["lr"] for group in groups], total_steps=steps * config.epochs, pct_start=config.warm_up
    )
    sampler = Sampler(training, np.isin(np.arange(len(config.classes)), healthy), config.sampling)
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
    averaged = cast(AveragedModel, fabric.to_device(averaged))
    model, optimiser = fabric.setup(student, optimiser)
    return _Run(config, fabric, student, model, averaged, optimiser, schedule, sampler, steps)


def _initialise(network: Network, initial: Path, training: Prepared) -> None:
    """Start from a bundle, another run's averaged weights, or a state dict as `Network.load_initial` takes it.

    Raises:
        CheckpointError: they do not fit.
    """
    try:
        if initial.is_dir():
            rows = np.linspace(0, len(training) - 1, min(_INITIAL_IMAGES, len(training))).astype(np.int64)
            load_folded(network, initial / "model.onnx", _pixels(np.asarray(training.images[rows])))
            return
        state = load_checkpoint(initial)
        if "averaged" in state:
            network.load_state_dict(state["averaged"])
        else:
            network.load_initial(state)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"the run cannot start from these weights: {reason[:200]}") from error


def _resume(run: _Run, last: Path) -> int:
    """Load the state after the last finished epoch; returns the next one."""
    state = load_unfinished(last, run.config)
    run.student.load_state_dict(state["student"])
    run.result.load_state_dict(state["averaged"])
    run.averaged_steps.fill_(state["steps"])
    run.optimiser.load_state_dict(state["optimiser"])
    run.schedule.load_state_dict(state["schedule"])
    return state["epoch"] + 1


def _save(run: _Run, last: Path, epoch: int) -> None:
    save_checkpoint(
        last,
        {
            "epoch": epoch,
            "steps": int(run.averaged_steps),
            "config": run.config.model_dump_json(),
            "student": run.student.state_dict(),
            "averaged": run.result.state_dict(),
            "optimiser": run.optimiser.state_dict(),
            "schedule": run.schedule.state_dict(),
        },
    )


def _epoch(run: _Run, training: Prepared, epoch: int) -> dict[str, float]:
    """One pass over the training part; returns the learning rate and the mean of every loss."""
    run.student.train()
    for name, module in run.student.network.named_modules():
        if name.startswith(run.config.frozen):
            module.eval()  # its normalisation stays, too
    batches = _ahead(_batches(run, training, epoch))
    label = f"epoch {epoch + 1}/{run.config.epochs}"
    bar = tqdm(batches, total=run.steps, desc=label, disable=not run.fabric.is_global_zero)
    sums: dict[str, float] = {}
    for number, batch in enumerate(bar):
        losses = run.model(batch)
        run.fabric.backward(torch.stack(list(losses.values())).sum())
        run.fabric.clip_gradients(run.student, run.optimiser, max_norm=5.0)
        run.optimiser.step()
        run.optimiser.zero_grad(set_to_none=True)
        run.schedule.step()
        run.averaged.update_parameters(run.student.network)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        bar.set_postfix({name: f"{value / (number + 1):.3f}" for name, value in sums.items()})
    means = {f"loss_{name}": value / run.steps for name, value in sums.items()}
    return {"rate": float(run.schedule.get_last_lr()[0])} | means


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
    """Group parameters by learning rate and weight decay.

    Weights decay; biases and normalisation do not. The trunk learns more slowly than the neck, the head faster: Adam
    moves each number by about the rate, and all images depend on the few of the head.
    """
    rates = {name: 1.0 for name, parameter in student.named_parameters() if parameter.requires_grad}
    for start, rate in {"network.neck.": 1.0, "network.head.": _HEAD, "log_factor": _HEAD}.items():
        rates |= {name: config.head_rate * rate for name in rates if name.startswith(start)}
    groups: list[dict[str, Any]] = []
    for rate in sorted(set(rates.values())):
        named = [parameter for name, parameter in student.named_parameters() if rates.get(name) == rate]
        settings = {"lr": config.learning_rate * rate}
        groups.append({"params": [p for p in named if p.ndim > 1], "weight_decay": config.weight_decay, **settings})
        groups.append({"params": [p for p in named if p.ndim <= 1], "weight_decay": 0.0, **settings})
    return groups


def _batches(run: _Run, data: Prepared, epoch: int) -> Iterator[Batch]:
    """This process's augmented batches of one epoch, at its size."""
    config, rank = run.config, run.fabric.global_rank
    for step in range(run.steps):
        random = np.random.default_rng([config.seed, epoch, step, rank])
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        draws = run.sampler.draw(config.batch, random)
        drawn = [_drawn(draw, run, data, random) for draw in draws]
        images, masks = (_pixels(np.stack(each)) for each in zip(*drawn, strict=True))
        size = config.size_at(epoch)
        images, masks = augment(resized(images, size), resized(masks, size), config.augmentation, generator)
        rows = np.array([draw.row for draw in draws])
        painted = torch.tensor([draw.painted for draw in draws])
        healthy = torch.tensor([name in config.healthy for name in config.classes])
        labels = torch.from_numpy(data.labels[rows])
        labels = torch.where(painted, int(healthy.long().argmax()), labels)
        yield Batch(
            images.contiguous(memory_format=torch.channels_last),
            labels,
            torch.from_numpy(data.typed[rows]),
            masks,
            torch.from_numpy(data.has_mask[rows]) | healthy[labels],
        )


def _drawn(draw: Draw, run: _Run, data: Prepared, random: np.random.Generator) -> tuple[Grey8, Grey8]:
    """Image and mask, uint8 `[S, S]`, painted and stripped as the configuration says."""
    image, mask = np.array(data.images[draw.row]), np.array(data.masks[draw.row])
    sampling, paintable = run.config.sampling, run.sampler.paintable
    if draw.painted:
        image, mask = paint_out(image, mask, random), np.zeros_like(mask)
    elif len(paintable) and random.random() < sampling.touched:
        image = touch_elsewhere(image, mask, np.array(data.masks[random.choice(paintable)]), random)
    if random.random() < sampling.stripped[int(mask.any())]:
        image = strip_skull(image, mask, random)
    return image, mask


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each made while the one before is learnt from."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _pixels(images: NDArray[np.uint8]) -> Tensor:
    """uint8 `[N, S, S]` to float32 `[N, 1, S, S]`."""
    return torch.from_numpy(np.ascontiguousarray(images)).unsqueeze(1).float()


def _log(path: Path, row: dict[str, float]) -> None:
    """Append a row; the columns of the first epoch hold for all, with the validation scores always among them."""
    names = [*(k for k in row if not k.startswith("val_")), "val_accuracy", "val_balanced", "val_loss"]
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, names, restval="", extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow(row)
