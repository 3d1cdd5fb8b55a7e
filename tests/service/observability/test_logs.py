from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.observability.logs import hashed_uid

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import logging, sys, warnings
from service.observability.current import Current, enter
from service.observability.logs import logger, set_up_logs

set_up_logs(sys.argv[1])
logger.info("serving %s", "a model")
logging.getLogger("pydicom").warning("invalid value %r", "Mustermann")
warnings.warn("Invalid value for VR UI: 'Mustermann'", stacklevel=1)
enter(Current("7" * 32, 0.0))
try:
    try:
        {}["Mustermann"]
    except KeyError as error:
        raise ValueError("Mustermann\\nMax") from error
except ValueError:
    logger.exception("request failed")
"""


def written(form: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, form], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "Mustermann" not in done.stdout
    return done.stdout.splitlines()


def test_json_has_a_line_an_event_and_no_text_of_others():
    serving, foreign, warned, failed = map(json.loads, written("json"))
    assert (serving["level"], serving["logger"], serving["message"]) == ("INFO", "radiolucent", "serving a model")
    assert foreign["logger"] == "pydicom"
    assert "left out" in foreign["message"]
    assert warned["message"].startswith("UserWarning at <string>:")
    assert failed["request_id"] == "7" * 32
    assert failed["message"] == "request failed"
    assert [place.strip().partition(":")[0] for place in failed["exception"]] == [
        "ValueError",
        "<string>",
        "KeyError",
        "<string>",
    ]


def test_text_has_the_same_for_people():
    lines = written("text")
    assert lines[0].endswith(" INFO radiolucent serving a model")
    assert lines[3].endswith(f" ERROR radiolucent [{'7' * 32}] request failed")
    assert [line.strip() for line in lines[4:]][0::2] == ["ValueError", "KeyError"]
    assert all(line.startswith("    ") for line in lines[4:])


@pytest.mark.parametrize("key", [b"a", b"b" * 32])
def test_hashed_uids_depend_on_the_key(key):
    digits = hashed_uid("1.2.3", key)
    assert len(digits) == 12
    assert digits == hashed_uid("1.2.3", key) != hashed_uid("1.2.3", key + b"c") != hashed_uid("1.2.4", key)
