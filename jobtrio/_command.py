"""The executor `run_command`: a program as a job, its lines as tokens.

It owns the payload's form and the order of the ending. How processes are ended belongs to
`_running_program`, how output becomes tokens to `_relay` and `_lines`. It must not know who watches.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import trio

from jobtrio._checks import check_seconds, show
from jobtrio._errors import CommandFailedError
from jobtrio._nursery import open_background_nursery
from jobtrio._program_session import MARK
from jobtrio._relay import Relay
from jobtrio._running_program import RunningProgram
from jobtrio._watchdog import watchdog

if TYPE_CHECKING:
    from jobtrio._context import JobContext

JOB = "JOBTRIO_JOB"
ATTEMPT = "JOBTRIO_ATTEMPT"
"""Variables by which a program knows whose it is."""

FIELDS = ("argv", "cwd", "env", "grace")

NOT_THERE = "no such program, or the interpreter that its first line names is missing"
NOT_A_PROGRAM = "not an executable program"
"""What the error of a program that can't be started says of it."""

_REASONS = {errno.ENOENT: NOT_THERE, errno.EACCES: NOT_A_PROGRAM}

DEFAULT_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""

LINGER = 0.1
"""Seconds that what the program leaves behind has to end by itself, as the end of a pipeline does."""

DRAIN_LIMIT = 2.0
"""Seconds that a cancelled job goes on sending what the program wrote before it was gone."""


@trio.lowlevel.enable_ki_protection
async def run_command(job: JobContext) -> int:
    """Run a program and send each line of its output as a token; return 0.

    The payload is a mapping: ``argv``, the program and its arguments; optional ``cwd``, the folder to run in; ``env``,
    variables (strings by name) that are added to this process's own environment, where None removes one; ``grace``, the
    seconds from SIGTERM to SIGKILL, by default 5. With jobs in memory, a `pathlib.Path` may be given for a string. The
    program has no standard input and no terminal. Its environment names the job, ``JOBTRIO_JOB``, and the attempt,
    ``JOBTRIO_ATTEMPT``, unless ``env`` does.

    A line is a token ``{"stdout": "…"}`` or ``{"stderr": "…"}``, without its line ending, with undecodable bytes as
    backslash escapes. With ``"partial": True`` more of the same line follows: lines over 64 KiB come in such parts, and
    so do lines that are redrawn, each part with its carriage return. The order within each of the two streams is kept.
    While ``send`` waits, the program has to wait.

    When the job's time is up or it is cancelled, or a tenth of a second after the program has ended, all that is alive
    of the program's session gets SIGTERM, after ``grace`` SIGKILL, and this function returns when none is left (or,
    with a warning in the log, 5 seconds after SIGKILL). What began a session of its own (``setsid``, a daemon) is out
    of reach: it keeps running, and its output is no longer read. If this process is killed, another one, started with
    its first program, ends the session in the same way.

    Raises:
        CommandFailedError: The program exited with a code other than 0, or by a signal.
        FileNotFoundError: There is no such program.
        OSError: The program could not be started.
        RuntimeError: Its exit code can't be known: SIGCHLD is ignored, or something else here waits for all children.
        TypeError: The payload or a field of it is of the wrong type.
        ValueError: The payload has an unknown or invalid field.

    *Cancellation*: nothing of the program is left, and what it wrote until then, parting words included, was sent. This
    takes up to ``grace`` plus 7 seconds; the last two only if a lossless consumer does not read.
    """
    command = Command.from_payload(job.payload)
    await trio.lowlevel.checkpoint()
    with watchdog.guarding(command.grace) as mark, command.start(job, mark) as program:
        watchdog.born(mark, program.id)
        relay = Relay(job.send, job.send_nowait, stdout=program.stdout, stderr=program.stderr)
        await _attend(program, relay, command.grace)
        if relay.failure is not None:
            raise relay.failure
        returncode = program.reap()
    if returncode != 0:
        raise CommandFailedError(returncode, f"{command.argv[0]!r} {_describe(returncode)}")
    return 0


@trio.lowlevel.enable_ki_protection
async def _attend(program: RunningProgram, relay: Relay, grace: float) -> None:
    """Relay the output until the program has ended or may not go on, end its session, relay the rest."""
    async with open_background_nursery() as nursery:
        nursery.start_soon(relay.run)
        linger = 0.0
        try:
            try:
                with relay.going:
                    await program.wait_exited()
                    linger = LINGER
            finally:
                # The relay reads on meanwhile: who writes before it goes must not wait for a reader.
                await program.end(grace, linger=linger)
                relay.close_input()
            await relay.finished.wait()
        finally:
            # Nothing is left to do where the relay has finished; the bound of its shield where it has not.
            relay.scope.deadline = trio.current_time() + DRAIN_LIMIT


