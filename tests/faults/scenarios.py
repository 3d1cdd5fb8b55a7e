"""The faults, each injected from outside: by signals, by images, by the disk, by clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import struct
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from brittle import Mark

from service.dicomweb.multipart import write_multipart
from tests.faults import slow
from tests.faults.load import BROKEN, MODEL, REFUSED, Exchange, Load, load
from tests.faults.scene import AFTER_S, WARM_S, Finding, begin_job, client_of, finding, job_end, stage, until
from tests.fuzz.seeds import synthetic

_FAULTY = 0.08  # share of images that a model fails on
_ARCHIVE = {"RADIOLUCENT_ARCHIVES": '{"pacs": {"url": "http://127.0.0.1:9/dicom-web"}}'}
_STALL_S = 3.0
_FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


async def worker_killed() -> Finding:
    """SIGKILL to the process that serves, with a job running in it."""
    async with stage() as service, client_of(service) as client, load(service.address) as seen:
        await asyncio.sleep(WARM_S)
        job = (await begin_job(client, "dawdles")).headers["location"]
        killed = service.worker()
        assert killed is not None
        since = perf_counter()
        killed.kill()
        await until(lambda: any(one.good and one.began > since for one in seen.exchanges), 30)
        await asyncio.sleep(AFTER_S)
        ended = await job_end(client, job)
        worker = service.worker()
    broken = [one for one in seen.exchanges if one.outcome == BROKEN]
    claims = {
        "another worker serves": worker is not None and worker.pid != killed.pid,
        "only requests in flight failed": all(one.began <= since + 0.1 for one in broken),
        "the job was done by the next worker": ended == "done",
    }
    return finding("a worker is killed", seen, since, claims, {"in flight at the kill": len(broken)})


async def session_raises() -> Finding:
    """One image in twelve makes ONNX Runtime fail."""
    return await _poisoned("the session raises", "raises")


async def memory_runs_out() -> Finding:
    """One image in twelve asks ONNX Runtime for petabytes."""
    return await _poisoned("memory runs out in a batch", "exhausts")


async def _poisoned(fault: str, mark: Mark) -> Finding:
    async with stage() as service:
        since = perf_counter()
        async with load(service.address, clients=16, marks={mark: _FAULTY}) as seen:
            await asyncio.sleep(WARM_S + AFTER_S)
        async with load(service.address) as after:
            await asyncio.sleep(1)
        log = service.log.read_text()
    whole = [one for one in seen.exchanges if one.marks and all(one.marks)]
    rest = [one for one in seen.exchanges if not all(one.marks)]
    claims = {
        "requests of such images alone are 500 model-failed": {one.outcome for one in whole} == {"500 model-failed"},
        "all others are answered": {one.outcome for one in rest} == {"200"},
        "only the culprits of a request failed": all(map(_only_culprits_failed, rest)),
        "the log has every culprit's request id": all(one.request_id in log for one in whole),
        "later requests are answered": {one.outcome for one in after.exchanges} == {"200"},
    }
    figures = {
        "images": sum(len(one.marks) for one in seen.exchanges),
        "culprits": sum(mark is not None for one in seen.exchanges for mark in one.marks),
    }
    return finding(fault, Load(seen.exchanges + after.exchanges), since, claims, figures)


def _only_culprits_failed(one: Exchange) -> bool:
    return one.images == tuple("model-failed" if mark else "ok" for mark in one.marks)


async def disk_full() -> Finding:
    """State folder and temporary files on a file system without a free byte; then there is room again."""

    def on_small_disk(folder: Path) -> list[str]:
        mount = f"mount -t tmpfs -o size=8m none {folder}/state && mkdir {folder}/state/tmp"
        script = f'{mount} && exec env TMPDIR={folder}/state/tmp "$@"'
        return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]

    async with stage(_ARCHIVE, on_small_disk) as service, client_of(service) as client, load(service.address) as seen:
        await asyncio.sleep(WARM_S)
        log = service.log.parent
        filler = Path(f"/proc/{service.supervisor.pid}/root{log}/state/filler")
        since = perf_counter()
        _fill(filler)
        large = [("images", ("large.png", bytes(2 * 2**20)))]
        kind, body = write_multipart(synthetic()[:1])
        study = {"content": b"".join(body), "headers": {"content-type": kind}}
        full = [
            await begin_job(client),
            await client.post("/v1/studies", params={"store": "pacs"}, **study),
            await client.post("/v1/predict", data={"model": MODEL}, files=large),  # beyond 1 MiB it goes to the disk
        ]
        await asyncio.sleep(WARM_S)
        ready = (await client.get("/readyz")).status_code
        full_p95 = seen.p95(since, perf_counter())
        filler.unlink()
        freed = perf_counter()
        job = await begin_job(client)
        ended = await job_end(client, job.headers.get("location", "/v1/explanations/none"))
        await asyncio.sleep(1)
    claims = {
        "jobs, studies and large uploads are 507": {one.status_code for one in full} == {507},
        "with a problem": all(one.headers["content-type"] == "application/problem+json" for one in full),
        "explanations at once go on": {one.outcome for one in seen.exchanges} == {"200"},
        "the service stays ready": ready == 200,
        "with room again a job is taken, and done": ended == "done",
    }
    figures = {"p95 before, ms": seen.p95(0, since), "p95 while full, ms": full_p95}
    return finding("the disk is full", seen, since, claims, figures | {"done again after, s": _ago(freed)})


async def clock_jumps() -> Finding:
    """The wall clock of the service jumps 50 minutes ahead, then 100 back, with jobs under way."""
    if not _FAKETIME:
        raise RuntimeError("libfaketime is missing (Debian: faketime)")
    with tempfile.TemporaryDirectory() as name:
        clock = Path(name) / "clock"
        clock.write_text("+0")
        settings = {
            "LD_PRELOAD": str(_FAKETIME[0]),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_CACHE_DURATION": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        async with stage(settings) as service, client_of(service) as client, load(service.address) as seen:
            await asyncio.sleep(WARM_S)
            since, jobs = perf_counter(), []
            for jump in ("+3000", "-3000"):
                jobs.append((await begin_job(client, "dawdles")).headers["location"])
                clock.write_text(jump)
                await asyncio.sleep(WARM_S)
                jobs.append((await begin_job(client)).headers["location"])
            created = datetime.fromisoformat((await client.get(jobs[-1])).json()["created"])
            told = created - datetime.now(UTC)
            ended = [await job_end(client, job) for job in jobs]
            await asyncio.sleep(1)
    claims = {
        "the service's clock did jump": abs(told.total_seconds() + 3000) < 60,
        "explanations at once go on": {one.outcome for one in seen.exchanges} == {"200"},
        "jobs from before, between and after are done": ended == ["done"] * 4,
    }
    return finding("the clock jumps", seen, since, claims)


async def slow_clients() -> Finding:
    """Clients that send nothing, a head or a body by the byte, or that do not read, 50 of each; patience is 3 s."""
    settings = {"RADIOLUCENT_STALL_S": f"{_STALL_S:g}"}
    async with stage(settings) as service, load(service.address) as seen:
        await asyncio.sleep(WARM_S)
        since = perf_counter()
        crowd = [slow.client(kind, service.address) for kind in slow.KINDS for _ in range(50)]
        await asyncio.sleep(_STALL_S / 2)
        held = slow.held(service, crowd)
        gone = await until(lambda: slow.held(service, crowd) == 0, 4 * _STALL_S)
        during = seen.p95(since, perf_counter())
        await asyncio.sleep(1)
        told = sum(b" 408 " in one.heard() for one in crowd if one.kind == "body")
        for one in crowd:
            one.close()
    claims = {
        "they were connected": held == len(crowd),
        "all others are answered": {one.outcome for one in seen.exchanges} == {"200"},
        "all of them are sent away": gone < float("inf"),
        "slow bodies hear 408": told == 50,
    }
    figures = {
        "slow clients": len(crowd),
        "sent away after, s": round(_STALL_S / 2 + gone, 1),
        "p95 before, ms": seen.p95(0, since),
        "p95 during, ms": during,
    }
    return finding("slow and half-open clients", seen, since, claims, figures)


async def prometheus_gone() -> Finding:
    """A scraper that asks twice a second, then 20 that ask and vanish without reading, then none."""
    async with stage() as service, client_of(service) as client, load(service.address) as seen:
        scrapes = []
        for _ in range(6):
            scrapes.append((await client.get("/metrics")).status_code)
            await asyncio.sleep(WARM_S / 6)
        since = perf_counter()
        for _ in range(20):
            with socket.create_connection(slow.place_of(service.address)) as one:
                one.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST
        await asyncio.sleep(AFTER_S)
        after = perf_counter()
        back = (await client.get("/metrics")).text
    claims = {
        "it was scraped before": set(scrapes) == {200},
        "explanations at once go on": {one.outcome for one in seen.exchanges} == {"200"},
        "nothing was lost when it is back": f'model="{MODEL}"' in back,
    }
    figures = {"p95 before, ms": seen.p95(0, since), "p95 while gone, ms": seen.p95(since, after)}
    return finding("Prometheus is gone", seen, since, claims, figures)


async def terminated() -> Finding:
    """SIGTERM to the service, as an orchestrator sends it, while 16 clients ask and images that take a second wait."""
    async with stage() as service, load(service.address, clients=16, marks={"dawdles": 0.01}) as seen:
        await asyncio.sleep(WARM_S + 1)
        since = perf_counter()
        service.supervisor.send_signal(signal.SIGTERM)
        status = await asyncio.to_thread(service.wait, 60)
        took = perf_counter() - since
    inside = [one for one in seen.exchanges if one.began < since < one.ended]
    late = [one for one in seen.exchanges if one.began > since]
    claims = {
        "what was in flight is answered": bool(inside) and {one.outcome for one in inside} == {"200"},
        "later requests are answered or turned away": {one.outcome for one in late} <= {"200", REFUSED, BROKEN},
        "the exit status is 0": status == 0,
    }
    before = Load([one for one in seen.exchanges if one.began < since])
    figures = {
        "in flight at the signal": len(inside),
        "later, answered": sum(one.good for one in late),
        "later, turned away": sum(not one.good for one in late),
        "exit after, s": round(took, 2),
    }
    return finding("SIGTERM", before, since, claims, figures)


SCENARIOS = {
    "kill": worker_killed,
    "raise": session_raises,
    "memory": memory_runs_out,
    "disk": disk_full,
    "clock": clock_jumps,
    "slow": slow_clients,
    "prometheus": prometheus_gone,
    "term": terminated,
}


def _fill(file: Path) -> None:
    """Write until there is no room for another byte."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def _ago(since: float) -> float:
    return round(perf_counter() - since, 1)
