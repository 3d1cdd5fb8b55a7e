"""The loop with a real PACS: Orthanc, the feed and the service as processes on loopback; see `make pacs`.

python -m tests.pacs [DIR ...]         store series, wait for what comes back, open it again through DICOMweb
python -m tests.pacs --kill --series N the same with N small series, while each process is killed at random moments

A DIR holds the DICOM files of one series; without any, series are made from the pictures in docs/images. Status 1 where
something is missing, stored twice, or not what the service answers over HTTP.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ParametricMapStorage, SecondaryCaptureImageStorage
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from service.dicomweb.archives import Archive
from service.dicomweb.client import fetch_series, store_instances
from service.dicomweb.multipart import Limits, write_multipart
from service.errors import RemoteError
from service.rendering import on_frame
from service.types import Region
from tests.dicom_writers import classic_mr, enhanced_mr, ophthalmic_tomography, saved
from tests.orthanc import INSTALLED, Orthanc
from tests.processes import free_port, kill_tree

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 900.0
MODELS = {"MR": "brain-mri-resnet50", "OPT": "retinal-oct-oculusnet"}


class Process:
    """A program that is started, killed and started again."""

    def __init__(self, name: str, arguments: Sequence[str], environment: dict[str, str], folder: Path) -> None:
        self.name, self._arguments, self._environment = name, arguments, os.environ | environment
        self.log = (folder / f"{name}.txt").open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *self._arguments],
            cwd=ROOT,
            env=self._environment,
            stdout=self.log,
            stderr=self.log,
        )

    def kill(self, sign: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None and self._process.poll() is None:
            kill_tree(self._process.pid, sign)
            self._process.wait(60)

    def close(self) -> None:
        self.kill(signal.SIGTERM)
        self.log.close()


class Loop:
    """Orthanc, the service and the feed in one folder."""

    def __init__(self, folder: Path) -> None:
        (folder / "orthanc").mkdir()
        self.orthanc = Orthanc(folder / "orthanc", StableAge=2)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        key = str(folder / "site.key")
        served = {
            "BENTOML_DO_NOT_TRACK": "True",
            "RADIOLUCENT_ARCHIVES": json.dumps({"orthanc": {"url": self.orthanc.web}}),
            "RADIOLUCENT_JOBS_DATABASE": f"sqlite:///{folder / 'jobs.sqlite'}",
            "RADIOLUCENT_STUDY_FOLDER": str(folder / "studies"),
            "RADIOLUCENT_SITE_KEY": key,
            "RADIOLUCENT_JOB_LEASE_S": "3",
        }
        command = ["-m", "bentoml", "serve", "service.app:Radiolucent", "--host", "127.0.0.1", "--port", str(port)]
        self.service = Process("service", command, served, folder)
        fed = {"ORTHANC": self.orthanc.url, "SERVICE": self.url, "QUIET_S": "1", "STATE": str(folder / "feed.json")}
        fed["SITE_KEY"] = key
        feeding = {f"RADIOLUCENT_FEED_{name}": value for name, value in fed.items()}
        self.feed = Process("feed", ["-m", "service.orthanc_feed"], feeding, folder)
        self.archive = Archive(url=self.orthanc.web, attempts=1)

    def start(self) -> None:
        self.orthanc.start()
        self.service.start()
        self.feed.start()

    def close(self) -> None:
        self.feed.close()
        self.service.close()
        self.orthanc.close()

    def kill_one(self, chance: random.Random) -> str:
        """Kill one of the three without warning, and start it again at once."""
        chosen = chance.choice([self.orthanc, self.service, self.feed])
        chosen.kill()
        chosen.start()
        return chosen.name if isinstance(chosen, Process) else "orthanc"

    def found(self, study: str) -> list[tuple[str, str]]:
        """SOP class and SOP instance UID of everything that Orthanc has of a study."""
        answer = httpx.get(
            f"{self.orthanc.web}/studies/{study}/instances",
            headers={"Accept": "application/dicom+json"},
            trust_env=False,
            timeout=30,
        )
        rows = answer.raise_for_status().json() if answer.status_code != 204 else []
        return [(row["00080016"]["Value"][0], row["00080018"]["Value"][0]) for row in rows]


def pictures() -> list[list[Dataset]]:
    """A classic MR series, an Enhanced MR object and an Ophthalmic Tomography object of the pictures in docs/images."""
    brain, retina = (
        np.asarray(Image.open(ROOT / "docs" / "images" / name).convert("L"))
        for name in ("mni152-slice.png", "oct-phantom.png")
    )
    shifted = [np.roll(brain, shift, axis=1) for shift in (-2, 0, 2)]
    return [
        classic_mr(shifted, "pacs-classic"),
        [enhanced_mr(shifted, "pacs-enhanced")],
        [ophthalmic_tomography([retina, retina[:, ::-1].copy()], "pacs-oct")],
    ]


def small(number: int) -> list[Dataset]:
    """Two slices of noise, unlike any other number's."""
    noise = np.random.default_rng(number).integers(20, 250, (2, 64, 64), np.uint8)
    return classic_mr(list(noise), f"kill-{number}")


