"""The real server against its own OpenAPI document: whatever is sent, the answer is one that it declares, and no fault.

`make schemathesis` sends more; SCHEMATHESIS_EXAMPLES is how many for each operation.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import schemathesis
from bright import SIDE, png, write_bundle_into
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance
from serving import Service
from spots import write_spots_into

from service.forms import DEADLINE_HEADER
from tests.fuzz.seeds import synthetic
from tests.processes import free_port

SNAPSHOT = Path(__file__).with_name("openapi.json")
pytestmark = pytest.mark.server
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "4"))
_GOOD = (png(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE).astype(np.uint8)), *synthetic()[:2])
_FILES = st.one_of(st.binary(max_size=200), st.sampled_from(_GOOD))
schemathesis.openapi.media_type("application/octet-stream", _FILES)
schemathesis.openapi.media_type("application/zip", _FILES)
schemathesis.openapi.media_type('multipart/related; type="application/dicom"', _FILES)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schemathesis")
    write_bundle_into(folder / "models", "bright")
    write_spots_into(folder / "models", "spots")
    (folder / "rules.toml").write_text('[[rule]]\nname = "all"\nmodel = "bright"\nmodality = "MR"\n')
    configured = {
        "RADIOLUCENT_MODELS": str(folder / "models"),
        "RADIOLUCENT_RULES": str(folder / "rules.toml"),
        "RADIOLUCENT_ARCHIVES": '{"pacs": {"url": "http://127.0.0.1:9/dicom-web"}}',
        "XDG_STATE_HOME": str(folder),
    }
    service = Service(free_port(), folder / "log.txt", configured)
    service.start()
    yield service.address
    service.stop()
    assert "Traceback" not in service.log.read_text(), service.log.read_text()[-5000:]


schema = schemathesis.openapi.from_path(SNAPSHOT)


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_declared(case: Case, address: str):
    # That valid requests are accepted cannot be asked: no schema says what a readable image is.
    answer = case.call_and_validate(base_url=address, excluded_checks=[positive_data_acceptance, not_a_server_error])
    late = DEADLINE_HEADER in (case.headers or {}) and answer.status_code in (503, 504)
    assert answer.status_code < 500 or late, answer.text
