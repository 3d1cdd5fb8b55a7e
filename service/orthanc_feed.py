"""Asks the service about every series that becomes complete in an Orthanc: `python -m service.orthanc_feed`.

Orthanc's own event, OnStableSeries, is lost when Orthanc or the receiver dies before it is acted upon. Its change log
is not: every stored instance is in it. This program reads on where it stopped, keeps the series that wait on disk
before it reads further, and forgets one only once the service has accepted it. A series that is asked for twice is
one job, or gives the same objects again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.commands import run_command
from service.database import private_folder
from service.dicomweb.archives import Archive, request
from service.dicomweb.client import check_uid
from service.errors import InvalidParameter, RemoteError, RemoteRefused, RemoteUnavailable
from service.instance_file import write_whole
from service.observability import hashed_uid, logger
from service.observability.logs import set_up_logs
from service.site_key import read_site_key
from service.validation import Strict, faults_of

_PAGE = 100  # changes in one answer
_IDLE_S = 1.0
_LONGEST_S = 60.0  # between tries of one series
_OURS = "Radiolucent"  # Manufacturer (0008,0070) of every result
_NEVER = tuple(  # captures, presentation states, maps, segmentations and reports of anybody; .77 is ophthalmic
    f"1.2.840.10008.5.1.4.1.1.{kind}." for kind in (7, 11, 30, 66, 88)
)


class FeedSettings(BaseSettings):
    """From the environment, each with the prefix RADIOLUCENT_FEED_.

    Attributes:
        orthanc: address of Orthanc's REST interface.
        user: of Orthanc.
        password: of Orthanc.
        service: address of this service.
        token: bearer token, where the service stands behind something that asks for one.
        source: name of Orthanc among the service's archives.
        modalities: of series that are asked about.
        quiet_s: seconds without a new instance after which a series is complete, beside Orthanc's StableAge.
        state: file that remembers; None for one in the user's state folder.
        log_format: `text` or `json`, by RADIOLUCENT_LOG_FORMAT as the service's.
        site_key: file of the key of hashed UIDs, the service's RADIOLUCENT_SITE_KEY; None likewise.
    """

    model_config = SettingsConfigDict(env_prefix="RADIOLUCENT_FEED_", frozen=True, hide_input_in_errors=True)

    orthanc: str = "http://127.0.0.1:8042"
    user: str = ""
    password: SecretStr = SecretStr("")
    service: str = "http://127.0.0.1:3000"
    token: SecretStr = SecretStr("")
    source: str = "orthanc"
    modalities: tuple[str, ...] = ("MR", "OPT")
    quiet_s: float = Field(default=5.0, ge=0)
    state: Path | None = None
    site_key: Path | None = None
    log_format: Literal["text", "json"] = Field(default="text", validation_alias="RADIOLUCENT_LOG_FORMAT")


@dataclass(slots=True)
class _Waiting:
    """A series that is not accepted yet; times by this process's clock."""

    due: float
    failures: int = 0


class _Stored(Strict):
    """What outlives the process: the last change read, and the series it and earlier ones were about."""

    last: int
    waiting: list[str]


@dataclass(slots=True)
class _State:
    """What is known of Orthanc, and kept in a file."""

    last: int = 0
    waiting: dict[str, _Waiting] = field(default_factory=dict[str, _Waiting])

    @staticmethod
    def read(file: Path) -> _State:
        """Raises InvalidParameter where it is damaged: guessing would lose series."""
        if not file.exists():
            return _State()
        try:
            stored = _Stored.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise InvalidParameter(
                f"{file} is damaged ({faults_of(error, 'the whole')}); without it every series is asked about again"
            ) from None
        return _State(stored.last, {series: _Waiting(monotonic()) for series in stored.waiting})

    def write(self, file: Path) -> None:
        write_whole(file, _Stored(last=self.last, waiting=sorted(self.waiting)).model_dump_json().encode())


