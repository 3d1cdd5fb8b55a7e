from __future__ import annotations

from service.reader_study.session import DAY, Reading, place_of


def reading(period: int, position: int, answered: float | None = None) -> Reading:
    return Reading(f"{period}{position}", "c1", "with", period, position, False, answered, answered, 0, "")


def test_the_first_unanswered_reading_is_next():
    place = place_of([reading(1, 1, 5.0), reading(1, 2), reading(1, 3)], 0, now=9.0)
    assert (place.state, place.current.id, place.done, place.total, place.in_period) == ("reading", "12", 1, 3, 3)


def test_the_second_period_opens_when_the_washout_is_over():
    readings = [reading(1, 1, 100.0), reading(1, 2, 50.0), reading(2, 1), reading(2, 2)]
    place = place_of(readings, 2, now=100 + 2 * DAY - 1)
    assert (place.state, place.current, place.opens) == ("washout", None, 100 + 2 * DAY)
    place = place_of(readings, 2, now=100 + 2 * DAY)
    assert (place.state, place.current.id, place.in_period) == ("reading", "21", 2)


def test_the_washout_does_not_begin_anew_within_the_second_period():
    readings = [reading(1, 1, 100.0), reading(2, 1, 100 + 2 * DAY), reading(2, 2)]
    assert place_of(readings, 2, now=101 + 2 * DAY).current.id == "22"


def test_everything_answered_is_the_end():
    place = place_of([reading(1, 1, 1.0), reading(2, 1, 2.0)], 28, now=3.0)
    assert (place.state, place.done) == ("finished", 2)
