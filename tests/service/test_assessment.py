"""What the service says where it cannot know."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bright import CONFORMAL, GATE, SIDE, manifest, offer, png, write_bundle_into, write_gated_into
from dicom_writers import classic_mr, saved
from prometheus_client import REGISTRY
from starlette.testclient import TestClient

from service.api import make_api
from service.assessment import NOTHING_TO_SEE, Assessment, assess, decide, judge, prediction_set
from service.bundle import MANIFEST, read_bundle, sha256
from service.engine import open_engine
from service.errors import BundleSchemaMismatch, GoldenSampleMismatch
from service.images.reading import read_frames
from service.manifest import Manifest
from service.pipeline import Pipeline
from service.preprocessing import prepare
from service.reader_study.plan import FrozenCase
from service.schemas import ImageAnswer
from service.settings import Settings
from service.types import PreprocessingSpec

PLAIN = Manifest.model_validate(manifest("bright", {}))
GATED = Manifest.model_validate(manifest("bright", {}) | {"gate": GATE, "conformal": CONFORMAL})
SPEC = PreprocessingSpec(field_of_view="head", size=SIDE)
GLARE, DARK = GATE["scores"][0]["reason"], GATE["type"]["reason"]


def image(mean: float) -> np.ndarray:
    """Grey levels from 0 to 255 with such a mean, 0..1."""
    ramp = np.linspace(0, 1, SIDE * SIDE) ** (1 / mean - 1)
    return np.rint(255 * ramp).astype(np.uint8).reshape(SIDE, SIDE)


def gate(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.5, 0.5), ("yes", (), True)),
        ((0.6, 0.4), ("doubtful", (GLARE,), True)),
        ((0.8, 0.2), ("no", (GLARE,), False)),
        ((0.2, 0.75), ("yes", (f"type not assessed: {DARK}",), False)),
        ((0.7, 0.9), ("doubtful", (GLARE, f"type not assessed: {DARK}"), False)),
        ((float("nan"), 0.5), ("no", (GLARE,), False)),  # what cannot be computed is not assessable
    ],
)
def test_the_gate_says_yes_doubtful_or_no(values, expected):
    found = judge([], gate(*values), GATED)
    assert (found.assessable, found.reasons, found.type_assessed) == expected
    assert found.gate == pytest.approx({"glare": values[0], "type": values[1]}, nan_ok=True)


def test_what_speaks_against_an_image_without_a_model_refuses_it_whatever_the_gate_says():
    found = judge(["another modality"], gate(0.9, 0.5), GATED)
    assert (found.assessable, found.reasons) == ("no", ("another modality", GLARE))
    assert judge(["another modality"], None, PLAIN) == Assessment("no", ("another modality",), type_assessed=False)
    assert judge([], None, PLAIN) == Assessment()


@pytest.mark.parametrize(("model", "values"), [(GATED, None), (GATED, gate(0.5)), (PLAIN, gate(0.5, 0.5))])
def test_a_gate_that_is_not_the_manifest_s_is_an_error(model, values):
    with pytest.raises(ValueError, match="columns"):
        judge([], values, model)


def head_in(air: int) -> np.ndarray:
    """A bright disc of noise with so much air around it."""
    y, x = np.mgrid[-1:1:80j, -1:1:80j]
    noise = np.random.default_rng(0).integers(120, 256, (80, 80))
    return np.pad(np.where(x**2 + y**2 < 0.9, noise, 0), air).astype(np.uint8)


@pytest.mark.parametrize(
    ("pixels", "assessable"),
    [
        (head_in(2), "yes"),
        (head_in(60), "yes"),  # most of the frame is not seen, and it is air
        (np.full((64, 64), 90, np.uint8), "no"),
        (np.pad(np.full((3, 3), 255, np.uint8), 40), "no"),
        (np.pad(head_in(2)[:, :40], ((0, 0), (0, 300))), "yes"),
    ],
)
def test_air_is_no_reason_and_nothing_to_see_is_one(pixels, assessable):
    (frame,) = read_frames(png(pixels), "a.png")
    found = assess(frame, prepare(frame, SPEC), None, PLAIN)
    assert found.assessable == assessable
    assert found.reasons == (() if assessable == "yes" else (NOTHING_TO_SEE,))


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_another_modality_is_not_assessable(modality):
    (ds,) = classic_mr([head_in(2).astype(np.uint16)], Modality=modality)
    (frame,) = read_frames(saved(ds), "a.dcm")
    found = assess(frame, prepare(frame, SPEC), None, PLAIN)
    assert found.assessable == ("yes" if modality == "MR" else "no")
    assert [text.endswith("do not rely on the prediction") for text in found.warnings()] == [True] * (modality == "CT")


@pytest.mark.parametrize(
    ("probability", "expected"), [(0.1, "absent"), (0.66, "absent"), (0.68, "not decided"), (0.7, "present")]
)
def test_the_limits_decide_where_exactly_one_of_them_holds(probability, expected):
    (finding,) = GATED.findings
    assert decide(finding, probability, "yes", GATED.conformal.findings) == expected
    assert decide(finding, probability, "doubtful", GATED.conformal.findings) == expected
    assert decide(finding, probability, "no", GATED.conformal.findings) == "not assessed"


def test_limits_that_overlap_decide_nothing_between_them():
    (finding,) = GATED.findings
    bounds = {"light": {"absent_to": 0.7, "present_from": 0.4}}
    conformal = GATED.conformal.model_validate(CONFORMAL | {"findings": bounds})
    found = [decide(finding, p, "yes", conformal.findings) for p in (0.3, 0.5, 0.8)]
    assert found == ["absent", "not decided", "present"]


def test_without_limits_the_operating_point_decides():
    (finding,) = PLAIN.findings
    assert [decide(finding, p, "yes", {}) for p in (0.49, 0.5)] == ["absent", "present"]
    assert decide(finding, 0.9, "no", {}) == "not assessed"


def test_the_prediction_set_holds_the_labels_that_reach_their_limit():
    shares = {"bright": 0.34, "dark": 0.3, "middle": 0.36}
    assert prediction_set(shares, "yes", GATED.conformal) == ("dark", "middle")
    assert prediction_set(shares, "no", GATED.conformal) is None
    assert prediction_set(shares, "yes", None) is None


def test_the_most_probable_label_is_possible_even_below_its_limit():
    limits = {"bright": 0.9, "dark": 0.9, "middle": 0.9}
    conformal = GATED.conformal.model_validate(CONFORMAL | {"labels": limits})
    assert prediction_set({"bright": 0.1, "dark": 0.2, "middle": 0.7}, "yes", conformal) == ("middle",)


@pytest.fixture
def client(tmp_path):
    write_gated_into(tmp_path / "models", "gated", conformal=CONFORMAL)
    offer(write_bundle_into(tmp_path / "models", "plain"), "eigencam")
    offer(tmp_path / "models" / "plain", "hirescam")
    api = make_api("test")
    api.state.pipeline = Pipeline(Settings(models=tmp_path / "models", threads=1, device="cpu"))
    with TestClient(api) as client:
        yield client


def answers(client, *means: float, model: str = "gated", route: str = "predict", **fields: str) -> list[ImageAnswer]:
    files = [("images", (f"{mean}.png", png(image(mean)))) for mean in means]
    found = client.post(f"/v1/{route}", data={"model": model, **fields}, files=files)
    assert found.status_code == 200, found.text
    return [ImageAnswer.model_validate(each) for each in found.json()["results"]]


def test_every_image_says_whether_it_can_be_assessed(client):
    def counted(assessable: str) -> float:
        labels = {"model": "gated", "assessable": assessable}
        return REGISTRY.get_sample_value("radiolucent_assessments_total", labels) or 0.0

    before = [counted(each) for each in ("yes", "doubtful", "no")]
    dark, middle, doubtful, glaring = answers(client, 0.1, 0.3, 0.7, 0.9)
    assert [each.assessable for each in (dark, middle, doubtful, glaring)] == ["yes", "yes", "doubtful", "no"]
    decisions = [each.findings["light"].decision for each in (dark, middle, doubtful, glaring)]
    assert decisions == ["absent", "not decided", "present", "not assessed"]
    assert [each.findings["light"].present for each in (dark, middle, doubtful, glaring)] == [False, False, True, False]
    assert dark.reasons == dark.warnings == [f"type not assessed: {DARK}"]
    assert (dark.type_assessed, middle.type_assessed) == (False, True)
    assert glaring.reasons == [GLARE]
    assert glaring.warnings == [f"{GLARE}; do not rely on the prediction"]
    assert sum(glaring.probabilities.values()) == pytest.approx(1)
    assert glaring.prediction_set is None
    assert dark.prediction_set == ["dark", "middle"]
    assert dark.gate == pytest.approx({"glare": 0.1, "type": 0.9}, abs=0.01)
    assert [counted(each) - b for each, b in zip(("yes", "doubtful", "no"), before, strict=True)] == [2, 1, 1]


@pytest.mark.parametrize("method", ["gradcam", "shap"])
def test_a_refused_image_is_explained_where_that_is_asked(client, method):
    (found,) = answers(client, 0.9, route="explain", method=method, budget="20")
    assert found.assessable == "no"
    assert [each.method for each in found.explanations] == [method]


def test_a_bundle_without_a_gate_answers_as_before(client):
    (found,) = answers(client, 0.9, model="plain")
    assert (found.assessable, found.reasons, found.warnings) == ("yes", [], [])
    assert (found.gate, found.prediction_set, found.type_assessed) == (None, None, True)
    light = found.findings["light"]
    assert light.decision == ("present" if light.probability >= 0.5 else "absent")


def test_the_models_say_their_limits_and_which_maps_are_the_same(client):
    gated, plain = client.get("/v1/models").json()["models"]
    assert gated["gate"]["scores"][0]["refused"] == 0.8
    assert gated["conformal"]["findings"]["light"]["present_from"] == 0.7
    assert (plain["gate"], plain["conformal"]) == (None, None)
    methods = {each["method"]: each for each in plain["explanations"]}
    assert (methods["hirescam"]["same_as"], methods["gradcam"]["same_as"]) == ("gradcam", None)
    assert methods["eigencam"]["targeted"] is False
    assert "no evidence" in methods["eigencam"]["meaning"]


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
def test_the_golden_sample_holds_the_gate_of_every_precision(tmp_path, precision):
    folder = write_gated_into(tmp_path, "gated")
    assert open_engine(read_bundle(folder), threads=1, device="cpu", precision=precision).precision == precision
    with np.load(folder / "golden.npz") as golden:
        arrays = {key: golden[key] for key in golden.files}
    for spoilt in (None, arrays["gate"] + np.float32([0, 0.2]), arrays["gate"][:, :1]):
        name = "int8.gate" if precision == "int8" else "gate"
        kept = {key: value for key, value in arrays.items() if key != name}
        np.savez(folder / "golden.npz", **kept, **({} if spoilt is None else {name: spoilt}))
        bundle = signed_again(folder)
        with pytest.raises(GoldenSampleMismatch):
            open_engine(bundle, threads=1, device="cpu", precision=precision)


def signed_again(folder):
    """The bundle as if its golden sample were the one that was exported."""
    file = folder / MANIFEST
    content = json.loads(file.read_text())
    content["files"]["golden.npz"] = sha256(folder / "golden.npz")
    file.write_text(json.dumps(content))
    return read_bundle(folder)


def test_a_manifest_whose_scores_repeat_is_refused(tmp_path):
    folder = write_gated_into(tmp_path, "gated", gate=GATE | {"scores": GATE["scores"] * 2})
    with pytest.raises(BundleSchemaMismatch, match="scores repeat"):
        read_bundle(folder)


def test_answers_that_were_stored_before_keep_their_verdict(client):
    (found,) = answers(client, 0.5, model="plain")
    stored = found.model_dump(mode="json")
    for name in ("assessable", "reasons", "type_assessed", "prediction_set", "gate"):
        del stored[name]
    del stored["findings"]["light"]["decision"]
    case = FrozenCase("code", "", "bright", False, ImageAnswer.model_validate(stored))
    assert case.answer == found
