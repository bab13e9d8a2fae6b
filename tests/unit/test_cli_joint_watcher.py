"""Several jobs on one screen: what their lines begin with, and how the watching of all of them ends."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import jobtrio
from jobtrio import Cancelled, Completed, End, Failed, JobError, Progress, Token, UnknownJobError
from jobtrio.cli import _labels, _watch, _watcher, build_parser
from jobtrio.cli._joint_watcher import JointWatcher
from jobtrio.cli._labels import PLAIN, LabelledOutput, labels_of
from jobtrio.cli._output import STDERR, STDOUT, Output
from jobtrio.stores.sqlite import SqliteJobStore
from jobtrio.websocket import ServerRefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from pathlib import Path

    from jobtrio import JobRecord, Message, Outcome
    from jobtrio.cli._output import Piece

ERROR = JobError("exception", "ValueError", "row 2", "Traceback …")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Piece]:
    """Return what is written."""
    written: list[Piece] = []

    async def write(output: Output, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            await trio.lowlevel.checkpoint()
            written.append(piece)

    monkeypatch.setattr(Output, "write", write)
    return written


class Scripted:
    """A job whose messages are known."""

    attempts: int | None = 1
    hint = "; to end it: …"

    def __init__(
        self, *messages: Message | Exception, goes_on: bool = False, waits: str | None = None, late: float = 0.0
    ) -> None:
        self.has_ended = False
        self._messages = messages
        self._goes_on = goes_on
        self._waits = waits
        self._late = late

    async def follow(self, show: Callable[[list[Message]], Awaitable[None]], after: int) -> None:
        """Hand over the messages, one at a time."""
        for message in self._messages:
            await trio.testing.wait_all_tasks_blocked()
            if isinstance(message, Exception):
                raise message
            await show([message])
        if self._goes_on:
            await trio.sleep_forever()
        self.has_ended = True

    async def waiting(self) -> str | None:
        """Return what it waits for."""
        await trio.sleep(self._late)
        return self._waits

    async def ending(self) -> tuple[Outcome, float | None, int | None]:
        """Return the end."""
        end = self._messages[-1]
        assert isinstance(end, End)
        return end.outcome, 1.0, 1


@pytest.mark.parametrize(
    ("ids", "labels"),
    [
        (["0123456789", "abcdefghij"], ["012345 | ", "abcdef | "]),
        (["0123456789", "0123456abc"], ["01234567 | ", "0123456a | "]),
        (["a", "abc"], ["a   | ", "abc | "]),
        (["nightly", "nightly-2"], ["nightly  | ", "nightly- | "]),
        (["a\nb", "c"], ["a\\nb | ", "c    | "]),
        (["日本", "nightly"], ["日本   | ", "nightl | "]),
        (["0123456789"], ["012345 | "]),
        ([], []),
    ],
)
def test_labels(ids: list[str], labels: list[str]) -> None:
    """A label begins as its id does: six characters, or as many as tell it from the others; all are equally wide."""
    assert labels_of(ids) == labels


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n", "x | a\n"),
        ("a\n\nb\n", "x | a\nx | \nx | b\n"),
        ("\n", "x | \n"),
        ("10 %\r20 %\r\n", "x | 10 %\rx | 20 %\r\n"),
        ("a\x0cb\u2028c\x85\n", "x | a\x0cb\u2028c\x85\n"),
    ],
)
async def test_every_line_has_its_label(written: list[Piece], text: str, shown: str) -> None:
    """Text of several lines has it before each, and so has what is drawn over again in the same line."""
    await LabelledOutput("x | ", trio.Lock()).write([(STDOUT, text), (STDERR, text)])
    assert written == [(STDOUT, shown), (STDERR, shown)]


async def test_a_terminal(written: list[Piece], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a terminal shows colours, those that a line has left end before the next."""
    monkeypatch.setattr(_labels, "can_draw", lambda stream: stream is sys.stderr)
    await LabelledOutput("x | ", trio.Lock()).write([(STDOUT, "a\n"), (STDERR, "\033[31mb\n")])
    assert written == [(STDOUT, "x | a\n"), (STDERR, f"{PLAIN}x | \033[31mb\n")]


