"""`python -m service.access`: make, list, revoke and rotate API keys. A key is printed once and stored nowhere."""

from __future__ import annotations

import argparse
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from service.access.keys import KeyRecord, changing, make_key, read_keys
from service.access.scopes import SCOPES
from service.errors import AccessError
from service.validation import faults_of

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def main(arguments: list[str] | None = None) -> int:
    """Entry point.

    Returns:
        0 where it is done, 2 where it cannot be.
    """
    asked = _parser().parse_args(arguments)
    try:
        asked.run(asked)
    except (AccessError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service.access", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, words: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=words, description=words)
        made.add_argument("file", type=Path, metavar="FILE", help="the file of RADIOLUCENT_KEYS")
        made.set_defaults(run=run)
        return made

    create = command("create", _create, "make a key and print it")
    create.add_argument("--scopes", type=_scopes, default=("explain",), metavar="A,B", help=f"of {', '.join(SCOPES)}")
    create.add_argument("--expires", type=_duration, metavar="90d", help="when it ends, in h, d or w (default: never)")
    create.add_argument("--id", default="", help="its name in lists and logs (default: made up)")
    create.add_argument("--note", default="", help="what it is for")
    command("list", _list, "show ids, scopes, ends and notes; the keys themselves are not stored")
    revoke = command("revoke", _revoke, "end a key; it is refused within a second")
    revoke.add_argument("id", metavar="ID")
    rotate = command("rotate", _rotate, "make and print a key that replaces another, which still holds for a while")
    rotate.add_argument("id", metavar="ID")
    rotate.add_argument("--overlap", type=_duration, default=timedelta(days=1), metavar="24h", help="default: 1d")
    rotate.add_argument("--expires", type=_duration, metavar="90d", help="when the new one ends (default: never)")
    return parser


def _create(asked: argparse.Namespace) -> None:
    with changing(asked.file) as keys:
        if asked.id in {name for key in keys for name in (key.id, key.holder) if name}:
            raise AccessError("there is a key of this id already, or one that replaces it; see rotate")
        key, record = _made(asked.id, asked.scopes, asked.expires, asked.note)
        keys.append(record)
    _show(key, record)


def _list(asked: argparse.Namespace) -> None:
    now = datetime.now(UTC).timestamp()
    for key in read_keys(asked.file):
        ends = "never ends" if key.expires is None else f"ends {key.expires:%Y-%m-%d %H:%M %Z}"
        state = "" if key.is_valid(now) else "  (has ended)"
        sys.stdout.write(f"{key.id}  {','.join(key.scopes)}  made {key.created:%Y-%m-%d}, {ends}{state}  {key.note}\n")


def _revoke(asked: argparse.Namespace) -> None:
    with changing(asked.file) as keys:
        keys.remove(_find(keys, asked.id))
    sys.stdout.write(f"{asked.id} is revoked\n")


def _rotate(asked: argparse.Namespace) -> None:
    with changing(asked.file) as keys:
        old = _find(keys, asked.id)
        ends = datetime.now(UTC).replace(microsecond=0) + asked.overlap
        ends = min(ends, old.expires) if old.expires else ends
        keys[keys.index(old)] = old.model_copy(update={"expires": ends})
        successor = _successor(old.id, {key.id for key in keys})
        key, made = _made(successor, old.scopes, asked.expires, old.note)
        keys.append(made.model_copy(update={"holder": old.held_by}))
    _show(key, made)


def _made(name: str, scopes: tuple[str, ...], lasts: timedelta | None, note: str) -> tuple[str, KeyRecord]:
    ends = datetime.now(UTC).replace(microsecond=0) + lasts if lasts else None
    try:
        key, record = make_key(name, scopes, ends, note)  # pyright: ignore[reportArgumentType] - checked by its model
    except ValidationError as error:
        raise AccessError(faults_of(error, "the key")) from None
    return key, record


def _show(key: str, record: KeyRecord) -> None:
    """Once it is stored: a key that is shown works."""
    sys.stderr.write(f"{record.id}: {', '.join(record.scopes)}. Keep it now, it is shown this once:\n")
    sys.stdout.write(f"{key}\n")


def _find(keys: list[KeyRecord], name: str) -> KeyRecord:
    found = next((key for key in keys if key.id == name), None)
    if found is None:
        raise AccessError(f"there is no key {name}; there are {', '.join(key.id for key in keys) or 'none'}")
    return found


def _successor(name: str, taken: set[str]) -> str:
    """`name.2`, `name.3`, ..."""
    stem = re.sub(r"\.\d+$", "", name)
    return next(made for number in range(2, len(taken) + 3) if (made := f"{stem}.{number}") not in taken)


def _scopes(text: str) -> tuple[str, ...]:
    words = tuple(text.split(","))
    if not set(words) <= set(SCOPES):
        raise argparse.ArgumentTypeError(f"scopes are {', '.join(SCOPES)}")
    return words


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"([1-9]\d{0,4})([hdw])", text)
    if not found:
        raise argparse.ArgumentTypeError("a duration is a number and h, d or w, such as 90d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


if __name__ == "__main__":
    sys.exit(main())
