"""A job that runs for longer than it is kept ends, and makes room for others."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing

import numpy as np
import pytest
from bright import SIDE, offer, png, write_bundle_into

from service.composing import Wish
from service.errors import UnknownJob
from service.explainers.base import Options
from service.jobs import worker
from service.jobs.store import JobStore
from service.jobs.worker import JobWorker, request_of
from service.pipeline import Pipeline
from service.settings import Settings

PATIENCE_S = 60
FILES = [("a.png", png(np.random.default_rng(0).integers(60, 256, (SIDE, SIDE), np.uint8)))]


def test_a_job_that_expires_while_it_runs_is_deleted_and_the_next_one_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_SWEEP_S", 0.1)
    offer(write_bundle_into(tmp_path / "models", "bright"), "rise")
    url = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    pipeline = Pipeline(Settings(models=tmp_path / "models", threads=1, device="cpu"))

    async def scenario(short: JobStore, long: JobStore) -> None:
        endless = request_of("bright", Wish("rise", options=Options(budget=100_000)))
        first = short.add(endless, FILES * 64).id
        second = long.add(request_of("bright", Wish("gradcam")), FILES).id
        jobs = JobWorker(long, pipeline)
        jobs.start()
        until = time.monotonic() + PATIENCE_S
        while long.get(second).status != "done":
            assert time.monotonic() < until, "the next job waits"
            await asyncio.sleep(0.1)
        with pytest.raises(UnknownJob):
            long.get(first)
        assert long.files(first) == []
        await jobs.stop()

    with (
        closing(JobStore(url, lease=15, ttl=3, limit=10)) as short,
        closing(JobStore(url, lease=15, ttl=600, limit=10)) as long,
    ):
        asyncio.run(scenario(short, long))