async def test_lines(written: list[Piece], monkeypatch: pytest.MonkeyPatch) -> None:
    """All is told as of a single job, each line with an end and its job; progress as lines; then how all ended."""
    monkeypatch.setattr(_watcher, "open_bar", lambda: lambda progress: "BAR")
    sources = {
        "first": Scripted(
            Token(1, 1, {"stdout": "a", "partial": True}),
            Progress(2, 1, 1.0, 2.0),
            Token(3, 1, {"stderr": "b"}),
            End(4, Completed()),
        ),
        "second": Scripted(End(1, Failed(ERROR))),
    }
    assert await JointWatcher(sources).watch() == 1
    assert [piece for piece in written if "first" in piece[1]] == [
        (STDOUT, "first  | a\n"),
        (STDERR, "first  | jobtrio: 1 of 2 (50 %)\n"),
        (STDERR, "first  | b\n"),
        (STDERR, "first  | jobtrio: completed\n"),
        (STDERR, "first  | jobtrio: completed in 1.0 s, 1 attempt, 1 line\n"),
    ]
    assert [piece for piece in written if "second" in piece[1]] == [
        (STDERR, "second | jobtrio: failed: ValueError: row 2\n"),
        (STDERR, "second | jobtrio: failed after 1.0 s, 1 attempt: ValueError: row 2\n"),
    ]
    assert [text.partition(" | ")[0] for _, text in written[-2:]] == ["first ", "second"]


async def test_json(written: list[Piece]) -> None:
    """As JSON a line has the job's whole id in it, and nothing before it."""
    sources = {"0123456789": Scripted(Token(1, 1, "a"), End(2, Completed())), "b": Scripted(End(1, Completed()))}
    assert await JointWatcher(sources, as_json=True).watch() == 0
    assert [text for fd, text in written if fd == STDOUT and "0123456789" in text] == [
        '{"type": "token", "job": "0123456789", "seq": 1, "attempt": 1, "value": "a"}\n',
        '{"type": "end", "job": "0123456789", "seq": 2, "outcome": {"type": "completed", "result": null}}\n',
    ]
    assert (STDERR, "b      | jobtrio: completed\n") in written


@pytest.mark.parametrize(
    ("sources", "code"),
    [
        ([Scripted(End(1, Completed())), Scripted(End(1, Completed()))], 0),
        ([Scripted(Token(1, 1, "a"), End(2, Cancelled())), Scripted(End(1, Failed(ERROR)))], 125),
        ([Scripted(End(1, Completed())), Scripted(UnknownJobError("b")), Scripted(End(1, Cancelled()))], 1),
    ],
)
async def test_exit_code(written: list[Piece], sources: list[Scripted], code: int) -> None:
    """It is that of the first job, in their order and not in time, that did not complete."""
    assert await JointWatcher(dict(zip("abc", sources, strict=False))).watch() == code


async def test_one_that_is_gone(written: list[Piece]) -> None:
    """A job that is removed meanwhile is told of at once, and the others go on."""
    sources = {"a": Scripted(UnknownJobError("a")), "b": Scripted(Token(1, 1, "x"), End(2, Completed()))}
    assert await JointWatcher(sources).watch() == 1
    gone = (STDERR, "a | jobtrio: no job has the id 'a': it never existed or is no longer kept\n")
    assert written.index(gone) < written.index((STDERR, "b | jobtrio: completed\n"))
    assert written[-2:] == [gone, (STDERR, "b | jobtrio: completed in 1.0 s, 1 attempt\n")]


async def test_one_that_is_refused(written: list[Piece]) -> None:
    """A job that a server doesn't let be watched is told of, and the others go on; who is not known watches none."""
    refusal = ServerRefusedError("forbidden", "you may not subscribe this job")
    sources = {"a": Scripted(refusal), "b": Scripted(Token(1, 1, "x"), End(2, Completed()))}
    assert await JointWatcher(sources).watch() == 1
    said = (STDERR, "a | jobtrio: the server refused (forbidden): you may not subscribe this job\n")
    assert written[-2:] == [said, (STDERR, "b | jobtrio: completed in 1.0 s, 1 attempt\n")]
    sources = {"a": Scripted(ServerRefusedError("4401", "the token was refused")), "b": Scripted(goes_on=True)}
    with pytest.raises(ServerRefusedError, match="4401"):
        await JointWatcher(sources).watch()


async def test_one_that_is_not_known(written: list[Piece]) -> None:
    """A job that there is not is told of like one that is removed, and the others are watched."""
    sources = {"a": None, "b": Scripted(Token(1, 1, "x"), End(2, Completed()))}
    assert await JointWatcher(sources).watch() == 1
    said = (STDERR, "a | jobtrio: no job has the id 'a': it never existed or is no longer kept\n")
    assert written[0] == written[-2] == said
    assert written[-1] == (STDERR, "b | jobtrio: completed in 1.0 s, 1 attempt\n")


