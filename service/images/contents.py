"""What the pixels of a frame are, where they are no picture of one slice as it was acquired.

Reformatted planes (MPR), averages and images with a filter or a correction of distortion are pictures: their pixels
still mean what was acquired.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import get_args

from pydicom.dataset import Dataset

from service.images.groups import group, terms
from service.types import Content, ContentKind

KINDS: tuple[str, ...] = get_args(ContentKind)
NEVER_A_SLICE = frozenset(("localiser", "mosaic"))

_FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
_WORDS: Mapping[ContentKind, str] = {
    "localiser": "a localiser",
    "mosaic": "a mosaic of slices",
    "map": "a map of computed values",
    "phase": "a phase, real or imaginary image",
    "projection": "a projection or a rendering",
    "difference": "a subtraction or a ratio of images",
    "fat": "an image of fat alone",
    "capture": "a screen capture or a report",
    "colour": "a colour image",
}
# Values of Image Type as `terms` writes them: Defined Terms of PS3.3 C.7.6.1.1.2, C.8.3.1.1.1, C.8.13.3.1 and C.8.16.1,
# and those that scanners of Siemens, GE, Philips and Canon write.
_IMAGE_TYPES: Mapping[ContentKind, str] = {
    "localiser": "LOCALI[ZS]ER|SCOUT|TOPOGRAM|SURVEY",
    "mosaic": "MOSAIC",
    "capture": "SCREEN ?(SAVE|SHOT)|(SCREEN |SECONDARY )?CAPTURE|POSDISP|(CSA )?REPORT|CSA BLACK IMAGE",
    "projection": "PROJECTION( IMAGE)?|PJN|(.* )?(MIP|MIN ?IP|MNIP|AIP)( .*)?|M(AX|IN|EAN) IP|MAXIMUM|MINIMUM"
    "|(.* )?RENDER(ED|ING)?|VRT?|SSD|CURVED ?(MPR)?|CPR|CSA 3D EDITOR",
    "phase": "PHASE( (MAP|SUBTRACT|IMAGE|CONTRAST))?|[PRI]( .*)?|REAL|IMAG(INARY)?|VELOCITY( MAP)?|UNWRAPPED.*",
    "difference": "(MODULUS )?SUBTRACT(ION|ED)?|SUB|DIFFERENCE|DIV(ISION)?|RATIO",
    "map": r"MAP|.* MAP|T1RHO|[RT][12] ?(STAR|\*)? ?MAP|R[12]( STAR|\*)?|QUANTITY|E?ADC( .*)?|EXP( ADC)?|[FR]A|[ARM]D"
    "|FRACTIONAL ANISO.*|DIFFUSION ANISO|TENSOR.*|COLFA|(R|C|REL|RELC)?(CBF|CBV|MTT)|TTP|TMAX|PBP|GBP|BAT|KTRANS|KEP"
    "|I?AUC|ATT|T ?TEST|Z ?SCORE|T ?MAP|STD ?(DEV|DEVIATION)|R COEFFICIENT|RHO|QSM|SUSCEPTIBILITY|FF|B[01]|FIELD ?MAP"
    "|(FAT|WATER) ?(FRACTION|PERCENT|FRAC)|SNR|MTR|NEI|SCM|TCS|METABOLITE.*|TEMPERATURE",
    "fat": "F|FAT",
}
_QUANTITIES = frozenset(("T1", "T2", "T2 STAR", "T2STAR", "PROTON DENSITY"))
_TECHNIQUES = frozenset(("MAX IP", "MIN IP", "VOLUME RENDER", "SURFACE RENDER", "CURVED MPR"))
_COMPONENTS = frozenset(("PHASE", "REAL", "IMAGINARY"))
_CAPTURED = frozenset(("DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN"))


def content_of(header: Dataset, index: int) -> Content | None:
    """Say what the pixels of a frame are; None where they are a picture of one slice, or nothing is said.

    Image Type (0008,0008) and Frame Type (0008,9007), Complex Image Component (0008,9208), Volume Based Calculation
    Technique (0008,9207), Conversion Type (0008,0064) and Photometric Interpretation (0028,0004) are looked at
    (PS3.3 C.7.6.1.1.2, C.8.3.1.1.1, C.8.13.3.1, C.8.16, C.8.6.1, C.7.6.3.1.2).

    Args:
        header: an instance; its pixels are not touched.
        index: the frame, from 0.
    """
    described = next((found for name in _FRAME_TYPES if (found := group(header, index, name)) is not header), header)
    if kind := _by_type(terms(described, "FrameType")):
        return _content(kind, "Frame Type (0008,9007)")
    if whole := content_of_instance(header):
        return whole
    if not _COMPONENTS.isdisjoint(terms(described, "ComplexImageComponent")):
        return _content("phase", "Complex Image Component (0008,9208)")
    if not _TECHNIQUES.isdisjoint(terms(described, "VolumeBasedCalculationTechnique")):
        return _content("projection", "Volume Based Calculation Technique (0008,9207)")
    if not _CAPTURED.isdisjoint(terms(header, "ConversionType")):
        return _content("capture", "Conversion Type (0008,0064)")
    if any(not value.startswith("MONOCHROME") for value in terms(header, "PhotometricInterpretation")):
        return _content("colour", "Photometric Interpretation (0028,0004)")
    return None


def content_of_instance(header: Dataset) -> Content | None:
    """Read from Image Type (0008,0008) what all frames show; None where a picture of one slice, or nothing."""
    kind = _by_type(terms(header, "ImageType"))
    return None if kind is None else _content(kind, "Image Type (0008,0008)")


def _content(kind: ContentKind, source: str) -> Content:
    return Content(kind, f"{source} says {_WORDS[kind]}")


@lru_cache(1024)
def _by_type(values: tuple[str, ...]) -> ContentKind | None:
    """Find the kind that Image Type or Frame Type names."""
    for kind, pattern in _IMAGE_TYPES.items():
        if any(re.fullmatch(pattern, value) for value in values):
            return kind
    # value 4 of a derived image is the quantity that its pixels are (C.8.13.3.1)
    return "map" if values[:1] == ("DERIVED",) and not _QUANTITIES.isdisjoint(values[3:4]) else None