class OrthancFeed:
    """Reads changes and asks, one step at a time.

    Raises:
        InvalidParameter: what an earlier process left is damaged.
    """

    def __init__(self, settings: FeedSettings, site_key: bytes) -> None:
        self._settings, self._site_key = settings, site_key
        self._file = settings.state or private_folder() / "orthanc-feed.json"
        self._state = _State.read(self._file)
        self._orthanc = Archive(url=settings.orthanc, user=settings.user, password=settings.password, read_s=30.0)
        self._service = Archive(url=settings.service, token=settings.token, read_s=30.0)

    @property
    def waiting(self) -> int:
        """How many series are not accepted yet."""
        return len(self._state.waiting)

    def step(self) -> bool:
        """Read what is new, and ask about what is complete; returns whether there may be more to read at once.

        Raises:
            RemoteError: Orthanc does not answer. What the service does not answer is asked again later.
        """
        done = self._read_changes()
        now = monotonic()
        for series in [series for series, waiting in self._state.waiting.items() if waiting.due <= now]:
            self._handle(series)
        return not done

    def _read_changes(self) -> bool:
        page = self._get(f"/changes?since={self._state.last}&limit={_PAGE}")
        if page["Last"] < self._state.last:  # another or an emptied Orthanc
            self._state.last = 0
            return False
        touched = {self._series_of(each["ID"]) for each in page["Changes"] if each["ChangeType"] == "NewInstance"}
        for series in touched - {None}:
            assert series is not None  # noqa: S101 - for the type checker
            self._state.waiting[series] = _Waiting(monotonic() + self._settings.quiet_s)
        if page["Last"] != self._state.last:
            self._state.last = page["Last"]
            self._state.write(self._file)
        return bool(page["Done"])

    def _handle(self, series: str) -> None:
        """Ask about a series, put it off, or forget it."""
        waiting = self._state.waiting[series]
        found = self._find(f"/series/{series}")
        if found is not None and self._is_wanted(found):
            if not found["IsStable"]:
                waiting.due = monotonic() + _IDLE_S
                return
            if not self._ask(found):
                waiting.failures += 1
                waiting.due = monotonic() + min(_LONGEST_S, 2.0 ** min(waiting.failures, 10) / 2)
                return
        del self._state.waiting[series]
        self._state.write(self._file)

    def _is_wanted(self, series: Mapping[str, Any]) -> bool:
        tags: Mapping[str, str] = series["MainDicomTags"]
        if tags.get("Modality") not in self._settings.modalities or tags.get("Manufacturer") == _OURS:
            return False
        instances: list[str] = series["Instances"]
        kind = self._find(f"/instances/{instances[0]}/metadata/SopClassUid") if instances else None
        return kind is not None and not f"{kind}.".startswith(_NEVER)

    def _ask(self, series: Mapping[str, Any]) -> bool:
        """Whether the service has accepted it, or never will."""
        study = self._find(f"/studies/{series['ParentStudy']}")
        if study is None:
            return True  # deleted meanwhile
        uid: str = series["MainDicomTags"]["SeriesInstanceUID"]
        name = hashed_uid(uid, self._site_key)
        uids = {"study_uid": study["MainDicomTags"]["StudyInstanceUID"], "series_uid": uid}
        try:
            for each in uids.values():
                check_uid(each)
            self._post("/v1/series", json.dumps({"source": self._settings.source, **uids}).encode())
        except InvalidParameter as error:
            logger.error("series %s is left out: %s", name, error)
            return True
        except RemoteError as error:
            logger.warning("series %s is not accepted yet: %s", name, error)
            return False
        logger.info("series %s is accepted", name)
        return True

    def _series_of(self, instance: str) -> str | None:
        found = self._find(f"/instances/{instance}")
        return None if found is None else str(found["ParentSeries"])

    def _get(self, path: str) -> dict[str, Any]:
        found = self._find(path)
        if not isinstance(found, dict):
            raise RemoteUnavailable("Orthanc's answer is none")
        return found

    def _find(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """What Orthanc has at a path; None where it has nothing. Some of its answers are plain text."""
        with request(self._orthanc, "GET", f"{self._orthanc.url.rstrip('/')}{path}", {}) as answer:
            if answer.status_code == 404:
                return None
            if answer.status_code != 200:
                raise RemoteUnavailable(f"Orthanc answers with HTTP status {answer.status_code}")
            return json.loads(answer.content) if answer.content[:1] in (b"{", b"[") else answer.text

    def _post(self, path: str, body: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        with request(self._service, "POST", f"{self._service.url.rstrip('/')}{path}", headers, body) as answer:
            if not 200 <= answer.status_code < 300:
                raise RemoteRefused(f"the service answers with HTTP status {answer.status_code}")


def run(feed: OrthancFeed) -> None:
    """Step until the process ends; whoever is away is waited for."""
    while True:
        try:
            more = feed.step()
        except RemoteError as error:
            logger.warning("Orthanc: %s", error)
            more = False
        if not more:
            time.sleep(_IDLE_S)


def main(arguments: Iterable[str]) -> int:
    """Everything is set by the environment (`FeedSettings`).

    Returns:
        0 where help was asked for, 2 when something is missing or wrong, or it was stopped.
    """
    given = list(arguments)
    if given:
        asked = given in (["-h"], ["--help"])
        (sys.stdout if asked else sys.stderr).write(f"{__doc__}\n{FeedSettings.__doc__}\n")
        return 0 if asked else 2
    return run_command("python -m service.orthanc_feed", _feed)


def _feed() -> None:
    settings = FeedSettings()
    set_up_logs(settings.log_format)
    run(OrthancFeed(settings, read_site_key(settings.site_key)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
