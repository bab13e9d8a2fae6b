"""Calls of the store's scripts, gathered: what tasks ask for at one time goes to the server in one go.

It owns the order of calls and of what is made of their answers, and what becomes of a call whose task is cancelled or
whose link is lost. It must not know what the scripts do.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

import trio

from jobtrio._errors import JobtrioError, StoreError, StoreUnavailableError, again
from jobtrio.stores._outages import OutageLog
from jobtrio.stores.redis import _errors as errors
from jobtrio.stores.redis._address import place_text
from jobtrio.stores.redis._batch import Batch, pick, size_of
from jobtrio.stores.redis._link import Command, RedisError
from jobtrio.stores.redis._scripts import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobtrio.stores.redis._batch import Part
    from jobtrio.stores.redis._link import Answers, Link

T = TypeVar("T")

_Sent: TypeAlias = "tuple[Call, list[tuple[int, int | None]]]"
"""A call, and the places of its answers."""

UNDER_WAY: Final = 2
"""Batches sent and not answered yet: while the server works on one, the next is put together and sent."""

BATCH_CALLS: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Calls and bytes beyond which a batch takes no more: the server answers others in between."""

ALONE: Final = 1024 * 1024
"""Bytes from which on a call goes alone: a server may take no more, close the link, and so leave others unanswered."""

WAITING: Final = 4096
"""Calls that wait or are under way, beyond which tasks wait to make theirs."""

CALM: Final = 1.0
"""Seconds since the last call was late after which one that succeeds says that the store is back."""

CLOSED: Final = "the store was closed"

log: Final = logging.getLogger("jobtrio.stores.redis")


class _Flight(NamedTuple):
    """A batch that was sent."""

    calls: list[_Sent]
    answers: Answers  # to come
    waits: bool  # whether the last of them tells how many replicas have it


