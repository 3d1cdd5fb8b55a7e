"""A worker as a process of its own, for tests that kill it: `python -m study_worker FOLDER`.

Its archive is a folder: storing an instance makes a file of its name unless it is there; every attempt is logged.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from service.instance_file import InstanceFile
from service.pipeline import JobHandle
from service.study_queue import Made, Patience, Steps, StudyWorker
from service.study_rows import StudyRequest
from service.study_store import StudyStore

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


async def main(root: Path) -> None:
    worker = StudyWorker(open_store(root), steps(root / "archive"), PATIENCE)
    worker.start()
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
