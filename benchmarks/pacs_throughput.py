"""Series through a real Orthanc, STOW-RS in to STOW-RS out, against the bare forward pass on the same cores.

    python -m benchmarks.pacs_throughput DIR [--json FILE]

DIR holds the DICOM files of one series. In every round copies of it with UIDs of their own are sent, and the time runs
until Orthanc has every result. `through Orthanc`: stored in Orthanc by STOW-RS, fetched by the service by WADO-RS,
results stored in Orthanc by STOW-RS. `through the service's door`: the body of the STOW-RS request is sent to the
service (POST /v1/studies?store=orthanc), results as before. Orthanc has the settings of deploy/orthanc, which flush
every file to disk. What the processes did meanwhile is their CPU time; `forward pass` is ONNX Runtime alone in this
process, in batches of 16 of the prepared slices. Orthanc must be installed (Debian: orthanc orthanc-dicomweb).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import psutil
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from benchmarks.harness import Cell, machine, parser, save, show
from benchmarks.served import started
from service.dicom_results.options import DEFAULT_KINDS
from service.dicomweb.archives import Archive
from service.dicomweb.client import store_instances
from service.dicomweb.multipart import write_multipart
from service.preprocessing import prepare
from service.registry import load_models
from service.series.reading import read_series
from service.settings import SHIPPED_MODELS
from tests.orthanc import Orthanc

BATCH = 16
PATIENCE_S = 600.0


def copied(instances: Sequence[Dataset], name: str) -> list[bytes]:
    """The same series under UIDs of its own, as files."""
    contents: list[bytes] = []
    for number, ds in enumerate(instances):
        ds.StudyInstanceUID = generate_uid(entropy_srcs=[name, "study"])
        ds.SeriesInstanceUID = generate_uid(entropy_srcs=[name, "series"])
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[name, str(number)])
        buffer = BytesIO()
        ds.save_as(buffer, enforce_file_format=True)
        contents.append(buffer.getvalue())
    return contents


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children so far."""
    process = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))


