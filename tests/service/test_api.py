from __future__ import annotations

import asyncio
import base64
import gzip
import json
import threading
from collections.abc import Collection
from io import BytesIO

import numpy as np
import pytest
from bright import BIAS, CELLS, SIDE, WEIGHT, png
from brittle import marked, write_brittle_into
from PIL import Image
from starlette.testclient import TestClient

from service import pipeline, uploads
from service.api import make_api
from service.composing import JobHandle, Wish
from service.errors import Cancelled, RadiolucentError
from service.examples import EXPLAIN_EXAMPLE, PREDICT_EXAMPLE
from service.pipeline import Pipeline
from service.rendering import NOTICE
from service.room import Room, Share
from service.schemas import Problem, Result
from service.settings import Settings
from service.types import Outputs
from service.uploads import Upload, budget_of, read_files


@pytest.fixture
def api(write_bundle):
    write_bundle("bright")
    folder = write_bundle("other").parent
    application = make_api("test")
    application.state.pipeline = Pipeline(Settings(models=folder, threads=1, device="cpu"))
    return application


@pytest.fixture
def client(api):
    with TestClient(api, raise_server_exceptions=False) as client:
        yield client


def grey(low: int = 0, high: int = 255) -> np.ndarray:
    return np.linspace(low, high, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint8)


def post(client, route: str, files: list[tuple[str, bytes]], **fields: str):
    return client.post(f"/v1/{route}", data=fields, files=[("images", (name, content)) for name, content in files])


@pytest.mark.parametrize("mark", ["raises", "exhausts"])
def test_an_image_that_the_model_fails_on_fails_alone(tmp_path, caplog, mark):
    write_brittle_into(tmp_path, "brittle")
    application = make_api("test")
    application.state.pipeline = Pipeline(Settings(models=tmp_path, threads=1, device="cpu"))
    with TestClient(application) as client:
        good, bad = ("good-name.png", marked(None)), ("bad-name.png", marked(mark))
        answer = post(client, "explain", [good, bad, ("text", b"text"), good], model="brittle")
        alone = post(client, "predict", [bad], model="brittle")
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result["status"] for result in results] == ["ok", "failed", "failed", "ok"]
    assert [result["name"] for result in results[:2]] == ["good-name.png", "bad-name.png"]
    assert results[1]["error"]["type"] == "urn:radiolucent:problem:model-failed"
    assert results[2]["error"]["type"] == "urn:radiolucent:problem:unsupported-format"
    assert alone.status_code == 500
    problem = Problem.model_validate(alone.json())
    assert problem.type == "urn:radiolucent:problem:model-failed"
    assert f"request {problem.request_id}: the model failed on image 0" in caplog.text
    assert f"request {answer.json()['request_id']}: the model failed on image 1" in caplog.text
    assert "-name" not in caplog.text


def expected_logits(pixels: np.ndarray) -> np.ndarray:
    return WEIGHT * (pixels.mean() / 255) + BIAS


def test_predict_gives_calibrated_probabilities(client):
    answer = post(client, "predict", [("a.png", png(grey()))], model="bright")
    assert answer.status_code == 200
    result = Result.model_validate(answer.json()).results[0]
    scaled = np.exp(expected_logits(grey()) / 2.0)
    for name, value in zip(("bright", "dark", "middle"), scaled / scaled.sum(), strict=True):
        assert result.probabilities[name] == pytest.approx(value, abs=1e-3)
    assert result.label == max(result.probabilities, key=result.probabilities.get)
    light = result.probabilities["bright"] + result.probabilities["middle"]
    assert result.findings["light"].probability == pytest.approx(light)
    assert result.findings["light"].present is (light >= 0.5)
    assert result.explanations == []
    assert result.region == (0, 0, SIDE, SIDE)


def test_explain_gives_signed_maps_that_add_up_to_the_logits(client):
    answer = post(client, "explain", [("a.png", png(grey()))], model="bright", target="all")
    explanations = answer.json()["results"][0]["explanations"]
    assert [e["target"] for e in explanations] == ["bright", "dark", "middle"]
    for index, explanation in enumerate(explanations):
        saliency = np.array(explanation["saliency"])
        assert explanation["shape"] == [CELLS, CELLS] == list(saliency.shape)
        assert saliency.mean() + BIAS[index] == pytest.approx(expected_logits(grey())[index], abs=1e-2)
        assert explanation["exact"] is True
    assert np.array(explanations[1]["saliency"]).max() < 0


