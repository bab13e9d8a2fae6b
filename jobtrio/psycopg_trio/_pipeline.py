"""Pipelines whose two ends are gone through in any case: in between, the connection is of no use for anything else.

It owns what is done at the ends. psycopg's pipeline does the work.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psycopg
import trio
from psycopg import pq

if TYPE_CHECKING:
    from types import TracebackType

    from ._connection import TrioConnection


class PipelineBlock(contextlib.AbstractAsyncContextManager[psycopg.AsyncPipeline, None]):
    """A pipeline for one ``async with``; made by `TrioConnection.pipeline`.

    Args:
        connection: The connection.
        block: psycopg's own.
        stop: Whether a cancellation stops what the server is doing at the end.
    """

    def __init__(
        self,
        connection: TrioConnection[Any],
        block: contextlib.AbstractAsyncContextManager[psycopg.AsyncPipeline],
        *,
        stop: bool,
    ) -> None:
        self._connection = connection
        self._block = block
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
            pipeline.command_queue.append(pipeline.pgconn.pipeline_sync)
            pipeline.result_queue.append(None)
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
