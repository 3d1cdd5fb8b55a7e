"""Studies over HTTP, with a real model, real DICOM files, and a queue on disk."""

from __future__ import annotations

import zipfile
from contextlib import contextmanager
from io import BytesIO

import numpy as np
import pytest
from bright import CONFORMAL, GATE, SIDE, manifest, write_gated_into
from dicom_writers import classic_mr, enhanced_mr, ophthalmic_tomography, saved
from pydicom import dcmread
from starlette.testclient import TestClient

from service.api import make_api, set_up_jobs
from service.assessment import Assessment
from service.dicomweb.archives import Archive
from service.dicomweb.multipart import Limits, MultipartReader, write_multipart
from service.errors import UnknownMethod, UnknownModel
from service.manifest import Manifest
from service.pipeline import Pipeline
from service.rendering import on_frame
from service.room import Room, Share
from service.series.answer import SeriesFinding
from service.series.pooling import Pooled
from service.settings import Settings
from service.studies.answering import explained_label
from service.types import Region

RULES = """
[[rule]]
name = "MR"
model = "bright"
modality = "MR"

[[rule]]
name = "all T1"
model = "second"
modality = "MR"
description = "t1"
"""


@pytest.fixture
def open_client(write_bundle, tmp_path):
    write_bundle("second")
    models = write_bundle("bright").parent
    (tmp_path / "rules.toml").write_text(RULES)

    @contextmanager
    def opened(**changed: object):
        settings = Settings(
            models=models,
            threads=1,
            device="cpu",
            rules=tmp_path / "rules.toml",
            jobs_database=f"sqlite:///{tmp_path / 'jobs.sqlite'}",
            study_folder=tmp_path / "studies",
            site_key=tmp_path / "site.key",
            archives={"pacs": Archive(url="http://127.0.0.1:9/dicom-web")},
            **changed,
        )
        application = make_api("test")
        application.state.pipeline = Pipeline(settings)
        set_up_jobs(application, settings)
        with TestClient(application, raise_server_exceptions=False) as client:
            yield client

    return opened


@pytest.fixture
def client(open_client):
    with open_client() as client:
        yield client


def slices(count: int = 3) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(20, 250, (SIDE, SIDE + 8), np.uint8) for _ in range(count)]


def post_zip(client: TestClient, contents: list[bytes], query: str = "", **headers: str):
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"{number}.dcm", content)
    return client.post(
        f"/v1/studies{query}", content=buffer.getvalue(), headers={"content-type": "application/zip"} | headers
    )


def post_multipart(client: TestClient, contents: list[bytes], query: str = "", **headers: str):
    kind, body = write_multipart(contents)
    return client.post(f"/v1/studies{query}", content=b"".join(body), headers={"content-type": kind} | headers)


def objects_of(answer) -> list:
    reader = MultipartReader(answer.headers["content-type"], Limits())
    found = [dcmread(BytesIO(content)) for content in reader.feed(answer.content)]
    reader.close()
    return found


def test_only_files_may_have_more_than_64_kib(client):
    """JSON is parsed on the event loop; what a reader sends, after a look at the code (`reader_study`)."""
    paths = client.get("/openapi.json").json()["paths"]
    kinds = {
        (method, path): set(operation["requestBody"]["content"])
        for path, operations in paths.items()
        for method, operation in operations.items()
        if "requestBody" in operation and not path.startswith("/v1/reading/")
    }
    taken = {path: kind for (_, path), kind in kinds.items() if "application/json" not in kind}
    for (method, path), kind in kinds.items():
        if "application/json" in kind:
            for size, refused in ((2**16, False), (2**16 + 1, True)):
                answer = client.request(
                    method, path, content=b"{}".ljust(size), headers={"content-type": "application/json"}
                )
                assert (answer.status_code == 413) is refused, path
                assert answer.json()["type"].endswith("too-large") is refused
        elif "multipart/form-data" in kind:
            assert client.request(method, path, files={"other": bytes(2**17)}).status_code == 422
        else:
            zip_ = {"content-type": "application/zip"}
            assert client.request(method, path, content=bytes(2**17), headers=zip_).status_code == 400
    assert len(taken) == 7