def test_explain_targets_the_predicted_class_by_default(client):
    result = post(client, "explain", [("a.png", png(grey()))], model="bright").json()["results"][0]
    assert [(e["method"], e["target"]) for e in result["explanations"]] == [("gradcam", result["label"])]
    assert result["explanations"][0]["overlay"] is None


def test_an_overlay_shows_the_whole_source_and_the_notice_strip(client):
    pixels = np.tile(grey(), (1, 2))
    result = post(client, "explain", [("a.png", png(pixels))], model="bright", overlay="true").json()["results"][0]
    with Image.open(BytesIO(base64.b64decode(result["explanations"][0]["overlay"]))) as picture:
        assert picture.format == "PNG"
        assert picture.width >= pixels.shape[1]
        assert picture.height > picture.width // 2
    assert "Research use only" in NOTICE
    assert result["region"] == [0, -SIDE / 2, 2 * SIDE, 2 * SIDE]


def test_one_result_for_each_file_and_frame_in_order_and_bad_ones_fail_alone(client):
    files = [("1.png", png(grey())), ("2.png", b"no image"), ("3.png", png(grey(0, 128))), ("4.png", png(grey())[:60])]
    answer = post(client, "explain", files, model="bright")
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [r["name"] for r in results] == ["1.png", "2.png", "3.png", "4.png"]
    assert [r["status"] for r in results] == ["ok", "failed", "ok", "failed"]
    assert results[1]["error"]["type"].startswith("urn:radiolucent:problem:")
    assert results[1]["error"]["status"] == 422


def test_a_colour_photograph_is_answered_with_a_warning(client):
    colour = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    result = post(client, "predict", [("photo.png", png(colour))], model="bright").json()["results"][0]
    assert any("not of this model's kind" in warning for warning in result["warnings"])
    assert post(client, "predict", [("a.png", png(grey()))], model="bright").json()["results"][0]["warnings"] == []


def test_sixty_four_images_equal_sixty_four_requests(client):
    files = [(f"{k}.png", png(grey(0, 100 + 2 * k))) for k in range(64)]
    together = post(client, "predict", files, model="bright").json()["results"]
    for index in (0, 31, 63):
        alone = post(client, "predict", [files[index]], model="bright").json()["results"][0]
        assert alone["probabilities"] == pytest.approx(together[index]["probabilities"], abs=1e-6)


def test_the_first_files_are_computed_while_the_next_are_read(api, client, monkeypatch):
    batcher, read_all = api.state.pipeline.batchers["bright"], pipeline.read_files
    run, computed = batcher._run, threading.Event()

    def run_and_tell(images, more):
        computed.set()
        return run(images, more)

    def read_after_the_first_are_computed(numbered, spec, budget):
        assert all(upload.name != "19.png" for _, upload in numbered) or computed.wait(30)
        return read_all(numbered, spec, budget)

    monkeypatch.setattr(batcher, "_max_batch", 8)
    monkeypatch.setattr(batcher, "_run", run_and_tell)
    monkeypatch.setattr(pipeline, "read_files", read_after_the_first_are_computed)
    bad = (3, 11, 19)
    files = [(f"{k}.png", b"no image" if k in bad else png(grey(0, 100 + 8 * k))) for k in range(20)]
    targets = [("bright", "dark", "middle")[k % 3] for k in range(20)]
    results = post(client, "explain", files, model="bright", target=targets).json()["results"]
    assert [r["name"] for r in results] == [name for name, _ in files]
    assert [k for k, r in enumerate(results) if r["status"] == "failed"] == list(bad)
    explained = [
        (r["explanations"][0]["target"], target)
        for r, target in zip(results, targets, strict=True)
        if r["status"] == "ok"
    ]
    assert all(found == asked for found, asked in explained)


