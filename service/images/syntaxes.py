"""Transfer syntaxes (PS3.5 10, PS3.6 A): which are read, and by which decoder; the names of the others."""

from __future__ import annotations

from pydicom import uid

from service.errors import UnsupportedTransferSyntax

NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
_ENCAPSULATED_UNCOMPRESSED = uid.UID("1.2.840.10008.1.2.1.98")
DEFLATED_FRAMES = uid.UID("1.2.840.10008.1.2.8.1")
NATIVE_FRAMES = (_ENCAPSULATED_UNCOMPRESSED, DEFLATED_FRAMES)  # native samples, a frame in each fragment
JPEG_DCT = (  # Huffman coded: baseline, extended, and the retired progressive processes
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.UID("1.2.840.10008.1.2.4.53"),
    uid.UID("1.2.840.10008.1.2.4.55"),
)
JPEG_LOSSLESS = (uid.JPEGLossless, uid.JPEGLosslessSV1)
JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
CODESTREAMS = (*JPEG_DCT, *JPEG_LOSSLESS, *JPEG_LS, *JPEG_2000)
ENCAPSULATED = frozenset((*NATIVE_FRAMES, *CODESTREAMS, uid.RLELossless))
_NEWER = {  # than pydicom's dictionary
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    DEFLATED_FRAMES: "Deflated Image Frame Compression",
}


def name_of(syntax: uid.UID) -> str | None:
    """Name of a transfer syntax in PS3.6, None where it has none."""
    return syntax.name if syntax.is_transfer_syntax and not syntax.is_private else _NEWER.get(syntax)


def require_decoder(syntax: uid.UID) -> None:
    """Refuse what is not read.

    Raises:
        UnsupportedTransferSyntax: with the name of the transfer syntax, where the standard has one.
    """
    if syntax in NATIVE or syntax in ENCAPSULATED:
        return
    name = name_of(syntax)
    if name is None:
        raise UnsupportedTransferSyntax("the transfer syntax is private or unknown")
    raise not_supported(f"the {'retired ' if syntax.is_retired else ''}transfer syntax {name}")


def not_supported(what: str) -> UnsupportedTransferSyntax:
    """Make the refusal of something that is sound, by its name in the standard."""
    return UnsupportedTransferSyntax(f"{what} is not supported")
