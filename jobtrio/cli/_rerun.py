"""``jobtrio rerun``: submits ended jobs again, as new ones that are given the same."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import trio

import jobtrio
from jobtrio._checks import NAME_LIMIT
from jobtrio._errors import JobtrioError, PayloadError, UnknownExecutorError, UnknownJobError
from jobtrio._ids import new_id
from jobtrio._pages import FoundJobs
from jobtrio._state import FINAL_STATES, JobState
from jobtrio.cli._advance import Advance
from jobtrio.cli._bridge import add_jobs, add_token_option, is_bridge, read_jobs, refuse_for_server, run_for_jobs
from jobtrio.cli._endings import one_line, plural, printable
from jobtrio.cli._executors import load_executors, stand_in
from jobtrio.cli._filters import check_states, filters_of
from jobtrio.cli._json import print_document
from jobtrio.cli._program import RUN_COMMAND
from jobtrio.cli._store import (
    EXIT_CODES,
    add_store_options,
    check_spec,
    complain,
    open_client,
    run_with_store,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from jobtrio._records import JobRecord
    from jobtrio._registry import JobRegistry
    from jobtrio.abc import JobStore
    from jobtrio.websocket import JobClient

HELP = "run ended jobs again, as new ones"

DESCRIPTION = """\
Run ended jobs again. For each a new job is submitted with the executor,
payload, queue, priority, tags and metadata of the old one, and with the old
one's id in its metadata, as "again". It has as long to start as the old one
had, if that was limited. Its time limit and retries are the old one's, or,
with --executors, what its executor is registered with now.

Each job is run again once, however often that is asked for: while the new one
is kept, nothing is submitted. If the new one fails as well, run that again.

Jobs that are given by their IDs may have ended in any way. Of all that match,
those that failed are run again: what completed is done, and what was cancelled
was no longer wanted; --state asks for them. All are found before any is
submitted. At a server (`jobtrio serve`), which is named by a URL, an old job
that had no time limit or no retries gets what its executor is registered with
there.
"""

EPILOG = f"""\
{EXIT_CODES}
examples:
  jobtrio rerun 4f0c…
  jobtrio rerun 4f0c… 9d21… --executors app.jobs:executors
  jobtrio rerun --state failed
  jobtrio rerun --tag user=ann --executor mail --state failed,cancelled
  jobtrio rerun ws://127.0.0.1:8765/jobs/4f0c…
  jobtrio rerun --state failed ws://127.0.0.1:8765/ws
"""

ENDED = tuple(state for state in JobState if state in FINAL_STATES)

PROGRAMS = (
    f"a program starts once there is a worker for {RUN_COMMAND!r}; this starts one: jobtrio worker jobtrio.cli:programs"
)
"""What is said of the jobs of ``jobtrio run``, which had needed no worker."""

AT_ONCE = 32
"""Jobs that are submitted at once: all of them, or none where the store fails."""

LAST_LOOK = 2.0
"""Seconds for a server that has failed to tell which of the last jobs had been run again before."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_jobs(parser, ENDED)
    parser.add_argument(
        "--executors",
        metavar="MODULE:EXECUTORS",
        help="where the executors are registered, for their registered options",
    )
    add_token_option(parser, help="for a server, the token")
    add_store_options(
        parser, json="print one JSON object: submitted, and already, each with the new jobs' ids by the old ones"
    )


def run(options: argparse.Namespace) -> int:
    """Run the jobs again and return the exit code."""
    url = read_jobs(options)
    check_states(options, ENDED, "in which a job has ended")
    if url is not None or any(map(is_bridge, options.words)):
        refuse_for_server(options, {"--executors": options.executors}, ", which decides that itself")
        return run_for_jobs(options, url, rerun_at_server)
    options.known = None if options.executors is None else load_executors(options)
    return run_with_store(options, rerun)


