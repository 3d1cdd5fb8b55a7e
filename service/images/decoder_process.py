"""GDCM, OpenJPEG and large frames of RLE in a process of their own.

GDCM aborts, or runs into memory that is not its own, on damaged JPEG data; no `except` holds what C++ throws through
the bindings. OpenJPEG takes minutes and gigabytes for some thousand bytes of JPEG 2000 that announce many layers or
precincts, pydicom's RLE seconds and gigabytes for what runs announce, and no thread can be ended. So a frame is
decoded by a child process with bounded memory and time, which stays for the next one; where it dies or is ended, the
frame is damaged, and the service goes on.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

TOO_LONG = "the decoder takes too long"
_CHILD = Path(__file__).with_name("decoder_child.py")
_STARTS_WITHIN = 60.0  # seconds
_PATIENCE = 3.0  # seconds a frame, and one more for so many samples:
_SAMPLES_A_SECOND = 5e6
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Described:
    """What a frame is to be decoded to (PS3.3 C.7.6.3): `syntax` is a UID, `stored` and `allocated` are bits."""

    syntax: str
    rows: int
    columns: int
    photometric: str
    samples: int
    planar: int
    allocated: int
    stored: int
    signed: int


class _Child:
    """A process with the decoders."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # they print
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # its threads would fill the child's address space
            bufsize=0,
            start_new_session=True,
        )
        try:
            self._read(1, time.monotonic() + _STARTS_WITHIN)
        except RuntimeError:
            self.end()
            raise

    def lives(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    def decode(self, frame: bytes, described: Described, patience: float) -> bytes:
        """Give it a frame.

        Raises:
            RuntimeError: the frame cannot be decoded, or the process died or went on for too long and must be ended.
        """
        text = json.dumps(asdict(described)).encode()
        request = struct.pack(">I", len(text)) + text + struct.pack(">Q", len(frame)) + frame
        until = time.monotonic() + patience
        self._write(request)
        length = int.from_bytes(self._read(8, until), "big")
        if length > 8 * described.rows * described.columns * max(1, described.samples):
            raise RuntimeError("the decoder gives more than the frame holds")
        return self._read(length, until)

    def _write(self, request: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        rest = memoryview(request)
        try:
            while rest:
                rest = rest[self._process.stdin.write(rest) :]
        except BrokenPipeError:
            raise RuntimeError("the decoder died") from None

    def _read(self, length: int, until: float) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        chunks: list[bytes] = []
        while length:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise RuntimeError(TOO_LONG)
            chunk = os.read(self._process.stdout.fileno(), min(length, _CHUNK))
            if not chunk:
                raise RuntimeError("the decoder died")
            chunks.append(chunk)
            length -= len(chunk)
        return b"".join(chunks)

    def end(self) -> None:
        """End the process, if it is still there."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.kill()
        self._process.wait()


_idle: list[_Child] = []
_lock = threading.Lock()


def decode(frame: bytes, described: Described, patience: float | None = None) -> bytes:
    """Decode a frame; from any thread.

    Args:
        frame: compressed pixel data of one frame.
        described: what it is to be decoded to.
        patience: seconds that it may take, and one more for 5 million samples; None for the usual ones.

    Returns:
        Samples as the decoder gives them, little endian.

    Raises:
        RuntimeError: the frame cannot be decoded: the decoder refuses it, dies of it, or takes too long.
    """
    child = _take()
    patience = _PATIENCE if patience is None else patience
    samples = described.rows * described.columns * described.samples
    try:
        decoded = child.decode(frame, described, patience + samples / _SAMPLES_A_SECOND)
    except BaseException:
        child.end()
        raise
    _put_back(child)
    if not decoded:
        raise RuntimeError("the decoder refuses the frame")
    return decoded


def _take() -> _Child:
    with _lock:
        while _idle:
            child = _idle.pop()
            if child.owner != os.getpid():  # the parent's, after a fork
                continue
            if child.lives():
                return child
            child.end()
    return _Child()


def _put_back(child: _Child) -> None:
    with _lock:
        if len(_idle) < (os.cpu_count() or 1):
            _idle.append(child)
            return
    child.end()


@atexit.register
def end_all() -> None:
    """End the processes that wait for a frame."""
    with _lock:
        children, _idle[:] = [child for child in _idle if child.owner == os.getpid()], []
    for child in children:
        child.end()