def test_a_series_is_one_answer_of_every_model_that_the_rules_choose(client):
    contents = [saved(ds) for ds in classic_mr(slices())]
    answer = post_zip(client, contents[::-1])
    assert answer.status_code == 200, answer.text
    (series,) = answer.json()["series"]
    assert series["slices"] == 3
    assert series["left_out"] == []
    assert [found["model"]["id"] for found in series["answers"]] == ["bright", "second"]
    found = series["answers"][0]
    assert [one["frame"] for one in found["slices"]] == [1, 1, 1]
    order = [str(ds.SOPInstanceUID) for ds in classic_mr(slices())]
    assert [one["sop_instance"] for one in found["slices"]] == order
    light = found["findings"]["light"]
    assert light["present"] is (light["probability"] >= 0.5)
    assert {one["explanation"]["target"] for one in found["slices"]} == {found["label"]}
    assert sum(found["probabilities"].values()) == pytest.approx(1)
    again = post_multipart(client, contents).json()["series"]
    assert again == [series]  # objects' UIDs too


def test_the_map_that_is_stored_is_the_saliency_that_is_answered(client):
    contents = [saved(ds) for ds in classic_mr(slices())]
    answered = post_multipart(client, contents, "?model=bright").json()["series"][0]["answers"][0]
    query = "?model=bright&results=parametric_map&results=report"
    returned = objects_of(post_multipart(client, contents, query, accept='multipart/related; type="application/dicom"'))
    kinds = [ds.SOPClassUID.keyword for ds in returned]
    assert kinds == ["ParametricMapStorage", "Comprehensive3DSRStorage"]
    volume = np.frombuffer(returned[0].FloatPixelData, "<f4").reshape(3, SIDE, SIDE + 8)
    for stored, one in zip(volume, answered["slices"], strict=True):
        cells = np.array(one["explanation"]["saliency"], np.float32)
        expected = on_frame(cells, Region(*one["region"]), stored.shape)
        np.testing.assert_allclose(stored, expected, atol=1e-5 * np.abs(expected).max())


def test_what_studies_unpack_and_decode_to_is_bounded_for_all_of_them_together(client):
    contents = [saved(ds) for ds in classic_mr(slices())]
    pixels = 3 * 4 * SIDE * (SIDE + 8)
    room = client.app.state.pipeline.room = Room(sum(map(len, contents)) + pixels)
    for query in ("", "?store=pacs", ""):
        assert post_zip(client, contents, query).status_code in (200, 202)
    with Share(room) as others:
        others.take(pixels + 1)
        for query in ("", "?store=pacs"):
            refused = post_zip(client, contents, query)
            assert (refused.status_code, refused.json()["type"].split(":")[-1]) == (503, "overloaded")
    with Share(room) as others:
        others.take(len(contents[0]) * 3 + 1)
        assert post_multipart(client, contents).status_code == 503  # its pixels count as well
    room.take(sum(map(len, contents)) + pixels)
    assert len(client.app.state.desk.store.listing()) == 1  # nothing is left of what was refused


@pytest.mark.parametrize(
    ("probabilities", "decision", "expected"),
    [
        ({"bright": 0.2, "dark": 0.6, "middle": 0.2}, "absent", "dark"),
        ({"bright": 0.15, "dark": 0.6, "middle": 0.25}, "not decided", "middle"),  # another class is likelier
        ({"bright": 0.7, "dark": 0.2, "middle": 0.1}, "present", "bright"),
    ],
)
def test_the_map_is_evidence_for_what_is_present_or_may_be(probabilities, decision, expected):
    made = Manifest.model_validate(manifest("bright", {}))
    label = max(probabilities, key=probabilities.get)
    finding = SeriesFinding("light", probabilities["bright"] + probabilities["middle"], decision, ())
    assert explained_label(Pooled(label, probabilities, (finding,), (0,), Assessment(), None, ()), made) == expected


def levels(mean: float) -> np.ndarray:
    """Grey levels from 0 to 255 with such a mean, 0..1."""
    ramp = np.linspace(0, 1, SIDE * SIDE) ** (1 / mean - 1)
    return np.rint(255 * ramp).astype(np.uint8).reshape(SIDE, SIDE)


