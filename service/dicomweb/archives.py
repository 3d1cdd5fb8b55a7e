"""Archives that speak DICOMweb: which are configured, and how they are called."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, SecretStr

from service.errors import RemoteUnavailable, UnknownSource
from service.validation import Strict

if TYPE_CHECKING:
    from requests import Response


class Archive(Strict):
    """A PACS that speaks DICOMweb, as it is configured.

    Attributes:
        url: where `/studies` is appended to.
        user: for HTTP basic authentication, with `password`.
        password: see `user`.
        token: for bearer authentication.
        ca: certificates that sign the archive's; None for the usual ones.
        certificate: this service's, in PEM, where the archive asks for one.
        key: of `certificate`.
        connect_s: seconds to wait for a connection.
        read_s: seconds to wait for the next bytes.
        total_s: seconds that one request may take in all.
        attempts: tries before the queue's own patience begins.
        first_delay_s: after the first failure; doubles.
    """

    url: str = Field(pattern=r"^https?://[^\s?#]+$")
    user: str = ""
    password: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    connect_s: float = Field(default=5.0, gt=0)
    read_s: float = Field(default=60.0, gt=0)
    total_s: float = Field(default=1800.0, gt=0)
    attempts: int = Field(default=3, ge=1)
    first_delay_s: float = Field(default=0.5, ge=0)


def find_archive(archives: Mapping[str, Archive], source: str = "", wado_url: str = "") -> str:
    """The name of the configured archive that is meant.

    Args:
        archives: all that are configured, by name.
        source: a name.
        wado_url: an address instead; it must be a configured one, or anybody could make this service call anything.

    Raises:
        UnknownSource: neither names a configured archive.
    """
    asked = wado_url.rstrip("/")
    for name, archive in archives.items():
        if name == source or (not source and asked == archive.url.rstrip("/")):
            return name
    raise UnknownSource("the source is not configured; see the setting RADIOLUCENT_ARCHIVES")


@contextmanager
def request(
    archive: Archive, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
) -> Generator[Response]:
    """An answer whose body is read while it arrives; whatever breaks then is RemoteUnavailable.

    Redirects are not followed, and the environment's proxies and passwords not used: only what is configured is called.
    """
    import requests
    import urllib3

    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # its warnings and debug lines quote addresses
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update(headers)
        session.verify = str(archive.ca) if archive.ca else True
        if archive.certificate:
            session.cert = (str(archive.certificate), str(archive.key or archive.certificate))
        if archive.user:
            session.auth = (archive.user, archive.password.get_secret_value())
        elif archive.token:
            session.headers["Authorization"] = f"Bearer {archive.token.get_secret_value()}"
        patience = (archive.connect_s, archive.read_s)
        try:
            with session.request(
                method, url, data=body, timeout=patience, stream=True, allow_redirects=False
            ) as answer:
                yield answer
        except (requests.RequestException, urllib3.exceptions.HTTPError):
            raise RemoteUnavailable("the archive cannot be reached, or broke off") from None
