from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.rates import Limits, Rates
from service.errors import TooManyRequests


def passes(rates: Rates, caller: str = "a") -> bool:
    try:
        rates.enter(caller)
    except TooManyRequests:
        return False
    rates.leave(caller)
    return True


def test_a_rate_allows_so_many_and_says_when_to_come_back(clock):
    rates = Rates(Limits("3/minute"), clock)
    assert [passes(rates) for _ in range(4)] == [True, True, True, False]
    with pytest.raises(TooManyRequests) as refused:
        rates.enter("a")
    clock.now += refused.value.retry_after - 0.01
    assert not passes(rates)
    clock.now += 0.02
    assert passes(rates)
    assert not passes(rates)
    assert passes(rates, "another caller")


@given(st.lists(st.floats(0, 30), max_size=100))
def test_no_minute_holds_more_than_twice_the_rate_and_an_even_stream_passes(waits):
    now = [0.0]
    rates = Rates(Limits("10/minute"), lambda: now[0])
    passed = []
    for wait in waits:
        now[0] += wait
        if passes(rates):
            passed.append(now[0])
    for time in passed:
        assert sum(time <= other < time + 60 for other in passed) <= 20
    even = Rates(Limits("10/minute"), lambda: now[0])
    for _ in range(50):
        now[0] += 6
        assert passes(even)


def test_so_many_at_once_and_a_refused_one_does_not_count(clock):
    rates = Rates(Limits(at_once=2), clock)
    rates.enter("a")
    rates.enter("a")
    with pytest.raises(TooManyRequests):
        rates.enter("a")
    rates.enter("b")
    rates.leave("a")
    rates.enter("a")
    for caller in ("a", "a", "b"):
        rates.leave(caller)
    assert rates._running == {}


def test_callers_that_are_gone_are_forgotten(clock):
    rates = Rates(Limits("100/second"), clock)
    for number in range(10_000):
        clock.now += 0.01
        assert passes(rates, str(number))
    assert len(rates._due) <= 4096
