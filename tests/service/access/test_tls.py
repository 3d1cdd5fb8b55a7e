"""TLS of the server's own, and certificates of callers, by the options that docs/access.md names."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest
from serving import ROOT, Service

from tests.certificates import client_context, make_certificates
from tests.processes import free_port

pytestmark = pytest.mark.server
IMAGE = (ROOT / "docs" / "images" / "mni152-slice.png").read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    make_certificates(made, "server", "modality", "stranger")
    return made


@pytest.fixture(scope="module")
def service(folder, tmp_path_factory):
    options = ["--ssl-certfile", str(folder / "server.pem"), "--ssl-keyfile", str(folder / "server.key")]
    options += ["--ssl-ca-certs", str(folder / "modality.pem"), "--ssl-cert-reqs", str(ssl.CERT_REQUIRED.value)]
    log = tmp_path_factory.mktemp("tls") / "log.txt"
    running = Service(free_port(), log, options=options, tls=client_context(folder, "modality"))
    running.start()
    yield running
    running.stop()


def test_a_caller_whose_certificate_is_known_is_answered(service, folder):
    with httpx.Client(base_url=service.address, verify=client_context(folder, "modality"), timeout=60) as client:
        asked = {"data": {"model": "brain-mri-resnet50"}, "files": {"images": ("head.png", IMAGE, "image/png")}}
        answer = client.post("/v1/explain", **asked)
        assert answer.json()["results"][0]["status"] == "ok"
        assert "max-age" in answer.headers["strict-transport-security"]


@pytest.mark.parametrize("name", [None, "stranger"])
def test_any_other_is_turned_away(name, service, folder):
    with (
        httpx.Client(base_url=service.address, verify=client_context(folder, name), timeout=60) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get("/livez")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_of_tls_and_none_are_not_spoken(service, folder):
    with pytest.raises(httpx.TransportError):
        httpx.get(service.address.replace("https", "http") + "/livez", timeout=60)
    context = client_context(folder, "modality")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        httpx.Client(base_url=service.address, verify=context, timeout=60) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get("/livez")