def read(folder: Path) -> list[Dataset]:
    """The DICOM files of a folder."""
    return [dcmread(file) for file in sorted(folder.glob("*.dcm"))]


def store(loop: Loop, series: Sequence[Dataset], *, dimse: bool) -> None:
    """By storescu (DIMSE) where it is wished and installed, else by STOW-RS."""
    contents = [saved(ds) for ds in series]
    if not dimse or shutil.which("storescu") is None:
        store_instances(loop.archive, contents)
        return
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(contents):
            (Path(folder) / f"{number}.dcm").write_bytes(content)
        command = ["storescu", "-aec", "ORTHANC", "127.0.0.1", str(loop.orthanc.dicom), "+sd", folder]
        subprocess.run(command, check=True, capture_output=True)


def expected(series: Sequence[Dataset]) -> Counter[str]:
    """How many objects of which kind a series and its answer are."""
    frames = sum(int(ds.get("NumberOfFrames") or 1) for ds in series)
    results = {"1.2.840.10008.5.1.4.1.1.30": 1, "1.2.840.10008.5.1.4.1.1.88.34": 1, "1.2.840.10008.5.1.4.1.1.7": frames}
    return Counter(str(ds.SOPClassUID) for ds in series) + Counter(results)


def complete(loop: Loop, series: Sequence[Dataset]) -> bool:
    """Whether everything is there, each once. Raises AssertionError where there is too much."""
    try:
        found = loop.found(series[0].StudyInstanceUID)
    except httpx.HTTPError:
        return False  # it was killed
    wanted = expected(series)
    counted = Counter(kind for kind, _ in found)
    assert counted <= wanted, f"stored twice: {counted - wanted}"
    return counted == wanted


def map_equals_answer(loop: Loop, series: Sequence[Dataset]) -> float:
    """The largest deviation of the stored map from what POST /v1/studies answers, relative to its largest value."""
    kind, body = write_multipart(saved(ds) for ds in series)
    query = f"?model={MODELS[series[0].Modality]}"
    answer = httpx.post(
        f"{loop.url}/v1/studies{query}", content=b"".join(body), headers={"content-type": kind}, timeout=300
    )
    (answered,) = answer.raise_for_status().json()["series"][0]["answers"]
    objects = opened(loop, str(series[0].StudyInstanceUID), answered["objects"])
    (ds,) = [one for one in objects if one.SOPClassUID == ParametricMapStorage]
    volume = np.frombuffer(ds.FloatPixelData, "<f4").reshape(-1, ds.Rows, ds.Columns)
    worst = 0.0
    for plane, one in zip(volume, answered["slices"], strict=True):
        cells = np.array(one["explanation"]["saliency"], np.float32)
        wanted = on_frame(cells, Region(*one["region"]), plane.shape)
        worst = max(worst, float(np.abs(plane - wanted).max() / np.abs(wanted).max()))
    return worst


