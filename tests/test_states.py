"""When the state of a training is written, by a clock that the test moves."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from ltray.training import states
from ltray.training.states import States

QUICK = 0.1


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(states, "time", clock)
    return clock


def writing(clock: Clock, *seconds: float) -> States:
    """After writes that took so long, one after the other."""
    durations = iter(seconds)

    def write(_network: Any) -> None:
        clock.now += next(durations)

    written = States(write, leaves=str)
    for _ in seconds:
        written.write([cast("Any", None)])
    return written


def waits(clock: Clock, due: Callable[[], bool], at_most: float) -> float:
    """The seconds until it is due."""
    started = clock.now
    while not due():
        clock.now += 0.25
        assert clock.now - started < at_most
    return clock.now - started


def after_epochs(written: States) -> Callable[[], bool]:
    return lambda: written.due(epoch_ended=True)


def test_writing_takes_a_fiftieth_of_the_time(clock: Clock) -> None:
    written = writing(clock, 2.0, 2.0, 2.0)
    waited = waits(clock, after_epochs(written), at_most=200)
    assert waited == pytest.approx(100, abs=0.5)


def test_before_the_first_write_it_is_expected_to_be_quick(clock: Clock) -> None:
    waited = waits(clock, after_epochs(writing(clock)), at_most=200)
    assert waited == pytest.approx(5, abs=0.5)


@pytest.mark.parametrize("before", [(), (QUICK,), (QUICK, QUICK)])
def test_a_write_that_an_outage_held_up_does_not_put_off_the_next(
    clock: Clock, before: tuple[float, ...]
) -> None:
    written = writing(clock, *before, 8.0)
    waited = waits(clock, after_epochs(written), at_most=200)
    assert waited == pytest.approx(5, abs=0.5)


def test_a_store_that_has_become_slow_is_asked_less_often(clock: Clock) -> None:
    written = writing(clock, QUICK, 2.0, 2.0, 2.0)
    waited = waits(clock, after_epochs(written), at_most=200)
    assert waited == pytest.approx(100, abs=0.5)


def test_within_an_epoch_at_most_five_minutes_are_at_stake(clock: Clock) -> None:
    written = writing(clock, QUICK)
    waited = waits(clock, lambda: written.due(epoch_ended=False), at_most=400)
    assert waited == pytest.approx(300, abs=0.5)
