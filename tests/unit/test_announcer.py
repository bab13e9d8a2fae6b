"""When something falls due, as far as a process has heard, is known whatever the order of questions and answers."""

from __future__ import annotations

from math import inf

from jobtrio.stores._announcer import Announcer
from jobtrio.testing._workers import Heard


def new_announcer() -> Announcer:
    """Return one whose clock stands at 100 seconds."""
    return Announcer(Heard(), lambda: 100.0)


def test_told_of_while_it_is_asked() -> None:
    """An answer does not make forget a time that came up since the question; one that came before is in the answer."""
    announcer = new_announcer()
    announcer.falls_due(101.0)
    announcer.asked()
    announcer.falls_due(103.0)
    announcer.looked(inf, 5.0)
    assert announcer.idle_for() == 3.0
    announcer.asked()
    announcer.looked(7.0, 50.0)
    assert announcer.idle_for() == 7.0


def test_to_look_everywhere_while_it_is_asked() -> None:
    """An answer to a question from before it was told to look everywhere does not stand for that look."""
    announcer = new_announcer()
    announcer.asked()
    announcer.look_everywhere()
    announcer.looked(inf, 5.0)
    assert announcer.idle_for() == 0.0
    announcer.asked()
    announcer.looked(inf, 5.0)
    assert announcer.idle_for() == inf
