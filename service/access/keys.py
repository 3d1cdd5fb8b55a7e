"""API keys: random secrets of which a file holds the SHA-256, read anew when the file changes.

A secret of 256 random bits needs neither salt nor a slow hash: nobody can try them out. (A password would.)
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, time

from pydantic import AwareDatetime, Field, ValidationError

from service.access.scopes import Scope
from service.errors import AccessError
from service.instance_file import write_whole
from service.observability import logger
from service.validation import Strict, faults_of

PREFIX = "rl_"  # so that scanners of repositories find keys that were committed by mistake
_LOOK_S = 1.0  # between looks at the file


class KeyRecord(Strict):
    """What is kept of a key.

    Attributes:
        id: its name in lists and in the audit log.
        sha256: of the whole key, hexadecimal.
        scopes: what it opens.
        created: when.
        expires: when it ends; None: never.
        note: what it is for.
        holder: the id of the key that this one replaces, or that one replaced: jobs are the holder's; empty: its own.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    created: AwareDatetime
    expires: AwareDatetime | None = None
    note: str = ""
    holder: str = Field(default="", max_length=64)

    @property
    def held_by(self) -> str:
        """Whose the jobs are that it asks for; the same before and after a rotation."""
        return self.holder or self.id

    def is_valid(self, now: float) -> bool:
        """Whether it has not ended at `now`, in seconds since 1970."""
        return self.expires is None or now < self.expires.timestamp()


class KeyList(Strict):
    """The file."""

    keys: tuple[KeyRecord, ...] = ()


def make_key(name: str, scopes: tuple[Scope, ...], expires: datetime | None, note: str) -> tuple[str, KeyRecord]:
    """A new key, to be shown once, and its record."""
    key = PREFIX + secrets.token_urlsafe(32)
    record = KeyRecord(
        id=name or secrets.token_hex(4),
        sha256=digest_of(key),
        scopes=scopes,
        created=datetime.now(UTC).replace(microsecond=0),
        expires=expires,
        note=note,
    )
    return key, record


def digest_of(key: str) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(file: Path) -> tuple[KeyRecord, ...]:
    """The records of a file.

    Raises:
        FileNotFoundError: there is none.
        AccessError: it is not such a file, two keys have one name, or everybody may write it.
    """
    if file.stat().st_mode & stat.S_IWOTH:
        raise AccessError("the file of keys may be written by everybody: chmod 600")
    try:
        keys = KeyList.model_validate_json(file.read_bytes()).keys
    except ValidationError as error:
        raise AccessError(f"the file of keys cannot be used: {faults_of(error, 'the whole')}") from None
    if len({key.id for key in keys}) != len(keys):
        raise AccessError("the file of keys cannot be used: two keys have the same id")
    return keys


def write_keys(file: Path, keys: tuple[KeyRecord, ...]) -> None:
    """Replace the file at once, readable by this user alone."""
    write_whole(file, (KeyList(keys=keys).model_dump_json(indent=1) + "\n").encode())


@contextmanager
def changing(file: Path) -> Generator[list[KeyRecord]]:
    """The records, to be changed; written at the end. One who changes them at a time."""
    import fcntl

    with file.with_name(f"{file.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = list(read_keys(file)) if file.exists() else []
        yield keys
        write_keys(file, tuple(keys))


class Keys:
    """The keys of a file as it is now: a changed one holds after a second, without a restart.

    A file that is gone opens nothing. One that cannot be used is told in the log, and what was known before holds on.

    Args:
        file: made by `python -m service.access`.
        clock: seconds that only grow.

    Raises:
        FileNotFoundError, AccessError: at the start only; see `read_keys`.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = monotonic) -> None:
        self._file, self._clock = file, clock
        self._seen = _mark(file)
        self._known = {record.sha256: record for record in read_keys(file)}
        self._looked = clock()

    def find(self, key: str) -> KeyRecord | None:
        """The record of a key that is known and has not ended.

        It is looked up by its digest, of which nobody can choose a bit, so that the time this takes tells nothing.
        """
        if self._clock() - self._looked >= _LOOK_S:
            self._look()
        digest = digest_of(key)
        record = self._known.get(digest)
        if record is None or not hmac.compare_digest(record.sha256, digest) or not record.is_valid(time()):
            return None
        return record

    def _look(self) -> None:
        self._looked = self._clock()
        mark = _mark(self._file)
        if mark == self._seen:
            return
        self._seen = mark
        try:
            self._known = {record.sha256: record for record in read_keys(self._file)}
        except FileNotFoundError:
            self._known = {}
            logger.error("the file of keys is gone: no key is valid")
        except (AccessError, OSError) as error:
            logger.error("the keys are those from before: %s", error.__class__.__name__)


def _mark(file: Path) -> tuple[int, int, int]:
    """Another one for every version of a file; zeros where there is none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size
