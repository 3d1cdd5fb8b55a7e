"""Gives files to a child process, and says what became of it: answered, fault, crash or hang."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = "tests.fuzz.reading:read"
PATIENCE = 5.0  # seconds a file
_START = 120.0  # seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a file.

    Attributes:
        outcome: what the target said, or `fault`, `crash`, `hang`.
        detail: trace back or exit status; empty where nothing is wrong.
        seconds: how long it took.
        resident: memory of the child afterwards, MiB; 0 where it is gone.
        peak: most memory of the child so far, MiB.
    """

    outcome: str
    detail: str
    seconds: float
    resident: float
    peak: float


class Runner:
    """One child process, started again when it died."""

    def __init__(self, target: str = TARGET, patience: float = PATIENCE) -> None:
        self._target, self._patience = target, patience
        self._child: subprocess.Popen[bytes] | None = None

    def read(self, content: bytes) -> Answer:
        """Give a file to the child."""
        child = self._child or self._start()
        assert child.stdin is not None
        try:
            child.stdin.write(len(content).to_bytes(8, "big") + content)
            child.stdin.flush()
            line = self._line(child, self._patience)
        except BrokenPipeError:
            line = b""
        if line is None:
            self.stop()
            return Answer("hang", f"no answer in {self._patience} s", self._patience, 0, 0)
        if not line:
            status = child.wait()
            self.stop()
            return Answer("crash", f"the process ended with status {status}", 0, 0, 0)
        said = json.loads(line)
        outcome = "fault" if said["fault"] else said["outcome"]
        return Answer(outcome, said["fault"], said["seconds"], said["resident"], said["peak"])

    def stop(self) -> None:
        """End the child."""
        if self._child is not None:
            child, self._child = self._child, None
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):  # what it never read
                    pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.fuzz.child", self._target]
        self._child = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._line(self._child, _START), "the child does not start"
        return self._child

    @staticmethod
    def _line(child: subprocess.Popen[bytes], patience: float) -> bytes | None:
        """One line of the child's; empty where it died, None where it did not answer in time."""
        assert child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            return child.stdout.readline() if selector.select(patience) else None


@contextmanager
def running(target: str = TARGET, patience: float = PATIENCE) -> Iterator[Runner]:
    """A runner whose child ends with the block."""
    runner = Runner(target, patience)
    try:
        yield runner
    finally:
        runner.stop()
