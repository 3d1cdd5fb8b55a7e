"""The secret that UIDs are hashed with at this site (`service.observability.hashed_uid`)."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from service.database import private_folder
from service.instance_file import sync_folder


def read_site_key(file: Path | None = None) -> bytes:
    """32 random bytes, made once, readable by this user alone.

    Args:
        file: that holds it; None for one in the user's state folder. Processes of one site share it.
    """
    file = file or private_folder() / "studies.key"
    if not file.exists():
        _make(file)
    return file.read_bytes()


def _make(file: Path) -> None:
    part = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as made:
        made.write(secrets.token_bytes(32))
        made.flush()
        os.fsync(made.fileno())
    with contextlib.suppress(FileExistsError):  # of several processes that start together, one wins
        os.link(part, file)
    part.unlink()
    sync_folder(file.parent)
