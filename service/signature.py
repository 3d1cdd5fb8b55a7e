"""Whose bundles are served: Ed25519 signatures (RFC 8032) of manifests, which hold the digest of every file.

openssl genpkey -algorithm ed25519 -out models.key && openssl pkey -in models.key -pubout -out models.pem
python -m export.sign models.key models/NAME
RADIOLUCENT_MODEL_KEYS='["models.pem"]'
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from service.bundle import MANIFEST
from service.errors import BundleSignatureMismatch

SIGNATURE = "manifest.sig"  # 64 bytes, beside the manifest


def check_signature(path: Path, keys: Sequence[Path]) -> None:
    """Return where one of the keys has signed the bundle's manifest, or where no keys are given.

    Args:
        path: the bundle's folder.
        keys: files of Ed25519 public keys, PEM.

    Raises:
        BundleSignatureMismatch: not signed, or by none of them.
        ValueError, OSError: a file of a key is none, or cannot be read.
    """
    if not keys:
        return
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    known = [load_pem_public_key(key.read_bytes()) for key in keys]
    try:
        signed, signature = (path / MANIFEST).read_bytes(), (path / SIGNATURE).read_bytes()
    except FileNotFoundError:
        raise BundleSignatureMismatch(f"bundle {path.name}: it is not signed") from None
    for key in known:
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("RADIOLUCENT_MODEL_KEYS: a key is not of Ed25519")
        try:
            key.verify(signature, signed)
        except InvalidSignature:
            continue
        return
    raise BundleSignatureMismatch(f"bundle {path.name}: none of the keys of RADIOLUCENT_MODEL_KEYS has signed it")
