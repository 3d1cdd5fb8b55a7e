"""`python -m export.sign KEY BUNDLE...`: sign bundles, so that services may refuse others (`service.signature`)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from service.bundle import MANIFEST
from service.instance_file import sync_folder
from service.signature import SIGNATURE


def sign(bundle: Path, key: Path) -> None:
    """Write the signature of a bundle's manifest beside it.

    Args:
        bundle: the folder.
        key: file of an Ed25519 private key, PEM without a password.

    Raises:
        ValueError: another kind of key, or none.
        OSError: a file cannot be read or written.
    """
    private = load_pem_private_key(key.read_bytes(), None)
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError("the key is not of Ed25519")
    part = bundle / f".{SIGNATURE}"
    part.write_bytes(private.sign((bundle / MANIFEST).read_bytes()))
    part.replace(bundle / SIGNATURE)
    sync_folder(bundle)


def main(arguments: list[str] | None = None) -> int:
    """Entry point: 0 where all are signed, 2 where one cannot be."""
    parser = argparse.ArgumentParser(prog="python -m export.sign", description=__doc__)
    parser.add_argument("key", type=Path, metavar="KEY", help="Ed25519 private key, PEM")
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help="folders of bundles")
    asked = parser.parse_args(arguments)
    try:
        for bundle in asked.bundles:
            sign(bundle, asked.key)
            sys.stdout.write(f"signed {bundle}\n")
    except (OSError, ValueError, TypeError) as error:  # TypeError: the key has a password
        sys.stderr.write(f"cannot sign: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
