"""One request of the benchmarks: its body, and what its parts cost when each runs alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from io import BytesIO

import cv2
import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.types import Message

from loadtests.payloads import dicom_uploads, uploads
from service.answers import explanation_answer
from service.batching import Batcher
from service.explainers import offered, targets
from service.explainers.base import Options, Question, run_together
from service.images.reading import read_frames
from service.prediction import predict
from service.preprocessing import prepare
from service.registry import load_models
from service.rendering import overlay_file
from service.scheduling import PREDICTION, EngineThread, Lane
from service.schemas import ImageAnswer
from service.settings import SHIPPED_MODELS
from service.types import Attribution, Grey8, Outputs

MODEL, MODALITY = "brain-mri-resnet50", "MR"
PNG, DICOM = "PNG", "DICOM"
MARK = "radiolucentbenchmark"


def body_of(count: int, kind: str = PNG) -> bytes:
    """A multipart request with so many images."""
    files = (uploads() if kind == PNG else dicom_uploads())[MODALITY]
    parts = [f'Content-Disposition: form-data; name="model"\r\n\r\n{MODEL}'.encode()]
    for number in range(count):
        file = files[number % len(files)]
        head = (
            f'Content-Disposition: form-data; name="images"; filename="{number}"\r\nContent-Type: {file.kind}\r\n\r\n'
        )
        parts.append(head.encode() + file.content)
    return b"".join(b"--%s\r\n%s\r\n" % (MARK.encode(), part) for part in parts) + b"--%s--\r\n" % MARK.encode()


def parts_of(device: str, repeats: int = 100) -> dict[str, float]:
    """CPU milliseconds of parsing, decoding, preparing, handing over, explaining, drawing and encoding one image."""
    cv2.setNumThreads(0)  # as in the service
    served = load_models(SHIPPED_MODELS, threads=0, device=device).model(MODEL)
    manifest, body = served.bundle.manifest, body_of(1)
    frame = read_frames(uploads()[MODALITY][0].content, "image")[0]
    item = prepare(frame, manifest.preprocessing)
    outputs = served.engine.run(item.pixels[np.newaxis, ..., np.newaxis]).row(0)
    method = offered(manifest)[manifest.default_explanation]
    if method.budget:
        method = offered(manifest)["gradcam"]

    def attribute() -> Attribution:
        asked = targets("predicted", None, predict(outputs.logits, manifest).label, manifest)
        ((found,),) = run_together(method, [Question(item.pixels, outputs, asked)], served.engine, Options())
        return found

    def explain() -> ImageAnswer:
        made, found = predict(outputs.logits, manifest), attribute()
        return ImageAnswer(
            name="image",
            label=made.label,
            probabilities=made.probabilities,
            findings={},
            region=(0, 0, 1, 1),
            explanations=[explanation_answer(found, manifest, None)],
            warnings=[],
        )

    answer, attribution = explain(), attribute()
    parts: dict[str, Callable[[], object]] = {
        "form": lambda: asyncio.run(_form(body)),
        "inflate": lambda: read_frames(uploads()[MODALITY][0].content, "image"),
        "inflate by Pillow": lambda: np.asarray(Image.open(BytesIO(uploads()[MODALITY][0].content))),
        "read DICOM": lambda: read_frames(dicom_uploads()[MODALITY][0].content, "image"),
        "prepare": lambda: prepare(frame, manifest.preprocessing),
        "queue": _Handover(item.pixels),
        "explain": explain,
        "overlay": lambda: overlay_file(frame, item.region, attribution),
        "JSON": answer.model_dump_json,
    }
    found: dict[str, float] = {}
    for name, run in parts.items():
        run()
        begin = time.process_time()
        for _ in range(repeats):
            run()
        found[name] = 1000 * (time.process_time() - begin) / repeats
    return found


class _Handover:
    """An image through the queue to the engine's thread and back, where nothing is computed."""

    def __init__(self, pixels: Grey8) -> None:
        nothing = Outputs(np.zeros((1, 1), np.float32), np.zeros((1, 1, 1, 1), np.float32), {})
        lane = Lane(EngineThread(), PREDICTION)
        self._batcher = Batcher("benchmark", lambda _images, _more: nothing, lane, max_batch=1, max_queue=64)
        self._loop, self._pixels = asyncio.new_event_loop(), pixels

    def __call__(self) -> object:
        """Once."""
        return self._loop.run_until_complete(self._batcher.run([self._pixels]))


async def _form(body: bytes) -> None:
    """Parse a request's form as the service does."""
    pieces = [body[start : start + 65536] for start in range(0, len(body), 65536)]
    coming = iter(pieces)

    async def receive() -> Message:
        piece = next(coming, b"")
        return {"type": "http.request", "body": piece, "more_body": piece is not pieces[-1]}

    head = (b"content-type", f"multipart/form-data; boundary={MARK}".encode())
    async with Request({"type": "http", "headers": [head]}, receive).form() as form:
        assert len(form) == 2  # noqa: S101 - the model and the image
