"""The bills of materials are valid, and say what the locks and the models say."""

from __future__ import annotations

import hashlib
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["container", "gpu"])
def test_the_bill_is_valid_and_up_to_date(name):
    text = (ROOT / f"deploy/sbom/{name}.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.replace('"version"', '"verzion"')) is not None
    made = runpy.run_path(str(ROOT / "deploy/sbom.py"))["bill"](ROOT / f"requirements/{name}.txt")
    assert text == made, "make sbom"


def test_the_bill_holds_the_models_by_their_digests():
    components = json.loads((ROOT / "deploy/sbom/container.cdx.json").read_text())["components"]
    models = [each for each in components if each["type"] == "machine-learning-model"]
    assert {each["name"] for each in models} == {path.parent.name for path in ROOT.glob("models/*/manifest.json")}
    for model in models:
        for file in model["components"]:
            content = (ROOT / "models" / model["name"] / file["name"]).read_bytes()
            assert file["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}]


def test_the_images_differ_by_cuda():
    names = {
        lock: {each["name"] for each in json.loads((ROOT / f"deploy/sbom/{lock}.cdx.json").read_text())["components"]}
        for lock in ("container", "gpu")
    }
    assert names["container"] < names["gpu"]
    assert all(name.startswith("nvidia-") for name in names["gpu"] - names["container"])
    assert "torch" not in names["gpu"]
    assert "psycopg" in names["container"]


DPKG_STATUS = """\
Package: libgcc-s1
Status: install ok installed
Architecture: amd64
Version: 1:12.2.0-14+deb12u1~x
Description: a library
 Package: not-a-package
 .
 of GCC

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1.0
"""


def test_the_base_image_s_packages_are_added(tmp_path):
    bill, status = tmp_path / "bill.json", tmp_path / "status"
    bill.write_bytes((ROOT / "deploy/sbom/container.cdx.json").read_bytes())
    status.write_text(DPKG_STATUS)
    before = json.loads(bill.read_text())["components"]
    script = ROOT / "deploy/system_packages.py"
    subprocess.run([sys.executable, script, bill, status], check=True)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill.read_text()) is None
    *others, added = json.loads(bill.read_text())["components"]
    assert others == before
    address, _, qualifiers = added["purl"].partition("?")
    assert address.startswith("pkg:deb/")
    assert address.endswith("/libgcc-s1@1%3A12.2.0-14%2Bdeb12u1~x")
    assert qualifiers.startswith("arch=amd64&distro=")
    assert (added["name"], added["version"]) == ("libgcc-s1", "1:12.2.0-14+deb12u1~x")