@pytest.mark.parametrize(
    ("route", "fields", "count", "status", "kind"),
    [
        ("predict", {"model": "nobody"}, 1, 404, "unknown-model"),
        ("predict", {}, 1, 422, "invalid-parameter"),
        ("predict", {"model": "bright"}, 0, 422, "invalid-parameter"),
        ("predict", {"model": "bright"}, 65, 413, "too-many-images"),
        ("explain", {"model": "bright", "method": "magic"}, 1, 422, "unknown-method"),
        ("explain", {"model": "bright", "method": "hirescam"}, 1, 422, "unknown-method"),
        ("explain", {"model": "bright", "target": "purple"}, 1, 422, "unknown-target"),
        ("explain", {"model": "bright", "overlay": "perhaps"}, 1, 422, "invalid-parameter"),
    ],
)
def test_a_bad_request_is_a_problem_that_says_what_to_change(client, route, fields, count, status, kind):
    answer = post(client, route, [(f"{k}.png", png(grey())) for k in range(count)], **fields)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate(answer.json())
    assert problem.type == f"urn:radiolucent:problem:{kind}"
    assert problem.status == status
    assert problem.request_id


@pytest.mark.parametrize(
    ("method", "path", "fields", "said"),
    [
        ("POST", "/v1/explain", {"metod": "gradcam"}, "metod"),
        ("POST", "/v1/explain", {"method": ["gradcam", "layercam"]}, "method: sent 2 times"),
        ("POST", "/v1/predict", {"model": ["bright", "bright"]}, "model: sent 2 times"),
        ("POST", "/v1/explanations", {"overlya": "true"}, "overlya"),
        ("POST", "/v1/frames", {"model": "bright"}, "model"),
        ("POST", "/v1/explain?method=gradcam", {}, "there are none; fields of the form belong into the body"),
        ("POST", "/v1/studies?sotre=pacs", {}, "there are store, model, method, target, results"),
        ("POST", "/v1/studies?store=a&store=b", {}, "store: sent 2 times"),
        ("GET", "/v1/jobs?statsu=dead", None, "there are status, limit"),
        ("GET", "/v1/models?id=bright", None, "there are none"),
    ],
)
def test_a_parameter_that_would_be_passed_over_is_refused(client, method, path, fields, said):
    form = None if fields is None else {"model": "bright"} | fields
    if path == "/v1/frames":
        answer = client.post(path, data=form, files={"image": ("a.png", png(grey()))})
    else:
        answer = client.request(method, path, data=form, files=form and [("images", ("a.png", png(grey())))])
    assert (answer.status_code, kind_of(answer)) == (422, "invalid-parameter")
    assert said in answer.json()["detail"]


def test_a_refusal_does_not_repeat_all_that_a_caller_makes_up(client):
    fields = {f"{k}" * 4000: "x" for k in range(1, 10)} | {f"field {k}": "x" for k in range(20)}
    answer = post(client, "predict", [("a.png", png(grey()))], model="bright", **fields)
    assert (answer.status_code, kind_of(answer)) == (422, "invalid-parameter")
    assert answer.json()["detail"].endswith("; and 13 more")
    assert len(answer.text) < 3000


def test_what_may_come_repeatedly_may(client):
    files = [("a.png", png(grey())), ("b.png", png(grey()))]
    assert post(client, "explain", files, model="bright", target=["bright", "dark"]).status_code == 200
    answer = client.post(
        "/v1/studies?results=report&results=segmentation", content=b"", headers={"content-type": "application/zip"}
    )
    assert kind_of(answer) != "invalid-parameter"


def kind_of(answer) -> str:
    return answer.json()["type"].removeprefix("urn:radiolucent:problem:")


@pytest.mark.parametrize(
    ("limit", "fields"), [("MAX_PIXELS", {}), ("MAX_IMAGES", {}), ("MAX_KEPT_PIXELS", {"overlay": "true"})]
)
def test_what_the_files_of_a_request_decode_to_together_is_bounded(client, monkeypatch, limit, fields):
    most = 4 if limit == "MAX_IMAGES" else 4 * SIDE * SIDE
    monkeypatch.setattr(uploads, limit, most)
    files = [(f"{k}.png", png(grey().astype(np.uint16) * 256)) for k in range(5)]
    assert post(client, "explain", files[:4], model="bright", **fields).status_code == 200
    refused = post(client, "explain", files, model="bright", **fields)
    assert (refused.status_code, kind_of(refused)) == (413, "too-many-images")
    if fields:
        assert post(client, "explain", files, model="bright").status_code == 200


