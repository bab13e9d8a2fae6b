"""When something falls due, as far as a process has heard, is known whatever the order of questions and answers."""

from __future__ import annotations

import copy
from math import inf
from typing import TYPE_CHECKING

from jobtrio import Cancelled, JobPriority, JobState
from jobtrio._entry import finish, retry, start
from jobtrio.abc import CancelReply
from jobtrio.stores._announcer import Announcer, Placed, Settled
from jobtrio.stores._hints import Hints
from jobtrio.testing._workers import ERROR, Heard, new_entry

if TYPE_CHECKING:
    from collections.abc import Callable


def new_announcer(listener: Heard | None = None, on_end: Callable[[], None] = lambda: None) -> Announcer:
    """Return one whose clock stands at 100 seconds."""
    return Announcer(listener or Heard(), lambda: 100.0, on_end)


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


def test_the_earliest_told_of_while_it_is_asked() -> None:
    """Of several times that come up since the question, the earliest counts."""
    announcer = new_announcer()
    announcer.asked()
    announcer.falls_due(103.0)
    announcer.falls_due(104.0)
    announcer.looked(inf, 5.0)
    assert announcer.idle_for() == 3.0


def test_told_of_what_is_later() -> None:
    """What falls due behind something else puts that off by nothing, and is no news."""
    told = Told()
    announcer = new_announcer(told)
    announcer.asked()
    announcer.looked(3.0, 50.0)
    announcer.falls_due(105.0)
    assert (announcer.idle_for(), told.signals) == (3.0, [])


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


def test_told_of_while_there_is_nothing_to_do() -> None:
    """What falls due is known at once, also what is past already, and so is that one has to look everywhere."""
    told = Told()
    announcer = new_announcer(told)

    def idle_until_told() -> None:
        announcer.asked()
        announcer.looked(inf, 50.0)
        assert announcer.idle_for() == inf
        told.signals.clear()

    idle_until_told()
    announcer.falls_due(103.0)
    assert (announcer.idle_for(), told.signals) == (3.0, ["due"])
    announcer.falls_due(99.0)
    assert (announcer.idle_for(), told.signals) == (0.0, ["due", "due"])
    idle_until_told()
    announcer.look_everywhere()
    assert (announcer.idle_for(), sorted(told.signals)) == (0.0, ["due", "ready"])


def test_new_jobs_are_forgotten_once_they_are_in() -> None:
    """What is told of new jobs before they are answered is not kept behind that."""
    announcer = new_announcer()
    entries = [new_entry() for _ in range(3)]
    with announcer.putting_in(entries, "submission"):
        assert len(announcer._coming) == 3
    assert not announcer._coming


def test_a_new_job_is_brought_to_what_is_stored() -> None:
    """What the store decides about a new job is in its entry, at once or by way of an earlier call's answer."""
    placed, repeated, heard = new_entry(), new_entry(), Heard()
    place = Placed(7, JobState.SCHEDULED, 1.0, 2.0, 3.0)
    stored = copy.copy(repeated)
    place.note(stored, "mark")
    assert new_announcer(heard).inserted([placed, repeated], [place, stored], "mark") == [placed, repeated]
    for entry in (placed, repeated):
        assert (entry.order, entry.ticket, entry.state, entry.submission) == (7, 7, JobState.SCHEDULED, "mark")
        assert (entry.created_at, entry.due, entry.expires) == (1.0, 2.0, 3.0)
    assert [change.at.timestamp() for change in heard.changes] == [1.0, 1.0]


def test_a_job_that_has_the_key() -> None:
    """A job whose key another one of the same call has is stood for by that one, and not told of."""
    first, second, heard = new_entry(key="key"), new_entry(key="key"), Heard()
    stored = copy.copy(first)
    place = Placed(7, JobState.QUEUED, 1.0, 0.0, None)
    place.note(stored, "mark")
    assert new_announcer(heard).inserted([first, second], [place, stored], "mark") == [first, stored]
    assert [change.job_id for change in heard.changes] == [first.id]
    assert not second.order


def test_ends_are_counted() -> None:
    """Of what becomes of jobs, the ends are counted, and what is another's by then is not."""
    ends = list[None]()
    announcer = new_announcer(on_end=lambda: ends.append(None))
    entry = new_entry()
    start(entry, claim="c", worker="w", now=1.0)
    running = copy.copy(entry)
    retry(entry, ERROR, worker="w", now=2.0)
    assert announcer.settled(new_entry(), Settled(entry, is_news=True))
    announcer.changed([entry])
    assert not announcer.settled(new_entry(), None)
    assert not ends
    finish(entry, Cancelled(), worker="w", now=3.0)
    assert announcer.settled(new_entry(), Settled(entry, is_news=True))
    announcer.changed([entry])
    announcer.replied(CancelReply(entry, accepted=True))
    announcer.ended(running, Cancelled(), None, "w", 3.0)
    assert len(ends) == 4
    announcer.replied(CancelReply(entry, accepted=False))
    assert len(ends) == 4


def test_an_end_with_an_error() -> None:
    """An entry is brought to an end with all that was asked for."""
    entry = new_entry()
    start(entry, claim="c", worker="w", now=1.0)
    new_announcer().ended(entry, Cancelled("enough"), ERROR, "w", 2.0)
    assert (entry.outcome, entry.error, entry.finished_at) == (Cancelled("enough"), ERROR, 2.0)


def test_an_answer_that_is_older_than_a_new_priority() -> None:
    """An answer from before a job's priority was changed, which comes behind that, brings neither back."""
    entry = new_entry()
    Placed(7, JobState.QUEUED, 1.0, 0.0, None).note(entry, "mark")
    older = copy.copy(entry)
    entry.plan, entry.ticket = entry.plan.with_priority(JobPriority.HIGH), 9
    new_announcer().settled(entry, Settled(older, is_news=False))
    assert (entry.plan.priority, entry.ticket) == (JobPriority.HIGH, 9)


class Told(Heard):
    """A listener that notes which signals it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.signals: list[str] = []

    def work_ready(self) -> None:
        self.signals.append("ready")

    def due_changed(self) -> None:
        self.signals.append("due")

    def messages_added(self, job_id: str | None) -> None:
        self.signals.append(f"messages of {job_id}")

    def cancel_requested(self, job_id: str | None) -> None:
        self.signals.append(f"cancel {job_id}")


def test_hints() -> None:
    """Each hint of another process is passed on, and no other."""
    told = Told()
    announcer = new_announcer(told)
    announcer.heed(Hints())
    assert told.signals == []
    announcer.heed(Hints(ready=True, due=1.0, messages={"a"}, cancels={"b"}))
    assert sorted(told.signals) == ["cancel b", "due", "messages of a", "ready"]
