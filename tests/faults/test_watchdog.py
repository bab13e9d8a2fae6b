"""Programs end with the process that runs them, however that goes."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]
import pytest
from patience import wait_until

import jobtrio
from jobtrio import Completed, _watchdog, _watchdog_process
from jobtrio._processes import HAS_PROC, living_in_session, sessions_with
from jobtrio._program_session import MARK, ProgramSession
from jobtrio._watchdog import MOST_UNREAD, Watchdog, watchdog
from jobtrio.executors import run_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.timeout(540), pytest.mark.skipif(not HAS_PROC, reason="the tests look into /proc")]

WORKER = """
import os, signal, subprocess, sys
import trio
import jobtrio
from jobtrio import Token
from jobtrio._watchdog import watchdog
from jobtrio.executors import run_command

async def watch(job):
    async for message in job.subscribe():
        if isinstance(message, Token):
            print(message.value["stdout"], flush=True)

async def main(grace, scripts):
    async with jobtrio.open_registry() as registry, trio.open_nursery() as nursery:
        for script in scripts:
            payload = {"argv": ["sh", "-c", script], "grace": grace}
            nursery.start_soon(watch, await registry.submit(run_command, payload))
        while watchdog.pid is None:
            await trio.sleep(0.01)
        print("watchdog", watchdog.pid, flush=True)
        AND_THEN

trio.run(main, float(sys.argv[1]), sys.argv[2:])
"""


KILLED_AT_BIRTH = """
import json, os, signal, sys
import trio
import jobtrio
from jobtrio._watchdog import Watchdog, watchdog
from jobtrio.executors import run_command