async def test_waiting(written: list[Piece], autojump_clock: trio.testing.MockClock) -> None:
    """What jobs wait for is said once for all that wait for the same, and not of those that have ended."""
    sources: dict[str, Scripted | None] = {
        name: Scripted(goes_on=True, waits=what)
        for what, names in {"the job waits": "abcd", "the job is held": "e", None: "f"}.items()
        for name in names
    }
    sources |= {"g": Scripted(End(1, Completed()), waits="the job waits"), "h": None}
    with trio.move_on_after(3 * _watcher.PATIENCE):
        await JointWatcher(sources).watch()
    assert [text for _, text in written if "job" in text.partition("jobtrio:")[2] and "no job" not in text] == [
        "a | jobtrio: the job waits; the same holds for 3 more\n",
        "e | jobtrio: the job is held\n",
    ]


async def test_waiting_is_told_as_it_is_known(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """One answer that is late does not hold up what is known of other jobs, and none is lost while those are told."""
    told: dict[str, float] = {}

    async def say(output: LabelledOutput, line: str) -> None:
        told[line] = trio.current_time() - begun
        await trio.sleep(0.2)

    monkeypatch.setattr(LabelledOutput, "say", say)
    after = _watcher.PATIENCE
    late = {"a": 0.0, "b": after + 0.1, "c": 10 * after}
    begun = trio.current_time()
    with trio.move_on_after(20 * after):
        await JointWatcher({name: Scripted(goes_on=True, waits=name, late=late[name]) for name in late}).watch()
    assert told == pytest.approx(
        {"jobtrio: a": 2 * after, "jobtrio: b": 3 * after + 0.2, "jobtrio: c": 11 * after}, abs=0.01
    )


async def test_one_that_is_removed_when_it_was_found(
    written: list[Piece], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of those that match, the others are watched."""
    executors = jobtrio.Executors()

    @executors.register("echo")
    async def echo(job: jobtrio.JobContext) -> None:
        await job.send("said")

    async with jobtrio.open_registry(executors, store=SqliteJobStore(tmp_path / "jobs.db")) as registry:
        for job_id in ("removed", "kept"):
            await (await registry.submit("echo", job_id=job_id, tags={"of": "us"})).wait()
    find = _watch._ids

    async def find_and_remove(found: AsyncIterator[JobRecord]) -> list[str]:
        ids = await find(found)
        async with jobtrio.open_registry(executors, store=SqliteJobStore(tmp_path / "jobs.db")) as registry:
            await registry.remove("removed")
        return ids

    monkeypatch.setattr(_watch, "_ids", find_and_remove)
    options = build_parser().parse_args(["watch", "--tag", "of=us", "--store", "sqlite:///jobs.db"])
    assert await _watch.watch_several(options, SqliteJobStore(tmp_path / "jobs.db")) == 0
    assert (STDOUT, "kept | said\n") in written
    assert not any("removed" in text for _, text in written)


async def test_output_that_nobody_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where several find that nobody reads any more, that is one error, and it ends the watching of all."""

    async def write(output: Output, pieces: Iterable[Piece]) -> None:
        await trio.lowlevel.checkpoint()
        raise BrokenPipeError

    monkeypatch.setattr(Output, "write", write)
    sources = {name: Scripted(Token(1, 1, "x")) for name in "ab"} | {"c": Scripted(goes_on=True)}
    with pytest.raises(BrokenPipeError):
        await JointWatcher(sources).watch()


async def test_lines_of_one_write_stay_together(written: list[Piece]) -> None:
    """What one job says at once comes together: no other job's line gets between."""
    turn = trio.Lock()
    async with trio.open_nursery() as nursery:
        for label in ("a | ", "b | "):
            nursery.start_soon(LabelledOutput(label, turn).write, [(STDOUT, "1\n"), (STDERR, "2\n"), (STDOUT, "3\n")])
    assert len(written) == 6
    assert {text[0] for _, text in written[:3]} in ({"a"}, {"b"})


async def test_leaving(written: list[Piece]) -> None:
    """Who leaves is told how many of the jobs go on."""
    ended = Scripted(Token(1, 1, "x"), goes_on=True)
    ended.has_ended = True  # though not all of it is shown
    sources = {
        "a": Scripted(Token(1, 1, "x"), goes_on=True),
        "b": Scripted(End(1, Completed())),
        "c": Scripted(UnknownJobError("c")),
        "d": ended,
        "e": None,
    }

    async def watch() -> None:
        assert await JointWatcher(sources).watch() == 130

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked(0.01)
        signal.raise_signal(signal.SIGINT)
    assert written[-1][1].strip() == "jobtrio: jobs that go on: 1 of 5"
