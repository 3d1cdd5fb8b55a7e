"""What uvicorn leaves open: connections that stand still.

A client may send no request, dribble a request's head, or not take up its answer; uvicorn waits for ever. A slow body
is for `service.edge`, which can say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import resource
import sys
import termios
import uuid
from typing import ClassVar

import h11
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.h11_impl import H11Protocol

SLOWEST = 16 * 1024  # bytes a second that a client must send, or take up, once it has stood still for long enough


class Connection(H11Protocol):
    """uvicorn's connection, ended where its client stands still.

    Attributes:
        stall_s: seconds for the whole head of a request, and in which an answer must have been taken up by `SLOWEST`.
    """

    stall_s: ClassVar[float] = 20.0

    _head: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin to wait for a head; a connection beyond half of what files this process may open is ended at once."""
        super().connection_made(transport)
        if len(self.connections) > resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2:
            transport.abort()
            return
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._head = _cancelled(self._head)
        self._stalled = _cancelled(self._stalled)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Note whether a head is complete."""
        super().data_received(data)
        self._watch_head()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered with a problem, like everything else."""
        problem = {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": msg}
        body = json.dumps(problem | {"request_id": uuid.uuid4().hex}).encode()
        headers = {"Content-Type": "application/problem+json", "Content-Length": str(len(body)), "Connection": "close"}
        head = h11.Response(status_code=400, headers=list(headers.items()), reason=b"Bad Request")
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def pause_writing(self) -> None:
        """The client takes up no more than the system's buffers hold."""
        self.flow.pause_writing()
        self._watch_buffer()

    def resume_writing(self) -> None:
        """It does again."""
        self._stalled = _cancelled(self._stalled)
        self.flow.resume_writing()

    def _watch_buffer(self) -> None:
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.stall_s, self._end_if_stalled, self._untaken())

    def _end_if_stalled(self, before: int) -> None:
        self._stalled = None
        if before - self._untaken() < SLOWEST * self.stall_s:
            self.transport.abort()
        else:
            self._watch_buffer()

    def _untaken(self) -> int:
        """Bytes that the client has not taken up: here, and in the system's buffer, which empties in large steps."""
        queued = bytes(4)
        with contextlib.suppress(OSError):  # not every system tells
            queued = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
        return self.transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def _awaits_head(self) -> bool:
        """Whether no request is under way; what comes of the body of one that is answered already is thrown away."""
        return self.conn.their_state is h11.IDLE or self.conn.our_state is h11.DONE

    def _watch_head(self) -> None:
        if not self._awaits_head():
            self._head = _cancelled(self._head)
        elif self._head is None:
            self._head = self.loop.call_later(self.stall_s, self._end_if_headless)

    def _end_if_headless(self) -> None:
        self._head = None
        if self._awaits_head() and not self.transport.is_closing():
            self.transport.close()


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def use_connections() -> None:
    """Have uvicorn use `Connection`; to be called before it makes its server."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{Connection.__name__}"
