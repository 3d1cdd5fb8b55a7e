from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.reader_study.codes import NOBODY, lock_of, new_code


def test_codes_are_long_and_never_the_same():
    codes = {new_code() for _ in range(1000)}
    assert len(codes) == 1000
    assert all(len(code.replace("-", "")) == 30 for code in codes)
    assert len({lock_of(code).selector for code in codes}) > 990  # 25 bits find the row


def test_a_code_may_be_typed_as_people_type():
    code = new_code()
    lock = lock_of(code)
    assert lock.opens(code)
    assert lock.opens(f"  {code.upper().replace('-', ' ')} ")
    assert lock.opens(code.replace("0", "O").replace("1", "I"))
    assert code[6:] not in str(lock)


@given(st.text())
def test_anything_else_opens_nothing(text):
    lock = lock_of("k7m2q-9x4tb-00000-11111-22222-33333")
    assert not lock.opens(text)
    assert not NOBODY.opens(text)
