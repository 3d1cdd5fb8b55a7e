"""One caller's requests over several worker processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import closing
from hashlib import sha256
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil
import pytest
from bright import write_bundle_into
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import ROOT, Service

from service.access.keys import make_key, write_keys
from service.access.rates import Limits, Rates
from service.access.shared_rates import SharedRates, rates_of
from service.errors import TooManyRequests
from tests.processes import free_port

WORKERS = 3


def outcome(rates: Rates | SharedRates, caller: str) -> str:
    try:
        rates.enter(caller)
    except TooManyRequests as refused:
        return f"{refused.detail} {refused.retry_after}"
    return "passed"


STEPS = st.tuples(
    st.integers(0, WORKERS - 1), st.sampled_from("ab"), st.sampled_from([0.0, 0.0, 1.0, 7.0]), st.booleans()
)


@settings(max_examples=50, deadline=None)
@given(st.lists(STEPS, max_size=60), st.sampled_from([Limits("5/minute"), Limits("9/minute", 2), Limits(at_once=3)]))
def test_workers_together_are_as_one_that_counts_alone(steps, limits):
    now = [100.0]
    alone = Rates(limits, lambda: now[0])
    with TemporaryDirectory() as folder:
        together = [SharedRates(limits, Path(folder), number + 1, WORKERS, lambda: now[0]) for number in range(WORKERS)]
        running: list[tuple[int, str]] = []
        for worker, caller, wait, leaves in steps:
            now[0] += wait
            if leaves and running:
                left, whose = running.pop()
                together[left].leave(whose)
                alone.leave(whose)
            found = outcome(together[worker], caller)
            assert found == outcome(alone, caller)
            if found == "passed":
                running.append((worker, caller))
        for rates in together:
            rates.close()


def crowd(bucket: int):
    """Callers of one bucket of the table."""
    names = (f"key:{number}" for number in count())
    return (name for name in names if int.from_bytes(sha256(name.encode()).digest()[:4]) % 128 == bucket)


def test_a_row_is_anothers_once_its_caller_is_due_and_has_nothing_under_way(tmp_path, clock):
    callers = crowd(7)
    with closing(SharedRates(Limits("60/minute"), tmp_path, 1, 1, clock)) as rates:
        first, *others = [next(callers) for _ in range(64)]
        late, later = next(callers), next(callers)
        for caller in (first, *others):
            rates.enter(caller)
        for caller in others:
            rates.leave(caller)
        assert outcome(rates, late).startswith("too many callers")
        clock.now += 1.0
        assert outcome(rates, late) == "passed"
        rates.leave(first)
        assert outcome(rates, later) == "passed"
        assert outcome(rates, next(crowd(8))) == "passed"


def test_the_file_is_the_users_alone_and_names_nobody(tmp_path):
    with closing(SharedRates(Limits("9/minute"), tmp_path, 1, 2)) as rates:
        rates.enter("key:anna")
    assert stat.S_IMODE((tmp_path / "rates").stat().st_mode) == 0o600
    assert b"anna" not in (tmp_path / "rates").read_bytes()


def test_one_worker_and_one_without_limits_make_no_file_and_one_without_room_counts_alone(tmp_path, caplog):
    assert isinstance(rates_of(Limits("9/minute"), None, 1, 1), Rates)
    assert isinstance(rates_of(Limits(), tmp_path, 1, 2), Rates)
    assert list(tmp_path.iterdir()) == []
    full = Path("/dev/full")
    (tmp_path / "rates").symlink_to(full)
    assert isinstance(rates_of(Limits("9/minute"), tmp_path, 1, 2), Rates)
    assert "counts its callers' requests alone: No space left on device" in caplog.text


ASKS = """
import os, sys
from pathlib import Path
from service.access.rates import Limits
from service.access.shared_rates import SharedRates
from service.errors import TooManyRequests
folder, worker, what = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if what == "dies":
    SharedRates(Limits("9/minute"), folder, worker, 2, lambda: os.kill(os.getpid(), 9)).enter("a")
