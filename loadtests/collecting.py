"""Gathers the samples of a Locust run, from wherever its users are: this process, or workers on other machines."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.samples import Sample, columns_of
from training.files import write_atomically

_KEY = "radiolucent_samples"  # in a worker's reports to the master


def sample_of(
    name: str, response_time: float, start_time: float, exception: Exception | None, context: dict[str, Any]
) -> Sample:
    """The sample of Locust's `request` event; requests that no verdict came with are wrong where they failed."""
    outcome = context.get("outcome", "wrong" if exception else "answered")
    return Sample(start_time, response_time, name, outcome, context.get("images", 0))


def listen(environment: Environment, out: Path) -> None:
    """Collect from now on, and write `columns_of` the samples to `out` when Locust ends; a worker reports instead."""
    samples: list[Sample] = []

    @environment.events.request.add_listener
    def note(
        name: str,
        response_time: float,
        start_time: float,
        exception: Exception | None,
        context: dict[str, Any],
        **_: object,
    ) -> None:
        samples.append(sample_of(name, response_time, start_time, exception, context))

    if isinstance(environment.runner, WorkerRunner):

        @environment.events.report_to_master.add_listener
        def report(data: dict[str, Any], **_: object) -> None:
            data[_KEY] = [astuple(sample) for sample in samples]
            samples.clear()

        return
    if isinstance(environment.runner, MasterRunner):

        @environment.events.worker_report.add_listener
        def receive(data: dict[str, Any], **_: object) -> None:
            samples.extend(Sample(*row) for row in data.get(_KEY, []))

    @environment.events.quit.add_listener
    def write(**_: object) -> None:
        write_atomically(out, json.dumps(columns_of(samples)).encode())
