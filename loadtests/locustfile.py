"""Locust users: predict and explain, with one image and with several, on every model that the service offers.

    locust -f loadtests/locustfile.py --headless -u 8 -r 4 -t 60s --host http://127.0.0.1:3000

An answer counts as a success where every image was answered and every explanation is there with its map.
"""

from __future__ import annotations

import itertools
from typing import Any

from locust import HttpUser, between, task

from loadtests.payloads import uploads

MANY = 8


class ReadingRoom(HttpUser):
    """Someone (or some PACS) that sends images and reads the answers."""

    abstract = True
    images = 1
    path = "/v1/predict"
    overlay = False
    wait_time = between(0.0, 0.05)

    def on_start(self) -> None:
        """Ask once which models there are."""
        models = self.client.get("/v1/models", name="models").json()["models"]
        self.models = itertools.cycle(
            [(model["id"], model["kind"]["modalities"][0]) for model in models if model["task"] == "classification"]
        )

    @task
    def send(self) -> None:
        """Send images to the next model."""
        model, modality = next(self.models)
        files = [upload.part() for upload in uploads()[modality][: self.images]]
        fields = {"model": model, **({"overlay": "true"} if self.overlay else {})}
        name = f"{self.path.rpartition('/')[2]} {self.images} {model}{' overlay' if self.overlay else ''}"
        with self.client.post(self.path, data=fields, files=files, name=name, catch_response=True) as answer:
            fault = f"status {answer.status_code}" if answer.status_code != 200 else self.fault(answer.json())
            if fault:
                answer.failure(fault)

    def fault(self, body: dict[str, Any]) -> str | None:
        """What is wrong with an answer, or None."""
        results = body["results"]
        if len(results) != self.images:
            return f"{len(results)} results for {self.images} images"
        if any(result["status"] != "ok" for result in results):
            return "an image failed"
        if self.path.endswith("explain") and not all(map(self.explained, results)):
            return "an explanation is missing"
        return None

    def explained(self, result: dict[str, Any]) -> bool:
        """Whether a result holds a map of the shape that it states, and a picture where one was asked for."""
        explanations = result["explanations"]
        return bool(explanations) and all(
            [len(e["saliency"]), len(e["saliency"][0])] == e["shape"] and bool(e["overlay"]) == self.overlay
            for e in explanations
        )


class PredictOne(ReadingRoom):
    """One image a request."""


class PredictMany(ReadingRoom):
    """Several images a request."""

    images = MANY


class ExplainOne(ReadingRoom):
    """One image a request, with its explanation."""

    path = "/v1/explain"


class ExplainMany(ReadingRoom):
    """Several images a request, with their explanations."""

    path = "/v1/explain"
    images = MANY


class OverlayOne(ReadingRoom):
    """One image a request, with its explanation drawn over it."""

    path = "/v1/explain"
    overlay = True
