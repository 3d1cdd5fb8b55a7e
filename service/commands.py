"""What commands of the service share: what goes wrong is a line on standard error and a status, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from pydantic import ValidationError

from service.errors import RadiolucentError


def run_command(prog: str, run: Callable[[], None]) -> int:
    """Run a command that can be gone on with.

    Args:
        prog: its name, as `argparse` has it.
        run: does it.

    Returns:
        0 when done, 2 when something is missing or wrong, or it was stopped.
    """
    try:
        run()
    except ValidationError as error:
        message = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    except (FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError) as error:
        message = f"{error.filename}: {error.strerror}"
    except RadiolucentError as error:
        message = str(error)
    except KeyboardInterrupt:
        message = "stopped; the same command goes on from here"
    else:
        return 0
    sys.stderr.write(f"{prog}: error: {message}\n")
    return 2
