"""JPEG 2000 frames that Zeiss devices scramble when they export without the licence or option for plain DICOM.

Every seventh byte is changed by XOR with 5A, and the stream is cut in pieces that are put in another order. How was
found out in public: https://github.com/pydicom/pydicom/discussions/1618.
"""

from __future__ import annotations

import numpy as np

from service.images.fragments import JP2_START

_KEY, _STEP = 0x5A, 7
_HEAD = 253  # bytes of the JP2 header that stand by themselves, from three fifths of the frame on
# The rest of the frame's first pieces in the order in which they belong behind it; None stands for three fifths.
_ORDER = ((993, 1016), (276, 763), (23, 276), (1016, None), (0, 23), (763, 993))


def unscrambled(frame: bytes) -> bytes | None:
    """Put a scrambled frame in order.

    Args:
        frame: as it is stored.

    Returns:
        JPEG 2000 in JP2 boxes (ISO/IEC 15444-1 I), or None where the frame is not scrambled in this way.
    """
    start = 3 * len(frame) // 5
    if start < _ORDER[0][1]:
        return None
    plain = np.frombuffer(frame, np.uint8).copy()
    plain[::_STEP] ^= _KEY
    content = plain.tobytes()
    if content[start : start + len(JP2_START)] != JP2_START:
        start = content.find(JP2_START, _ORDER[0][1])  # a byte of padding moves three fifths
        if start < 0:
            return None
    pieces = [content[first : start if last is None else last] for first, last in _ORDER]
    return b"".join((content[start : start + _HEAD], *pieces, content[start + _HEAD :]))