async def rerun(options: argparse.Namespace, store: JobStore) -> int:
    """Submit a store's jobs again, and say as which; also where the store fails before all are submitted.

    *Cancellation*: some may have been submitted.
    """
    report = Report(options)
    async with open_client(store, options.known) as registry:
        found = await report.find(registry, registry.find_all(**_filters(options)), _given)
        specs: dict[str, jobtrio.JobSpec] = {}
        for old, given in found.items():
            with report.refusing(old):
                limits = await _limits(options, registry, store, old, given["executor"])
                spec = jobtrio.JobSpec(**given, **limits, job_id=new_id())
                check_spec(spec, registry.executors)  # where others have written the old job
                specs[old] = spec
        with report.telling():
            for batch in _batches(specs):
                jobs = await registry.submit_many([specs[old] for old in batch])
                for old, job in zip(batch, jobs, strict=True):
                    (report.submitted if job.id == specs[old].job_id else report.already)[old] = job.id
    return report.exit_code


async def _limits(
    options: argparse.Namespace, registry: JobRegistry, store: JobStore, job_id: str, executor: str
) -> dict[str, Any]:
    """Return the old job's time limit and retry policy, or nothing where those of the registration are asked for."""
    entry = await store.load(job_id)
    if entry is None:
        raise UnknownJobError(job_id)
    if entry.unreadable is not None:
        raise PayloadError(entry.unreadable)
    if options.known is None:
        stand_in(executor, registry.executors)
        return {"time_limit": entry.plan.time_limit, "retry": entry.plan.retry}
    registry.executors.get(executor)  # or it is refused
    return {}


async def rerun_at_server(options: argparse.Namespace, client: JobClient) -> int:
    """Submit a server's jobs again, and say as which; also where the server fails before all are submitted.

    *Cancellation*: some may have been submitted.
    """
    report = Report(options)
    found = await report.find(client, client.find_all(**_filters(options)), _given_at_server)
    with report.telling(), report.advancing("submitting", len(found)) as advance:
        for batch in _batches(found):
            newest = await client.find(limit=1, newest_first=True)
            try:
                for old in batch:
                    with report.refusing(old):
                        report.untold[old] = await _submit(client, found[old])
                    advance.step()
            except BaseException:
                # Bounded: a server that is away can't tell any more.
                with trio.CancelScope(deadline=trio.current_time() + LAST_LOOK, shield=True), suppress(JobtrioError):
                    await _tell_apart(report, client, newest)
                raise
            await _tell_apart(report, client, newest)
    return report.exit_code


async def _submit(client: JobClient, given: dict[str, Any]) -> str:
    """Submit a job and return its id.

    Raises:
        PayloadError, UnknownExecutorError, ValueError: This one is refused, and others need not be.
        JobtrioError: None can be submitted now.

    *Cancellation*: it may have been submitted.
    """
    from jobtrio.websocket import ErrorCode, ServerRefusedError

    match given["payload"]:
        case {"repr": str(), **others} if not others:
            raise PayloadError("the server shows its payload by its repr alone")
    try:
        return (await client.submit(**given)).id
    except ServerRefusedError as exc:
        if exc.code != ErrorCode.FORBIDDEN:
            raise
        raise ValueError(str(exc)) from exc


async def _tell_apart(report: Report, client: JobClient, newest: list[JobRecord]) -> None:
    """Find out which jobs had been submitted before: those that do not stand behind what was the newest then."""
    before: set[str] = set()
    with suppress(UnknownJobError, IndexError):  # none of them is known to have been
        last = newest[0].id
        new = {record.id async for record in FoundJobs(lambda after: client.find(after=after or last))}
        before.update(set(report.untold.values()) - new)
    for old, job_id in report.untold.items():
        (report.already if job_id in before else report.submitted)[old] = job_id
    report.untold = {}


def _batches(jobs: Iterable[str]) -> list[list[str]]:
    ids = [*jobs]
    return [ids[at : at + AT_ONCE] for at in range(0, len(ids), AT_ONCE)]


def _filters(options: argparse.Namespace) -> dict[str, Any]:
    return {"state": [JobState.FAILED], **filters_of(options)}


def _given(old: JobRecord) -> dict[str, Any]:
    """Return what the new job is given, as `JobSpec` and `JobClient.submit` take it.

    Raises:
        ValueError: The job can't be run again.
    """
    if old.state not in FINAL_STATES:
        raise ValueError(f"it has not ended, it is {old.state.lower()}")
    if old.executor is None:
        raise ValueError("it never had an executor")
    same = {name: getattr(old, name) for name in ("executor", "payload", "queue", "priority", "expires_in", "tags")}
    return {**same, "key": _key_of(old), "metadata": {**old.metadata, "again": old.id}}