def killed(self, mark, session):
    if sys.argv[2:]:
        os.waitid(os.P_PID, session, os.WEXITED | os.WNOWAIT)
    print(watchdog.pid, session, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with jobtrio.open_registry() as registry:
        await registry.submit(run_command, json.loads(sys.argv[1]))

Watchdog.born = killed
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the program inherits it
trio.run(main)
"""


class Worker:
    """A process that runs programs, which say their ids."""

    def __init__(self, *scripts: str, grace: float = 30.0, and_then: str = "pass") -> None:
        text = WORKER.replace("AND_THEN", and_then)
        self.process = subprocess.Popen(
            [sys.executable, "-c", text, str(grace), *scripts], stdout=subprocess.PIPE, start_new_session=True
        )
        self.watchdog = 0
        self.said: list[str] = []

    def hear(self, count: int) -> list[str]:
        """Return the first lines that the programs say, and know the watchdog by then."""
        assert self.process.stdout is not None
        while len(self.said) < count or not self.watchdog:
            line = self.process.stdout.readline().decode().strip()
            assert line, "the worker ended"
            if line.startswith("watchdog "):
                self.watchdog = int(line.split()[1])
            else:
                self.said.append(line)
        return self.said

    def kill(self) -> None:
        """Kill it, and it alone."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End what is left of it, also where the watchdog has failed."""
        self.kill()
        for line in self.said:
            if line.isdecimal():
                for pid in living_in_session(int(line)):
                    os.kill(pid, signal.SIGKILL)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    """Return what starts workers; they are gone when the test is over."""
    with contextlib.ExitStack() as stack:

        def started(*args: Any, **options: Any) -> Worker:
            worker = Worker(*args, **options)
            stack.callback(worker.close)
            return worker

        yield started


def wait_gone(session: int) -> None:
    """Wait until nothing lives in a session."""
    limit = time.monotonic() + 60
    while left := living_in_session(session):
        assert time.monotonic() < limit, f"{left} live"
        time.sleep(0.01)


def wait_ended(pid: int) -> None:
    """Wait until a process is gone, or is a zombie."""
    limit = time.monotonic() + 60
    while is_there(pid):
        assert time.monotonic() < limit, f"{pid} lives"
        time.sleep(0.01)


def is_there(pid: int) -> bool:
    """Whether a process lives."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def ignores(pid: int, number: int) -> bool:
    """Whether a process ignores a signal."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        (mask,) = [line.split()[1] for line in file if line.startswith("SigIgn:")]
    return bool(int(mask, 16) >> (number - 1) & 1)


SAY = "trap '' PIPE; echo $$; "  # a shell that says what became of its children is not to end because nobody hears it
SLEEP = "sleep 1000 & sleep 1000"


# -- the process is killed


def test_killed(start: Callable[..., Worker]) -> None:
    """When the process is killed, its programs go with all that they have started, and the watchdog goes then."""
    worker = start(SAY + SLEEP, SAY + "timeout 1000 sh -c 'sleep 1000; true'")
    sessions = [int(line) for line in worker.hear(2)]
    wait_until(lambda: all(len(living_in_session(session)) >= 3 for session in sessions))
    worker.kill()
    for session in sessions:
        wait_gone(session)
    wait_ended(worker.watchdog)


@pytest.mark.parametrize(
    ("payload", "more"),
    [
        ({"argv": ["sh", "-c", SLEEP]}, []),
        ({"argv": ["sh", "-c", SLEEP], "env": {MARK: "that of whoever has made the payload"}}, []),
        ({"argv": ["sh", "-c", "sleep 1000 >&- 2>&- &"]}, ["once the program has ended"]),
    ],
)
def test_killed_before_it_could_tell(payload: dict[str, Any], more: list[str]) -> None:
    """Nothing is left of a program that was started, but not told of, when the process was killed."""
    argv = [sys.executable, "-c", KILLED_AT_BIRTH, json.dumps({**payload, "grace": 0.1}), *more]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        pid, session = map(int, process.stdout.readline().split())
    try:
        wait_ended(pid)
        assert not living_in_session(session)
    finally:
        for each in living_in_session(session):
            os.kill(each, signal.SIGKILL)


def test_a_program_that_clears_its_environment(start: Callable[..., Worker]) -> None:
    """One that bears no mark any more is known by its session."""
    worker = start(f"exec env -i sh -c {shlex.quote(SAY + SLEEP)}")
    (session,) = map(int, worker.hear(1))
    worker.kill()
    wait_gone(session)


def test_what_a_program_does_on_sigterm(start: Callable[..., Worker], tmp_path: Path) -> None:
    """A program has its grace: what it does on SIGTERM it can do to the end."""
    script = f"trap 'sleep 0.3; echo > {tmp_path}/swept; exit' TERM; {SAY} while :; do sleep 0.01; done"
    worker = start(script)
    (session,) = map(int, worker.hear(1))
    worker.kill()
    wait_gone(session)
    assert (tmp_path / "swept").exists()


def test_a_program_that_ignores_sigterm(start: Callable[..., Worker], tmp_path: Path) -> None:
    """It is killed after its grace; one that has stopped is woken to see SIGTERM."""
    deaf = f"trap 'echo > {tmp_path}/asked' TERM; {SAY} while :; do sleep 0.01; done"
    stopped = f"trap 'echo > {tmp_path}/woken; exit' TERM; {SAY} kill -STOP $$"
    worker = start(deaf, stopped, grace=0.5)
    sessions = [int(line) for line in worker.hear(2)]
    worker.kill()
    for session in sessions:
        wait_gone(session)
    assert (tmp_path / "asked").exists()
    assert (tmp_path / "woken").exists()


def test_it_outlives_what_ends_the_other(start: Callable[..., Worker]) -> None:
    """No signal that a terminal or a supervisor sends keeps it from its work."""
    worker = start(SAY + SLEEP)
    (session,) = map(int, worker.hear(1))
    wait_until(lambda: ignores(worker.watchdog, signal.SIGTERM))  # it is just being started
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        os.kill(worker.watchdog, number)
    assert os.getsid(worker.watchdog) == worker.watchdog
    worker.kill()
    wait_gone(session)


@pytest.mark.parametrize(
    "and_then",
    [
        "print('held', flush=True) if os.fork() else signal.pause()",
        "pipe = watchdog._process.stdin.fileno(); "
        "print('held', subprocess.Popen(['sleep', '1000'], pass_fds=[pipe]).pid, flush=True)",
    ],
    ids=["fork", "inherited"],
)
def test_a_child_that_holds_the_pipe(start: Callable[..., Worker], and_then: str) -> None:
    """A child of the process that lives on, with all descriptors of it, hides its death from nobody."""
    worker = start(SAY + SLEEP, and_then=and_then)
    lines = worker.hear(2)
    session = next(int(line) for line in lines if line.isdecimal())
    worker.kill()
    wait_gone(session)
    wait_ended(worker.watchdog)
    os.killpg(worker.process.pid, signal.SIGKILL)


def test_a_child_that_was_forked_has_none(start: Callable[..., Worker]) -> None:
    """A child is to start one of its own, which sees when the child is gone: it does not tell its parent's."""
    in_child = "print('child', watchdog.pid, watchdog.sessions, flush=True), os._exit(0)"
    worker = start(SAY + SLEEP, and_then=f"(pid := os.fork()) and os.waitpid(pid, 0) or ({in_child})")
    assert "child None []" in worker.hear(2)


def test_a_stopped_process_is_not_gone(start: Callable[..., Worker]) -> None:
    """While the process stands still its programs run on."""
    worker = start(SAY + SLEEP)
    (session,) = map(int, worker.hear(1))
    worker.process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)  # it looks every second
    assert living_in_session(session)
    worker.process.send_signal(signal.SIGCONT)
    worker.kill()
    wait_gone(session)


