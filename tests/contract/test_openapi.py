"""The HTTP contract, pinned: a change of it is a change of this file, made on purpose.

python tests/contract/test_openapi.py      writes the snapshot anew
"""

from __future__ import annotations

import json
from pathlib import Path

from service.api import make_api
from service.examples import EXPLAIN_EXAMPLE, PREDICT_EXAMPLE
from service.schemas import Result

SNAPSHOT = Path(__file__).with_name("openapi.json")


def document() -> str:
    return json.dumps(make_api("snapshot").openapi(), indent=1, sort_keys=True) + "\n"


def test_the_api_is_the_one_that_was_agreed():
    assert document() == SNAPSHOT.read_text()


def test_examples_are_answers():
    for example in (PREDICT_EXAMPLE, EXPLAIN_EXAMPLE):
        assert json.loads(Result.model_validate(example).model_dump_json()) == json.loads(json.dumps(example))


if __name__ == "__main__":
    SNAPSHOT.write_text(document())
