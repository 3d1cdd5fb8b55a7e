"""Clients that stand still, each on a socket and a thread of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Literal
from urllib.parse import urlsplit

import psutil
from serving import Service

Kind = Literal["idle", "head", "body", "answer"]
KINDS: tuple[Kind, ...] = ("idle", "head", "body", "answer")
_HEAD = (
    b"POST /v1/explain HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 99999\r\n\r\n"
)
_PAUSE_S = 0.5  # between bytes
_LARGE = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100  # answers of some 10 MiB


class SlowClient:
    """Sends nothing, a head or a body by the byte, or asks and does not read."""

    def __init__(self, kind: Kind, place: tuple[str, int]) -> None:
        self.kind: Kind = kind
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect(place)
        self.port: int = self._socket.getsockname()[1]
        self._ended = threading.Event()
        threading.Thread(target=self._dribble, daemon=True).start()

    def _dribble(self) -> None:
        first, each = {
            "idle": (b"", b""),
            "head": (b"GET / HTTP/1.1\r\n", b"a"),
            "body": (_HEAD + b"--x\r\n", b"a"),
            "answer": (_LARGE, b""),
        }[self.kind]
        with contextlib.suppress(OSError):  # the service has sent us away
            self._socket.sendall(first)
            while each and not self._ended.wait(_PAUSE_S):
                self._socket.sendall(each)

    def heard(self) -> bytes:
        """What the service has said."""
        self._socket.settimeout(0.1)
        with contextlib.suppress(OSError):
            return self._socket.recv(65536)
        return b""

    def close(self) -> None:
        self._ended.set()
        self._socket.close()


def client(kind: Kind, address: str) -> SlowClient:
    """One more, connected."""
    return SlowClient(kind, place_of(address))


def place_of(address: str) -> tuple[str, int]:
    """Host and port of a URL."""
    parts = urlsplit(address)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def held(service: Service, crowd: list[SlowClient]) -> int:
    """How many of them the service still holds a connection to."""
    ports, worker = {one.port for one in crowd}, service.worker()
    assert worker is not None
    connections = worker.net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.raddr.port in ports for one in connections if one.raddr)
