from __future__ import annotations

import subprocess

import pytest
from bright import write_bundle_into

from export.sign import main
from service.bundle import MANIFEST
from service.registry import load_models
from service.signature import SIGNATURE


@pytest.fixture
def pair(tmp_path):
    """Files of a private and a public key, made as the documents say."""

    def made(name: str):
        private, public = tmp_path / f"{name}.key", tmp_path / f"{name}.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
        subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
        return private, public

    return made


def served(folder, *keys):
    registry = load_models(folder, threads=1, device="cpu", keys=keys)
    return registry.names, registry.refused


def test_only_bundles_that_one_of_the_keys_has_signed_are_served(tmp_path, pair):
    bundle = write_bundle_into(tmp_path / "models", "bright")
    write_bundle_into(tmp_path / "models", "plain")
    (ours, public), (theirs, other) = pair("ours"), pair("theirs")
    assert main([str(ours), str(bundle)]) == 0
    names, refused = served(tmp_path / "models", other, public)
    assert names == ("bright",)
    assert refused == {"plain": "bundle plain: it is not signed"}
    assert served(tmp_path / "models", other)[0] == ()
    assert set(served(tmp_path / "models")[0]) == {"bright", "plain"}
    assert main([str(theirs), str(bundle)]) == 0
    assert "none of the keys" in served(tmp_path / "models", public)[1]["bright"]


@pytest.mark.parametrize("file", [MANIFEST, SIGNATURE])
def test_a_signature_is_of_every_byte(tmp_path, pair, file):
    bundle = write_bundle_into(tmp_path / "models", "bright")
    private, public = pair("ours")
    main([str(private), str(bundle)])
    content = bytearray((bundle / file).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / file).write_bytes(content)
    assert "none of the keys" in served(tmp_path / "models", public)[1]["bright"]


def test_what_cannot_be_signed_is_said(tmp_path, pair, capsys):
    private, public = pair("ours")
    assert main([str(public), str(tmp_path)]) == 2
    assert main([str(private), str(tmp_path / "none")]) == 2
    assert "cannot sign" in capsys.readouterr().err
