"""Series through the whole path against the bare forward pass on the same cores, and where the rest goes.

    python -m benchmarks.study_throughput DIR [--device cuda] [--json FILE]

DIR holds the DICOM files of one series. `forward pass` is ONNX Runtime alone on the prepared slices, in batches of 16;
`over HTTP` is POST /v1/studies of a running service, DICOM in and DICOM out (what STOW-RS sends and takes). The steps
are the same functions called one after another in this process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
from pydicom.dataset import Dataset

from benchmarks.harness import Cell, add_device, interleaved, machine, parser, save, show
from benchmarks.served import started
from service.dicom_results.results import make_results
from service.dicomweb.multipart import write_multipart
from service.preprocessing import prepare
from service.registry import load_models
from service.scheduling import EXPLANATION, EngineThread, Lane, Waiting
from service.series.answer import SeriesAnswer
from service.series.reading import read_series
from service.settings import SHIPPED_MODELS
from service.studies.answering import StudyWish, answer_series

BATCH = 16


def encoded(objects: list[Dataset]) -> int:
    """Bytes of all objects as files."""
    total = 0
    for ds in objects:
        buffer = BytesIO()
        ds.save_as(buffer, enforce_file_format=True)
        total += buffer.tell()
    return total


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("study_throughput", __doc__)
    made.add_argument("data", type=Path, metavar="DIR", help="DICOM files of one series")
    made.add_argument("--model", default="brain-mri-resnet50", help="default: %(default)s")
    made.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    add_device(made)
    options = made.parse_args(arguments)
    contents = [file.read_bytes() for file in sorted(options.data.glob("*.dcm"))]
    model = load_models(SHIPPED_MODELS, threads=0, device=options.device).model(options.model)
    view = Waiting(model.engine, Lane(EngineThread(), EXPLANATION), lambda: False)
    wish = StudyWish(model=options.model)
    (series,) = read_series(contents)
    slices = len(series.slices)
    spec = model.bundle.manifest.preprocessing
    pixels = np.stack([prepare(one.frame, spec).pixels for one in series.slices])[..., None]

    def forward() -> None:
        for start in range(0, slices, BATCH):
            model.engine.run(pixels[start : start + BATCH])

    def answer() -> SeriesAnswer:
        return answer_series(series, model, wish, view, lambda share: None)

    answered = answer()
    objects = make_results(answered, wish.kinds).objects
    kind, body = write_multipart(contents)
    request = b"".join(body)
    with (
        started({"RADIOLUCENT_DEVICE": options.device}) as served,
        httpx.Client(base_url=served.url, timeout=600) as client,
    ):

        def over_http() -> None:
            headers = {"content-type": kind, "accept": 'multipart/related; type="application/dicom"'}
            client.post(f"/v1/studies?model={options.model}", content=request, headers=headers).raise_for_status()

        runs: dict[str, Callable[[], object]] = {
            "forward pass": forward,
            "over HTTP": over_http,
            "step: read, decode and arrange": partial(read_series, contents),
            "step: prepare, predict, pool, explain": answer,
            "step: make the DICOM objects": partial(make_results, answered, wish.kinds),
            "step: encode them": partial(encoded, objects),
        }
        found = interleaved(runs, options.rounds, "studies")
    seconds = {name: float(np.median(values)) for name, values in found.items()}
    rows: list[dict[str, Cell]] = [
        {
            "what": name,
            "ms a slice": 1000 * value / slices,
            "slices a second": slices / value,
            "of the forward pass's rate": seconds["forward pass"] / value,
        }
        for name, value in seconds.items()
    ]
    where = machine(options.device, 0)
    show(f"study_throughput: {options.model}, {slices} slices, {len(objects)} objects", rows, where)
    save(options, where, slices=slices, objects=len(objects), rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
