"""The simulated fleet does what workers do, and its server is as busy as the sum of what it is asked."""

from __future__ import annotations

import pytest

from benchmarks.fleet.model import LEASE, POLL, RENEWALS, Costs, Fleet, simulate

FREE = Costs(insert=0.0, hint=0.0, look=0.0, claim=0.0, finish=0.0, renew=0.0, hold=0.0)
IDLE = 1e-9
"""Jobs a second where there are to be none."""


def test_jobs_start_at_once_on_a_server_that_costs_nothing() -> None:
    """Where there is room, no job waits, and each is claimed once."""
    found = simulate(FREE, Fleet(workers=10, room=10, rate=20.0, duration=1.0, processors=1), 50.0)
    assert 900 < found.started < 1100
    assert (found.wait(1.0), found.backlog, found.utilisation) == (0.0, 0, 0.0)


def test_jobs_wait_for_room() -> None:
    """Where all workers are taken, jobs wait, and as many are started as there is room for."""
    found = simulate(FREE, Fleet(workers=2, room=1, rate=10.0, duration=1.0, processors=1), 50.0)
    assert found.started == pytest.approx(100, abs=4)
    assert found.backlog == pytest.approx(400, abs=80)


def test_every_hint_wakes_every_worker() -> None:
    """Each job makes all workers ask, beside their polls."""
    fleet = Fleet(workers=100, room=10, rate=1.0, duration=1.0, processors=1)
    found = simulate(FREE, fleet, 200.0)
    polls = 100 * 200.0 / POLL
    assert found.asked == pytest.approx(polls + 101 * found.started, rel=0.02)


def test_polls_and_renewals_of_idle_workers() -> None:
    """An idle fleet costs its polls and renewals."""
    costs = Costs(insert=0.0, hint=0.0, look=0.001, claim=0.0, finish=0.0, renew=0.002, hold=0.5)
    found = simulate(costs, Fleet(workers=100, room=1, rate=IDLE, duration=1.0, processors=4), 300.0)
    assert found.shares["claims"] == pytest.approx(100 / POLL * 0.001 / 4, rel=0.02)
    assert found.shares["renewals"] == pytest.approx(100 * RENEWALS / LEASE * 0.002 / 4, rel=0.02)
    assert found.utilisation == pytest.approx(sum(found.shares.values()))


def test_jobs_wait_behind_others_calls() -> None:
    """A job is found only behind what the server was asked before: the herd that the job before it woke."""
    costs = Costs(insert=0.0, hint=0.0, look=0.01, claim=0.0, finish=0.0, renew=0.0, hold=0.0)
    small = simulate(costs, Fleet(workers=5, room=9, rate=5.0, duration=0.1, processors=1), 60.0)
    large = simulate(costs, Fleet(workers=100, room=9, rate=5.0, duration=0.1, processors=1), 60.0)
    assert small.utilisation < 0.5
    assert large.utilisation == pytest.approx(1.0, abs=0.02)
    assert large.wait(0.5) > 10 * small.wait(0.5)


def test_the_same_seed_gives_the_same() -> None:
    """A run can be repeated."""
    fleet = Fleet(workers=10, room=1, rate=5.0, duration=1.0, processors=1)
    assert simulate(FREE, fleet, 20.0, seed=7) == simulate(FREE, fleet, 20.0, seed=7)
    assert simulate(FREE, fleet, 20.0, seed=7) != simulate(FREE, fleet, 20.0, seed=8)