@pytest.mark.parametrize(
    ("means", "assessable", "decision"),
    [((0.5, 0.9), ["yes", "no"], "present"), ((0.9, 0.9), ["no", "no"], "not assessed")],
)
def test_slices_that_are_not_assessable_do_not_count(open_client, tmp_path, means, assessable, decision):
    write_gated_into(tmp_path / "models", "gated", conformal=CONFORMAL)
    reason = GATE["scores"][0]["reason"]
    source = classic_mr([np.roll(levels(mean), place) for place, mean in enumerate(means)], PixelSpacing=[1, 1])
    with open_client() as client:
        contents = [saved(ds) for ds in source]
        found = post_multipart(client, contents, "?model=gated&results=report").json()["series"][0]["answers"][0]
        (report,) = objects_of(
            post_multipart(
                client,
                contents,
                "?model=gated&results=report",
                accept='multipart/related; type="application/dicom"',
            )
        )
    assert sorted(one["assessable"] for one in found["slices"]) == sorted(assessable)
    light = found["findings"]["light"]
    assert (light["decision"], light["present"]) == (decision, decision == "present")
    assert found["assessable"] == ("no" if decision == "not assessed" else "yes")
    content = saved(report)
    if decision == "not assessed":
        assert (found["reasons"], light["carriers"], found["prediction_set"]) == ([reason], [], None)
        assert b"Not Evaluated" in content
        assert b"Not assessable: " in content
    else:
        assert [found["slices"][place]["assessable"] for place in light["carriers"]] == ["yes"]
        assert any("1 of 2 slices are not assessable and do not count" in note for note in found["notes"])
        assert b"Not Evaluated" not in content


def test_objects_come_as_dicom_json_where_that_is_accepted(client):
    contents = [saved(ds) for ds in classic_mr(slices(2))]
    answer = post_multipart(client, contents, "?model=bright&results=report", accept="application/dicom+json")
    assert answer.headers["content-type"] == "application/dicom+json"
    (report,) = answer.json()
    assert report["00080060"]["Value"] == ["SR"]
    assert report["0020000D"]["Value"] == [str(classic_mr(slices(2))[0].StudyInstanceUID)]


def test_nothing_of_the_patient_leaves_where_that_is_not_wished(open_client):
    source = classic_mr(slices(2), PatientName="Nobody^Known", PatientID="ID-4711", StudyID="Study-17")
    contents = [saved(ds) for ds in source]
    query = "?model=bright&results=report&results=parametric_map&results=secondary_capture"
    with open_client(deidentify=True) as client:
        answered = post_multipart(client, contents, query).json()["series"][0]["answers"][0]
        answer = post_multipart(client, contents, query, accept='multipart/related; type="application/dicom"')
    returned = objects_of(answer)
    assert [str(ds.SOPInstanceUID) for ds in returned] == [one["sop_instance"] for one in answered["objects"]]
    assert {ds.PatientIdentityRemoved for ds in returned} == {"YES"}
    assert len({str(ds.StudyInstanceUID) for ds in returned}) == 1  # what belonged together still does
    assert str(source[0].StudyInstanceUID).encode() not in answer.content
    for word in (b"Nobody", b"ID-4711", b"Study-17"):  # digits alone occur in UIDs by chance
        assert word not in answer.content
    assert b"Research use only" in answer.content  # the notice stays


def test_multi_frame_objects_and_others_beside_them_are_series_of_their_own(client):
    contents = [saved(enhanced_mr(slices())), saved(ophthalmic_tomography(slices(2))), b"not DICOM at all"]
    answer = post_zip(client, contents)
    found = {series["modality"]: series for series in answer.json()["series"]}
    assert [one["frame"] for one in found["MR"]["answers"][0]["slices"]] == [1, 2, 3]
    assert found["OPT"]["answers"] == []
    assert {one["rule"] for one in found["OPT"]["mismatches"]} == {"MR", "all T1"}
    reasons = [one["reason"] for series in answer.json()["series"] for one in series["left_out"]]
    assert reasons == ["not a DICOM file"]


@pytest.mark.parametrize(
    ("query", "status", "kind"),
    [
        ("?model=nonsense", 404, "unknown-model"),
        ("?method=nonsense", 422, "unknown-method"),
        ("?target=nonsense", 422, "unknown-target"),
        ("?target=all", 422, "unknown-target"),
        ("?results=nonsense", 422, "invalid-parameter"),
        ("?store=nowhere", 422, "unknown-source"),
    ],
)
def test_what_cannot_be_asked_is_refused(client, query, status, kind):
    answer = post_zip(client, [saved(ds) for ds in classic_mr(slices(1))], query)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"].endswith(kind)


