"""How long one file may take: what a thread does with untrusted bytes is checked between its steps.

No thread can be ended, but Pillow and pydicom walk through a file by reading from a stream, chunk by chunk and element
by element, in Python: millions of empty ones fit into an upload. A stream that looks at the clock ends the walk.
"""

from __future__ import annotations

from io import BytesIO
from time import monotonic

from service.errors import SlowImage

ALLOWED_S = 10.0  # for a file, and one second more for so many pixels:
PIXELS_A_SECOND = 3e6


class Patience:
    """Until when a file is worked on: `ALLOWED_S` from now on, and longer for its pixels.

    Attributes:
        until: by `time.monotonic`.
    """

    def __init__(self, pixels: int = 0) -> None:
        self.until = monotonic() + ALLOWED_S
        self.grant(pixels)

    def grant(self, pixels: int) -> None:
        """Give more time, for pixels that the file turned out to have."""
        self.until += pixels / PIXELS_A_SECOND

    def check(self) -> None:
        """Look at the clock.

        Raises:
            SlowImage: the time is over.
        """
        if monotonic() > self.until:
            raise SlowImage("the file takes too long to read") from None


class PatientStream(BytesIO):
    """A file in memory that is read within a time; every `read` may raise SlowImage."""

    def __init__(self, content: bytes, patience: Patience) -> None:
        super().__init__(content)
        self.patience = patience

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any stream; a file may be read some hundred times, so this is short."""
        if size is None or size < 0 or monotonic() > self.patience.until:
            self.look(size)
        return super().read(size)

    def look(self, size: int | None) -> None:
        """Before all that is left is read (`size` is None or negative), and when the time is over."""
        self.patience.check()
