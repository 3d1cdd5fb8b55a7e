from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from service.dicom_results.identity import answer_key, stable_uid
from service.dicom_results.options import Options
from tests.service.dicom_results.answers import answer

PARTS = st.lists(st.one_of(st.integers(), st.text(alphabet="abc", min_size=1)), min_size=1, max_size=3)


@given(st.text(), PARTS, PARTS)
def test_a_uid_is_valid_and_follows_from_its_parts(key: str, parts: list[str | int], others: list[str | int]) -> None:
    made = stable_uid(key, *parts)
    assert UID(made).is_valid
    assert made == stable_uid(key, *parts)
    assert (made == stable_uid(key, *others)) == (list(map(str, parts)) == list(map(str, others)))


def test_uids_stay_the_same_from_release_to_release() -> None:
    assert stable_uid("key", "report", 1) == "2.25.198216334635738797037141772577856932252"


def test_the_key_is_made_of_the_question_not_of_the_time() -> None:
    assert answer_key(answer("classic"), Options()) == answer_key(answer("classic"), Options())
    assert answer_key(answer("classic"), Options()) != answer_key(answer("enhanced"), Options())
