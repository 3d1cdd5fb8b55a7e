from __future__ import annotations

import json
import shutil

import pytest

from export.migrate import main as migrate
from service.bundle import CARD, MANIFEST, read_bundle, sha256
from service.errors import BundleSchemaMismatch
from service.signature import SIGNATURE

_ADDED = ("values", "padding", "orientation", "pixel_aspect")


@pytest.fixture
def older(exported, tmp_path):
    """A bundle as it was written before schema 3."""
    bundle = tmp_path / exported.name
    shutil.copytree(exported, bundle)
    content = json.loads((bundle / MANIFEST).read_text())
    content["schema_version"] = 2
    del content["invariance"]
    content["preprocessing"] = {k: v for k, v in content["preprocessing"].items() if k not in _ADDED}
    (bundle / MANIFEST).write_text(json.dumps(content))
    return bundle


def test_an_older_bundle_is_refused_until_it_is_migrated(older, exported):
    with pytest.raises(BundleSchemaMismatch, match="schema_version"):
        read_bundle(older)
    (older / SIGNATURE).write_bytes(b"of before")
    graphs = {name: sha256(older / name) for name in read_bundle(exported).manifest.files if name != CARD}
    assert migrate([str(older), "--pixel-aspect", "0.34"]) == 0
    manifest = read_bundle(older).manifest
    assert manifest.schema_version == 3
    assert (manifest.preprocessing.orientation, manifest.preprocessing.pixel_aspect) == ("depth", 0.34)
    assert manifest.preprocessing.size == read_bundle(exported).manifest.preprocessing.size
    assert manifest.invariance is None
    assert {name: sha256(older / name) for name in graphs} == graphs
    assert not (older / SIGNATURE).exists()


def test_the_orientation_can_be_said(older):
    assert migrate([str(older), "--orientation", "stored"]) == 0
    assert read_bundle(older).manifest.preprocessing.orientation == "stored"


def test_a_bundle_of_today_and_a_folder_without_one_stay_as_they_are(exported, tmp_path, capsys):
    before = sha256(exported / MANIFEST)
    assert migrate([str(exported)]) == 2
    assert sha256(exported / MANIFEST) == before
    assert migrate([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("cannot migrate") == 2