rates = SharedRates(Limits("20000/hour") if what == "hurries" else Limits(at_once=2), folder, worker, 2, lambda: 9.0)
print("ready", flush=True)
sys.stdin.readline()
passed = 0
try:
    while what == "hurries" or passed < 2:
        rates.enter("a")
        passed += 1
except TooManyRequests:
    pass
print(passed, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def worker(tmp_path):
    """Starts a worker process, of so many, that does what it is told to once it reads a line."""
    begun: list[subprocess.Popen[str]] = []

    def begin(number: int, what: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", ASKS, str(tmp_path), str(number), what]
        begun.append(subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def go(process: subprocess.Popen[str]) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_have_one_rate(worker):
    both = [worker(1, "hurries"), worker(2, "hurries")]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        go(process)
    passed = [int(process.stdout.readline()) for process in both]
    assert sum(passed) == 20_000
    assert min(passed) > 0  # or they were not at it together


def test_what_a_killed_worker_had_under_way_is_forgotten_when_another_takes_its_place(worker, tmp_path):
    with closing(SharedRates(Limits(at_once=2), tmp_path, 2, 2, lambda: 9.0)) as rates:
        victim = worker(1, "holds")
        assert victim.stdout.readline() == "ready\n"
        go(victim)
        assert victim.stdout.readline() == "2\n"
        assert outcome(rates, "a").startswith("2 requests")
        victim.kill()
        victim.wait(30)
        with closing(SharedRates(Limits(at_once=2), tmp_path, 1, 2, lambda: 9.0)):
            assert [outcome(rates, "a") for _ in range(2)] == ["passed", "passed"]
            assert outcome(rates, "a").startswith("2 requests")


def test_a_worker_that_dies_in_its_turn_leaves_it(worker, tmp_path):
    assert worker(1, "dies").wait(30) == -signal.SIGKILL
    with closing(SharedRates(Limits("9/minute"), tmp_path, 2, 2)) as rates:
        assert outcome(rates, "a") == "passed"


@pytest.fixture
def service(tmp_path):
    write_bundle_into(tmp_path / "models", "bright")
    settings = {
        "RADIOLUCENT_WORKERS": "2",
        "RADIOLUCENT_MODELS": str(tmp_path / "models"),
        "RADIOLUCENT_KEYS": str(tmp_path / "keys.json"),
        "RADIOLUCENT_RATE": "40/hour",
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "BENTOML_HOME": str(tmp_path / "bentoml"),
    }
    yield Service(free_port(), tmp_path / "log.txt", settings)


def accepted_by(client: httpx.Client, workers: list[psutil.Process]) -> int:
    """The worker that holds this client's connection."""
    port = client.get("/livez").extensions["network_stream"].get_extra_info("client_addr")[1]
    (holder,) = [w.pid for w in workers if any(c.raddr and c.raddr.port == port for c in w.net_connections())]
    return holder


@pytest.mark.server
def test_a_caller_has_its_rate_once_whichever_worker_answers(service, tmp_path):
    key, record = make_key("hasty", ("predict",), None, "")
    write_keys(tmp_path / "keys.json", (record,))
    service.start()
    clients: dict[int, httpx.Client] = {}
    try:
        workers = [
            child for child in service.supervisor.children() if "_bentoml_impl.worker.service" in child.cmdline()
        ]
        until = time.monotonic() + 60
        while len(clients) < 2:  # new connections, until each worker has taken one
            assert time.monotonic() < until
            client = httpx.Client(base_url=service.address, headers={"Authorization": f"Bearer {key}"}, timeout=60)
            clients.setdefault(accepted_by(client, workers), client)
            if client not in clients.values():
                client.close()
        statuses = [client.get("/v1/models").status_code for _ in range(25) for client in clients.values()]
        assert [status for status in statuses if status != 200] == [429] * 10
        (table,) = tmp_path.glob("bentoml/**/radiolucent-server-*/rates")
        assert record.id.encode() not in table.read_bytes()
        assert os.stat(table).st_mode & 0o777 == 0o600
    finally:
        for client in clients.values():
            client.close()
        service.stop()
