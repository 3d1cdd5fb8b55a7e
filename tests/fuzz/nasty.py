"""Values at and beyond the edges of what the standard allows."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


VRS = tuple(
    vr.encode()
    for vr in _words(
        """AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV ZZ"""
    )
)
LENGTHS = (0, 1, 2, 3, 7, 255, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
TEXTS = (
    *(
        b"",
        b"\\",
        b"\\\\\\",
        b"\0",
        b" ",
        b"NaN",
        b"inf",
        b"-inf",
        b"1e400",
        b"-0",
        b"1.5\\x",
        b"9" * 16,
        b"\xff\xfe\xfd",
    ),
    *(b"A" * 70, b"1..2", b"\x1b$B", b"%s%n", b"0x10", b"1\\2\\3\\4\\5\\6\\7", b"CODE\\STRING", b"\xe2\x80\xae"),
)
INTEGERS = (
    *(0, 1, 2, 3, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 64, 127, 128, 255, 256, 511, 512, 4095),
    *(32767, 32768, 65535),
)
FLOATS = ("0", "-1", "1e-300", "1e300", "NaN", "inf", "-inf", "0.0000001", "1e39", "-32768", "65536", "", "x", "1\\2")
SYNTAXES = _words(
    """
    1.2.840.10008.1.2 1.2.840.10008.1.2.1 1.2.840.10008.1.2.1.99 1.2.840.10008.1.2.2 1.2.840.10008.1.2.5
    1.2.840.10008.1.2.4.50 1.2.840.10008.1.2.4.51 1.2.840.10008.1.2.4.57 1.2.840.10008.1.2.4.70
    1.2.840.10008.1.2.4.80 1.2.840.10008.1.2.4.81 1.2.840.10008.1.2.4.90 1.2.840.10008.1.2.4.91
    1.2.840.10008.1.2.4.201 1.2.840.10008.1.2.4.202 1.2.840.10008.1.2.4.203 1.2.840.10008.1.2.4.100
    1.2.840.10008.1.2.4.102 1.2.840.10008.1.2.7.1 1.2.3.4 x
    """
)
PHOTOMETRIC = (
    *_words("MONOCHROME1 MONOCHROME2 RGB YBR_FULL YBR_FULL_422 YBR_PARTIAL_420 YBR_ICT YBR_RCT ARGB HSV"),
    *("PALETTE COLOR", ""),
)
SHAPE = _words("Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel PlanarConfiguration")
GREY = _words("RescaleSlope RescaleIntercept WindowCenter WindowWidth")
PLACE = _words("ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness SliceLocation InstanceNumber")
