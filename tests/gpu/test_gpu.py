"""On a real CUDA device: `make gpu`. Without one these tests fail: who asks for them has one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from export.golden import phantoms
from loadtests.payloads import uploads
from service.bundle import read_bundle
from service.cuda import SIZES
from service.dicom_results.results import make_results
from service.engine import Stop, Stopped, check_golden, open_engine
from service.explainers import METHODS, offered, targets
from service.explainers.base import Options, Question, run_together
from service.registry import load_models
from service.scheduling import EXPLANATION, EngineThread, Lane, Waiting
from service.segmenter import open_segmenter
from service.series.answer import SeriesAnswer
from service.series.reading import read_series
from service.settings import SHIPPED_MODELS
from service.studies.answering import StudyWish, answer_series
from tests.dicom_writers import classic_mr, saved
from tests.processes import free_port
from tests.serving import Service

CLASSIFIERS = ("brain-mri-resnet50", "retinal-oct-oculusnet")
COUNTS = (1, 3, 9, 40, 70)  # filled up, one of each size, and more than the largest
IMAGES = np.concatenate([phantoms(224, seed) for seed in range(18)])[: max(COUNTS)]


@pytest.fixture(scope="module", params=CLASSIFIERS)
def bundle(request):
    return read_bundle(SHIPPED_MODELS / request.param)


@pytest.fixture(scope="module")
def engines(bundle):
    return {device: open_engine(bundle, device=device) for device in ("cpu", "cuda")}


def largest_share(found, expected) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_every_batch_gets_the_answers_of_the_cpu(bundle, engines):
    assert engines["cuda"].provider == "cuda"
    assert list(engines["cuda"].session.sessions) == list(SIZES)
    names = bundle.manifest.graph.outputs
    expected = engines["cpu"].run(IMAGES, names)
    for count in COUNTS:
        found = engines["cuda"].run(IMAGES[:count], names)
        assert largest_share(found.logits, expected.logits[:count]) < 5e-3
        assert largest_share(found.cam, expected.cam[:count]) < 5e-3
        assert set(found.more) == set(names)
        for name in names:
            assert largest_share(found.more[name], expected.more[name][:count]) < 2e-2


def test_half_precision_is_taken_and_predicts_the_same(bundle, engines):
    half = open_engine(bundle, device="cuda", precision="auto")
    assert (half.provider, half.precision) == ("cuda", "fp16")
    assert check_golden(bundle, half) < 1e-2
    expected = engines["cpu"].run(IMAGES)
    found = half.run(IMAGES)
    assert (found.logits.argmax(1) == expected.logits.argmax(1)).all()
    assert largest_share(found.cam, expected.cam) < 2e-2


def test_gradients_are_those_of_the_cpu(engines):
    pixels, weights = IMAGES[:10, ..., 0].astype(np.float32), np.eye(4, dtype=np.float32)[np.arange(10) % 4]
    expected, found = (engines[device].gradient(pixels, weights) for device in ("cpu", "cuda"))
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-2


@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_as_on_the_cpu(bundle, engines, method):
    if method not in offered(bundle.manifest):
        pytest.skip("the model does not offer it")
    maps = []
    for engine in engines.values():
        outputs = engine.run(IMAGES[:1], sorted(METHODS[method].outputs)).row(0)
        asked = targets(bundle.manifest.class_names[1], None, bundle.manifest.class_names[1], bundle.manifest)
        question = Question(IMAGES[0, ..., 0], outputs, asked)
        budget = 64 if METHODS[method].budget > 1 else None
        ((found,),) = run_together(METHODS[method], [question], engine, Options(budget=budget))
        maps.append(found.values)
    on_cpu, on_gpu = maps
    assert np.linalg.norm(on_gpu - on_cpu) / np.linalg.norm(on_cpu) < 5e-2


def test_outlines_are_those_of_the_cpu():
    folder, images = SHIPPED_MODELS / "brain-mri-unet", np.concatenate([phantoms(160, seed) for seed in range(5)])
    on_cpu, on_gpu = (open_segmenter(folder, device=device) for device in ("cpu", "cuda"))
    assert on_gpu.provider == "cuda"
    found, expected = on_gpu.run(images).probabilities, on_cpu.run(images).probabilities
    assert np.abs(found - expected).max() < 1e-2


def test_a_series_is_answered_as_on_the_cpu():
    pixels = [image[..., 0].astype(np.uint16) * 16 for image in IMAGES[:20]]
    (series,) = read_series([saved(ds) for ds in classic_mr(pixels, "gpu")])
    answers: list[SeriesAnswer] = []
    for device in ("cpu", "cuda"):
        model = load_models(SHIPPED_MODELS, threads=0, device=device).model(CLASSIFIERS[0])
        assert model.engine.provider == device
        view = Waiting(model.engine, Lane(EngineThread(), EXPLANATION), lambda: False)
        answers.append(answer_series(series, model, StudyWish(model=CLASSIFIERS[0]), view, lambda share: None))
    on_cpu, on_gpu = answers
    assert len(on_gpu.slices) == len(pixels)
    assert on_gpu.label == on_cpu.label
    assert on_gpu.probabilities == pytest.approx(on_cpu.probabilities, abs=5e-3)
    assert largest_share(on_gpu.saliency, on_cpu.saliency) < 5e-3
    objects = make_results(on_gpu, StudyWish(model=CLASSIFIERS[0]).kinds).objects
    assert len(objects) == len(make_results(on_cpu, StudyWish(model=CLASSIFIERS[0]).kinds).objects)


def test_an_archive_is_explained_as_on_the_cpu(tmp_path: Path):
    """Ray gives its engine actor the GPU; the rows of both runs are compared by the files they are of."""
    for number in range(100):
        (file := tmp_path / "archive" / str(number % 3) / f"{number}.png").parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(uploads()["MR"][number % 4].content)
    rows: list[dict[str, dict[str, Any]]] = []
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        command = [sys.executable, "-m", "service.backfill", str(tmp_path / "archive"), str(out)]
        options = ["--model", CLASSIFIERS[0], "--shard", "32", "--batch", "32"]
        settings = os.environ | {"RADIOLUCENT_DEVICE": device}
        ran = subprocess.run([*command, *options], env=settings, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        rows.append({row["source"]: row for row in pq.read_table(out / "results").to_pylist()})
    on_cpu, on_gpu = rows
    assert len(on_gpu) == 100
    for source, expected in on_cpu.items():
        found = on_gpu[source]
        assert found["problem"] is None
        assert found["label"] == expected["label"]
        assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=5e-3)
        assert largest_share(np.array(found["saliency"]), np.array(expected["saliency"])) < 1e-2


def test_a_pass_is_stopped_between_two_nodes_and_the_next_one_is_whole(engines):
    engine, stop = engines["cuda"], Stop()
    expected = engine.run(IMAGES[:64]).logits
    threading.Timer(0.002, stop.ask).start()
    with pytest.raises(Stopped):
        for _ in range(1000):
            engine.run(IMAGES[:64], stop=stop)
    assert np.array_equal(engine.run(IMAGES[:64]).logits, expected)


def test_threads_do_not_mix_their_batches_up(engines):
    engine = engines["cuda"]
    expected = engine.run(IMAGES).logits

    def one(start: int) -> bool:
        count = 1 + start % 30
        found = engine.run(IMAGES[start : start + count]).logits
        return bool(np.allclose(found, expected[start : start + count], atol=1e-2 * np.abs(expected).max()))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(one, range(40)))


@pytest.mark.server
@pytest.mark.parametrize("workers", [1, 2])
def test_the_service_answers_on_the_gpu_and_says_so(tmp_path: Path, workers):
    service = Service(
        free_port(), tmp_path / "log", {"RADIOLUCENT_DEVICE": "cuda", "RADIOLUCENT_WORKERS": str(workers)}
    )
    try:
        client = service.start()
        files = [("images", (each.name, each.content)) for each in uploads()["MR"]]

        def ask(count: int) -> list[str]:
            answer = client.post("/v1/explain", data={"model": CLASSIFIERS[0]}, files=(files * 30)[:count])
            assert answer.status_code == 200, answer.text
            return [result["label"] for result in answer.json()["results"]]

        alone = ask(len(files))
        with ThreadPoolExecutor(16) as threads:
            for labels in threads.map(ask, range(1, 41)):
                assert labels == (alone * 30)[: len(labels)]
        metrics = client.get("/metrics").text
    finally:
        service.stop()
    assert 'provider="cuda"' in metrics
    assert 'provider="cpu"' not in metrics
    used = [line for line in metrics.splitlines() if line.startswith("radiolucent_gpu_memory_used_bytes{")]
    assert used
    assert all(float(line.split()[-1]) > 100 * 2**20 for line in used)