def opened(loop: Loop, study: str, named: Sequence[dict[str, str]]) -> list[Dataset]:
    """Every object that an answer names, fetched from Orthanc by WADO-RS and read, its pixels too."""
    every = sorted({one["series"] for one in named})
    contents = [content for each in every for content in fetch_series(loop.archive, study, each, Limits())]
    objects = [dcmread(BytesIO(content)) for content in contents]
    assert sorted(ds.SOPInstanceUID for ds in objects) == sorted(one["sop_instance"] for one in named)
    for ds in objects:
        if ds.SOPClassUID == SecondaryCaptureImageStorage:
            assert ds.pixel_array.any()
        elif ds.SOPClassUID == Comprehensive3DSRStorage:
            assert ds.ContentSequence
    return objects


def show(console: Console, loop: Loop, all_series: Sequence[Sequence[Dataset]]) -> bool:
    """Store, wait, look."""
    for number, series in enumerate(all_series):
        store(loop, series, dimse=number % 2 == 0)
    end = time.monotonic() + PATIENCE_S
    waiting = list(all_series)
    with tqdm(total=len(waiting), desc="answered", unit="series") as bar:
        while waiting and time.monotonic() < end:
            left = [series for series in waiting if not complete(loop, series)]
            bar.update(len(waiting) - len(left))
            waiting = left
            time.sleep(0.5)
    table = Table("series", "what Orthanc has of the study", "map against the HTTP answer")
    right = not waiting
    for series in all_series:
        counted = Counter(kind for kind, _ in loop.found(series[0].StudyInstanceUID))
        objects = ", ".join(f"{count} {_name(kind)}" for kind, count in sorted(counted.items()))
        worst = map_equals_answer(loop, series) if complete(loop, series) else float("nan")
        right &= worst <= 1e-5
        table.add_row(f"{series[0].Modality}, {_name(series[0].SOPClassUID)}", objects, f"{worst:.1e}")
    console.print(table)
    return right


def survive(console: Console, loop: Loop, count: int, seed: int) -> bool:
    """Store small series one after another and kill until all are answered."""
    chance = random.Random(seed)
    kills: Counter[str] = Counter()
    to_store = [small(number) for number in range(count)]
    all_series, waiting = list(to_store), list(to_store)
    end, next_kill = time.monotonic() + PATIENCE_S * max(1, count // 50), time.monotonic() + 20
    with tqdm(total=count, desc="answered", unit="series") as bar:
        while waiting and time.monotonic() < end:
            if to_store:
                try:
                    store(loop, to_store[0], dimse=False)
                    to_store.pop(0)
                except RemoteError:
                    time.sleep(0.2)  # killed meanwhile: the sender keeps it, and sends it again
            if time.monotonic() > next_kill:
                kills[loop.kill_one(chance)] += 1
                bar.set_postfix(dict(kills))
                next_kill = time.monotonic() + chance.uniform(1, 12)
            for series in waiting[:4]:
                if complete(loop, series):
                    waiting.remove(series)
                    bar.update()
    time.sleep(5)  # what would be stored twice has time to be
    right = sum(complete(loop, series) for series in all_series)
    console.print(f"{right} of {count} series answered exactly once; killed: {dict(kills)}")
    return right == count


def _name(kind: str) -> str:
    from pydicom.uid import UID

    return UID(kind).keyword.removesuffix("Storage")


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.pacs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="*", metavar="DIR")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--series", type=int, default=100, help="with --kill (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    console = Console()
    if not INSTALLED:
        console.print("Orthanc is not installed; on Debian: apt-get install orthanc orthanc-dicomweb dcmtk")
        return 2
    with tempfile.TemporaryDirectory(prefix="radiolucent-pacs-") as folder:
        loop = Loop(Path(folder))
        try:
            loop.start()
            if options.kill:
                right = survive(console, loop, options.series, options.seed)
            else:
                right = show(console, loop, [*map(read, options.folders), *pictures()])
        finally:
            loop.close()
            if "right" not in locals() or not right:
                for name in ("service", "feed"):
                    console.print((Path(folder) / f"{name}.txt").read_text()[-3000:], markup=False)
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