class Call:
    """One call: what goes together, and what is made of their answers.

    Attributes:
        parts: The commands and the calls of scripts.
        asked: When it was made, by Trio's clock.
        size: About how many bytes it has.
    """

    __slots__ = ("_after", "_error", "_task", "_value", "asked", "parts", "size")

    def __init__(self, parts: Sequence[Part], after: Callable[[list[Any]], Any]) -> None:
        self.parts = parts
        self.asked = trio.current_time()
        self.size = sum(map(size_of, parts))
        self._after = after
        self._task: trio.lowlevel.Task | None = None
        self._value: Any = None
        self._error: BaseException | None = None

    async def wait(self) -> Any:
        """Return the answer, or raise the error. Cancellation: it may be carried out all the same, and heeded then."""
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # no cycle by way of the traceback
        return self._value

    def _abort(self, _: Any) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    @property
    def is_left(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._task is None

    def conclude(self, answers: list[Any]) -> None:
        """Heed the answers, and wake the task unless it has left."""
        try:
            self._value = self._after(answers)
        except JobtrioError as exc:
            self._error = exc  # the answer was a refusal; if the task has left, nobody has to know
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Wake the task with an error, unless it has left."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)


class Calls:
    """The calls of one opened store, over one link after another.

    Attributes:
        prefix: What all keys begin with.
        outages: Says when the server is away, and when it is back.
    """

    def __init__(self, prefix: str, patience: float, replicas: int) -> None:
        self.prefix: Final = prefix
        self.outages: Final = OutageLog(log)
        self._replicas: Final = replicas
        # Less than the link's patience: a replica that is away is no reason to give up the link.
        self._wait: Final = Command(b"WAIT", (replicas, int(patience * 500)))
        self._patience: Final = patience
        self._waiting: deque[Call] = deque()
        self._sent: deque[_Flight] = deque()
        self._may_send = trio.Event()
        self._may_receive = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self._answered = trio.lowlevel.ParkingLot()
        self._is_closed = False
        self._late_at = 0.0
        self._refusing: Link | None = None  # the last one over which something was forbidden, or damaged

    # -- making

    @trio.lowlevel.enable_ki_protection
    async def make(self, parts: Sequence[Part], after: Callable[[list[Any]], T]) -> T:
        """Have the server carry out commands and scripts; return what ``after`` makes of the answers.

        Raises:
            StoreUnavailableError: There was no answer in time, or one that says that it may come later; or the store
                was closed.
            StoreError: The server has refused.

        Cancellation: a call that was not sent is not carried out; one that was may be, and is heeded then.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while len(self._waiting) >= WAITING:
            await self._room.park()
        if self._is_closed:
            raise StoreUnavailableError(CLOSED)
        call = Call(parts, after)
        self._waiting.append(call)
        self._may_send.set()
        answer: T = await call.wait()
        return answer

    def fail_waiting(self, why: str) -> None:
        """Wake those whose calls have not been sent, each with an error of its own: the server is away."""
        waiting, self._waiting = self._waiting, deque()
        self._room.unpark_all()
        for call in waiting:
            call.fail(StoreUnavailableError(why))
        self._answered.unpark_all()

    def fail_overdue(self) -> None:
        """Wake those whose calls have waited too long to be sent."""
        limit = trio.current_time() - self._patience
        why = f"not sent within {self._patience:g} s: there was no connection, or what came before took longer"
        while self._waiting and self._waiting[0].asked < limit:
            self._waiting.popleft().fail(StoreUnavailableError(why))
            self._room.unpark()
            self._note_refusal(why)

    def close(self) -> None:
        """Refuse all calls from now on, also those that wait: no link will come any more."""
        self._is_closed = True
        self.fail_waiting(CLOSED)

    async def wait_idle(self) -> None:
        """Wait until all calls have been answered, or their link is lost."""
        while self._waiting or self._sent:
            await self._answered.park()

    # -- over a link

    async def serve(self, link: Link) -> None:
        """Send the calls over a link and heed the answers, until the link is lost.

        Cancellation: calls under way fail.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, link)
                nursery.start_soon(self._receive, link)
                await link.closed.wait()
                nursery.cancel_scope.cancel()
        finally:
            sent, self._sent = self._sent, deque()
            for call in (call for flight in sent for call, _ in flight.calls):
                call.fail(StoreUnavailableError(f"{place_text(link.place)}: connection lost"))
            self._answered.unpark_all()

    @trio.lowlevel.enable_ki_protection
    async def _send(self, link: Link) -> None:
        while True:
            while not self._waiting or len(self._sent) >= self._most_under_way():
                self._may_send = trio.Event()
                await self._may_send.wait()
            calls = self._batch()
            if calls:
                batch = Batch(self.prefix)
                sent = [(call, batch.add(call.parts, call.size)) for call in calls]
                waits = self._replicas > 0 and batch.writes
                try:
                    answers = link.send([*batch.commands(), *([self._wait] if waits else ())])
                except RedisError:
                    self._waiting.extendleft(reversed(calls))  # nothing was sent: the next link is asked
                    link.close()
                    return
                self._sent.append(_Flight(sent, answers, waits))
                self._may_receive.set()
            else:
                self._answered.unpark_all()  # nobody waits for any of them

    def _most_under_way(self) -> int:
        last = self._sent[-1].calls[0][0].size if self._sent else 0  # of a batch with one that goes alone the only one
        return 1 if max(last, self._waiting[0].size) >= ALONE else UNDER_WAY

    def _batch(self) -> list[Call]:
        calls: list[Call] = []
        size = 0
        while self._waiting and len(calls) < BATCH_CALLS and size < BATCH_BYTES:
            if calls and max(calls[-1].size, self._waiting[0].size) >= ALONE:
                break
            call = self._waiting.popleft()
            self._room.unpark()
            if not call.is_left:
                calls.append(call)
                size += call.size
        return calls

    @trio.lowlevel.enable_ki_protection
    async def _receive(self, link: Link) -> None:
        while True:
            while not self._sent:
                self._may_receive = trio.Event()
                await self._may_receive.wait()
            answers = await self._sent[0].answers.wait()
            calls, _, waits = self._sent.popleft()
            self._may_send.set()
            unkept = self._unkept(answers.pop()) if waits else None
            forgotten = self._conclude(link, calls, answers, unkept)
            if forgotten:
                try:
                    await load_scripts(link)
                except (RedisError, OSError) as exc:
                    for call in forgotten:
                        call.fail(_caused(exc, link))
                    forgotten = []
                finally:
                    # Also where the link was lost meanwhile: nothing was done, and the next one is asked.
                    self._waiting.extendleft(reversed(forgotten))
                    self._may_send.set()
            self._answered.unpark_all()

    def _unkept(self, answer: Any) -> str | None:
        """Return why what was done is not safe yet, if it is not; made again, the calls find it done."""
        if isinstance(answer, BaseException):
            return f"it is not known whether replicas have what was written: {answer}"
        return f"fewer than {self._replicas} replicas have what was written" if answer < self._replicas else None

    def _conclude(self, link: Link, calls: list[_Sent], answers: list[Any], unkept: str | None) -> list[Call]:
        """Heed the answers of a batch; return the calls to make again, because a script was not known."""
        forgotten = []
        for call, places in calls:
            own = pick(answers, places)
            error = next((answer for answer in own if isinstance(answer, BaseException)), None)
            if error is None:
                if unkept is None:
                    call.conclude(own)
                    if self.outages.is_away:
                        self._note_success(call)
                else:
                    call.fail(StoreUnavailableError(unkept))
                    self._note_refusal(unkept, call)
            elif errors.is_unknown_script(error):
                forgotten.append(call)
            else:
                caused = _caused(error, link)
                call.fail(caused)
                self._heed(error, link)
                if errors.is_last(error):
                    link.close()  # before more is sent: what waits would be lost with it
                    self._fail_alike(call, caused)
                elif errors.is_refusal(error):
                    self._note_refusal(caused, call)
                elif isinstance(error, TimeoutError):  # also where the server is there again at once
                    self._note_refusal(caused)
        return forgotten

    def _fail_alike(self, refused: Call, why: StoreError) -> None:
        """Fail those of the calls that wait which have as large a value: each would cost all others a link."""
        size = _largest(refused)
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            if call.size >= ALONE and _largest(call) >= size:
                call.fail(again(why))
                self._room.unpark()
            else:
                self._waiting.append(call)

    def _note_refusal(self, why: object, call: Call | None = None) -> None:
        """Note why a call was refused; or, without it, why one was not answered in time: any answer ends that."""
        if call is None:
            self._late_at = trio.current_time()
        self.outages.failed(why, refused=None if call is None else _kind(call))

    def _note_success(self, call: Call) -> None:
        """Say that the store is back, if it does now what it refused: others it may have done all the time."""
        if trio.current_time() >= self._late_at + CALM:
            self.outages.answered(what=_kind(call))

    def _heed(self, error: BaseException, link: Link) -> None:
        if errors.is_wrong_server(error):
            link.leads_astray(error)
        elif (errors.is_forbidden(error) or errors.is_damaged(error)) and link is not self._refusing:
            self._refusing = link  # said once: the same comes again and again, until it is mended
            log.warning("%s", _caused(error, link))


async def load_scripts(link: Link) -> None:
    """Give a server the scripts.

    Cancellation: the link is closed.
    """
    answers = await link.send([Command(b"SCRIPT LOAD", (script.text,)) for script in SCRIPTS.values()]).wait()
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer


def _kind(call: Call) -> str:
    part = call.parts[0]
    return part.name.decode() if isinstance(part, Command) else part.script.name


def _largest(call: Call) -> int:
    """Return how many bytes the largest value has that a call brings."""
    return max((len(each) for part in call.parts for each in part.arguments if type(each) is bytes), default=0)


def _caused(error: BaseException, link: Link) -> StoreError:
    translated = errors.translate(error, place_text(link.place), is_open=True)
    translated.__cause__ = error
    return translated
