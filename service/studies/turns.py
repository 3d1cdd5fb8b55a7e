"""Work that runs side by side, except for what is suspected of taking the process down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Turns:
    """Tasks of one event loop that run beside each other, but a suspect alone.

    Without it, whatever runs beside the one that kills the process would be suspected, too, and as often.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._running = 0
        self._suspect = False

    @asynccontextmanager
    async def turn(self, *, alone: bool) -> AsyncGenerator[None]:
        """Wait for one's turn, and hold it."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._suspect)
            self._suspect = alone  # from here on nobody else begins
            try:
                await self._changed.wait_for(lambda: not alone or self._running == 0)
            except asyncio.CancelledError:
                self._suspect = False
                raise
            self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if alone:
                self._suspect = False
            async with self._changed:
                self._changed.notify_all()
