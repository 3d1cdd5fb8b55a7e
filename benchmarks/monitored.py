"""The service under a mixed load with Prometheus beside it, and the dashboard's picture of that.

    python -m benchmarks.monitored docs/images/dashboard.png [--minutes 2.5]

Starts the service and Debian's `prometheus` with the shipped configuration, scraping every 2 s instead of 15. The load
is drawn at random with a fixed seed: single images, batches, slow methods, outlines, jobs, DICOM series, images of
another kind, damaged files and unknown paths. Everything runs on loopback and is stopped at the end.
"""

from __future__ import annotations

import argparse
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import httpx
import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.dashboard import ROOT, save
from benchmarks.served import started
from loadtests.payloads import uploads
from tests.dicom_writers import classic_mr, saved

BRAIN, RETINA, OUTLINES = "brain-mri-resnet50", "retinal-oct-oculusnet", "brain-mri-unet"
_USERS = 3
Act = Callable[[httpx.Client, random.Random], httpx.Response]


def _post(client: httpx.Client, path: str, fields: dict[str, str], files: list[bytes]) -> httpx.Response:
    return client.post(path, data=fields, files=[("images", ("image", content)) for content in files])


def _images(chance: random.Random, modality: str, count: int) -> list[bytes]:
    return [each.content for each in chance.choices(uploads()[modality], k=count)]


def _explain(model: str, modality: str, most: int = 1, **fields: str) -> Act:
    def act(client: httpx.Client, chance: random.Random) -> httpx.Response:
        files = _images(chance, modality, chance.randint(1, most))
        return _post(client, "/v1/explain", {"model": model} | fields, files)

    return act


def _predict(client: httpx.Client, chance: random.Random) -> httpx.Response:
    return _post(client, "/v1/predict", {"model": BRAIN}, _images(chance, "MR", 8))


def _outline(client: httpx.Client, chance: random.Random) -> httpx.Response:
    return _post(client, "/v1/segment", {"model": OUTLINES}, _images(chance, "MR", 1))


def _job(client: httpx.Client, chance: random.Random) -> httpx.Response:
    fields = {"model": BRAIN, "method": "rise", "budget": "64"}
    return _post(client, "/v1/explanations", fields, _images(chance, "MR", 1))


def _damaged(client: httpx.Client, chance: random.Random) -> httpx.Response:
    return _post(client, "/v1/explain", {"model": BRAIN}, [_images(chance, "MR", 1)[0][:2000]])


def _other_kind(client: httpx.Client, chance: random.Random) -> httpx.Response:
    pixels = np.random.default_rng(chance.randrange(1000)).integers(0, 256, (256, 256, 3), np.uint8)
    picture = BytesIO()
    Image.fromarray(pixels).save(picture, "PNG")
    return _post(client, "/v1/predict", {"model": BRAIN}, [picture.getvalue()])


def _series(client: httpx.Client, chance: random.Random) -> httpx.Response:
    slices = [np.asarray(Image.open(BytesIO(content)).convert("L")) for content in _images(chance, "MR", 4)]
    archive = BytesIO()
    with ZipFile(archive, "w") as file:
        for number, one in enumerate(classic_mr(slices, f"monitored-{chance.randrange(10**9)}")):
            file.writestr(str(number), saved(one))
    headers = {"Content-Type": "application/zip", "Accept": "application/json"}
    return client.post(f"/v1/studies?model={BRAIN}", content=archive.getvalue(), headers=headers)


def _lost(client: httpx.Client, chance: random.Random) -> httpx.Response:
    return client.get(f"/nowhere/{chance.randrange(100)}")


MIX: tuple[tuple[float, Act], ...] = (
    (30, _explain(BRAIN, "MR", overlay="true")),
    (15, _explain(RETINA, "OPT")),
    (8, _explain(BRAIN, "MR", 8)),
    (10, _predict),
    (8, _outline),
    (6, _explain(BRAIN, "MR", method="layercam")),
    (4, _explain(RETINA, "OPT", method="occlusion", budget="32")),
    (3, _job),
    (3, _series),
    (5, _damaged),
    (5, _other_kind),
    (3, _lost),
)


def load(url: str, seconds: float, seed: int = 0) -> dict[int, int]:
    """Some users who post one request after another, with pauses; returns how often each status was answered."""
    end = time.monotonic() + seconds
    counts: dict[int, int] = {}
    weights, acts = zip(*MIX, strict=True)

    def user(number: int) -> None:
        chance = random.Random(seed + number)  # noqa: S311
        with httpx.Client(base_url=url, timeout=120) as client:
            while time.monotonic() < end:
                status = chance.choices(acts, weights)[0](client, chance).status_code
                counts[status] = counts.get(status, 0) + 1
                time.sleep(chance.expovariate(10))

    with ThreadPoolExecutor(_USERS) as pool, tqdm(total=round(seconds), desc="load", unit="s") as bar:
        users = [pool.submit(user, number) for number in range(_USERS)]
        while time.monotonic() < end:
            time.sleep(1)
            bar.update(1)
        for each in users:
            each.result()
    return counts


@contextmanager
def prometheus(folder: Path, target: str) -> Generator[str, None, None]:
    """The address of a Prometheus with the shipped configuration that scrapes `target` (host:port) every 2 s."""
    shutil.copytree(ROOT / "deploy" / "prometheus", folder / "configuration")
    configuration = folder / "configuration" / "prometheus.yml"
    configuration.write_text(configuration.read_text().replace("radiolucent:3000", target).replace("15s", "2s"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{probe.getsockname()[1]}"
    options = [f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={at}"]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(["prometheus", *options], stdout=log, stderr=log)
    try:
        yield f"http://{at}"
    finally:
        process.terminate()
        process.wait(30)


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.monitored",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("out", type=Path, help="PNG")
    made.add_argument("--minutes", type=float, default=2.5, help="of load (default: %(default)s)")
    options = made.parse_args(arguments)
    with TemporaryDirectory() as name:
        folder = Path(name)
        state = {"XDG_STATE_HOME": str(folder / "state")}
        with started(state) as served, prometheus(folder, served.url.removeprefix("http://")) as address:
            counts = load(served.url, 60 * options.minutes)
            time.sleep(6)
            save(address, options.out, options.minutes + 0.2)
    sys.stdout.write(f"answers by status: {dict(sorted(counts.items()))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
