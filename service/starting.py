"""What cannot start says why, in a line, and ends: a server at once, a worker with the server whose first it was."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from ipaddress import ip_address

from service.commands import reason_of
from service.observability import logger


def check_port(host: str, port: int) -> None:
    """Look whether a server can listen there.

    Args:
        host: an IP address; for names the server itself will say.
        port: 0 for any.

    Raises:
        OSError: with the address in the place of a file name.
    """
    try:
        family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{host}:{port}") from None


@contextmanager
def starting() -> Generator[None]:
    """What a worker does before it answers.

    Where that fails the process ends here, with `os.EX_CONFIG`: the server around it would write the error with its
    values, and leave clients waiting at a port where nobody answers.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, there will be no worker
        reason = reason_of(error)
        if reason is None:
            logger.exception("Radiolucent does not start, by a fault of its own")
        else:
            logger.error("Radiolucent does not start: %s", reason)
        logging.shutdown()
        os._exit(os.EX_CONFIG)