def test_only_the_pixels_that_are_drawn_stay_in_memory(api):
    spec = api.state.pipeline.registry.model("bright").bundle.manifest.preprocessing
    numbered = [(0, Upload("a.png", png(grey())))]
    ((kept,), (left,)) = (read_files(numbered, spec, budget_of(hold)) for hold in (lambda size: None, None))
    assert np.array_equal(kept.frame.pixels, grey())
    assert left.frame.pixels.shape == grey().shape
    assert left.frame.pixels.strides == (0, 0)
    assert np.array_equal(left.item.pixels, kept.item.pixels)


def test_what_all_requests_keep_together_is_bounded_and_given_back(api, client):
    image = 4 * SIDE * SIDE
    room = api.state.pipeline.room = Room(2 * image)
    two = [("a.png", png(grey())), ("b.png", png(grey()))]
    for files in ([*two, ("c.png", b"no image")], [*two, *two], two):  # answered, refused, answered
        answer = post(client, "explain", files, model="bright", overlay="true")
        assert (answer.status_code == 503) is (len(files) == 4)
    with Share(room) as others:
        others.take(image)
        refused = post(client, "explain", two, model="bright", overlay="true")
        assert (refused.status_code, kind_of(refused), refused.headers["retry-after"]) == (503, "overloaded", "1")
        assert post(client, "explain", two, model="bright").status_code == 200
        report = client.post("/v1/report", data={"model": "bright"}, files={"image": ("a.png", png(grey()))})
        assert report.status_code == 503  # it keeps the frame for its page, too
    assert client.post("/v1/report", data={"model": "bright"}, files={"image": ("a", png(grey()))}).status_code == 200
    room.take(2 * image)  # all is there again


def test_a_job_needs_no_room(api):
    nobody_waits = JobHandle(lambda share: None, lambda: False)
    made = api.state.pipeline
    made.room = Room(0)
    wish = Wish("", overlay=True)
    result = asyncio.run(made.answer("a", "bright", [Upload("a.png", png(grey()))], wish, job=nobody_waits))
    assert result.results[0].explanations[0].overlay


def test_what_a_thread_still_does_for_a_request_that_is_over_takes_nothing():
    room = Room(2)
    with Share(room) as share:
        share.take(1)
    with pytest.raises(Cancelled):
        share.take(1)
    room.take(2)


