"""Readers' codes: long, random, stored as a hash, and compared in constant time.

    k7m2q-9x4tb-...     the first five characters find the row, the other 25 (125 bits) open it

A hash without salt or stretching suffices, because nobody searches 2^125 codes.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_ALIKE = str.maketrans({"i": "1", "l": "1", "o": "0"}) | str.maketrans("", "", "- \t\n")
_GROUP, _GROUPS = 5, 6


@dataclass(frozen=True, slots=True)
class Lock:
    """What is stored of a code: `selector` finds it, `digest` (SHA-256, hexadecimal) checks the rest."""

    selector: str
    digest: str

    def opens(self, code: str) -> bool:
        """Whether the code is the one that this was made of."""
        return hmac.compare_digest(lock_of(code).digest.encode(), self.digest.encode())


def new_code() -> str:
    """A code that nobody guesses, in groups that can be read out and typed."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_GROUPS))


def lock_of(code: str) -> Lock:
    """What is stored of a code; case, spaces and hyphens do not matter, nor do I for 1 and O for 0."""
    plain = code.lower().translate(_ALIKE)
    return Lock(plain[:_GROUP], hashlib.sha256(plain[_GROUP:].encode()).hexdigest())


NOBODY = Lock("", lock_of(new_code()).digest)  # stands in for a code that is not there: the comparison is made anyway