def test_damaged_bodies_are_problems(client):
    kind, body = write_multipart([saved(classic_mr(slices(1))[0])])
    cut = b"".join(body)[:-10]
    for content, header in [(cut, kind), (b"PK nonsense", "application/zip"), (b"{}", "application/json")]:
        answer = client.post("/v1/studies", content=content, headers={"content-type": header})
        assert answer.status_code == 400
        assert answer.json()["type"].endswith("broken-upload")


def test_a_study_to_be_stored_is_queued_once_and_can_be_deleted(client):
    contents = [saved(ds) for ds in classic_mr(slices())]
    first = post_multipart(client, contents, "?store=pacs")
    assert first.status_code == 202, first.text
    again = post_multipart(client, contents, "?store=pacs")
    assert again.json()["id"] == first.json()["id"]
    url = first.headers["location"]
    listed = client.get("/v1/jobs").json()
    assert [job["url"] for job in listed["jobs"]] == [url]
    assert sum(listed["counts"].values()) == 1
    assert client.get(url).json()["stage"] in {"fetched", "answered"}
    assert client.get(f"{url}/results").status_code == 404  # nothing to give yet
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == 404


def test_a_series_of_an_archive_is_accepted_and_one_of_another_address_is_not(client):
    uids = {"study_uid": "1.2.3", "series_uid": "1.2.3.4"}
    made = client.post("/v1/series", json=uids | {"source": "pacs"})
    assert made.status_code == 202
    assert made.json()["status"] in {"queued", "running"}
    same = client.post("/v1/series", json=uids | {"wado_url": "http://127.0.0.1:9/dicom-web/"})
    assert same.json()["id"] == made.json()["id"]
    stranger = client.post("/v1/series", json=uids | {"wado_url": "http://127.0.0.1:10/"})
    assert stranger.status_code == 422
    assert stranger.json()["type"].endswith("unknown-source")
    for no_uid in ("../../", "1..2", ".1", "1" * 65):
        wrong = client.post("/v1/series", json={"source": "pacs", "study_uid": no_uid, "series_uid": "1"})
        assert wrong.status_code == 422
        assert no_uid not in wrong.text


def test_the_settings_say_how_objects_are_made(open_client):
    brighter_to_the_right = np.tile(np.linspace(0, 250, SIDE + 8).astype(np.uint8), (SIDE, 1))
    contents = [saved(ds) for ds in classic_mr([brighter_to_the_right + number for number in range(3)])]
    query, accept = "?model=bright&target=bright&results=segmentation", 'multipart/related; type="application/dicom"'
    marked = []
    for share in (0.5, 0.05):
        with open_client(result_options={"segment_from": share}) as client:
            (segmentation,) = objects_of(post_multipart(client, contents, query, accept=accept))
        marked.append((int(segmentation.pixel_array.sum()), segmentation.SOPInstanceUID))
    assert marked[0][0] < marked[1][0]
    assert marked[0][1] != marked[1][1]


def test_what_no_series_by_c_store_could_make_right_stops_the_start(open_client):
    door = {"enabled": True, "callers": ["MODALITY"], "target": "pacs", "port": 0}
    for options, refusal in (({"model": "third"}, UnknownModel), ({"method": "guessing"}, UnknownMethod)):
        with pytest.raises(refusal), open_client(scp=door | {"options": options}):
            pass


def nothing() -> tuple[tuple[str, bytes], ...]:
    """Bodies without a file, each with its content type."""
    empty = BytesIO()
    zipfile.ZipFile(empty, "w").close()
    kind, pieces = write_multipart([])
    return ("application/zip", empty.getvalue()), (kind, b"".join(pieces))


@pytest.mark.parametrize("kind, body", nothing(), ids=("zip", "multipart"))
@pytest.mark.parametrize("query", ["", "?store=pacs"])
def test_a_body_without_a_file_is_no_study(client, kind, body, query):
    answer = client.post(f"/v1/studies{query}", content=body, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["detail"]) == (400, "the body holds no file")


def test_results_that_come_back_are_not_explained(client):
    contents = [saved(ds) for ds in classic_mr(slices(2))]
    query, accept = "?model=bright&results=secondary_capture", 'multipart/related; type="application/dicom"'
    captures = objects_of(post_multipart(client, contents, query, accept=accept))
    assert len(captures) == 2
    (series,) = post_multipart(client, [saved(ds) for ds in captures], "?model=bright").json()["series"]
    assert (series["slices"], series["answers"]) == (0, [])
    assert {one["reason"].split(":")[0] for one in series["left_out"]} == {"a result of this service"}
