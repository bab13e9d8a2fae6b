"""What a principal may do with the registry: finding, submitting and cancelling jobs, as far as it is allowed to.

It owns what may be seen of which job. It must not know connections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
from msgspec.structs import replace

from jobtrio._checks import show
from jobtrio._errors import UnknownExecutorError, UnknownJobError
from jobtrio._pages import find_behind
from jobtrio._policies import JobPriority
from jobtrio._submission import JobSpec
from jobtrio.websocket._codes import ErrorCode
from jobtrio.websocket._refusals import Refusal
from jobtrio.websocket._translation import retry_of, wire_error, wire_record
from jobtrio.websocket._values import value_json

if TYPE_CHECKING:
    from jobtrio._job import Job
    from jobtrio._records import JobRecord
    from jobtrio._registry import JobRegistry
    from jobtrio.websocket._gatekeeper import Action, Gatekeeper
    from jobtrio.websocket._replies import WireRecord
    from jobtrio.websocket._requests import Find, Submit

FIRST_PAGE = 16
PAGE = 250
"""Records that are looked through at once for those that may be seen: at first, and at most.

A store reads a page at once, with all that its records hold: pages grow only where that is little.
"""

PAGE_BYTES = 1024 * 1024
"""After so many bytes of records a page ends early, for a client takes no message of any size; the next one goes on."""


class Desk:
    """Serves one principal, as far as the gatekeeper allows that."""

    def __init__(self, registry: JobRegistry, gatekeeper: Gatekeeper, principal: Any) -> None:
        self._registry = registry
        self._gatekeeper = gatekeeper
        self._principal = principal

    async def allows(self, action: Action, record: JobRecord | JobSpec) -> bool:
        """Tell whether the principal may do something. Cancellation: nothing has changed."""
        return await self._gatekeeper.allows(self._principal, action, record)

    async def find_job(self, job_id: str, action: Action) -> Job:
        """Return a job that the principal may do something to.

        Raises:
            UnknownJobError: There is none, or it may not even be seen.
            Refusal: It may be seen, but not that be done to it.
            StoreError: The store can't be asked.

        Cancellation: nothing has changed.
        """
        if not job_id.isprintable():
            raise UnknownJobError(job_id)  # no job has such an id, and not every store can be asked for it
        job = await self._registry.get(job_id)
        if await self.allows(action, job.record):
            return job
        if action != "get" and await self.allows("get", job.record):
            raise Refusal(ErrorCode.FORBIDDEN, f"you may not {action} this job")
        raise UnknownJobError(job_id)

    async def get(self, job_id: str) -> WireRecord:
        """Return a job's record, as far as the principal may see it. Raises what `find_job` raises."""
        record = (await self.find_job(job_id, "get")).record
        return await self._shown(record, wire_record(record))

    async def find(self, request: Find) -> list[WireRecord]:
        """Return the records that match and may be seen, in order: fewer than the limit where they are large.

        Only an empty page is the last.

        Raises:
            UnknownJobError: The job that the page is to follow may not be seen or is not kept.
            Refusal: Too many jobs were removed meanwhile.

        Cancellation: nothing has changed.
        """
        after = request.after
        if after is not None:
            await self.find_job(after, "find")
        found: list[WireRecord] = []
        size = 0
        limit = FIRST_PAGE
        page = await self._page(request, after, limit)
        while True:
            read, most = 0, PAGE_BYTES * len(page) // PAGE  # bytes up to which the next page may be larger
            for record in page:
                if await self.allows("find", record):
                    whole = wire_record(record)
                    read += (weight := _size(whole))
                    shown = await self._shown(record, whole)
                    found.append(shown)
                    size += weight if shown is whole else _size(shown)
                    if len(found) == request.limit or size >= PAGE_BYTES:
                        return found
                elif read <= most:
                    read += _size(wire_record(record))
            if len(page) < limit:
                return found
            await trio.lowlevel.checkpoint()  # neither a store in memory nor a hook need wait: others want their turn
            limit = min(4 * limit, PAGE) if read <= most else FIRST_PAGE
            page = await self._page_behind(request, page, limit)

    async def _page(self, request: Find, after: str | None, limit: int) -> list[JobRecord]:
        return await self._registry.find(
            state=request.state,
            tags=request.tags,
            key=request.key,
            limit=limit,
            after=after,
            newest_first=request.newest_first,
        )

    async def _page_behind(self, request: Find, page: list[JobRecord], limit: int) -> list[JobRecord]:
        """Return what follows a page, behind the last of its jobs that is still kept.

        Raises:
            Refusal: None of them is.
        """
        try:
            return await find_behind(page, lambda after: self._page(request, after, limit))
        except UnknownJobError as exc:  # its id is not for the client
            message = "the jobs were removed while they were looked through; try again"
            raise Refusal(ErrorCode.UNAVAILABLE, message) from exc

    async def cancel(self, job_id: str, reason: str | None, grace: float) -> bool:
        """Ask a job to end; tell whether it lived. Raises what `find_job` raises.

        Cancellation: the request may have been made.
        """
        if self._gatekeeper.is_open:
            raise Refusal(ErrorCode.FORBIDDEN, "without authentication, no job can be cancelled")
        job = await self.find_job(job_id, "cancel")
        return await job.cancel(reason, grace=grace)

    async def submit(self, request: Submit, attempts: int) -> Job:
        """Submit a job, which may ask for so many attempts, or for as many as its executor is registered with.

        Raises:
            Refusal: It may not be submitted, asks for too many attempts, or its key belongs to another job, which may
                not be seen.
            JobtrioError, ValueError, TypeError: The registry refuses it.

        Cancellation: it may have been submitted.
        """
        if self._gatekeeper.is_open:
            raise Refusal(ErrorCode.FORBIDDEN, "without authentication, no job can be submitted")
        registered = self._registry.executors.get(request.executor)
        if not registered.expose:
            raise UnknownExecutorError(request.executor)
        most = attempts if registered.retry is None else max(attempts, registered.retry.max_attempts)
        if request.retry is not None and request.retry.max_attempts > most:
            asked = show(request.retry.max_attempts)
            raise Refusal(ErrorCode.INVALID, f"retry must allow at most {most} attempts at this server; got {asked}")
        spec = _spec(request, registered.queue or "default")
        if not await self.allows("submit", spec):
            raise Refusal(ErrorCode.FORBIDDEN, "you may not submit this job")
        [job] = await self._registry.submit_many([spec])
        if request.key is not None and not _is_asked_for(job.record, spec) and not await self.allows("get", job.record):
            raise Refusal(ErrorCode.DUPLICATE_JOB, "the key belongs to another job")
        return job

    async def _shown(self, record: JobRecord, whole: WireRecord) -> WireRecord:
        """Return a record for the wire, without the traceback where the principal may not see that."""
        if record.error is None or await self.allows("traceback", record):
            return whole
        return replace(whole, error=wire_error(record.error, tracebacks=False))


def _size(record: WireRecord) -> int:
    """Return about how many bytes a record takes on the wire."""
    values = sum(len(memoryview(value)) for value in (record.payload, record.metadata, record.result))
    return values + len(value_json((record.tags, record.error, record.cancel_reason)))


def _is_asked_for(record: JobRecord, spec: JobSpec) -> bool:
    """Tell whether a job is what was asked for: the new one, or the one of an earlier try whose answer was lost.

    Who may submit and not look must be told of it, as on the first try.
    """
    same = (record.executor, record.tags) == (spec.executor, spec.tags or {})
    return same and all(
        value_json(kept) == value_json(given)
        for kept, given in ((record.payload, spec.payload), (record.metadata, spec.metadata or {}))
    )


def _spec(request: Submit, queue: str) -> JobSpec:
    """Return what is asked for; without a queue of its own it names ``queue``, so that a hook can judge by that."""
    return JobSpec(
        request.executor,
        request.payload,
        key=request.key,
        queue=queue if request.queue is None else request.queue,
        priority=JobPriority[request.priority],
        time_limit=request.time_limit,
        retry=retry_of(request.retry),
        delay=request.delay,
        expires_in=request.expires_in,
        tags=request.tags,
        metadata=request.metadata,
    )
