"""A worker as a process of its own, for tests that kill it.

Its archive is a folder, where storing an instance makes a file of its name and every attempt is logged; or a real one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID, generate_uid

from service.composing import JobHandle
from service.dicomweb.archives import Archive
from service.dicomweb.client import fetch_series, store_instances
from service.dicomweb.multipart import Limits
from service.instance_file import InstanceFile
from service.studies.patience import Patience
from service.studies.queue import Made, Steps, StudyWorker
from service.studies.rows import StudyRequest
from service.studies.store import StudyStore
from tests.dicom_writers import saved

PATIENCE = Patience(attempts=50, crashes=2, first_s=0.1, longest_s=1.0)


def open_store(root: Path) -> StudyStore:
    return StudyStore(
        f"sqlite:///{root / 'studies.sqlite'}", root / "studies", lease=0.6, ttl=600, limit=1000, max_bytes=2**30
    )


def steps(archive: Path) -> Steps:
    def fetch(request: StudyRequest) -> Iterator[bytes]:
        for number in range(3):
            time.sleep(0.01)
            yield f"{request.series}.{number}".encode()

    async def answer(request: StudyRequest, source: InstanceFile, handle: JobHandle) -> Made:
        contents = list(source)
        assert len(contents) == 3
        if contents[0].startswith(b"poison"):
            await asyncio.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(0.02)
        return Made((b"result of " + content for content in contents), "{}")

    def store(request: StudyRequest, results: Iterable[bytes]) -> None:
        for result in results:
            time.sleep(0.01)
            with (archive / "log").open("a") as log:
                log.write(result.decode() + "\n")
            (archive / result.decode()).write_bytes(result)

    return Steps(fetch, answer, store)


def result_uid(instance: str) -> UID:
    """SOP Instance UID of the result of a series, by that of its first instance."""
    return generate_uid(entropy_srcs=[instance])


def dicomweb_steps(url: str) -> Steps:
    """The result of a series is a copy of its first instance, in a series of its own whose UIDs follow from it."""
    archive = Archive(url=url, attempts=2, first_delay_s=0.1)

    async def answer(request: StudyRequest, source: InstanceFile, handle: JobHandle) -> Made:
        first = min((dcmread(BytesIO(content)) for content in source), key=lambda ds: int(ds.InstanceNumber))
        assert sum(1 for _ in source) == 3
        first.SeriesInstanceUID = generate_uid(entropy_srcs=[request.series])
        first.SOPInstanceUID = first.file_meta.MediaStorageSOPInstanceUID = result_uid(first.SOPInstanceUID)
        return Made([saved(first)], "{}")

    return Steps(
        lambda request: fetch_series(archive, request.study, request.series, Limits()),
        answer,
        lambda request, results: store_instances(archive, results) and None,
    )


def work(root: Path, *url: str) -> None:
    """What the process does.

    Args:
        root: folder of the queue, and of the archive.
        url: of a real archive's DICOMweb, where it is one.
    """

    async def run() -> None:
        worker = StudyWorker(open_store(root), dicomweb_steps(*url) if url else steps(root / "archive"), PATIENCE)
        worker.start()
        await asyncio.sleep(600)

    asyncio.run(run())
