"""A real Orthanc with its DICOMweb plug-in, as a process on loopback, in a folder of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

from tests.processes import free_port

ORTHANC = Path("/usr/sbin/Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
INSTALLED = ORTHANC.exists() and PLUGIN.exists()
CONFIGURATION = Path(__file__).resolve().parents[1] / "deploy" / "orthanc" / "orthanc.json"


class Orthanc:
    """Start, kill and start again: the same folder, the same ports.

    Args:
        folder: for its database, its files and its log.
        changed: settings other than those of deploy/orthanc.
    """

    def __init__(self, folder: Path, **changed: Any) -> None:
        self.http, self.dicom = free_port(), free_port()
        self.url, self.web = f"http://127.0.0.1:{self.http}", f"http://127.0.0.1:{self.http}/dicom-web"
        self._folder = folder
        settings = json.loads(CONFIGURATION.read_text())
        settings |= {"HttpPort": self.http, "DicomPort": self.dicom, "Plugins": [str(PLUGIN)], **changed}
        settings |= {"StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage")}
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self._log = (folder / "orthanc.txt").open("ab")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(ORTHANC), str(self._folder / "orthanc.json")]
        self.process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        for _ in range(600):
            try:
                httpx.get(f"{self.url}/system", trust_env=False).raise_for_status()
                return
            except httpx.TransportError:
                assert self.process.poll() is None, (self._folder / "orthanc.txt").read_text()[-2000:]
                time.sleep(0.1)
        raise TimeoutError

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.url}{path}", trust_env=False).raise_for_status().json()

    def post(self, path: str, content: bytes) -> Any:
        return httpx.post(f"{self.url}{path}", content=content, trust_env=False).raise_for_status().json()

    def kill(self, sign: int = signal.SIGKILL) -> None:
        self.process.send_signal(sign)
        self.process.wait(30)

    def close(self) -> None:
        """For good: an orderly end takes seconds, and nobody will read what it tidies up."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self._log.close()
