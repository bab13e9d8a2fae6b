"""Requests that wait for their answers, over any number of connections. It must not know what is asked."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import attrs
import msgspec

from jobtrio.websocket.protocol import encode_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobtrio.websocket.protocol import AnyReply, AnyRequest


@attrs.define(eq=False)
class Call:
    """A request that waits for its answer.

    Attributes:
        id: What names it.
        request: What is asked.
        text: The same as a message.
        subject: The job's id or the executor's name that it is about.
        on_done: Called once there is an answer, or an error.
        on_put_off: Called when the server can't do it now, and it is to be made again.
        answer: What came, a reply or an error; or the error by now, with which it fails if nothing else comes in time.
    """

    id: int
    request: AnyRequest
    text: str
    subject: str
    on_done: Callable[[], None]
    on_put_off: Callable[[], None]
    answer: AnyReply | Exception | None = None

    def put_off(self, error: Exception) -> None:
        """Take it that there is no answer yet, and what it is to fail with if none comes in time."""
        self.answer = error
        self.on_put_off()


class Calls:
    """The calls that were not answered yet, by id, the oldest first.

    Attributes:
        ids: Names for requests of any kind: none comes twice, whatever the connection.
    """

    def __init__(self) -> None:
        self.ids: Iterator[int] = count(1)
        self._open: dict[int, Call] = {}

    def add(
        self, request: AnyRequest, subject: str, on_done: Callable[[], None], on_put_off: Callable[[], None]
    ) -> Call:
        """Return a new call.

        Raises:
            PayloadError, ProtocolError: The request can't be said.
        """
        id = next(self.ids)
        text = encode_request(msgspec.structs.replace(request, id=id))
        call = Call(id, request, text, subject, on_done, on_put_off)
        self._open[id] = call
        return call

    def drop(self, call: Call) -> None:
        """Forget a call that nobody waits for any more."""
        self._open.pop(call.id, None)

    def find(self, id: object) -> Call | None:
        """Return the call that an answer names, if it is still waited for."""
        return self._open.get(id) if isinstance(id, int) else None

    def finish(self, call: Call, answer: AnyReply | Exception) -> None:
        """Give a call its answer, or an error."""
        self.drop(call)
        call.answer = answer
        call.on_done()

    def __iter__(self) -> Iterator[Call]:
        return iter(tuple(self._open.values()))

    def __contains__(self, call: Call) -> bool:
        return call.id in self._open
