"""How a worker rests while a table has no row for it."""

from __future__ import annotations

import asyncio
import contextlib

_LOOK_S = 2.0  # between looks at the table: another process may have written it, or have died


class Idle:
    """Between two looks for work; ends at once where this process knows that there is some."""

    def __init__(self) -> None:
        self._work = asyncio.Event()

    def end(self) -> None:
        """There is work. In the event loop; where nobody rests, the next rest is none."""
        self._work.set()

    async def rest(self) -> None:
        """Until there is work, or may be."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await self._work.wait()
        self._work.clear()
