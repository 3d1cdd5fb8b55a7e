"""Checkpoints: what a run leaves behind, and all that it needs to go on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from training.config import TrainConfig
from training.files import write_atomically
from training.models import build
from training.models.network import Network


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values, atomically."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are accepted."""
    return torch.load(path, map_location="cpu", weights_only=True)


def load_network(path: Path) -> tuple[Network, TrainConfig]:
    """The averaged network of a checkpoint, in evaluation mode, and the configuration that it was trained with."""
    content = load_checkpoint(path)
    config = TrainConfig.model_validate_json(content["config"])
    network = build(config.network, len(config.classes))
    network.load_state_dict(content["averaged"])
    return network.eval(), config