def _given_at_server(old: JobRecord) -> dict[str, Any]:
    """Return what `_given` does, with the limits that the old job had; where it had none, its executor's hold."""
    return {**_given(old), "time_limit": old.time_limit, "retry": old.retry}


def _key_of(old: JobRecord) -> str:
    """Return the new job's key: no other job has the same, also where its id is another's that has been removed."""
    key = f"again:{old.id}:{old.created_at.isoformat()}"
    return key if len(key) <= NAME_LIMIT else f"again:{sha256(key.encode()).hexdigest()}"


class Report:
    """What is told of the jobs.

    Attributes:
        submitted: The ids of new jobs by those of the old ones.
        already: Those of new jobs that had been submitted before.
        untold: Those of which it is not known yet whether they had been.
        exit_code: 1 once a job was refused.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.submitted: dict[str, str] = {}
        self.already: dict[str, str] = {}
        self.untold: dict[str, str] = {}
        self.exit_code = 0
        self._options = options
        self._advance = Advance("", 0, is_shown=False)
        self._found: dict[str, dict[str, Any]] = {}

    @contextmanager
    def refusing(self, job_id: str) -> Iterator[None]:
        """Say of a job why it is not run again, where the block tells, and go on with the others."""
        try:
            yield
        except UnknownJobError as exc:
            why = str(exc)
        except (UnknownExecutorError, PayloadError, ValueError) as exc:
            why = f"job {job_id!r} is not run again: {one_line(str(exc))}"
        else:
            return
        self._advance.clear()
        complain(self._options, why)
        self.exit_code = 1

    @contextmanager
    def advancing(self, note: str, total: int) -> Iterator[Advance]:
        """Show within the block, where it may take long, how many jobs are done."""
        is_shown = total > AT_ONCE and not self._options.json
        with Advance(note, total, is_shown=is_shown) as self._advance:
            yield self._advance

    async def find(
        self,
        where: JobRegistry | JobClient,
        matching: AsyncIterator[JobRecord],
        given: Callable[[JobRecord], dict[str, Any]],
    ) -> dict[str, dict[str, Any]]:
        """Return what new jobs are given, by the old ones' ids: for those that were named, or else all that match."""
        found = self._found
        with self.advancing("looking", len(self._options.words)) as advance:
            for job_id in self._options.words:
                with self.refusing(job_id):
                    record = (await where.get(job_id)).record
                    assert record is not None  # it was asked for
                    found[job_id] = given(record)
                advance.step()
        if not self._options.words:
            async for record in matching:
                with self.refusing(record.id):
                    found[record.id] = given(record)
        return found

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell at the end of the block what became of the jobs, also where not all are submitted."""
        try:
            yield
        except BaseException:
            if self.submitted or self.already:
                self._tell()
            if self.untold:
                jobs = ", ".join(f"{printable(old)} as {printable(new)}" for old, new in self.untold.items())
                complain(self._options, f"run again, now or before, which the server can't tell any more: {jobs}")
            complain(self._options, "not all were submitted; to ask again submits none twice")
            raise
        self._tell()

    def _tell(self) -> None:
        if self._options.json:
            print_document({"submitted": self.submitted, "already": self.already})
            return
        for old, new in self.submitted.items():
            print(f"{printable(old)} is run again as {printable(new)}")
        if self._options.words:
            for old, new in self.already.items():
                print(f"{printable(old)} was run again before, as {printable(new)}")
        elif self.submitted or self.already:
            before = f"; run again before: {len(self.already)}" if self.already else ""
            print(f"submitted {plural(len(self.submitted), 'job')}{before}")
        elif not self.exit_code:
            print(f"no {' or '.join(_filters(self._options)['state']).lower()} job matches")
        if any(self._found[old]["executor"] == RUN_COMMAND for old in self.submitted):
            complain(self._options, PROGRAMS)
