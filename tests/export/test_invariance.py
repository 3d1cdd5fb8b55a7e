from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from export.__main__ import main as export
from export.invariance import Answering, Answers, failures, measure, open_bundle, untouched_records
from export.invariance import main as invariance
from export.rewrite import rewrite
from export.storing import Picture, plain, ways
from service.bundle import CARD, MANIFEST, read_bundle, sha256
from service.images.reading import read_frames
from service.preprocessing import prepare
from service.signature import SIGNATURE
from service.types import Frame, PreprocessingSpec
from training.config import DataConfig
from training.datasets.record import Record

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 40), np.uint8)
PIXELS[:, 25:] //= 8  # brighter to the left


@pytest.mark.parametrize(
    ("modality", "aspect", "name"),
    [(modality, aspect, name) for modality, aspect in (("MR", 1.0), ("OPT", 0.34)) for name in ways(aspect)],
)
def test_every_way_to_store_a_picture_shows_the_same_anatomy(modality, aspect, name):
    way = ways(aspect)[name]
    spec = PreprocessingSpec(field_of_view="frame", orientation="patient", pixel_aspect=aspect, size=32, margin=0)
    picture = Picture(PIXELS, modality, aspect)
    (reference,) = read_frames(plain(picture).content, "")
    stored = way.store(picture)
    frames = read_frames(stored.content, "")
    expected, found = prepare(reference, spec), prepare(frames[stored.frame], spec)
    difference = np.abs(expected.pixels.astype(int) - found.pixels)
    assert difference.mean() < 12 if way.resampled else difference.max() <= 1
    assert stored.content != plain(picture).content
    place = frames[stored.frame].pixels.astype(np.float32)  # a map of the stored pixels comes back to the picture's
    back = stored.restore(place)
    assert back.shape == PIXELS.shape
    assert abs(np.corrcoef(back.ravel(), PIXELS.ravel())[0, 1]) > 0.9


def left_or_right(orientation: str) -> Answering:
    """Says on which side of an image it is brighter."""

    def answer(images):
        halves = np.stack([images[:, :, :16].mean(axis=(1, 2, 3)), images[:, :, 16:].mean(axis=(1, 2, 3))], axis=1)
        share = halves / halves.sum(axis=1, keepdims=True)
        return Answers(halves.argmax(axis=1), share, np.repeat(images[..., 0][:, None], 2, axis=1).astype(np.float32))

    shipped = read_bundle(Path("models/brain-mri-resnet50")).manifest
    spec = PreprocessingSpec(field_of_view="frame", orientation=orientation, size=32)
    return Answering(shipped.model_copy(update={"preprocessing": spec}), answer)


RECORDS = [Record(str(n), "a", str(n), lambda n=n: np.roll(PIXELS, 3 * n, axis=0)) for n in range(3)]


def test_a_model_that_is_shown_the_anatomy_answers_alike_however_it_is_stored():
    found = measure(left_or_right("patient"), RECORDS, "a test")
    assert failures(found) == []
    assert found.images == 3
    assert len(found.changes) >= 20
    assert {change.labels_changed for change in found.changes.values()} == {0}
    exact = [change for change in found.changes.values() if not change.resampled]
    assert all(change.largest_probability_change < 1e-3 and change.map_correlation > 0.999 for change in exact)


def test_a_model_that_is_shown_what_is_stored_is_refused():
    found = measure(left_or_right("stored"), RECORDS, "a test")
    refused = failures(found)
    assert [text.split()[0] for text in refused] == ["rotated_180", "rotated_90", "mirrored"]
    assert found.changes["rotated_180"].labels_changed == 1


def test_the_command_measures_a_bundle_and_writes_the_result_into_it_or_nothing(
    finished_run, exported, tmp_path, monkeypatch, capsys
):
    bundle = tmp_path / exported.name
    shutil.copytree(exported, bundle)
    (bundle / SIGNATURE).write_bytes(b"of before")
    root, before = finished_run.parent, sha256(bundle / MANIFEST)
    arguments = [str(bundle), str(root / "config.toml"), str(root / "data")]
    for name in ("MOST_CHANGED", "MOST_CHANGED_RESAMPLED"):  # a network that was hardly trained may change its mind
        monkeypatch.setattr(f"export.invariance.{name}", -1.0)
    assert invariance(arguments) == 1
    assert "refused, nothing written" in capsys.readouterr().err
    assert (sha256(bundle / MANIFEST), (bundle / SIGNATURE).exists()) == (before, True)
    for name in ("MOST_CHANGED", "MOST_CHANGED_RESAMPLED"):
        monkeypatch.setattr(f"export.invariance.{name}", 1.0)
    assert invariance(arguments) == 0
    manifest = read_bundle(bundle).manifest
    assert manifest.invariance is not None
    assert manifest.invariance.images == manifest.evaluation.images
    assert not (bundle / SIGNATURE).exists()


def test_an_export_with_data_measures_first_and_refuses(finished_run, tmp_path, monkeypatch, capsys):
    root, out = finished_run.parent, tmp_path / "retinal-oct-oculusnet"
    arguments = [str(finished_run / "last.pt"), str(out), "--data", str(root / "data")]
    monkeypatch.setattr("export.invariance.MOST_CHANGED", 1.0)
    monkeypatch.setattr("export.invariance.MOST_CHANGED_RESAMPLED", 1.0)
    assert export(arguments) == 0
    manifest = read_bundle(out).manifest
    assert manifest.invariance is not None
    before = sha256(out / MANIFEST)
    monkeypatch.setattr("export.invariance.MOST_CHANGED", -1.0)
    assert export(arguments) == 1
    assert "of the labels, more than" in capsys.readouterr().err
    assert sha256(out / MANIFEST) == before


def test_the_test_part_is_the_one_that_the_configuration_names(finished_run):
    root = finished_run.parent
    config = DataConfig(adapter="kermany", split=root / "split.json")
    names = {record.id for record in untouched_records(config, root / "data")}
    assert names == set(json.loads((root / "split.json").read_text())["test"])


def test_a_bundle_whose_files_are_others_is_not_rewritten(exported, tmp_path):
    from export.errors import ExportError

    bundle = tmp_path / exported.name
    shutil.copytree(exported, bundle)
    (bundle / CARD).write_text("another")
    with pytest.raises(ExportError, match=CARD):
        rewrite(bundle, {"title": "x"})


def test_the_answers_of_a_bundle_are_those_of_its_graph(exported):
    bundle = open_bundle(exported)
    size = bundle.manifest.preprocessing.size
    item = prepare(Frame("a", PIXELS), bundle.manifest.preprocessing)
    found = bundle.answer(item.pixels[None, ..., None])
    assert found.maps.shape[:2] == found.probabilities.shape == (1, 4)
    assert item.pixels.shape == (size, size)
    assert found.probabilities.sum() == pytest.approx(1)
    assert found.labels[0] == found.probabilities[0].argmax()
