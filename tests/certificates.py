"""Certificates of this machine for tests of TLS, each signed by itself."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


def make_certificates(folder: Path, *names: str) -> None:
    """`NAME.pem` and `NAME.key` of each, for 127.0.0.1."""
    for name in names:
        subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
        out = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *out]
        subprocess.run(command, check=True, capture_output=True)


def client_context(folder: Path, name: str | None = None) -> ssl.SSLContext:
    """Of a client that trusts `server.pem`, with the certificate of `name` where there is one."""
    context = ssl.create_default_context(cafile=str(folder / "server.pem"))
    context.check_hostname = False  # of which pynetdicom's client has none; there is one certificate to trust
    if name is not None:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context