class Site:
    """An Orthanc and a running service.

    Args:
        orthanc: started.
        url: of the service.
        pids: of service and Orthanc.
        results: objects made of one series.
    """

    def __init__(self, orthanc: Orthanc, url: str, pids: dict[str, int], results: int) -> None:
        self.orthanc, self.pids, self._results = orthanc, pids, results
        self._archive = Archive(url=orthanc.web)
        self._client = httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False)

    def through_orthanc(self, contents: list[bytes]) -> None:
        """STOW-RS into Orthanc, then ask for the series, as the feed does."""
        store_instances(self._archive, contents)
        header = dcmread(BytesIO(contents[0]), stop_before_pixels=True)
        asked = {
            "source": "orthanc",
            "study_uid": header.StudyInstanceUID,
            "series_uid": header.SeriesInstanceUID,
            "model": "brain-mri-resnet50",
        }
        self._client.post("/v1/series", json=asked).raise_for_status()

    def through_the_door(self, contents: list[bytes]) -> None:
        """The body of a STOW-RS request to the service itself."""
        kind, body = write_multipart(contents)
        path = "/v1/studies?store=orthanc&model=brain-mri-resnet50"
        self._client.post(path, content=b"".join(body), headers={"content-type": kind}).raise_for_status()

    def stored(self) -> int:
        """How many instances Orthanc has."""
        return int(self.orthanc.get("/statistics")["CountInstances"])

    def timed(
        self, send: Callable[[list[bytes]], None], batch: Sequence[list[bytes]], sources: int
    ) -> dict[str, float]:
        """Seconds until all results are there, and CPU seconds of each process.

        Raises:
            TimeoutError: they do not come.
        """
        wanted = self.stored() + len(batch) * (sources + self._results)
        before = {name: cpu_seconds(pid) for name, pid in self.pids.items()}
        start = time.perf_counter()
        for contents in batch:
            send(contents)
        while self.stored() < wanted:
            if time.perf_counter() - start > PATIENCE_S:
                raise TimeoutError(f"{wanted - self.stored()} instances have not come")
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        return {"seconds": seconds} | {name: cpu_seconds(pid) - before[name] for name, pid in self.pids.items()}


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("pacs_throughput", __doc__)
    made.add_argument("data", type=Path, metavar="DIR", help="DICOM files of one series that the rules accept")
    made.add_argument("--series", type=int, default=6, help="copies in a round (default: %(default)s)")
    made.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    options = made.parse_args(arguments)
    instances = [dcmread(file) for file in sorted(options.data.glob("*.dcm"))]
    model = load_models(SHIPPED_MODELS, threads=0, device="cpu").model("brain-mri-resnet50")
    (series,) = read_series(copied(instances, "forward"))
    slices, results = len(series.slices), len(series.slices) + len(DEFAULT_KINDS) - 1
    spec = model.bundle.manifest.preprocessing
    pixels = np.stack([prepare(one.frame, spec).pixels for one in series.slices])[..., None]

    def forward() -> dict[str, float]:
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(options.series):
            for first in range(0, slices, BATCH):
                model.engine.run(pixels[first : first + BATCH])
        return {"seconds": time.perf_counter() - start, "forward pass": time.process_time() - cpu}

    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="radiolucent-pacs-") as folder:
        (Path(folder) / "orthanc").mkdir()
        orthanc = Orthanc(Path(folder) / "orthanc")
        environment = {
            "RADIOLUCENT_ARCHIVES": json.dumps({"orthanc": {"url": orthanc.web}}),
            "RADIOLUCENT_JOBS_DATABASE": f"sqlite:///{folder}/jobs.sqlite",
            "RADIOLUCENT_STUDY_FOLDER": f"{folder}/studies",
            "RADIOLUCENT_SITE_KEY": f"{folder}/site.key",
        }
        orthanc.start()
        try:
            with started(environment) as served:
                assert orthanc.process is not None  # noqa: S101 - for the type checker
                site = Site(orthanc, served.url, {"service": served.pid, "Orthanc": orthanc.process.pid}, results)
                doors = {"through Orthanc": (site.through_orthanc, slices)}
                doors["through the service's door"] = (site.through_the_door, 0)
                for number in range(options.rounds + 1):  # the first is not counted
                    for name, (send, sources) in doors.items():
                        batch = [copied(instances, f"{name} {number} {each}") for each in range(options.series)]
                        found.setdefault(name, []).append(site.timed(send, batch, sources))
                    time.sleep(1)  # the threads of ONNX Runtime go on spinning for a while
                    found.setdefault("forward pass", []).append(forward())
        finally:
            orthanc.close()
    rows = table(found, slices * options.series)
    where = machine("cpu", 0)
    show(f"pacs_throughput: {options.series} series of {slices} slices, {results} objects for each", rows, where)
    save(options, where, slices=slices, objects=results, rows=rows)
    return 0


def table(found: dict[str, list[dict[str, float]]], slices: int) -> list[dict[str, Cell]]:
    """Medians over the rounds but the first, for each slice."""
    median = {
        name: {what: float(np.median([each[what] for each in rounds[1:]])) for what in rounds[0]}
        for name, rounds in found.items()
    }
    forward = median["forward pass"]["seconds"]
    return [
        {
            "what": name,
            "ms a slice": 1000 * values["seconds"] / slices,
            "slices a second": slices / values["seconds"],
            "of the forward pass's rate": forward / values["seconds"],
            "CPU ms a slice": ", ".join(
                f"{what} {1000 * used / slices:.1f}" for what, used in values.items() if what != "seconds"
            ),
        }
        for name, values in sorted(median.items(), key=lambda item: item[1]["seconds"])
    ]


if __name__ == "__main__":
    sys.exit(main())
