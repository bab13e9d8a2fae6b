"""The multiplexed form: one connection on which a client asks, and watches any number of jobs.

It owns which request is answered by what. It must not know what carries it, nor how streams are batched.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, NoReturn, assert_never

import attrs
import trio
from msgspec.structs import replace

from jobtrio.websocket._codes import CloseCode, ErrorCode, ProtocolError
from jobtrio.websocket._desk import Desk
from jobtrio.websocket._feed import Start, open_feed
from jobtrio.websocket._gatekeeper import Stranger
from jobtrio.websocket._refusals import Refusal, refusal_of
from jobtrio.websocket._replies import (
    PROTOCOL,
    Heartbeat,
    Hello,
    HelloLimits,
    JobFound,
    JobsFound,
    Ok,
    Pong,
    Refused,
    Submitted,
)
from jobtrio.websocket._requests import Auth, Cancel, Find, Get, Ping, Submit, Subscribe, Unsubscribe
from jobtrio.websocket.protocol import decode_request, encode_reply
from jobtrio.websocket.session import Session

if TYPE_CHECKING:
    from jobtrio._job import Job
    from jobtrio.websocket._feed import Feed
    from jobtrio.websocket._replies import Subscribed
    from jobtrio.websocket._requests import AnyRequest, MessageId

PATH = "/ws"
"""Where it is found."""


class MultiplexedSession(Session):
    """A connection that answers requests, one after the other."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._feeds: dict[int, Feed] = {}
        self._last_sub = 0
        self._desk: Desk | None = None  # once the client is known
        self._introduction = trio.CancelScope(deadline=self._deadline)

    def feeds(self) -> list[Feed]:
        """Return what it shows of jobs now."""
        return list(self._feeds.values())

    # -- life

    async def _speak(self) -> None:
        await self.say(self._hello())
        try:
            await self._introduce()
            while self._desk is not None:
                await self._hear()
        finally:
            for feed in self._feeds.values():
                feed.close()

    def _hello(self) -> Hello:
        limits = self.terms.limits
        mine = HelloLimits(
            message_bytes=limits.message_bytes,
            subscriptions=limits.subscriptions,
            messages_per_second=limits.messages_per_second,
            attempts=limits.attempts,
        )
        return Hello(proto=PROTOCOL, heartbeat=limits.heartbeat, limits=mine)

    async def _introduce(self) -> None:
        """Find out who the client is: at once, or by the ``auth`` that it sends."""
        with self._introduction:
            try:
                await self._identify(None)
            except Stranger as exc:
                if self._handshake.token is not None or exc.known:
                    await self._turn_away(exc, None)
            while self._desk is None:
                await self._hear()
        if self._desk is None:
            await self._refuse(ErrorCode.UNAUTHENTICATED, "no auth came in time")
            self.stop(CloseCode.AUTH_TIMEOUT)

    async def _identify(self, token: str | None) -> None:
        handshake = self._handshake if token is None else attrs.evolve(self._handshake, token=token)
        principal = await self.terms.gatekeeper.identify(handshake)
        self._introduction.deadline = inf  # it was in time: a client that reads its answer late must not miss it
        self._desk = Desk(self.terms.registry, self.terms.gatekeeper, principal)

    async def _turn_away(self, stranger: Stranger, id: MessageId | None) -> NoReturn:
        """Refuse the client, and end this task: the session is being closed."""
        if stranger.known:
            await self._refuse(ErrorCode.FORBIDDEN, "you may do nothing here", id)
            self.stop(CloseCode.FORBIDDEN)
        else:
            await self._refuse(ErrorCode.UNAUTHENTICATED, "the token was refused", id)
            self.stop(CloseCode.UNAUTHENTICATED)
        await trio.sleep_forever()

    def _sign_of_life(self) -> Heartbeat:
        return Heartbeat(last={str(sub): feed.last for sub, feed in self._feeds.items()})

    # -- requests

    async def _hear(self) -> None:
        """Answer the client's next message."""
        data, in_time = await self._receive()
        try:
            request = decode_request(data)
        except ProtocolError as exc:
            if in_time:
                await self._refuse(exc.code, exc.message, exc.id)
            else:
                await self._pass_over(exc.id)
            return
        if not in_time:
            await self._pass_over(request.id)
            return
        if isinstance(data, bytes):
            await self._refuse(ErrorCode.INVALID, "messages are text, not binary", request.id)
            return
        try:
            await self._answer(request)
        except Exception as exc:
            await self.say(replace(refusal_of(exc).reply, id=request.id))

    async def _answer(self, request: AnyRequest) -> None:
        id = request.id
        match request:
            case Ping():
                await self.say(Pong(id=id))
            case Auth():
                await self._authenticate(request)
            case Submit():
                await self._submit(request, self._open_desk())
            case Subscribe():
                await self._subscribe(request, self._open_desk())
            case Unsubscribe():
                await self._unsubscribe(request)
            case Cancel(job=job, reason=reason, grace=grace):
                await self.say(Ok(id=id, cancelled=await self._open_desk().cancel(job, reason, grace)))
            case Get(job=job):
                record = await self._open_desk().get(job)
                await self.say(JobFound(id=id, job=record, paused=await self.terms.pauses.hold(record)))
            case Find():
                await self.say(JobsFound(id=id, jobs=await self._open_desk().find(request)))
            case _:
                assert_never(request)

    def _open_desk(self) -> Desk:
        if self._desk is None:
            raise Refusal(ErrorCode.UNAUTHENTICATED, "send auth first")
        return self._desk

    async def _authenticate(self, request: Auth) -> None:
        """Let the client be somebody, or somebody else: what it watches has to be allowed to that one too."""
        try:
            await self._identify(request.token)
        except Stranger as exc:
            await self._turn_away(exc, request.id)
        assert self._desk is not None  # it has been identified
        for sub, feed in list(self._feeds.items()):
            if await self._desk.allows("subscribe", feed.job.record):
                feed.tracebacks = await self._desk.allows("traceback", feed.job.record)
            elif self._feeds.pop(sub, None) is not None:  # it may have ended meanwhile
                await self._take_away(sub, feed)
        await self.say(Ok(id=request.id))

    async def _take_away(self, sub: int, feed: Feed) -> None:
        """End a subscription to what the client may no longer watch, and say so unless its end was on the way."""
        feed.close()
        refusal = Refused(sub=sub, code=ErrorCode.FORBIDDEN, message="you may no longer watch this job")
        async with self.outbox:  # behind what that feed is sending now, if it is
            if not feed.has_ended:
                await self.send(encode_reply(refusal))

    # -- subscriptions

    async def _submit(self, request: Submit, desk: Desk) -> None:
        if request.subscribe:
            self._check_room()
        job = await desk.submit(request, self.terms.limits.attempts)
        opened = await self._open_submitted(desk, job) if request.subscribe else None
        if opened is None:
            await self.say(Submitted(id=request.id, job=job.id))
            return
        feed, answer = opened
        await self._begin(feed, answer, Submitted(id=request.id, job=job.id, sub=answer.sub, epoch=answer.epoch))

    async def _open_submitted(self, desk: Desk, job: Job) -> tuple[Feed, Subscribed] | None:
        """Open a new job's stream; None where that can't be."""
        try:
            if await desk.allows("subscribe", job.record):
                return await self._open(desk, job, Start(0, None, "yield"))
        except Exception as exc:  # not the submission's: who took it for refused would make it again
            refusal_of(exc)
        return None

    async def _subscribe(self, request: Subscribe, desk: Desk) -> None:
        self._check_room()
        job = await desk.find_job(request.job, "subscribe")
        paused = await self.terms.pauses.hold(job.record)
        feed, answer = await self._open(desk, job, Start(request.after, request.epoch, request.on_gap), paused)
        await self._begin(feed, answer, replace(answer, id=request.id))

    def _check_room(self) -> None:
        most = self.terms.limits.subscriptions
        if len(self._feeds) >= most:
            raise Refusal(ErrorCode.TOO_MANY_SUBSCRIPTIONS, f"{most} subscriptions are open: end one first", limit=most)

    async def _open(self, desk: Desk, job: Job, start: Start, paused: bool = False) -> tuple[Feed, Subscribed]:
        tracebacks = await desk.allows("traceback", job.record)
        feed, answer = await open_feed(job, start, sub=self._last_sub + 1, tracebacks=tracebacks, paused=paused)
        self._last_sub += 1
        return feed, answer

    async def _begin(self, feed: Feed, answer: Subscribed, reply: Subscribed | Submitted) -> None:
        """Answer, and send the stream behind the answer."""
        assert answer.sub is not None  # it is numbered
        self._feeds[answer.sub] = feed
        await self.say(reply)
        self._nursery.start_soon(self._guarded, self._run, answer.sub, feed)

    async def _run(self, sub: int, feed: Feed) -> None:
        with feed:
            await feed.run(self)
        self._feeds.pop(sub, None)

    async def _unsubscribe(self, request: Unsubscribe) -> None:
        feed = self._feeds.pop(request.sub, None)
        if feed is None:
            self._open_desk()
            raise Refusal(ErrorCode.UNKNOWN_SUB, f"no subscription has the number {request.sub}")
        feed.close()
        await self.say(Ok(id=request.id))  # behind what that feed is sending now, if it is

    async def _pass_over(self, id: MessageId | None) -> None:
        most = self.terms.limits.messages_per_second
        await self._refuse(ErrorCode.RATE, f"{most:g} messages a second may come: this one was passed over", id)

    async def _refuse(self, code: ErrorCode, message: str, id: MessageId | None = None) -> None:
        await self.say(Refused(id=id, code=code, message=message))