@pytest.mark.parametrize("action", ["SIG_IGN", "SIG_DFL"])
def test_a_watchdog_that_was_killed(start: Callable[..., Worker], action: str) -> None:
    """Another one is started with the next program, and knows of those that run; whatever SIGPIPE does here."""
    and_then = (
        f"signal.signal(signal.SIGPIPE, signal.{action}); "
        "os.kill(watchdog.pid, signal.SIGKILL); os.waitid(os.P_PID, watchdog.pid, os.WEXITED | os.WNOWAIT); "
        "nursery.start_soon(watch, await registry.submit(run_command, {'argv': ['sh', '-c', 'echo $$; sleep 1000']}))"
    )
    worker = start(SAY + SLEEP, and_then=and_then)
    sessions = [int(line) for line in worker.hear(2)]
    worker.kill()
    for session in sessions:
        wait_gone(session)


def test_the_process_ends_by_itself(start: Callable[..., Worker]) -> None:
    """The watchdog goes with a process that ends as it should."""
    worker = start("echo done")
    assert worker.hear(1) == ["done"]
    assert worker.process.wait() == 0
    wait_ended(worker.watchdog)


# -- in this process


@pytest.fixture
def fresh() -> Iterator[Watchdog]:
    """Return a watchdog of the test's own."""
    own = Watchdog()
    yield own
    own.forget()


@contextlib.contextmanager
def sleeping(mark: str = "") -> Iterator[int]:
    """Run a program, and give the id of its session."""
    program = subprocess.Popen(["sleep", "1000"], env={**os.environ, MARK: mark}, start_new_session=True)
    try:
        yield program.pid
    finally:
        program.kill()
        program.wait()


@contextlib.contextmanager
def guarding(own: Watchdog, session: int) -> Iterator[None]:
    """Have a watchdog look after a program that is there already."""
    with own.guarding(0.1) as mark:
        own.born(mark, session)
        yield


