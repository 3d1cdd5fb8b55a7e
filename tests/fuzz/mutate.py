"""Damaged DICOM files, made from good ones: mutations that know tags, VRs, lengths, values, nesting and pixel data."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from io import BytesIO

import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from service.images.codecs import FILE_ERRORS
from tests.fuzz.elements import Element, elements_of
from tests.fuzz.nasty import (
    FLOATS,
    GREY,
    INTEGERS,
    LENGTHS,
    PHOTOMETRIC,
    PLACE,
    SHAPE,
    SYNTAXES,
    TEXTS,
    VRS,
)

Random = random.Random
Mutation = Callable[[bytes, Random, Sequence[bytes]], bytes]
LARGEST = 4 * 2**20  # bytes of a mutated file


def mutate(seeds: Sequence[bytes], chance: Random) -> bytes:
    """One of the seeds after one to four mutations."""
    content = chance.choice(seeds)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4))):
        content = chance.choice(MUTATIONS)(content, chance, seeds)[:LARGEST]
    return content


def flip(content: bytes, chance: Random, _seeds: Sequence[bytes]) -> bytes:
    """A few bits, in the header or anywhere."""
    changed = bytearray(content)
    reach = len(changed) if chance.random() < 0.5 else min(len(changed), 2048)
    for _ in range(chance.randint(1, 12) if reach else 0):
        changed[chance.randrange(reach)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def truncate(content: bytes, chance: Random, _seeds: Sequence[bytes]) -> bytes:
    """The file ends inside an element, between two, or anywhere."""
    elements = elements_of(content)
    if elements and chance.random() < 0.7:
        element = chance.choice(elements)
        return content[: chance.choice((element.start, element.length_at, element.value_at, element.end - 1))]
    return content[: chance.randint(0, len(content))]


def splice(content: bytes, chance: Random, seeds: Sequence[bytes]) -> bytes:
    """The beginning of one file and the end of another."""
    other = chance.choice(seeds)
    return content[: _boundary(content, chance)] + other[_boundary(other, chance) :]


def move(content: bytes, chance: Random, _seeds: Sequence[bytes]) -> bytes:
    """An element is missing, there twice, or somewhere else."""
    element = _pick(content, chance)
    if element is None:
        return flip(content, chance, _seeds)
    piece = content[element.start : element.end]
    without = content[: element.start] + content[element.end :]
    place = _boundary(content, chance)
    return chance.choice(
        (without, content[:place] + piece + content[place:], without[:place] + piece + without[place:])
    )


def relabel(content: bytes, chance: Random, _seeds: Sequence[bytes]) -> bytes:
    """Another tag or another VR on the same value."""
    element = _pick(content, chance)
    if element is None:
        return flip(content, chance, _seeds)
    if element.vr and chance.random() < 0.7:
        return content[: element.start + 4] + chance.choice(VRS) + content[element.start + 6 :]
    other = _pick(content, chance)
    tag = content[other.start : other.start + 4] if other and chance.random() < 0.5 else chance.randbytes(4)
    return content[: element.start] + tag + content[element.start + 4 :]


def lengthen(content: bytes, chance: Random, _seeds: Sequence[bytes]) -> bytes:
    """A length that is not that of the value."""
    element = _pick(content, chance)
    if element is None:
        return flip(content, chance, _seeds)
    real = element.end - element.value_at
    return element.with_length(content, chance.choice((*LENGTHS, real + 1, real + 2, max(0, real - 2), real * 2)))


def poison(content: bytes, chance: Random, _seeds: Sequence[bytes]) -> bytes:
    """A value that its VR does not allow, or only just, with the right length."""
    element = _pick(content, chance, longest=4096)
    if element is None:
        return flip(content, chance, _seeds)
    number = chance.choice(INTEGERS) * chance.choice((1, -1))
    values = (
        chance.choice(TEXTS),
        chance.choice(FLOATS).encode(),
        number.to_bytes(4, element.order, signed=True)[:2],
    )
    value = chance.choice((*values, chance.randbytes(chance.choice((1, 2, 4, 8, 64)))))
    return element.with_value(content, value + b" " * (len(value) % 2))


def damage_pixels(content: bytes, chance: Random, _seeds: Sequence[bytes]) -> bytes:
    """Bits, fragment lengths or markers inside the pixel data."""
    element = next((e for e in reversed(elements_of(content)) if e.tag == 0x7FE00010), None)
    if element is None or element.value_at >= len(content):
        return flip(content, chance, _seeds)
    changed, start = bytearray(content), element.value_at
    reach = len(changed) - start if chance.random() < 0.5 else min(len(changed) - start, 200)
    for _ in range(chance.randint(1, 20)):
        changed[start + chance.randrange(reach)] = chance.choice((0, 0xFF, chance.randrange(256)))
    return bytes(changed)


def nest(content: bytes, chance: Random, _seeds: Sequence[bytes]) -> bytes:
    """Sequences in sequences, closed or not, in front of the rest of the data set."""
    depth = chance.choice((1, 3, 50, 300, 2000, 20000))
    opened = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closed = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    if chance.random() < 0.3:
        opened = opened[:4] + opened[8:]  # implicit VR
    place = _boundary(content, chance)
    return content[:place] + opened * depth + closed * chance.choice((0, depth // 2, depth)) + content[place:]


def redescribe(content: bytes, chance: Random, _seeds: Sequence[bytes]) -> bytes:
    """The description of the image says something else than its pixels."""

    def change(ds: Dataset) -> None:
        kind = chance.randrange(4)
        if kind == 0:
            for keyword in chance.sample(SHAPE, chance.randint(1, 3)):
                _set(ds, keyword, "US", chance.choice(INTEGERS))
        elif kind == 1:
            _set(ds, "PhotometricInterpretation", "CS", chance.choice(PHOTOMETRIC))
        elif kind == 2:
            _set(
                ds, "NumberOfFrames", "IS", chance.choice(("0", "-1", "2", "3", "500", "100000", "2147483647", "x", ""))
            )
        else:
            _set(ds.file_meta, "TransferSyntaxUID", "UI", chance.choice(SYNTAXES))

    return _edited(content, chance, change)


def displace(content: bytes, chance: Random, _seeds: Sequence[bytes]) -> bytes:
    """Geometry, rescaling, windows and lookup tables without sense, at the top or in functional groups."""

    def change(ds: Dataset) -> None:
        place = chance.choice(list(_datasets(ds)))
        for keyword in chance.sample(GREY + PLACE, chance.randint(1, 4)):
            count = chance.choice((1, 1, 2, 3, 6))
            _set(place, keyword, "DS", "\\".join(chance.choice(FLOATS) for _ in range(count)))
        if chance.random() < 0.3:
            table = Dataset()
            _set(table, "LUTDescriptor", "US", [chance.choice(INTEGERS) for _ in range(chance.choice((1, 3, 3, 4)))])
            _set(table, "LUTData", "OW", chance.randbytes(2 * chance.choice((0, 1, 16, 256))))
            place.add(DataElement(chance.choice((0x00283000, 0x00283010)), "SQ", DicomSequence([table])))

    return _edited(content, chance, change)


def regroup(content: bytes, chance: Random, _seeds: Sequence[bytes]) -> bytes:
    """Items of sequences (functional groups among them) are missing, there twice, or empty."""

    def change(ds: Dataset) -> None:
        sequences = [e for each in _datasets(ds) for e in each if e.VR == "SQ" and e.value]
        for element in chance.sample(sequences, min(len(sequences), chance.randint(1, 3))):
            items = list(element.value)
            kind = chance.randrange(4)
            new = (items[:-1], items * 2, [*items, Dataset()], [])[kind]
            element.value = DicomSequence(new)

    if not any(element.vr == b"SQ" for element in elements_of(content)):
        return move(content, chance, ())
    return _edited(content, chance, change)


MUTATIONS: tuple[Mutation, ...] = (
    flip,
    truncate,
    splice,
    move,
    relabel,
    lengthen,
    poison,
    poison,
    damage_pixels,
    nest,
    redescribe,
    redescribe,
    displace,
    regroup,
)


def _pick(content: bytes, chance: Random, longest: int | None = None) -> Element | None:
    """An element that lies in the file; no longer than `longest` bytes."""
    elements = [e for e in elements_of(content) if e.end <= len(content)]
    if longest is not None:
        elements = [e for e in elements if e.end - e.value_at <= longest]
    return chance.choice(elements) if elements else None


def _boundary(content: bytes, chance: Random) -> int:
    """Where an element starts."""
    elements = elements_of(content)
    return chance.choice(elements).start if elements else chance.randint(0, len(content))


def _datasets(ds: Dataset, depth: int = 0) -> list[Dataset]:
    """The data set and those in its sequences."""
    found = [ds]
    for element in ds:
        if element.VR == "SQ" and depth < 6:
            for item in element.value:
                found.extend(_datasets(item, depth + 1))
    return found


def _edited(content: bytes, chance: Random, change: Callable[[Dataset], None]) -> bytes:
    """The file after a change by pydicom; another mutation where it cannot be read or written as a data set."""
    out = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ds = pydicom.dcmread(BytesIO(content), force=True)
            change(ds)
            ds.save_as(out, enforce_file_format=False)
        except FILE_ERRORS:
            return flip(content, chance, ())
    return out.getvalue()


def _set(ds: Dataset, keyword: str, vr: str, value: object) -> None:
    tag = pydicom.datadict.tag_for_keyword(keyword)
    ds.add(DataElement(tag, vr, value, validation_mode=pydicom.config.IGNORE))