def test_a_body_over_the_limit_is_refused(api, client):
    api.state.pipeline.settings = api.state.pipeline.settings.model_copy(update={"max_request_mib": 1})
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200), np.uint8)
    answer = post(client, "predict", [("a.png", png(noise))], model="bright")
    assert (answer.status_code, answer.json()["type"]) == (413, "urn:radiolucent:problem:too-large")


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/studies", "/v1/series"])
def test_a_compressed_body_is_refused_by_name(client, path):
    made = client.build_request("POST", path, data={"model": "bright"}, files=[("images", ("a.png", png(grey())))])
    headers = {"content-type": made.headers["content-type"], "content-encoding": "gzip"}
    answer = client.post(path, content=gzip.compress(made.read()), headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (415, "urn:radiolucent:problem:compressed-body")
    assert answer.headers["accept-encoding"] == "identity"
    plain = client.post("/v1/predict", content=made.read(), headers=headers | {"content-encoding": "identity"})
    assert plain.status_code == 200


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", "/v1/predict", 405)])
def test_what_is_not_there_is_a_problem_too(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert Problem.model_validate(answer.json()).status == status


def test_our_fault_is_a_500_with_the_id_that_the_log_has(api, client, caplog):
    def broken(images: np.ndarray, more: Collection[str]) -> Outputs:
        raise RuntimeError("secret detail")

    api.state.pipeline.batchers["bright"]._run = broken
    answer = post(client, "predict", [("doe^john.png", png(grey()))], model="bright")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert answer.json()["request_id"] in caplog.text
    assert "doe" not in caplog.text


def test_models_lists_what_a_client_needs(client):
    models = client.get("/v1/models").json()["models"]
    assert [m["id"] for m in models] == ["bright", "other"]
    assert [label["name"] for label in models[0]["labels"]] == ["bright", "dark", "middle"]
    assert models[0]["explanations"][0]["method"] == "gradcam"
    assert models[0]["grid"] == [CELLS, CELLS]


def test_the_openapi_document_holds_valid_examples(client):
    document = client.get("/openapi.json").json()
    for route, example in (("predict", PREDICT_EXAMPLE), ("explain", EXPLAIN_EXAMPLE)):
        shown = document["paths"][f"/v1/{route}"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
        assert Result.model_validate(shown) == Result.model_validate(example)
        assert set(document["paths"][f"/v1/{route}"]["post"]["responses"]) >= {"404", "413", "422", "500", "503"}
    assert "cdn" not in client.get("/docs").text


def test_every_error_class_has_its_own_kind():
    def tree(cls: type[RadiolucentError]) -> list[type[RadiolucentError]]:
        return [cls, *(child for sub in cls.__subclasses__() for child in tree(sub))]

    kinds = [cls.kind for cls in tree(RadiolucentError)]
    assert len(kinds) == len(set(kinds))


def test_each_image_may_have_a_target_of_its_own(client):
    files = [(f"{n}.png", png(grey())) for n in range(3)]
    answer = post(client, "explain", files, model="bright", target=["dark", "bright", "predicted"])
    results = answer.json()["results"]
    assert [r["explanations"][0]["target"] for r in results] == ["dark", "bright", results[2]["label"]]


@pytest.mark.parametrize("targets", [["dark", "bright"], ["dark"] * 4])
def test_targets_that_do_not_match_the_images_are_an_error(client, targets):
    files = [(f"{n}.png", png(grey())) for n in range(3)]
    answer = post(client, "explain", files, model="bright", target=targets)
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("invalid-parameter")
    assert f"{len(targets)} targets for 3 files" in answer.json()["detail"]


def test_one_bad_target_among_many_is_refused(client):
    files = [(f"{n}.png", png(grey())) for n in range(2)]
    answer = post(client, "explain", files, model="bright", target=["dark", "nonsense"])
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("unknown-target")


@pytest.mark.parametrize("method", ["shap", "kernelshap", "occlusion"])
def test_what_asks_the_model_is_answered_with_its_price(client, method):
    pixels = np.random.default_rng(0).integers(60, 256, (SIDE, SIDE), np.uint8)
    answer = post(client, "explain", [("a.png", png(pixels))], model="bright", method=method, target="all")
    (result,) = Result.model_validate(answer.json()).results
    assert [e.target for e in result.explanations] == ["bright", "dark", "middle"]
    for explanation in result.explanations:
        assert explanation.evaluations > 5
        assert explanation.parameters["baseline"] == "blur"
        assert np.shape(explanation.saliency) == explanation.shape
    if method != "occlusion":
        assert all(e.additivity_error < 1e-4 for e in result.explanations)
        assert np.shape(result.explanations[0].interval) == result.explanations[0].shape


def test_too_many_waiting_explanations_are_refused(write_bundle):
    application = make_api("test")
    folder = write_bundle("bright").parent
    pipeline = Pipeline(Settings(models=folder, threads=1, device="cpu", max_explanations=1))
    application.state.pipeline = pipeline
    assert pipeline._explaining.acquire()  # one is running
    with TestClient(application) as client:
        assert post(client, "explain", [("a.png", png(grey()))], model="bright", method="shap").status_code == 503
        assert post(client, "explain", [("a.png", png(grey()))], model="bright", method="gradcam").status_code == 200


def test_maps_come_as_base64_of_another_precision_and_overlays_as_another_picture(client):
    file = ("a.png", png(np.full((SIDE, SIDE), 90, np.uint8)))
    plain = post(client, "explain", [file], model="bright").json()["results"][0]["explanations"][0]
    expected = np.array(plain["saliency"], np.float32)
    for encoding, kind, tolerance in (("float16", "<f2", 1e-3), ("float32", "<f4", 1e-6)):
        answer = post(client, "explain", [file], model="bright", saliency=encoding).json()
        made = answer["results"][0]["explanations"][0]
        assert made["encoding"] == encoding
        found = np.frombuffer(base64.b64decode(made["saliency"]), kind).reshape(made["shape"])
        assert np.allclose(found, expected, rtol=tolerance)
    sizes = {}
    for picture in ("png", "webp", "jpeg"):
        answer = post(client, "explain", [file], model="bright", overlay="true", picture=picture).json()
        content = base64.b64decode(answer["results"][0]["explanations"][0]["overlay"])
        with Image.open(BytesIO(content)) as opened:
            assert opened.format == picture.upper()
            sizes[picture] = opened.size
    assert len(set(sizes.values())) == 1
    assert post(client, "explain", [file], model="bright", saliency="float64").status_code == 422


def test_maps_alone_as_a_numpy_file(client):
    good, bad = ("a.png", png(np.full((SIDE, SIDE), 90, np.uint8))), ("b.png", b"text")
    asked = {"headers": {"Accept": "application/x-npy"}}

    def ask(files, **fields):
        sent = [("images", part) for part in files]
        return client.post("/v1/explain", data={"model": "bright", **fields}, files=sent, **asked)

    answer = ask([good, bad, good], target="all")
    assert answer.headers["content-type"] == "application/x-npy"
    maps = np.load(BytesIO(answer.content), allow_pickle=False)
    plain = post(client, "explain", [good], model="bright", target="all").json()["results"][0]
    assert maps.dtype == np.float32
    assert maps.shape[:2] == (3, len(plain["explanations"]))
    assert np.isnan(maps[1]).all()
    assert np.allclose(maps[0], [each["saliency"] for each in plain["explanations"]])
    assert json.loads(answer.headers["x-labels"]) == [plain["label"], None, plain["label"]]
    targets = [each["target"] for each in plain["explanations"]]
    assert json.loads(answer.headers["x-targets"]) == [targets, [], targets]
    mixed = ask([good, good], target=["all", "predicted"])
    assert (mixed.status_code, mixed.json()["type"]) == (422, "urn:radiolucent:problem:invalid-parameter")
    assert ask([good, good], target=["dark", "predicted"]).status_code == 200
    refused = ask([bad])
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert Problem.model_validate(refused.json()).type.endswith("unsupported-format")


def test_a_frame_too_large_for_a_webp_fails_alone(client):
    files = [("a.png", png(np.full((256, 2**14), 90, np.uint8))), ("b.png", png(grey()))]
    answer = post(client, "explain", files, model="bright", overlay="true", picture="webp")
    assert answer.status_code == 200
    refused, drawn = answer.json()["results"]
    assert (refused["error"]["status"], drawn["status"]) == (422, "ok")
    assert "webp" in refused["error"]["detail"].lower()


@pytest.mark.parametrize(("method", "most"), [("", 1), ("", 64), ("shap", 64)])
def test_a_request_of_more_images_than_may_ever_wait_is_too_large(write_bundle, method, most):
    application = make_api("test")
    settings = Settings(models=write_bundle("bright").parent, threads=1, device="cpu", max_queue=2, max_batch=most)
    application.state.pipeline = Pipeline(settings)
    with TestClient(application) as client:
        files = [(f"{n}.png", png(grey())) for n in range(3)]
        answer = post(client, "explain", files, model="bright", method=method)
        assert (answer.status_code, answer.json()["type"]) == (413, "urn:radiolucent:problem:too-many-images")
        assert post(client, "explain", files[:2], model="bright", method=method).status_code == 200


def test_large_answers_are_compressed_for_who_understands_it(client):
    files = [("a.png", png(np.full((SIDE, SIDE), 90, np.uint8)))] * 20
    sent = [("images", part) for part in files]
    data = {"model": "bright"}
    packed = client.post("/v1/explain", data=data, files=sent, headers={"Accept-Encoding": "gzip"})
    plain = client.post("/v1/explain", data=data, files=sent, headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.json()["results"] == plain.json()["results"]


def test_a_deadline_that_cannot_be_met_is_refused_before_the_body_is_read(api, client, monkeypatch):
    file = ("a.png", png(np.full((SIDE, SIDE), 90, np.uint8)))

    def ask(milliseconds: str):
        headers = {"X-Deadline-Ms": milliseconds}
        return client.post("/v1/explain", data={"model": "bright"}, files=[("images", file)], headers=headers)

    assert ask("60000").status_code == 200
    for wrong in ("soon", "0", "-5", "1.5"):
        refused = ask(wrong)
        assert refused.status_code == 422, wrong
        assert "X-Deadline-Ms" in refused.json()["detail"]
    monkeypatch.setattr(api.state.pipeline.admission, "ahead", lambda due=0.0: 3.2)
    late = ask("2000")
    assert late.status_code == 503
    assert late.headers["retry-after"] == "4"
    assert Problem.model_validate(late.json()).type.endswith("overloaded")
    assert ask("60000").status_code == 200
    monkeypatch.setattr(api.state.pipeline.admission, "ahead", lambda due=0.0: 11.5)
    assert ask("60000").headers["retry-after"] == "2"