def test_one_that_stands_still(fresh: Watchdog, caplog: pytest.LogCaptureFixture) -> None:
    """A watchdog that reads no more is replaced before it holds anything up, and does no harm by it."""
    with sleeping() as session, guarding(fresh, session):
        first = fresh.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        unread = 0
        for number in range(4 * MOST_UNREAD // 10):
            with guarding(fresh, 10_000_000 + number):
                pass
            if fresh.pid != first:
                break
            unread = len(fresh._unread)
        assert fresh.pid != first
        assert unread > MOST_UNREAD // 2  # it may read that later, where it is only slow
        wait_ended(first)
        assert living_in_session(session)
        assert "another one is started" in caplog.text
        fresh.forget()  # as the end of this process would
        wait_gone(session)


def test_one_at_a_time(fresh: Watchdog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that start programs at one time tell it one after the other, and start no second one."""
    told: list[bool] = []
    monkeypatch.setattr(fresh, "_tell", lambda line: told.append(fresh._lock.locked()))
    with guarding(fresh, 10_000_000):
        pass
    assert told == [True, True, True]


def test_what_it_is_told_may_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the pipe was full in the midst of a line, the rest of that comes later."""
    parts = iter([b"? 1 0.", b"5\n+ 1 0.5 7", b"\n- 1\n", b""])
    monkeypatch.setattr(_watchdog_process, "select", SimpleNamespace(select=lambda *args: ([0], [], [])))
    monkeypatch.setattr(_watchdog_process, "os", SimpleNamespace(read=lambda fd, size: next(parts)))
    assert list(_watchdog_process._lines(1)) == [b"? 1 0.5", b"+ 1 0.5 7", b"- 1"]


def test_a_program_that_is_born_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was being started when its process was killed is looked for a while, and found once."""
    mark = secrets.token_hex(8)
    with contextlib.ExitStack() as stack:
        born: list[int] = []

        def sleep(seconds: float) -> None:
            born.append(stack.enter_context(sleeping(mark)))
            wait_until(lambda: (born[-1], mark.encode()) in sessions_with(MARK))  # it has just become another program

        clock = SimpleNamespace(monotonic=lambda: 0.3 * len(born), sleep=sleep)
        monkeypatch.setattr(_watchdog_process, "time", clock)
        found = [(program.id, grace) for program, grace in _watchdog_process._found({mark.encode(): 0.5})]
        assert found == [(session, 0.5) for session in born]
        assert len(found) == 4


@pytest.mark.parametrize("seen", [True, False])
def test_one_that_was_killed(fresh: Watchdog, monkeypatch: pytest.MonkeyPatch, seen: bool) -> None:
    """Another one is started with what is told next, and knows of what runs; also where its death shows by the pipe."""
    with sleeping() as session, guarding(fresh, session):
        with guarding(fresh, 10_000_000):
            first = fresh._process
            assert first is not None
            first.kill()
            os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
            if not seen:
                monkeypatch.setattr(first, "poll", lambda: None)
        assert fresh.pid not in {None, first.pid}
        fresh.forget()  # as the end of this process would
        wait_gone(session)


def test_only_what_was_about_to_be_started_is_looked_for(fresh: Watchdog) -> None:
    """A program that bears another mark is let alone, and so is one whose guard is over."""
    with fresh.guarding(0.1) as over:
        pass
    with sleeping() as other, sleeping(over) as ended, fresh.guarding(0.1) as mark, sleeping(mark) as sought:
        with guarding(fresh, other):
            pass
        pid = fresh.pid
        fresh.forget()  # as the end of this process would
        assert pid is not None
        wait_ended(pid)
        assert living_in_session(other)
        assert living_in_session(ended)
        assert not living_in_session(sought)


async def test_a_program_that_is_not_there() -> None:
    """Nothing is looked after of a program that could not be started."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(run_command, {"argv": ["jobtrio-no-such-program"]})
        assert isinstance(await job.wait(), jobtrio.Failed)
    assert not watchdog._programs


def test_nothing_to_start_it_with(
    fresh: Watchdog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it can't be started, that is said, and programs run all the same."""
    monkeypatch.setattr("multiprocessing.spawn.get_executable", lambda: b"/no/such/program")
    with sleeping() as session, guarding(fresh, session):
        assert fresh.pid is None
    assert "no watchdog could be started" in caplog.text


def test_no_interpreter(fresh: Watchdog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is frozen is not started a second time."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with sleeping() as session, guarding(fresh, session):
        assert fresh.pid is None


@pytest.mark.parametrize("writes", [False, True])
def test_it_writes_no_bytecode_where_that_is_not_wanted(
    fresh: Watchdog, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    """A program that is to write nothing beside its modules has no watchdog that does."""
    monkeypatch.setattr(sys, "dont_write_bytecode", not writes)
    with sleeping() as session, guarding(fresh, session):
        assert fresh.pid is not None
        program = psutil.Process(fresh.pid)
        wait_until(lambda: bool(program.cmdline()))  # it has only just become another program
        assert ("-ISB" in program.cmdline()) is not writes


def test_it_holds_nothing_open(fresh: Watchdog) -> None:
    """Who reads what a process writes, or unmounts where it was, does not wait for the watchdog."""
    with guarding(fresh, 10_000_000):
        held = [os.readlink(f"/proc/{fresh.pid}/{name}") for name in ("fd/1", "fd/2", "cwd")]
    assert held == [os.devnull, os.devnull, "/"]


async def test_one_for_all_programs() -> None:
    """One process looks after all programs of this one; it is started with the first."""
    watchdog.forget()
    async with jobtrio.open_registry() as registry:
        assert watchdog.pid is None
        pids: set[int | None] = set()
        for _ in range(3):
            job = await registry.submit(run_command, {"argv": ["true"]})
            assert await job.wait() == Completed(0)
            pids.add(watchdog.pid)
    (pid,) = pids
    watchdog.forget()
    assert pid is not None
    wait_ended(pid)


def test_the_interpreters_start_is_small() -> None:
    """The watchdog's process loads nothing but the standard library."""
    code = _watchdog.BOOT.replace("main(int(sys.argv[2]))", "print(sorted({n.partition('.')[0] for n in sys.modules}))")
    folder = os.path.dirname(_watchdog.__file__)
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code, folder], capture_output=True, text=True, check=True)
    names = set(eval(run.stdout))
    assert names - sys.stdlib_module_names - {"__main__", "__mp_main__"} <= {"jobtrio"}


def test_no_thread_to_end_a_program_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system allows no thread, as a program that starts too many processes sees to, it is killed at once."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with sleeping() as first, sleeping() as second:
        _watchdog_process._end([(ProgramSession(session), 1000.0) for session in (first, second)])
        assert [*living_in_session(first), *living_in_session(second)] == []
