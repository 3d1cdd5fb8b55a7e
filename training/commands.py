"""What commands of training and export share: what goes wrong is a line on standard error and a status."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from json import JSONDecodeError
from tomllib import TOMLDecodeError

from PIL import UnidentifiedImageError
from pydantic import ValidationError

from service.commands import reason_of as service_reason
from service.commands import run_command as run_service_command
from service.validation import faults_of
from training.checkpoint import CheckpointError
from training.datasets.record import DatasetError


def run_command(prog: str, run: Callable[[], int]) -> int:
    """Run a command, as `service.commands.run_command` does."""
    return run_service_command(prog, run, reason_of, "stopped; what was finished is kept")


def rate(text: str) -> float:
    """Read an error rate from the command line.

    Raises:
        ArgumentTypeError: it is not above 0, or above 0.5.
    """
    value = float(text)
    if not 0 < value <= 0.5:
        raise ArgumentTypeError("must be above 0, and 0.5 at most")
    return value


def reason_of(error: Exception) -> str | None:
    """What is wrong, in a line for whoever runs this; None: a fault of ours."""
    match error:
        case ValidationError():
            return f"{error.title}: {faults_of(error, 'the whole')}"
        case CheckpointError() | DatasetError() | TOMLDecodeError() | JSONDecodeError() | UnidentifiedImageError():
            return str(error)
        case _:
            return service_reason(error)
