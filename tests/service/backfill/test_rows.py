"""From files to rows of answers, without Ray: what the tasks and the engines do."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from bright import BIAS, CELLS, CONFORMAL, GATE, SIDE, WEIGHT, png, write_gated_into

from service.backfill.explaining import Explainer, Explaining
from service.backfill.files import Entry
from service.backfill.ledger import Ledger
from service.backfill.reading import Reading, read_shards
from service.backfill.sources import open_source
from service.bundle import read_bundle
from service.errors import DeadlineTooShort
from service.explainers.base import DEFAULTS
from service.observability import hashed_uid
from tests.dicom_writers import classic_mr, enhanced_mr, saved

TEMPERATURE = 2.0


def image(level: int) -> np.ndarray:
    ramp = np.linspace(0, 255, SIDE * SIDE).reshape(SIDE, SIDE)
    ramp[0, 0] = level  # so that files differ
    return ramp.astype(np.uint8)


@pytest.fixture
def bundle(write_bundle):
    return read_bundle(write_bundle("bright"))


def reading_of(tmp_path: Path, bundle, contents: dict[str, bytes], batch: int = 4, secret: bytes | None = None):
    """All in one shard, in order of their names."""
    archive = tmp_path / "archive"
    archive.mkdir()
    for name, content in contents.items():
        (archive / name).write_bytes(content)
    source = open_source(str(archive), {})
    ledger = Ledger(tmp_path / "out", {})
    ledger.list_entries(sorted(source.entries(), key=lambda entry: entry.key), 1000, lambda count: None)
    ledger.close()
    manifest = bundle.manifest
    return Reading(
        source, ledger.folder, np.array([0]), manifest.preprocessing, manifest.kind, batch=batch, secret=secret
    )


def read(reading: Reading) -> list[pa.Table]:
    return list(read_shards({"id": np.array([0])}, reading))


def explaining(bundle, **changed) -> Explaining:
    return replace(Explaining(bundle.path, "gradcam", "predicted", DEFAULTS, device="cpu"), **changed)


def test_rows_hold_what_the_model_says(tmp_path, bundle):
    contents = {f"{level}.png": png(image(level)) for level in range(10, 16)}
    batches = read(reading_of(tmp_path, bundle, contents))
    assert [batch.num_rows for batch in batches] == [4, 2]
    engine = Explainer(explaining(bundle))
    answered = [row for batch in batches for row in engine(batch).to_pylist()]
    for row, (name, content) in zip(answered, contents.items(), strict=True):
        assert row["source"].endswith(name)
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
        assert (row["problem"], row["frame"], row["region"]) == (None, 1, [0, 0, SIDE, SIDE])
        cells = np.reshape(row["saliency"], (row["saliency_rows"], row["saliency_columns"]))
        assert cells.shape == (CELLS, CELLS)
        brightness = image(int(name[:2])).reshape(CELLS, 8, CELLS, 8).mean((1, 3)) / 255
        logits = brightness.mean() * WEIGHT + BIAS
        expected = np.exp(logits / TEMPERATURE) / np.exp(logits / TEMPERATURE).sum()
        names = ["bright", "dark", "middle"]
        assert np.allclose([row["probabilities"][each] for each in names], expected, atol=2e-3)  # after windowing
        assert row["label"] == row["target"] == names[int(expected.argmax())]
        assert np.allclose(cells, brightness * WEIGHT[expected.argmax()], atol=1e-2)
        light = row["findings"]["light"]
        assert light["probability"] == pytest.approx(row["probabilities"]["bright"] + row["probabilities"]["middle"])
        assert light["present"] == (light["probability"] >= 0.5)


def test_bad_files_are_rows_among_the_others(tmp_path, bundle):
    contents = {"0.png": png(image(1)), "1.txt": b"nothing", "2.png": png(image(2))[:80], "3.png": png(image(3))}
    reading = reading_of(tmp_path, bundle, contents | {"4.png": b"-"}, batch=8)
    (tmp_path / "archive" / "4.png").unlink()
    (batch,) = read(reading)
    rows = Explainer(explaining(bundle))(batch).to_pylist()
    assert [row["problem"] for row in rows] == [
        None,
        "unsupported-format",
        "corrupt-image",
        None,
        "remote-unavailable",
    ]
    assert [row["label"] is None for row in rows] == [False, True, True, False, True]
    assert [row["saliency"] is None for row in rows] == [False, True, True, False, True]
    assert all(row["detail"] and str(tmp_path) not in row["detail"] for row in rows if row["problem"])
    alone = Explainer(explaining(bundle))(batch.slice(0, 1)).to_pylist()
    assert alone[0]["saliency"] == pytest.approx(rows[0]["saliency"], abs=1e-6)


def test_a_batch_without_any_image_has_the_same_columns(tmp_path, bundle):
    (batch,) = read(reading_of(tmp_path, bundle, {"0.png": png(image(1)), "1.txt": b"nothing"}))
    engine = Explainer(explaining(bundle))
    assert engine(batch.slice(1)).schema == engine(batch.slice(0, 1)).schema


def test_frames_and_uids_of_dicom(tmp_path, bundle):
    one = classic_mr([image(1)], "one")[0]
    many = enhanced_mr([image(level) for level in range(3)], "many")
    other = classic_mr([image(2)], "other")[0]
    other.Modality = "CT"
    contents = {"0": saved(one), "1": saved(many), "2": saved(other)}
    rows = [row for batch in read(reading_of(tmp_path, bundle, contents, batch=2)) for row in batch.to_pylist()]
    assert [(row["entry"], row["number"], row["rows_of_entry"], row["frame"]) for row in rows] == [
        (0, 0, 1, 1),
        (1, 0, 0, 1),
        (1, 1, 0, 2),
        (1, 2, 3, 3),
        (2, 0, 1, 1),
    ]
    sent = [one, many, many, many, other]
    assert [row["sop_instance_uid"] for row in rows] == [ds.SOPInstanceUID for ds in sent]
    assert [row["series_instance_uid"] for row in rows] == [ds.SeriesInstanceUID for ds in sent]
    strange = [any("not of this model's kind" in text for text in row["refusals"]) for row in rows]
    assert strange == [False, False, False, False, True]


def test_rows_say_whether_an_image_can_be_assessed(tmp_path):
    gated = read_bundle(write_gated_into(tmp_path / "models", "gated", conformal=CONFORMAL))
    other = classic_mr([image(1)], "other")[0]
    other.Modality = "CT"
    glaring = np.full((SIDE, SIDE), 255, np.uint8)
    glaring[0] = range(0, 8 * SIDE, 8)
    contents = {"0.png": png(image(1)), "1.dcm": saved(other), "2.png": png(glaring), "3.png": b"nothing"}
    (batch,) = read(reading_of(tmp_path, gated, contents))
    table = Explainer(explaining(gated, precision="int8"))(batch)
    rows = table.to_pylist()
    assert "refusals" not in table.column_names
    assert [row["assessable"] for row in rows] == ["yes", "no", "no", None]
    decisions = [row["findings"] and row["findings"]["light"]["decision"] for row in rows]
    assert decisions == ["present", "not assessed", "not assessed", None]
    assert rows[1]["warnings"] == [f"{rows[1]['reasons'][0]}; do not rely on the prediction"]
    assert "another modality" in rows[1]["reasons"][0]
    assert rows[2]["reasons"] == [GATE["scores"][0]["reason"]]
    assert rows[0]["gate"] == pytest.approx({"glare": 0.5, "type": 0.5}, abs=0.02)
    assert rows[2]["gate"]["glare"] > 0.8
    assert (rows[0]["prediction_set"], rows[2]["prediction_set"]) == (["bright", "middle"], None)


def test_hashed_names_tell_nothing_and_agree_with_the_logs(tmp_path, bundle):
    one = classic_mr([image(1)], "one")[0]
    (batch,) = read(reading_of(tmp_path, bundle, {"mustermann.dcm": saved(one)}, secret=b"key"))
    (row,) = batch.drop_columns(["pixels"]).to_pylist()
    assert row["sop_instance_uid"].startswith(hashed_uid(one.SOPInstanceUID, b"key"))
    text = str(row)
    assert "mustermann" not in text
    assert not any(uid in text for uid in (one.SOPInstanceUID, one.SeriesInstanceUID, one.StudyInstanceUID))


class Breaking:
    """A source whose every entry breaks off after its first file."""

    single = False

    def entries(self):
        yield Entry("dicomweb:x", 2)

    def contents(self, key):
        yield saved(classic_mr([image(1)], "one")[0])
        raise ZeroDivisionError("mustermann")


def test_what_came_before_an_entry_broke_off_is_kept(tmp_path, bundle):
    reading = replace(reading_of(tmp_path, bundle, {"0.png": png(image(1))}), source=Breaking())
    rows = [row for batch in read(reading) for row in batch.to_pylist()]
    assert [(row["problem"], row["detail"], row["rows_of_entry"]) for row in rows] == [
        (None, None, 0),
        ("internal", "ZeroDivisionError", 2),
    ]


def test_half_precision_maps_and_a_chosen_class(tmp_path, bundle):
    (batch,) = read(reading_of(tmp_path, bundle, {"0.png": png(image(1))}))
    full = Explainer(explaining(bundle, target="dark"))(batch)
    half = Explainer(explaining(bundle, target="dark", numbers="float16"))(batch)
    assert half.column("saliency").type == pa.list_(pa.float16(), CELLS * CELLS)
    assert full.column("target").to_pylist() == ["dark"]
    wide, narrow = (np.array(table.column("saliency").to_pylist()[0], np.float32) for table in (full, half))
    assert wide.max() < 0
    assert np.allclose(wide, narrow, rtol=1e-3)
    assert not np.array_equal(wide, narrow)


def failing_on(monkeypatch, error: Exception, mean: float | None) -> None:
    """Explaining fails where an image of about this brightness is in the batch; None: always."""
    real = Explainer._explain

    def explain(self, images, turns):
        if mean is None or any(abs(image.mean() - mean) < 1 for image in images):
            raise error
        return real(self, images, turns)

    monkeypatch.setattr(Explainer, "_explain", explain)


def grey(level: int) -> bytes:
    """Of this mean, and not flat, which would be windowed to black."""
    pixels = np.full((SIDE, SIDE), level, np.uint8)
    pixels[0, 0], pixels[0, 1] = 0, 255
    return png(pixels)


def test_only_the_image_fails_whose_fault_it_is(tmp_path, bundle, monkeypatch):
    levels = (40, 80, 120, 160)
    contents = {f"{place}.png": grey(level) for place, level in enumerate(levels)} | {"9.txt": b"nothing"}
    (batch,) = read(reading_of(tmp_path, bundle, contents, batch=8))
    engine = Explainer(explaining(bundle))
    failing_on(monkeypatch, RuntimeError("mustermann"), 120)
    rows = engine(batch).to_pylist()
    assert [(row["problem"], row["label"] is None) for row in rows] == [
        (None, False),
        (None, False),
        ("internal", True),
        (None, False),
        ("unsupported-format", True),
    ]
    assert rows[2]["detail"] == "RuntimeError"


def test_an_engine_that_fails_on_everything_ends_the_run(tmp_path, bundle, monkeypatch):
    (batch,) = read(reading_of(tmp_path, bundle, {"0.png": grey(40), "1.png": grey(80)}))
    engine = Explainer(explaining(bundle))
    failing_on(monkeypatch, RuntimeError("no device"), None)
    with pytest.raises(RuntimeError, match="no device"):
        engine(batch)


def test_what_a_method_refuses_is_a_problem_of_its_images(tmp_path, bundle, monkeypatch):
    (batch,) = read(reading_of(tmp_path, bundle, {"0.png": grey(40), "1.png": grey(80)}))
    engine = Explainer(explaining(bundle))
    failing_on(monkeypatch, DeadlineTooShort("too late"), None)
    assert [row["problem"] for row in engine(batch).to_pylist()] == ["deadline-too-short"] * 2
