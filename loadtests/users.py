"""Locust's users: a class for every kind in the mix. Each checks that an answer is the right one for what it asked."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from itertools import count
from types import new_class
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from gevent import sleep
from locust import FastHttpUser, task
from locust.exception import StopUser

from loadtests import mix
from loadtests.answers import Expected, Verdict, judge
from loadtests.bodies import Body, bad_requests, form, image_body, study
from loadtests.offers import Offer, offers_of
from loadtests.payloads import MOST_SLICES, bad_files, uploads
from loadtests.serving import authorization

K = TypeVar("K", bound=mix.Kind)
logger = logging.getLogger(__name__)

TIMEOUT_S = 120.0
_PIECES = 20  # in which a slow client's request arrives


class Unlike(Exception):
    """An answer that is not what was asked for, or none; for Locust's own statistics."""


class LoadUser(FastHttpUser, Generic[K]):
    """What all users have in common."""

    abstract = True
    kind: K
    turns: count[int]  # of all users of the kind
    network_timeout = connection_timeout = TIMEOUT_S

    def wait_time(self) -> float:
        """Seconds of thinking after an answer."""
        return random.uniform(*self.kind.think_s)

    def on_start(self) -> None:
        """Ask once which models there are."""
        self.headers = authorization()
        with self.client.get("/v1/models", name="models", headers=self.headers, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(Unlike(f"status {answer.status_code}"))
                raise StopUser
            self.offers = offers_of(answer.json())

    def pick(self, wanted: Sequence[str]) -> tuple[Offer, str]:
        """A model and one of the wanted methods that it offers, all in turn; a run without any ends with status 2."""
        found = [(offer, method) for offer in self.offers for method in offer.chosen(wanted)]
        if not found:
            logger.error("no model offers any of %s", ", ".join(wanted))
            self.environment.process_exit_code = 2
            if self.environment.runner is not None:
                self.environment.runner.quit()
            raise StopUser
        return found[next(self.turns) % len(found)]

    def ask(self, operation: str, path: str, body: Body, expected: Expected) -> None:
        """Post, and judge the answer."""
        headers = {"Content-Type": body.kind, **self.headers}
        content: Any = body.content  # Locust's annotation forgets bytes
        with self.client.request(
            "POST", path, name=operation, data=content, headers=headers, catch_response=True
        ) as answer:
            retry: Any = answer.headers.get("retry-after") if answer.headers else None
            verdict = judge(answer.status_code, retry, answer.content or b"", expected)
            answer.request_meta["context"] = _context(verdict)
            if verdict.outcome in ("answered", "refused"):
                answer.success()
            else:
                answer.failure(Unlike(verdict.fault or verdict.outcome))


class ReadingRoom(LoadUser[mix.ReadingRoom]):
    """Someone who opens image after image."""

    abstract = True

    @task
    def read(self) -> None:
        """One image, its evidence, perhaps drawn."""
        offer, method = self.pick(self.kind.methods)
        overlay = random.random() < self.kind.overlay
        extra = (("method", method), *((("overlay", "true"),) if overlay else ()))
        body = image_body(offer.model, offer.modality, random.choice(self.kind.formats), random.randrange(8), 1, extra)
        self.ask(f"explain {method}", "/v1/explain", body, Expected(explained=True, overlay=overlay))


class PacsBurst(LoadUser[mix.PacsBurst]):
    """A modality that sends its series."""

    abstract = True

    @task
    def send(self) -> None:
        """A series at once."""
        least, most = self.kind.slices
        slices = min(most, round(least * (most / least) ** random.random()))
        if self.kind.door == "studies":
            self.ask("study", "/v1/studies", study(min(slices, MOST_SLICES)), Expected(slices, study=True))
            return
        offer, method = self.pick(("default",))
        body = image_body(offer.model, offer.modality, "dicom", 0, slices, (("method", method),))
        self.ask("burst", "/v1/explain", body, Expected(slices, explained=True))


class ExplanationHeavy(LoadUser[mix.ExplanationHeavy]):
    """Someone who wants to know it exactly."""

    abstract = True

    @task
    def explain(self) -> None:
        """One image by a method that asks much of the model."""
        offer, method = self.pick(self.kind.methods)
        extra = (("method", method), ("deadline_ms", str(self.kind.deadline_ms)))
        body = image_body(offer.model, offer.modality, "png", random.randrange(8), 1, extra)
        self.ask(f"explain {method}", "/v1/explain", body, Expected(explained=True, hurried=True))


class MixedMethods(LoadUser[mix.MixedMethods]):
    """Someone who compares methods."""

    abstract = True

    @task
    def ask_any(self) -> None:
        """One image or several, predicted or explained."""
        offer, method = self.pick(self.kind.methods)
        images, first = random.randint(*self.kind.images), random.randrange(8)
        if random.random() < self.kind.predictions:
            body = image_body(offer.model, offer.modality, "png", first, images, ())
            self.ask("predict", "/v1/predict", body, Expected(images))
        else:
            body = image_body(offer.model, offer.modality, "png", first, images, (("method", method),))
            self.ask(f"explain {method}", "/v1/explain", body, Expected(images, explained=True))


class SlowClient(LoadUser[mix.SlowClient]):
    """Someone behind a line that drips; the time counts from the last byte sent."""

    abstract = True

    @task
    def drip(self) -> None:
        """One image, in pieces."""
        offer, method = self.pick(("default",))
        body = image_body(offer.model, offer.modality, "png", random.randrange(8), 1, (("method", method),))
        began, sent = time.time(), time.perf_counter()
        try:
            connection = self._sent(body)
            began, sent = time.time(), time.perf_counter()
            answer = connection.getresponse()
            verdict = judge(answer.status, answer.getheader("retry-after"), answer.read(), Expected(explained=True))
            connection.close()
        except (OSError, HTTPException) as error:
            verdict = Verdict("wrong", fault=type(error).__name__)
        good = verdict.outcome in ("answered", "refused")
        self.environment.events.request.fire(
            request_type="POST",
            name="slow client",
            start_time=began,
            response_time=1000 * (time.perf_counter() - sent),
            response_length=0,
            exception=None if good else Unlike(verdict.fault or verdict.outcome),
            context=_context(verdict),
        )

    def _sent(self, body: Body) -> HTTPConnection:
        at = urlsplit(str(self.host))
        make = HTTPSConnection if at.scheme == "https" else HTTPConnection
        connection = make(at.hostname or "", at.port, timeout=TIMEOUT_S)
        connection.putrequest("POST", f"{at.path}/v1/explain")
        for name, value in {
            "Content-Type": body.kind,
            "Content-Length": str(len(body.content)),
            **self.headers,
        }.items():
            connection.putheader(name, value)
        connection.endheaders()
        pause, size = random.uniform(*self.kind.send_s) / _PIECES, -(-len(body.content) // _PIECES)
        for start in range(0, len(body.content), size):
            sleep(pause)
            connection.send(body.content[start : start + size])
        return connection


class BadInput(LoadUser[mix.BadInput]):
    """Someone, or something, that sends what cannot be answered."""

    abstract = True

    @task(2)
    def file_among_good_ones(self) -> None:
        """A bad file between two good ones: it must fail alone, by name."""
        offer, method = self.pick(("default",))
        kind, bad = random.choice(list(bad_files().items()))
        good = uploads()[offer.modality]
        body = form({"model": offer.model, "method": method}, (good[0], bad, good[1]))
        self.ask("bad input", "/v1/explain", body, Expected(3, explained=True, failed={1: kind}))

    @task
    def request(self) -> None:
        """A request that must be refused as a whole."""
        offer, method = self.pick(("default",))
        path, body, problem = random.choice(list(bad_requests(offer.model, method, uploads()[offer.modality][0])))
        self.ask("bad input", path, body, Expected(problem=problem))


def make_users(chosen: mix.Mix) -> dict[str, type[FastHttpUser]]:
    """A class that Locust runs for every kind of the mix, by the kind's name."""
    classes = (ReadingRoom, PacsBurst, ExplanationHeavy, MixedMethods, SlowClient, BadInput)
    by_name: dict[str, type[FastHttpUser]] = dict(zip(mix.Mix.model_fields, classes, strict=True))
    made: dict[str, type[FastHttpUser]] = {}
    for name, kind in chosen.kinds.items():
        members = {"kind": kind, "weight": kind.weight, "abstract": False, "turns": count(), "__module__": __name__}
        made[name] = new_class(name, (by_name[name],), exec_body=lambda space, members=members: space.update(members))
    return made


def _context(verdict: Verdict) -> dict[str, Any]:
    return {"outcome": verdict.outcome, "images": verdict.images}
