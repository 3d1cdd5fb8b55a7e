"""Checkpoints: what a run leaves behind, and all that it needs to go on."""

from __future__ import annotations

import io
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from pydantic import BaseModel

from training.config import TrainConfig
from training.files import write_atomically
from training.models import build_opposed, settled
from training.models.network import Network


class CheckpointError(Exception):
    """A file is no checkpoint, or not of what it is wanted for; the message names it."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values, atomically."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are accepted.

    Raises:
        CheckpointError: it is none, or half of one.
        OSError: it cannot be read.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, EOFError, RuntimeError) as error:  # another file, an empty one, half of one
        raise CheckpointError(f"{path} is not a checkpoint that can be read") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is not a checkpoint")
    return cast(dict[str, Any], found)


def load_run(path: Path) -> dict[str, Any]:
    """Read the `last.pt` of a run, which holds its configuration; raises as `load_checkpoint`."""
    found = load_checkpoint(path)
    if "config" not in found:
        raise CheckpointError(f"{path} is not the last.pt of a run: it holds no configuration")
    return found


def load_unfinished(path: Path, config: BaseModel) -> dict[str, Any]:
    """Read the `last.pt` of the run that is gone on with.

    Raises:
        CheckpointError, ValidationError: it is of another configuration; or as `load_run`.
    """
    found = load_run(path)
    if type(config).model_validate_json(found["config"]) != config:
        raise CheckpointError(f"{path} is of a run with another configuration: name another folder, or remove it")
    return found


def load_network(path: Path) -> tuple[Network, TrainConfig]:
    """The averaged network of a checkpoint, in evaluation mode, and the configuration that it was trained with."""
    content = load_run(path)
    config = TrainConfig.model_validate_json(content["config"])
    healthy = [number for number, name in enumerate(config.classes) if name in config.healthy]
    network = build_opposed(config.network, len(config.classes), healthy)
    network.load_state_dict(content["averaged"])
    return settled(network).eval(), config
