"""What was seen of one run: by those who submitted, watched and cancelled, by executors, and in the store in the end.

Times are wall time in seconds, so that they compare with a job's history. It must not judge.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs

from jobtrio import Gap

if TYPE_CHECKING:
    from chaos.plan import Fault, JobPlan, Plan
    from jobtrio import JobPriority, JobRecord, Message, Transition

Answer: TypeAlias = Literal["accepted", "unavailable"]
Wish: TypeAlias = 'Literal["pause", "resume"] | JobPriority'


def number(message: Message) -> int:
    """Return a message's number; for a gap, that of the last message in it."""
    return message.last if isinstance(message, Gap) else message.seq


@attrs.define
class Submission:
    """One job's submission; made again where the first got no answer, if the job has a key.

    Attributes:
        plan: The job.
        tries: When each try began and how many seconds it took.
        answer: What came of the last.
        stored_id: The id of the job that was given back.
    """

    plan: JobPlan
    tries: list[tuple[float, float]] = attrs.field(factory=list)
    answer: Answer = "unavailable"
    stored_id: str | None = None


@attrs.frozen
class Cancellation:
    """One request to cancel a job.

    Attributes:
        job_id: The job.
        asked: When.
        answered: When the answer came.
        accepted: The answer; None where there was none.
        known: Whether the job was there, as far as the answer says.
    """

    job_id: str
    asked: float
    answered: float
    accepted: bool | None
    known: bool = True


@attrs.frozen
class Change:
    """One request to pause or resume a queue, or to change a job's priority.

    Attributes:
        subject: The queue, or the job's id.
        wish: What it is to be.
        asked: When.
        answered: When the answer came, or that there is none.
        accepted: The answer; None where there was none.
        lasts: For how many seconds from when it was asked for a pause is to last.
    """

    subject: str
    wish: Wish
    asked: float
    answered: float
    accepted: bool | None
    lasts: float = inf


@attrs.define
class Watch:
    """What one watcher saw of a job.

    Attributes:
        job_id: The job.
        after: The number behind which it began.
        messages: What it received, also across leaving and coming back.
        ended: Whether its stream came to its end.
    """

    job_id: str
    after: int = 0
    messages: list[Message] = attrs.field(factory=list)
    ended: bool = False


@attrs.frozen
class Line:
    """One line that an executor wrote, or its worker.

    Attributes:
        at: When.
        worker: The worker's name, with the number of its life.
        what: ``claimed``, ``started``, ``token``, ``saved``, ``sent``, ``returned``, ``raised``, ``cancelled``; or
            ``waited``, where a claim took long, or reading a job's messages.
        job_id: The job, or ``""`` where it is about none.
        attempt: The attempt.
        value: What goes with it.
    """

    at: float
    worker: str
    what: str
    job_id: str
    attempt: int
    value: Any = None


@attrs.define
class Life:
    """One life of a worker's process.

    Attributes:
        name: The worker's name, with the number of this life.
        began: When it was started.
        ended: When it was gone, or None.
        end: How it was ended: ``killed``, ``drained``, or None where it ended by itself.
        code: Its exit code.
        served: Whether it said that it works.
        stops: From when to when it stood still.
        said: What it wrote to stderr.
    """

    name: str
    began: float
    ended: float | None = None
    end: str | None = None
    code: int | None = None
    served: bool = False
    stops: list[tuple[float, float]] = attrs.field(factory=list)
    said: str = ""


@attrs.frozen
class Happening:
    """A fault as it was carried out.

    Attributes:
        fault: What was planned.
        began: When it began.
        ended: When it was over.
    """

    fault: Fault
    began: float
    ended: float


@attrs.frozen
class Kept:
    """What the store has of a job in the end.

    Attributes:
        record: Its record.
        history: Its history.
        messages: Its stream.
    """

    record: JobRecord
    history: list[Transition]
    messages: list[Message]


@attrs.define
class Facts:
    """All that was seen of one run.

    Attributes:
        plan: What was planned.
        began: When it began.
        submissions: By the planned job's id.
        cancellations: All requests to cancel.
        changes: All requests to change a queue or a priority.
        paused_late: Queues that were paused again, or still, when all had been resumed.
        watches: All watchers.
        lines: What executors wrote, by time.
        lives: All lives of workers.
        happenings: All faults.
        pauses: From when to when this process did not get to run, as others will not have either.
        kept: What the store has in the end, by id.
        complaints: What went wrong in the run itself, with the job that it is about, or None.
    """

    plan: Plan
    began: float = 0.0
    submissions: dict[str, Submission] = attrs.field(factory=dict)
    cancellations: list[Cancellation] = attrs.field(factory=list)
    changes: list[Change] = attrs.field(factory=list)
    paused_late: set[str] = attrs.field(factory=set)
    watches: list[Watch] = attrs.field(factory=list)
    lines: list[Line] = attrs.field(factory=list)
    lives: list[Life] = attrs.field(factory=list)
    happenings: list[Happening] = attrs.field(factory=list)
    pauses: list[tuple[float, float]] = attrs.field(factory=list)
    kept: dict[str, Kept] = attrs.field(factory=dict)
    complaints: list[tuple[str | None, str]] = attrs.field(factory=list)

    def lines_of(self, job_id: str) -> list[Line]:
        """Return what executors wrote of a job."""
        return [line for line in self.lines if line.job_id == job_id]

    def changes_of(self, subject: str) -> list[Change]:
        """Return the requests to change a queue or a job."""
        return [change for change in self.changes if change.subject == subject]

    def paused(self, since: float, until: float) -> float:
        """Return for how many seconds of this time the machine was too busy to let this process run."""
        return sum(max(min(end, until) - max(begin, since), 0.0) for begin, end in self.pauses)

    def life(self, name: str) -> Life | None:
        """Return a worker's life by its name."""
        return next((life for life in self.lives if life.name == name), None)
