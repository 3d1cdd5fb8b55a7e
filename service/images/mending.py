"""Data sets whose sequences and fragments are not closed as PS3.5 7.5 and A.4 say, written anew with what is missing.

A parser that meets the end of the file within a sequence, or another delimiter than it waits for, knows no longer
where it is. The walk here needs only tags, VRs and lengths, and puts every delimiter where the next tag shows that it
belongs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.images.patience import Patience

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA = 0x7FE00010
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # PS3.5 7.1.2
_FRAGMENTED_VRS = frozenset(b"OB OW".split())
_JPEG_END = b"\xff\xd9"  # of every kind of JPEG (T.81, T.87, 15444-1: EOI, EOC)


@dataclass(frozen=True, slots=True)
class Mended:
    """A file whose data set is well formed.

    Attributes:
        content: the whole file.
        ends_early: it ended within an element; what there was of that element is left out.
        lost: it went on behind the last element that could be told.
    """

    content: bytes
    ends_early: bool
    lost: bool


@dataclass(slots=True)
class _Open:
    """A sequence or an item that is not closed yet.

    Attributes:
        is_item: else a sequence.
        end: where an item of defined length ends.
        last: tag of its last element.
    """

    is_item: bool
    end: int | None = None
    last: int = 0


@dataclass(frozen=True, slots=True)
class _Header:
    """Tag, VR (None where it is implicit) and length of an element, and where its value starts."""

    tag: int
    vr: bytes | None
    length: int
    value: int


def mend(content: bytes, start: int, *, little: bool, patience: Patience) -> Mended:
    """Close what is open in a data set, and leave out delimiters that close nothing.

    Sequences of defined length stay as they are; items in the others get undefined length. Of elements that come twice
    at top level the first is kept. A fragment that the end of the file cuts is left out, unless it holds the end of its
    codestream.

    Args:
        content: a whole file.
        start: where its data set starts.
        little: whether it is little endian.
        patience: of the file.

    Raises:
        SlowImage: it takes too long.
    """
    order = "little" if little else "big"
    found = _Walk(content, start, order, patience, item_ends_sequence=False).run()
    if found.ends_early:  # or so it seems: with one delimiter too few all that follows belongs to an item
        other = _Walk(content, start, order, patience, item_ends_sequence=True).run()
        return found if other.ends_early or other.lost else other
    return found


class _Walk:
    """A walk from tag to tag.

    An item delimiter where no item is open comes twice, or the sequence's own delimiter is missing before it
    (`item_ends_sequence`): only what follows can tell.
    """

    def __init__(
        self,
        content: bytes,
        start: int,
        order: Literal["little", "big"],
        patience: Patience,
        *,
        item_ends_sequence: bool,
    ) -> None:
        self._content, self._at, self._patience = content, start, patience
        self._item_ends_sequence = item_ends_sequence
        self._order: Literal["little", "big"] = order
        self._out = bytearray(content[:start])
        self._implicit = not _is_vr(content[start + 4 : start + 6])
        self._open: list[_Open] = []
        self._top = _Open(is_item=True)
        self._seen: set[int] = set()
        self._ends_early = self._lost = False

    def run(self) -> Mended:
        while self._at + 8 <= len(self._content) and not self._lost:
            self._patience.check()
            self._step()
        unfinished = bool(self._open) or self._at < len(self._content)
        self._ends_early |= unfinished and not self._lost and _PIXEL_DATA not in self._seen
        while self._open:
            self._close()
        return Mended(bytes(self._out), self._ends_early, self._lost)

    def _step(self) -> None:
        inner = self._open[-1] if self._open else None
        if inner is not None and inner.end is not None and self._at >= inner.end:
            self._close()
            return
        tag = self._tag(self._at)
        if tag == _ITEM:
            self._item()
        elif tag in (_ITEM_END, _SEQUENCE_END):
            self._end(closes_item=tag == _ITEM_END)
            self._at += 8
        else:
            self._element()

    def _end(self, *, closes_item: bool) -> None:
        """Close what a delimiter ends, and what is still open in it."""
        if not self._open:
            return
        if self._open[-1].is_item is closes_item:
            self._close()
        elif not closes_item or (self._item_ends_sequence and len(self._open) > 1):
            self._close()
            self._close()

    def _item(self) -> None:
        if self._open and self._open[-1].is_item:
            self._close()
        if not self._open:
            self._lost = True
            return
        length = self._number(self._at + 4)
        self._at += 8
        self._open.append(_Open(is_item=True, end=None if length == _UNDEFINED else self._at + length))
        self._put(_ITEM, _UNDEFINED)

    def _element(self) -> None:
        header = self._header()
        if self._open and not self._open[-1].is_item:
            self._close()
        while self._open and self._open[-1].end is None and self._open[-1].last >= header.tag > self._outer().last:
            # tags ascend (PS3.5 7.1): this one belongs to the data set around
            self._close()
            self._close()
        inner = self._open[-1] if self._open else self._top
        junk = header.tag >> 16 == 0xFFFF or (header.tag <= _PIXEL_DATA in self._seen)
        if junk and not self._open:
            self._lost = True
            return
        before = len(self._out)
        self._value(header)
        inner.last = header.tag
        if inner is self._top:
            if header.tag in self._seen and not self._open:
                del self._out[before:]
            self._seen.add(header.tag)

    def _value(self, header: _Header) -> None:
        """Copy an element; of a sequence only its header."""
        end = header.value + header.length
        if header.length == _UNDEFINED and header.tag == _PIXEL_DATA and self._tag(header.value) >> 16 != _ITEM >> 16:
            self._copy(header.value - 4)  # native ones: of the length that is left
            self._at = header.value
            rest = len(self._content) - self._at
            self._out += rest.to_bytes(4, self._order)
            self._copy(len(self._content))
        elif header.length == _UNDEFINED:
            self._copy(header.value)
            if header.tag == _PIXEL_DATA or header.vr in _FRAGMENTED_VRS:
                self._fragments()
            else:
                self._open.append(_Open(is_item=False))
        elif end <= len(self._content):
            self._copy(end)
        else:
            self._ends_early |= _PIXEL_DATA not in self._seen
            if header.tag == _PIXEL_DATA and not self._open:  # as much as there is: frames of it may be whole
                self._copy(len(self._content))
            self._at = len(self._content)

    def _fragments(self) -> None:
        """Copy the fragments of encapsulated pixel data (PS3.5 A.4), and end them."""
        while self._at + 8 <= len(self._content):
            self._patience.check()
            tag, length = self._tag(self._at), self._number(self._at + 4)
            end = self._at + 8 + length
            if tag != _ITEM or length == _UNDEFINED:
                self._at += 8 if tag in (_SEQUENCE_END, _ITEM_END) else 0
                break
            if end > len(self._content):
                self._cut_fragment()
                break
            self._copy(end)
        else:
            self._ends_early |= self._tag(self._at) == _ITEM
            self._at = len(self._content)
        self._put(_SEQUENCE_END, 0)

    def _cut_fragment(self) -> None:
        data = self._content[self._at + 8 :].rstrip(b"\0")
        self._at = len(self._content)
        if data.endswith(_JPEG_END):
            data += bytes(len(data) % 2)
            self._put(_ITEM, len(data))
            self._out += data
        else:
            self._ends_early = True

    def _close(self) -> None:
        closed = self._open.pop()
        self._put(_ITEM_END if closed.is_item else _SEQUENCE_END, 0)

    def _outer(self) -> _Open:
        """Find the data set around the innermost sequence."""
        return self._open[-3] if len(self._open) > 2 else self._top

    def _copy(self, end: int) -> None:
        self._out += self._content[self._at : end]
        self._at = end

    def _put(self, tag: int, length: int) -> None:
        for number, size in ((tag >> 16, 2), (tag & 0xFFFF, 2), (length, 4)):
            self._out += number.to_bytes(size, self._order)

    def _header(self) -> _Header:
        """Read the head of the element here; the VR is explicit where this element's is, as `dcmread` tells it."""
        tag, vr = self._tag(self._at), self._content[self._at + 4 : self._at + 6]
        if self._implicit or not _is_vr(vr):
            return _Header(tag, None, self._number(self._at + 4), self._at + 8)
        if vr in _LONG_VRS:
            return _Header(tag, vr, self._number(self._at + 8), self._at + 12)
        return _Header(tag, vr, self._number(self._at + 6, 2), self._at + 8)

    def _tag(self, at: int) -> int:
        return self._number(at, 2) << 16 | self._number(at + 2, 2)

    def _number(self, at: int, size: int = 4) -> int:
        return int.from_bytes(self._content[at : at + size], self._order)


def _is_vr(two: bytes) -> bool:
    return len(two) == 2 and two.isalpha() and two.isupper()
