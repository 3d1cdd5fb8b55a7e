"""Kinds of JPEG that are not read, by the frame header (ITU-T T.81 B.2.2, table B.1; T.87 C.2.2)."""

from __future__ import annotations

_MOST_SEGMENTS = 4096
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})  # markers of frame headers
_NAMES = {
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical JPEG"),
    0xCB: "lossless JPEG with arithmetic coding",
    0xF7: "JPEG-LS",
}
_COMPONENTS = (1, 3, 4)


def unsupported_kind(content: bytes) -> str | None:
    """Name the kind of a JPEG file where no decoder here reads it, however sound the file is.

    Args:
        content: the whole file.

    Returns:
        The name; None for kinds that are read, and where there is no frame header.
    """
    at = 2
    for _ in range(_MOST_SEGMENTS):
        head = content[at : at + 10]
        if len(head) < 10 or head[0] != 0xFF:
            return None
        if head[1] in _FRAMES:
            return _kind(head[1], head[4], int.from_bytes(head[5:7], "big"), head[9])
        # fill bytes before a marker have no length
        at += 1 if head[1] == 0xFF else 2 + int.from_bytes(head[2:4], "big")
    return None


def _kind(marker: int, precision: int, rows: int, components: int) -> str | None:
    if marker in _NAMES:
        return _NAMES[marker]
    if precision != 8:
        return f"{'lossless ' if marker == 0xC3 else ''}JPEG of {precision} bits a sample"
    if components not in _COMPONENTS:
        return f"JPEG of {components} components"
    return "JPEG that gives its height behind its pixels" if rows == 0 else None
