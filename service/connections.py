"""What uvicorn leaves open: connections that stand still, and work for clients that have left.

A client may send no request, dribble a request's head, or not take up its answer; uvicorn waits for ever. A slow body
is for `service.edge`, which can say so. Where a client leaves, or closes its half of the connection, which uvicorn
takes for the same, work of which it alone would have had something ends: see `Presence`. Of one that has sent further
requests already this is noticed when it is written to: no more is read from it until then.
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
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, ClassVar

from starlette.types import Scope
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

SLOWEST = 16 * 1024  # bytes a second that a client must send, or take up, once it has stood still for long enough
_LONGEST_HEAD = 64 * 1024  # bytes of a request's address and headers
_LAST_S = 0.5  # that a connection is held when the server ends, for a request that is on its way
_MOST_JOINED = 64 * 1024  # bytes of a body that are copied behind the head
_MOST_AHEAD = 128  # requests that a client may send before the first is answered: each is kept, parsed


class Presence:
    """Whether the client of a connection is still there; of its requests one at a time is answered."""

    def __init__(self) -> None:
        self._left = False
        self._task: asyncio.Task[object] | None = None

    @contextmanager
    def needed(self) -> Generator[None]:
        """What this task does within is cancelled when the client leaves, and ends there without an error."""
        self._task = task = asyncio.current_task()
        if self._left:
            self.leave()
        try:
            yield
        except asyncio.CancelledError:
            if not self._left or task is None:
                raise
            task.uncancel()
        finally:
            self._task = None

    def leave(self) -> None:
        """The client has left."""
        self._left = True
        if self._task is not None:
            self._task.cancel()


def while_client_waits(scope: Scope) -> AbstractContextManager[None]:
    """See `Presence.needed`; where nothing is known of the connection, nothing is cancelled."""
    presence: Presence | None = scope["state"].get("presence")
    return nullcontext() if presence is None else presence.needed()


class _Joined:
    """What an answer is written to: its head waits for the body where that follows at once, and both go together.

    uvicorn writes them apart: two calls of the system's, and two times that the client wakes.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held = b""
        self._flushing: asyncio.Handle | None = None

    def write(self, data: bytes) -> None:
        """Keep what is first until something follows, or the loop turns to others."""
        if self._flushing is None:
            self._held, self._flushing = data, self._loop.call_soon(self._flush)
        elif self._held and len(data) <= _MOST_JOINED:
            self._transport.write(self._taken() + data)
        else:
            self._flush()
            self._transport.write(data)

    def close(self) -> None:
        """Once all is written."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether it is being closed."""
        return self._transport.is_closing()

    def _flush(self) -> None:
        if held := self._taken():
            self._transport.write(held)

    def _taken(self) -> bytes:
        held, self._held = self._held, b""
        return held


class Connection(HttpToolsProtocol):
    """uvicorn's connection, ended where its client stands still, or sends a head or requests without an end.

    Attributes:
        stall_s: seconds for the whole head of a request, and in which an answer must have been taken up by `SLOWEST`.
    """

    stall_s: ClassVar[float] = 20.0

    _server_ends = False
    _head: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0
    _unfinished_bytes = 0
    _running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin to wait for a head; a connection beyond half of what files this process may open is ended at once."""
        super().connection_made(transport)
        self._presence = Presence()
        if len(self.connections) > resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2:
            transport.abort()
            return
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more, nor let what is answered go on; uvicorn tells the last request alone, wherever it stands."""
        self._head = _cancelled(self._head)
        self._stalled = _cancelled(self._stalled)
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
            self._presence.leave()

    def data_received(self, data: bytes) -> None:
        """Note whether a head is complete; the parser keeps a header in memory however long it becomes."""
        in_head = self._in_head
        super().data_received(data)
        if in_head and self._in_head and not self.transport.is_closing():
            self._unfinished_bytes += len(data)
            if self._unfinished_bytes > _LONGEST_HEAD:
                self.send_400_response("the head of the request has no end")
        self._watch_head()

    def on_message_begin(self) -> None:
        """A head begins. Raises ValueError where too many wait already, which ends the connection."""
        if len(self.pipeline) >= _MOST_AHEAD:
            raise ValueError("too many requests wait on this connection")
        super().on_message_begin()
        self.scope.setdefault("state", {})["presence"] = self._presence
        self._in_head, self._head_bytes, self._unfinished_bytes = True, 0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Raises ValueError where there are too many of them, which ends the connection."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > _LONGEST_HEAD:
            raise ValueError("the head of the request is too long")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._in_head = False
        super().on_headers_complete()
        self.cycle.keep_alive = self.cycle.keep_alive and not self._server_ends
        self.cycle.transport = _Joined(self.transport, self.loop)  # pyright: ignore[reportAttributeAccessIssue] - as it uses it

    def on_message_complete(self) -> None:
        """The body is complete. What was paused for its sake is read on: else nobody would see the client leave."""
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def shutdown(self) -> None:
        """The server ends. uvicorn closes what is idle at once, and a request that its client has just sent is lost."""
        self._server_ends = True
        if self._awaits_head():
            self.loop.call_later(_LAST_S, super().shutdown)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered with a problem, like everything else."""
        problem = {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": msg}
        body = json.dumps(problem | {"request_id": uuid.uuid4().hex}).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
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
        return self.cycle is None or self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]

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
    """Have uvicorn use `Connection`, and this process open as many files as it may; before the server is made."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):  # macOS names more than it gives
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{Connection.__name__}"
