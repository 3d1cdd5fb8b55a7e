"""What commands of training and export share: what goes wrong is a line on standard error and a status."""

from __future__ import annotations

import sys
from collections.abc import Callable
from json import JSONDecodeError
from tomllib import TOMLDecodeError

from PIL import UnidentifiedImageError
from pydantic import ValidationError

from service.commands import reason_of as service_reason
from training.checkpoint import CheckpointError
from training.datasets.record import DatasetError


def run_command(prog: str, run: Callable[[], int]) -> int:
    """Run a command.

    Args:
        prog: its name, as `argparse` has it.
        run: does it, and returns its status.

    Returns:
        The status; 2 when something is missing or wrong, or it was stopped.
    """
    try:
        return run()
    except Exception as error:
        message = reason_of(error)
        if message is None:
            raise
    except KeyboardInterrupt:
        message = "stopped; what was finished is kept"
    sys.stderr.write(f"{prog}: error: {message}\n")
    return 2


def reason_of(error: Exception) -> str | None:
    """What is wrong, in a line for whoever runs this; None: a fault of ours."""
    match error:
        case ValidationError():
            return _fields(error)
        case CheckpointError() | DatasetError() | TOMLDecodeError() | JSONDecodeError() | UnidentifiedImageError():
            return str(error)
        case _:
            return service_reason(error)


def _fields(error: ValidationError) -> str:
    """Every wrong field with its path, on one line."""
    faults = [f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}" for fault in error.errors()]
    return f"{error.title}: {'; '.join(faults)}"
