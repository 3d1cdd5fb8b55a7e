"""The real service as a process that may be killed and started again at the same address."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import psutil
from processes import kill_tree

ROOT = Path(__file__).resolve().parent.parent


class Service:
    """Started with `settings` on top of this process's environment; what it prints is appended to `log`.

    `around` is a command that ends in running the one that is appended to it, by exec; `options` are further ones of
    the service's own. With `tls` clients ask by it.
    """

    def __init__(
        self,
        port: int,
        log: Path,
        settings: Mapping[str, str] | None = None,
        around: Sequence[str] = (),
        options: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.address = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self.log = log
        self._port, self._settings, self._around, self._options = port, settings or {}, around, options
        self._verify = tls or True
        self._process: subprocess.Popen[bytes] | None = None
        self._client = self._connect()

    def _connect(self) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=60, verify=self._verify)

    def start(self) -> httpx.Client:
        """Returns a client once the service is ready."""
        command = [sys.executable, "-m", "bentoml", "serve", "service.app:Radiolucent", "--host", "127.0.0.1"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._around, *command, "--port", str(self._port), *self._options],
                cwd=ROOT,
                env=os.environ | {"BENTOML_DO_NOT_TRACK": "True"} | self._settings,
                stdout=log,
                stderr=log,
            )
        self._client = self._connect()
        for _ in range(240):
            try:
                self._client.get("/readyz")
                return self._client
            except httpx.TransportError:
                assert self._process.poll() is None, self.log.read_text()
                time.sleep(0.25)
        raise AssertionError(self.log.read_text())

    @property
    def supervisor(self) -> psutil.Process:
        """The process that was started; BentoML's supervisor."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def worker(self) -> psutil.Process | None:
        """The process that serves; None between one's end and the next one's start."""
        found = [child for child in self.supervisor.children() if "_bentoml_impl.worker.service" in child.cmdline()]
        return found[0] if found else None

    def wait(self, patience_s: float) -> int:
        """Exit status, once it has ended by itself."""
        assert self._process is not None
        status = self._process.wait(patience_s)
        self._process = None
        return status

    def stop(self, sign: signal.Signals = signal.SIGINT) -> None:
        """End it, all its processes; with SIGKILL as a failing machine would."""
        self._client.close()
        if self._process is not None:
            kill_tree(self._process.pid, sign)
            self._process.wait(30)
            self._process = None