def _describe(returncode: int) -> str:
    if returncode > 0:
        return f"exited with {returncode}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"was ended by signal {-returncode}"


@attrs.frozen
class Command:
    """What a payload asks for, checked.

    Attributes:
        argv: The program and its arguments.
        cwd: The folder to run in, or None for this process's own.
        env: What is added to this process's environment; None takes a name away.
        grace: Seconds from SIGTERM to SIGKILL.
    """

    argv: tuple[str, ...]
    cwd: str | None = None
    env: dict[str, str | None] = attrs.field(factory=dict, repr=False)
    grace: float = DEFAULT_GRACE

    @classmethod
    def from_payload(cls, payload: Any) -> Command:
        """Check a payload.

        Raises:
            TypeError: It or a field is of the wrong type; the message has field, value and what is allowed.
            ValueError: A field is unknown, missing or senseless; as above.
        """
        if not isinstance(payload, Mapping):
            raise TypeError(f"payload must be a mapping with the fields {FIELDS}; got {show(payload)}")
        for field in payload:
            if field not in FIELDS:
                raise ValueError(f"payload must have no other fields than {FIELDS}; got {show(field)}")
        if "argv" not in payload:
            raise ValueError(f"payload['argv'] must be given; got the fields {show(list(payload))}")
        return cls(
            argv=_check_argv(payload["argv"]),
            cwd=_check_cwd(payload.get("cwd")),
            env=_check_env(payload.get("env")),
            grace=check_seconds("payload['grace']", payload.get("grace", DEFAULT_GRACE)),
        )

    def start(self, job: JobContext, mark: str) -> RunningProgram:
        """Start the program for a job, with the watchdog's mark.

        Raises:
            OSError: It could not be started; what could not be found or executed is its ``filename``.
        """
        # UTF-8 in any locale: one that can't hold the id doesn't hold up the program.
        env = {**os.environ, JOB: os.fsdecode(job.id.encode()), ATTEMPT: str(job.attempt), **self.env, MARK: mark}
        try:
            return RunningProgram(self.argv, cwd=self.cwd, env={k: v for k, v in env.items() if v is not None})
        except OSError as exc:
            program = self.argv[0]
            if exc.filename != program or exc.errno not in _REASONS:
                raise
            raise type(exc)(exc.errno, _REASONS[exc.errno], program) from None


def _check_argv(value: Any) -> tuple[str, ...]:
    allowed = "a list of the program and its arguments as text or paths, with at least the program"
    if isinstance(value, (str, bytes, bytearray)) or not isinstance(value, Sequence):
        raise TypeError(f"payload['argv'] must be {allowed}; got {show(value)}")
    if not value or not value[0]:
        raise ValueError(f"payload['argv'] must be {allowed}; got {show(value)}")
    return tuple(_check_native(f"payload['argv'][{index}]", item) for index, item in enumerate(value))


def _check_cwd(value: Any) -> str | None:
    if value is None:
        return None
    folder = _check_native("payload['cwd']", value)
    if not os.path.isdir(folder):
        raise ValueError(f"payload['cwd'] must be a folder that exists, or None; got {show(value)}")
    return folder


def _check_env(value: Any) -> dict[str, str | None]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"payload['env'] must be a mapping of text to text or None; got {show(value)}")
    env: dict[str, str | None] = {}
    for key, item in value.items():
        name = _check_native("a name in payload['env']", key)
        if not name or "=" in name:
            raise ValueError(f"a name in payload['env'] must be text without '='; got {show(key)}")
        env[name] = None if item is None else _check_native(f"payload['env'][{name!r}]", item)
    return env


def _check_native(name: str, value: Any) -> str:
    """Return ``value``, text or a path, as text that can be handed to the operating system."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise TypeError(f"{name} must be text or a path; got {show(value)}")
    allowed = "text without NUL and lone surrogates"
    try:
        fit = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        fit = False
        if not any("\ud800" <= char <= "\udfff" for char in text):
            allowed = f"text in the encoding of this process's locale, {sys.getfilesystemencoding()}"
    if not fit:
        raise ValueError(f"{name} must be {allowed}; got {show(value)}")
    return text
