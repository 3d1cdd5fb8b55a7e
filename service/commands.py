"""What commands of the service share: what goes wrong is a line on standard error and a status, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from pydantic import ValidationError
from pydantic_settings import SettingsError

from service.errors import RadiolucentError
from service.validation import faults_of


def reason_of(error: Exception) -> str | None:
    """What is wrong, in a line for whoever runs this, without values of settings; None: a fault of ours."""
    match error:
        case ValidationError() | SettingsError():
            return unusable(error)
        case RadiolucentError():
            return str(error)
        case OSError():
            return ": ".join(str(part) for part in (error.filename, error.strerror) if part) or type(error).__name__
        case _:
            return None


def unusable(error: ValidationError | SettingsError) -> str:
    """What is wrong with settings or a file, in a line that names the fields and holds no values: some are secret."""
    if isinstance(error, SettingsError):  # not even JSON; it names the field
        return str(error)
    return faults_of(error, error.title)


def run_command(
    prog: str,
    run: Callable[[], int | None],
    reason: Callable[[Exception], str | None] = reason_of,
    stopped: str = "stopped; the same command goes on from here",
) -> int:
    """Run a command.

    Args:
        prog: its name, as `argparse` has it.
        run: does it, and returns its status, if it has others than 0.
        reason: what is wrong, in a line; None: a fault of ours, which is raised.
        stopped: what whoever stops it should know.

    Returns:
        Its status; 2 when something is missing or wrong, or it was stopped.
    """
    try:
        return run() or 0
    except Exception as error:
        message = reason(error)
        if message is None:
            raise
    except KeyboardInterrupt:
        message = stopped
    sys.stderr.write(f"{prog}: error: {message}\n")
    return 2
