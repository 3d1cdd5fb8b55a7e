from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.__main__ import DOORS, GROWTH, RESULTS, SLOW, Tally, fuzz
from tests.fuzz.elements import elements_of
from tests.fuzz.mutate import MUTATIONS, mutate
from tests.fuzz.runner import running
from tests.fuzz.seeds import seeds, synthetic

CORPUS = Path(__file__).parent / "corpus"
BAD = "tests.fuzz.misbehave:target"


@pytest.fixture(scope="module")
def runner():
    with running() as found:
        yield found


def test_a_short_run_finds_nothing(runner):
    tally = fuzz(runner, 250, seed=4)
    assert tally.wrong == []
    assert sum(tally.outcomes.values()) == 250
    assert tally.outcomes["image, series"] > 25  # some are still images, and some are not
    assert tally.outcomes["corrupt-image, nothing"] > 25


def test_results_can_be_made_for_damaged_sources():
    with running(RESULTS, SLOW) as found:
        tally = fuzz(found, 40, seed=2, only_synthetic=True)
    assert tally.wrong == []
    assert tally.outcomes["5 kinds"] > 2


def test_every_door_answers_damaged_files_in_damaged_envelopes():
    with running(DOORS) as found:
        tally = fuzz(found, 200, seed=3, only_synthetic=True)
    assert tally.wrong == []
    statuses = {status for outcome in tally.outcomes for status in outcome.split()[1:]}
    assert {"200", "202", "400", "422"} <= statuses


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.dcm")), ids=lambda path: path.stem)
def test_what_went_wrong_once_is_answered_now(runner, path):
    answer = runner.read(path.read_bytes())
    assert answer.detail == ""
    assert answer.outcome not in ("fault", "crash", "hang")


def test_synthetic_seeds_are_images(runner):
    assert Counter(runner.read(content).outcome for content in synthetic()) == {"image, series": len(synthetic())}


def test_the_same_seed_makes_the_same_files():
    files = [[mutate(seeds(), random.Random(f"{seed}:{n}")) for n in range(20)] for seed in (0, 0, 1)]
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize("mutation", dict.fromkeys(MUTATIONS), ids=lambda mutation: mutation.__name__)
def test_every_mutation_changes_files(mutation):
    changed = [mutation(content, random.Random(1), synthetic()) != content for content in synthetic()]
    assert sum(changed) > len(changed) / 2


def test_the_elements_are_followed_to_the_end_and_into_sequences():
    for content in synthetic():
        tags = [element.tag for element in elements_of(content)]
        assert 0x00020010 in tags
        deflated = b"1.2.840.10008.1.2.1.99" in content
        assert deflated or 0x7FE00010 in tags
    assert 0x00209111 in [e.tag for content in synthetic() for e in elements_of(content)]  # in functional groups


@pytest.mark.parametrize(
    ("word", "outcome", "detail"),
    [("raise", "fault", "KeyError"), ("die", "crash", "status -6"), ("sleep", "hang", "no answer")],
)
def test_what_goes_wrong_is_noticed_and_the_run_goes_on(word, outcome, detail):
    with running(BAD, patience=1.0) as found:
        answer = found.read(word.encode())
        assert answer.outcome == outcome
        assert detail in answer.detail
        assert found.read(b"nothing wrong").outcome == "image"


def test_memory_that_grows_is_noticed():
    tally, steady = Tally(), Tally()
    with running(BAD) as found:
        for number in range(40):
            tally.add(number, b"", found.read(b"grow"))
        for number in range(40):
            steady.add(number, b"", found.read(b"nothing"))
    assert tally.growth() > GROWTH
    assert steady.growth() < 1
