"""Pipelines whose two ends are gone through in any case: in between, the connection is of no use for anything else.

It owns what is done at the ends, and which answer belongs to what. psycopg's pipeline does the work.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, cast

import psycopg
import trio
from psycopg import pq

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

    from ._connection import TrioConnection

_SYNC: Any = object()
"""Stands for a synchronisation among what is to be answered."""

_FAILED = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.PIPELINE_ABORTED)


class SyncedPipeline(psycopg.AsyncPipeline):
    """psycopg's pipeline, which takes an error of the commit at a synchronisation for the answer to that.

    Without a transaction, what goes together is committed there. psycopg then takes the true answer for one to nothing.
    """

    _conn: TrioConnection[Any]
    forgets: bool = False
    """Whether the server is to forget what was prepared."""

    _told: psycopg.Error | None = None
    """The first of the answers read together that was an error."""

    def _communicate_gen(self) -> PQGen[None]:
        return self._reading(super()._communicate_gen())

    def _fetch_gen(self, *, flush: bool) -> PQGen[None]:
        return self._reading(super()._fetch_gen(flush=flush))

    def _reading(self, answers: PQGen[None]) -> PQGen[None]:
        self._told = None
        try:
            yield from answers
        except Exception as error:
            if error is not self._told:
                # What was not sent has a place in the queue, or what was read has left one: from here on each answer
                # would be taken for another's.
                self.result_queue.clear()
                self._conn._abandon()
            raise

    def _enqueue_sync(self) -> None:
        self.command_queue.append(self.pgconn.pipeline_sync)
        self.result_queue.append(_SYNC)

    def _process_results(self, queued: Any, results: list[PGresult]) -> None:
        failed = results[0].status in _FAILED
        if failed:
            names = self._conn._prepared._names
            # What is taken for prepared behind a failure is not. The server is told at the pipeline's end: before that
            # the next failure would take it along, which would be raised as if the application had sent it.
            self.forgets = self.forgets or bool(names)
            names.clear()
        if queued is _SYNC:
            queued = None
            if failed:
                self.result_queue.appendleft(_SYNC)
        try:
            super()._process_results(queued, results)
        except psycopg.Error as error:
            self._told = self._told or error
            raise


@contextlib.asynccontextmanager
async def _open(connection: TrioConnection[Any], *, is_locked: bool) -> AsyncIterator[SyncedPipeline]:
    """Open a pipeline as psycopg does, or go on with the one that is open.

    *Cancellation*: as `PipelineBlock` has it.
    """
    lock: contextlib.AbstractAsyncContextManager[None] = contextlib.nullcontext() if is_locked else connection.lock
    async with lock:
        connection._check_connection_ok()
        pipeline = cast("SyncedPipeline | None", connection._pipeline)  # nobody else makes one
        if pipeline is None:
            pipeline = connection._pipeline = SyncedPipeline(connection, is_locked)
    try:
        async with pipeline:
            yield pipeline
    finally:
        if pipeline.level == 0:
            async with lock:
                connection._pipeline = None
                if pipeline.forgets:
                    await connection._forget_prepared()


class PipelineBlock(contextlib.AbstractAsyncContextManager[psycopg.AsyncPipeline, None]):
    """A pipeline for one ``async with``; made by `TrioConnection.pipeline`.

    Args:
        connection: The connection.
        is_locked: Whether the caller holds the connection's lock.
        stop: Whether a cancellation stops what the server is doing at the end.
    """

    def __init__(self, connection: TrioConnection[Any], *, is_locked: bool = False, stop: bool = True) -> None:
        self._connection = connection
        self._block = _open(connection, is_locked=is_locked)
        self._stop = stop

    @trio.lowlevel.enable_ki_protection  # Ctrl-C comes where something is waited for, or behind the end
    async def __aenter__(self) -> psycopg.AsyncPipeline:
        """Begin.

        *Cancellation*: before it has begun there is no effect.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        connection = self._connection
        with connection._finishing():
            pipeline = await self._block.__aenter__()
        if connection._streamed:
            # libpq would take the first statement of a pipeline for one whose rows are to be streamed, too.
            pipeline._enqueue_sync()
            connection._streamed = False
        return pipeline

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what was not sent yet, and read all answers.

        *Cancellation*: what was sent is cancelled on the server; the end is within ``cancel_grace``.
        """
        connection = self._connection
        with connection._finishing(stop=self._stop):
            is_told = isinstance(exc, psycopg.Error) or connection.pgconn.status != pq.ConnStatus.OK
            if exc is None or not is_told:
                await self._block.__aexit__(kind, exc, trace)
            else:  # psycopg would log of each pipeline's end what is being raised already
                with contextlib.suppress(psycopg.Error):
                    await self._block.__aexit__(None, None, None)
