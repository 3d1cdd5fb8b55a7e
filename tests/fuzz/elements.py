"""Where the elements of a DICOM file lie, damaged or not: for mutations that know the structure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_IMPLICIT = b"1.2.840.10008.1.2"
_BIG = b"1.2.840.10008.1.2.2"
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_MOST = 2000
Order = Literal["little", "big"]


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a file: where it starts, where its VR, length and value are, and where it ends."""

    tag: int
    vr: bytes
    start: int
    length_at: int
    length_size: int
    value_at: int
    end: int
    order: Order

    def with_length(self, content: bytes, length: int) -> bytes:
        """The file with another number in the length field."""
        field = (length % (1 << 8 * self.length_size)).to_bytes(self.length_size, self.order)
        return content[: self.length_at] + field + content[self.value_at :]

    def with_value(self, content: bytes, value: bytes) -> bytes:
        """The file with another value, and the length that belongs to it."""
        longer = content[: self.value_at] + value + content[self.end :]
        return self.with_length(longer, len(value))


def elements_of(content: bytes) -> list[Element]:
    """The elements at every depth, in the order of the file; as far as the file can be followed."""
    found: list[Element] = []
    start, explicit = 0, content[4:6].isalpha()
    order: Order = "little"
    if content[128:132] == b"DICM":
        start = _walk(content, 132, len(content), True, "little", found, group=2)
        syntax = next((content[e.value_at : e.end].rstrip(b"\0") for e in found if e.tag == 0x00020010), b"")
        if syntax == _DEFLATED:
            return found
        explicit, order = syntax != _IMPLICIT, "big" if syntax == _BIG else "little"
    _walk(content, start, len(content), explicit, order, found)
    return found


def _walk(
    content: bytes, at: int, end: int, explicit: bool, order: Order, found: list[Element], group: int | None = None
) -> int:
    while at + 8 <= end and len(found) < _MOST:
        element = _element(content, at, explicit, order)
        if element is None or (group is not None and element.tag >> 16 != group):
            break
        found.append(element)
        undefined = element.end > end
        # items, sequences and what has no length are entered; all others are stepped over
        inside = element.tag >> 16 == 0xFFFE or element.vr == b"SQ" or undefined
        at = element.value_at if inside else element.end
    return at


def _element(content: bytes, at: int, explicit: bool, order: Order) -> Element | None:
    group = int.from_bytes(content[at : at + 2], order)
    tag = group << 16 | int.from_bytes(content[at + 2 : at + 4], order)
    vr, length_at, size = b"", at + 4, 4
    if explicit and group != 0xFFFE:
        vr = content[at + 4 : at + 6]
        if not re.fullmatch(rb"[A-Z]{2}", vr):
            return None
        length_at, size = (at + 8, 4) if vr in _LONG else (at + 6, 2)
    value_at = length_at + size
    length = int.from_bytes(content[length_at:value_at], order)
    return Element(tag, vr, at, length_at, size, value_at, value_at + length, order)
