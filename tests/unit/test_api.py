"""The public names, exactly: what is exported, with which parameters, defaults, bases and fields."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import re
import subprocess
import sys
import types
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, get_type_hints

import attrs
import msgspec
import pytest
import trio

import jobtrio
import jobtrio.abc
import jobtrio.executors

if TYPE_CHECKING:
    from collections.abc import Callable

REQUIRED = inspect.Parameter.empty
POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD
KEYWORD = inspect.Parameter.KEYWORD_ONLY

Row = tuple[str, Any, Any]


def args(**defaults: Any) -> list[Row]:
    """Rows of parameters that may be given by position."""
    return [(name, POSITIONAL, default) for name, default in defaults.items()]


def words(text: str) -> list[str]:
    """Split a list of names that is easier to read as text."""
    return text.split()


def kwargs(**defaults: Any) -> list[Row]:
    """Rows of parameters that are given by name alone."""
    return [(name, KEYWORD, default) for name, default in defaults.items()]


OPTIONS: dict[str, Any] = {
    "job_id": None,
    "key": None,
    "queue": "default",
    "priority": jobtrio.JobPriority.NORMAL,
    "time_limit": None,
    "retry": None,
    "delay": None,
    "run_at": None,
    "expires_in": None,
    "tags": None,
    "metadata": None,
}

REGISTRY = jobtrio.JobRegistry
JOB = jobtrio.Job
CONTEXT = jobtrio.JobContext

SIGNATURES: dict[str, tuple[Callable[..., Any], list[Row]]] = {
    "submit": (
        REGISTRY.submit,
        [*args(self=REQUIRED, executor=REQUIRED, payload=None), *kwargs(**OPTIONS)],
    ),
    "submit_many": (REGISTRY.submit_many, args(self=REQUIRED, specs=REQUIRED)),
    "create_job": (REGISTRY.create_job, [*args(self=REQUIRED, payload=None), *kwargs(**OPTIONS)]),
    "execute_and_stream": (
        REGISTRY.execute_and_stream,
        [*args(self=REQUIRED, job_id=REQUIRED, executor=REQUIRED), *kwargs(time_limit=None)],
    ),
    "get": (REGISTRY.get, args(self=REQUIRED, job_id=REQUIRED)),
    "find": (
        REGISTRY.find,
        [
            *args(self=REQUIRED),
            *kwargs(state=None, tags=None, queue=None, executor=None, key=None),
            *kwargs(limit=100, after=None, newest_first=False),
        ],
    ),
    "find_all": (
        REGISTRY.find_all,
        [*args(self=REQUIRED), *kwargs(state=None, tags=None, queue=None, executor=None, key=None, newest_first=False)],
    ),
    "cancel": (REGISTRY.cancel, [*args(self=REQUIRED, job_id=REQUIRED, reason=None), *kwargs(grace=0.0)]),
    "set_priority": (REGISTRY.set_priority, args(self=REQUIRED, job_id=REQUIRED, priority=REQUIRED)),
    "history": (REGISTRY.history, args(self=REQUIRED, job_id=REQUIRED)),
    "peek": (REGISTRY.peek, args(self=REQUIRED, job_id=REQUIRED)),
    "remove": (REGISTRY.remove, args(self=REQUIRED, job_id=REQUIRED)),
    "subscribe_events": (REGISTRY.subscribe_events, args(self=REQUIRED)),
    "stats": (REGISTRY.stats, args(self=REQUIRED)),
    "drain": (REGISTRY.drain, args(self=REQUIRED)),
    "shutdown": (REGISTRY.shutdown, args(self=REQUIRED, grace=0.0)),
    "Job.subscribe": (
        JOB.subscribe,
        [*args(self=REQUIRED, after=0), *kwargs(on_gap="raise", lossless=False, stored=False)],
    ),
    "Job.open_channel": (JOB.open_channel, args(self=REQUIRED, size=64, after=0)),
    "Job.tokens": (JOB.tokens, args(self=REQUIRED, after=0)),
    "Job.wait": (JOB.wait, args(self=REQUIRED)),
    "Job.result": (JOB.result, args(self=REQUIRED)),
    "Job.cancel": (JOB.cancel, [*args(self=REQUIRED, reason=None), *kwargs(grace=0.0)]),
    "Job.set_priority": (JOB.set_priority, args(self=REQUIRED, priority=REQUIRED)),
    "receive_nowait": (jobtrio.Subscription.receive_nowait, args(self=REQUIRED)),
    "receive_batch": (jobtrio.Subscription.receive_batch, args(self=REQUIRED, max=256)),
    "receive": (jobtrio.Subscription.receive, args(self=REQUIRED)),
    "aclose": (jobtrio.Subscription.aclose, args(self=REQUIRED)),
    "send": (CONTEXT.send, args(self=REQUIRED, token=REQUIRED)),
    "send_nowait": (CONTEXT.send_nowait, args(self=REQUIRED, token=REQUIRED)),
    "progress": (CONTEXT.progress, args(self=REQUIRED, done=REQUIRED, total=None, note=None)),
    "extend": (CONTEXT.extend, args(self=REQUIRED, seconds=REQUIRED)),
    "save_state": (CONTEXT.save_state, args(self=REQUIRED, value=REQUIRED)),
    "RetryLater": (jobtrio.RetryLater, [*args(delay=0.0, message=None), *kwargs(counts=True)]),
    "RetryPolicy": (
        jobtrio.RetryPolicy,
        args(max_attempts=3, initial=1.0, multiplier=2.0, max_delay=300.0, jitter=0.1),
    ),
    "Retention": (
        jobtrio.Retention,
        args(finished_jobs=10_000, finished_for=3600.0, tokens_per_job=10_000, held_for=300.0),
    ),
    "RateLimit": (jobtrio.RateLimit, args(starts=REQUIRED, per=REQUIRED, burst=1)),
    "JobSpec": (jobtrio.JobSpec, [*args(executor=REQUIRED, payload=None), *kwargs(**OPTIONS)]),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name: str) -> None:
    """A public callable has exactly the documented parameters, in order, with their kinds and defaults."""
    function, expected = SIGNATURES[name]
    found = [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]
    assert found == expected


def test_open_registry_parameters() -> None:
    """`open_registry` has exactly the documented options, each usable by name, with their defaults."""
    parameters = inspect.signature(jobtrio.open_registry).parameters
    assert {name: p.default for name, p in parameters.items()} == {
        "executors": None,
        "store": None,
        "max_running": 100,
        "queues": None,
        "max_queued": 100_000,
        "retention": jobtrio.Retention(),
        "lease": 30.0,
        "worker": None,
        "max_running_total": None,
        "rate_limits": None,
    }
    assert list(parameters)[:2] == ["executors", "store"]
    assert {p.kind for p in parameters.values()} <= {POSITIONAL, KEYWORD}


def test_register_parameters() -> None:
    """`Executors.register` takes the name and, by name, what `submit` may override."""
    parameters = inspect.signature(jobtrio.Executors.register).parameters
    assert list(parameters)[:2] == ["self", "name"]
    assert set(parameters) - {"self", "name"} == {"time_limit", "retry", "queue", "retry_on", "expose"}
    assert parameters["time_limit"].default is None
    assert parameters["retry"].default is None
    assert parameters["expose"].default is False


ASYNC = (
    REGISTRY.submit,
    REGISTRY.submit_many,
    REGISTRY.create_job,
    REGISTRY.get,
    REGISTRY.find,
    REGISTRY.cancel,
    REGISTRY.set_priority,
    REGISTRY.history,
    REGISTRY.remove,
    REGISTRY.drain,
    REGISTRY.shutdown,
    JOB.wait,
    JOB.result,
    JOB.cancel,
    JOB.set_priority,
    CONTEXT.send,
    CONTEXT.save_state,
    jobtrio.Subscription.receive,
    jobtrio.Subscription.receive_batch,
    jobtrio.Subscription.aclose,
)
SYNC = (
    REGISTRY.subscribe_events,
    REGISTRY.stats,
    REGISTRY.peek,
    JOB.subscribe,
    CONTEXT.send_nowait,
    CONTEXT.progress,
    CONTEXT.extend,
    jobtrio.Subscription.receive_nowait,
)


@pytest.mark.parametrize("function", ASYNC, ids=lambda f: f.__qualname__)
def test_async_functions(function: Callable[..., Any]) -> None:
    """What is documented with ``await`` is an async function."""
    assert inspect.iscoroutinefunction(function)


@pytest.mark.parametrize("function", SYNC, ids=lambda f: f.__qualname__)
def test_plain_functions(function: Callable[..., Any]) -> None:
    """What is documented without ``await`` never waits."""
    assert not inspect.iscoroutinefunction(function)
    assert not inspect.isasyncgenfunction(function)


NAMES = words("""
    open_registry JobRegistry Job JobSpec JobContext Subscription Executors
    JobState JobRecord JobError Transition JobPriority RetryPolicy RateLimit Retention
    Completed Failed Cancelled Token Progress Restart Gap End Message Outcome
    JobtrioError UnknownJobError DuplicateJobError IllegalTransitionError UnknownExecutorError PayloadError
    QueueFullError CommandFailedError JobEndedError LaggedError JobFailedError JobCancelledError
    StoreError StoreUnavailableError StoreVersionError RetryLater GiveUp
""")


@pytest.mark.parametrize("name", NAMES)
def test_name_is_exported(name: str) -> None:
    """A public name can be had from `jobtrio` and stands in its ``__all__``."""
    assert hasattr(jobtrio, name)
    assert name in jobtrio.__all__


def test_all_is_the_whole_of_the_public_names() -> None:
    """``__all__`` and the names without an underscore, submodules apart, are the same."""
    found = {
        name
        for name, value in vars(jobtrio).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    declared = [name for name in jobtrio.__all__ if not name.startswith("_")]
    assert len(declared) == len(set(declared))
    assert {n for n in declared if not isinstance(getattr(jobtrio, n), types.ModuleType)} == found


def test_names_beside_the_root() -> None:
    """The ready executor and the store contract are where the docs say."""
    assert callable(jobtrio.executors.run_command)
    assert inspect.isclass(jobtrio.abc.JobStore)


def test_names_of_the_contract() -> None:
    """What the contract for stores speaks of can be imported from there or from the root by who writes a store."""
    contract = [
        value for value in vars(jobtrio.abc).values() if inspect.isclass(value) and value.__module__ == "jobtrio.abc"
    ]
    functions = [
        value for cls in contract for name, value in vars(cls).items() if inspect.isfunction(value) and name[0] != "_"
    ]
    annotations = [*map(inspect.get_annotations, contract), *map(inspect.get_annotations, functions)]
    names = {name for each in annotations for text in each.values() for name in re.findall(r"\w+", text)}
    assert "JobEntry" in names
    beside = ("builtins", "collections.abc", "contextlib", "typing")
    modules = [jobtrio, jobtrio.abc, *map(importlib.import_module, beside)]
    found = {name for name in names if any(hasattr(module, name) for module in modules)}
    assert names - found - {"TokenLog"} == set()  # which only the store in memory has to do with
    for step in ("start", "become_ready", "retry", "finish", "CancelRequest"):
        assert callable(getattr(jobtrio.abc, step))


def test_testing_help() -> None:
    """`jobtrio.testing.run_job` takes an executor and its payload."""
    testing = importlib.import_module("jobtrio.testing")
    assert list(inspect.signature(testing.run_job).parameters)[:2] == ["executor", "payload"]


BASES = {
    "UnknownJobError": LookupError,
    "DuplicateJobError": jobtrio.JobtrioError,
    "IllegalTransitionError": jobtrio.JobtrioError,
    "UnknownExecutorError": jobtrio.JobtrioError,
    "PayloadError": TypeError,
    "QueueFullError": jobtrio.JobtrioError,
    "CommandFailedError": jobtrio.JobtrioError,
    "JobEndedError": jobtrio.JobtrioError,
    "LaggedError": jobtrio.JobtrioError,
    "JobFailedError": jobtrio.JobtrioError,
    "JobCancelledError": jobtrio.JobtrioError,
    "StoreError": jobtrio.JobtrioError,
    "StoreUnavailableError": jobtrio.StoreError,
    "StoreVersionError": jobtrio.StoreError,
}


@pytest.mark.parametrize(("name", "base"), BASES.items())
def test_errors_have_one_root(name: str, base: type[Exception]) -> None:
    """Every error is a `JobtrioError`, with a standard base where that helps callers."""
    error = getattr(jobtrio, name)
    assert issubclass(error, jobtrio.JobtrioError)
    assert issubclass(error, base)


@pytest.mark.parametrize("module", ["jobtrio", "jobtrio.websocket"])
def test_tracebacks_name_errors_as_users_import_them(module: str) -> None:
    """An error is called by its public name, and not by that of the private module which defines it."""
    public = [getattr(importlib.import_module(module), name) for name in importlib.import_module(module).__all__]
    errors = [value for value in public if isinstance(value, type) and issubclass(value, BaseException)]
    assert errors
    assert {error.__module__ for error in errors} == {module}


def test_root_of_errors() -> None:
    """The root is a plain `Exception`, and what an executor may raise on purpose is no error of jobtrio's."""
    assert jobtrio.JobtrioError.__bases__ == (Exception,)
    for request in (jobtrio.RetryLater, jobtrio.GiveUp):
        assert issubclass(request, Exception)
        assert not issubclass(request, jobtrio.JobtrioError)


ERROR = jobtrio.JobError("exception", "ValueError", "no", "")

FROZEN: list[tuple[Any, dict[str, Any]]] = [
    (jobtrio.Token(1, 2, "x"), {"seq": 1, "attempt": 2, "value": "x"}),
    (
        jobtrio.Progress(1, 2, 3.0, 4.0, "n"),
        {"seq": 1, "attempt": 2, "done": 3.0, "total": 4.0, "note": "n"},
    ),
    (jobtrio.Restart(1, 2, ERROR, 0.5), {"seq": 1, "attempt": 2, "error": ERROR, "delay": 0.5}),
    (jobtrio.Gap(1, 2), {"first": 1, "last": 2}),
    (jobtrio.End(1, jobtrio.Completed(2)), {"seq": 1, "outcome": jobtrio.Completed(2)}),
    (jobtrio.Completed(2), {"result": 2}),
    (jobtrio.Failed(ERROR), {"error": ERROR}),
    (jobtrio.Cancelled("why"), {"reason": "why"}),
    (ERROR, {"kind": "exception", "type": "ValueError", "message": "no", "traceback": ""}),
]


@pytest.mark.parametrize(("value", "fields"), FROZEN, ids=lambda v: type(v).__name__)
def test_messages_and_outcomes_are_frozen(value: Any, fields: dict[str, Any]) -> None:
    """A message or outcome is a frozen attrs value with exactly its documented fields, in order."""
    assert [field.name for field in attrs.fields(type(value))] == list(fields)
    for name, content in fields.items():
        assert getattr(value, name) == content
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, name, content)
    assert attrs.evolve(value) == value


RECORD = words("""
    id executor payload queue priority tags metadata key state attempt max_attempts created_at run_at
    started_at finished_at duration worker cancel_requested_at cancel_reason error result
    time_limit retry expires_in
""")
TRANSITION = words("job_id at previous state attempt worker reason")


@pytest.mark.parametrize(
    ("frozen", "names"),
    [(jobtrio.JobRecord, RECORD), (jobtrio.Transition, TRANSITION)],
    ids=["record", "line"],
)
def test_records_have_their_fields(frozen: type[Any], names: list[str]) -> None:
    """Records and lines of the audit log have exactly the documented fields, in order."""
    assert [field.name for field in attrs.fields(frozen)] == names


def test_duration_of_a_record() -> None:
    """It follows from the times, also in a copy and in what msgspec has read; nobody can give another one."""
    started = datetime(2026, 1, 31, tzinfo=UTC)
    state, priority = jobtrio.JobState.RUNNING, jobtrio.JobPriority.LOW
    record = jobtrio.JobRecord("a", "e", None, "q", priority, {}, {}, None, state, 1, 1, started, started_at=started)
    assert record.duration is None
    ended = attrs.evolve(record, finished_at=started + timedelta(seconds=1.5))
    assert ended.duration == 1.5
    assert attrs.asdict(ended)["duration"] == 1.5
    assert attrs.evolve(ended, started_at=None).duration is None
    assert msgspec.json.decode(msgspec.json.encode(ended), type=jobtrio.JobRecord) == ended
    assert pickle.loads(pickle.dumps(ended)) == copy.deepcopy(ended) == ended
    with pytest.raises(TypeError, match="duration"):
        jobtrio.JobRecord(duration=2.0)  # type: ignore[call-arg]


async def test_live_records_are_frozen() -> None:
    """What `record` and `history` hand out cannot be changed, and does not change with the job."""

    async def executor(job: jobtrio.JobContext) -> None:
        await trio.lowlevel.checkpoint()

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor)
        before = job.record
        await job.wait()
        assert (before.state, job.record.state) == ("QUEUED", "COMPLETED")
        for value in (before, (await registry.history(job.id))[0]):
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                value.state = jobtrio.JobState.FAILED  # type: ignore[misc]


def test_specs_and_policies_are_frozen() -> None:
    """`JobSpec` and the policies are frozen attrs values."""
    for value, name in (
        (jobtrio.JobSpec("generate"), "executor"),
        (jobtrio.RetryPolicy(), "jitter"),
        (jobtrio.RateLimit(6, per=60), "per"),
        (jobtrio.Retention(), "held_for"),
    ):
        assert attrs.has(type(value))
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, name, None)


def test_states() -> None:
    """`JobState` is a `StrEnum` whose values are its names: seven, three of them final."""
    names = ["SCHEDULED", "QUEUED", "RUNNING", "RETRYING", "COMPLETED", "FAILED", "CANCELLED"]
    assert issubclass(jobtrio.JobState, StrEnum)
    assert [(state.name, state.value) for state in jobtrio.JobState] == [(name, name) for name in names]


def test_priorities() -> None:
    """`JobPriority` has its four levels, lowest first."""
    assert [level.name for level in jobtrio.JobPriority] == ["LOW", "NORMAL", "HIGH", "CRITICAL"]
    assert sorted(jobtrio.JobPriority) == list(jobtrio.JobPriority)


def test_give_up_carries_its_message() -> None:
    """`GiveUp` keeps the message, by position or by name."""
    assert str(jobtrio.GiveUp("no")) == str(jobtrio.GiveUp(message="no")) == "no"


CONTEXT_ATTRIBUTES = words("""
    id payload attempt tags metadata queue priority deadline nursery cancel_scope stopping saved_state
""")


async def test_context_attributes() -> None:
    """`JobContext` has every documented attribute, with the job's own values."""
    seen: dict[str, Any] = {}

    async def executor(job: jobtrio.JobContext) -> None:
        seen.update({name: getattr(job, name) for name in CONTEXT_ATTRIBUTES})

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(
            executor,
            [1],
            tags={"user": "ann"},
            metadata={"n": 1},
            priority=jobtrio.JobPriority.HIGH,
        )
        await job.wait()
    assert isinstance(seen.pop("nursery"), trio.Nursery)
    assert isinstance(seen.pop("cancel_scope"), trio.CancelScope)
    assert isinstance(seen.pop("stopping"), trio.Event)
    assert seen == {
        "id": job.id,
        "payload": [1],
        "attempt": 1,
        "tags": {"user": "ann"},
        "metadata": {"n": 1},
        "queue": "default",
        "priority": jobtrio.JobPriority.HIGH,
        "deadline": float("inf"),
        "saved_state": None,
    }


async def test_nursery_scope_is_the_cancel_scope() -> None:
    """The attempt has one scope: its nursery's own."""
    same: list[bool] = []

    async def executor(job: jobtrio.JobContext) -> None:
        same.append(job.nursery.cancel_scope is job.cancel_scope)

    async with jobtrio.open_registry() as registry:
        await (await registry.submit(executor)).wait()
    assert same == [True]


async def test_handle_attributes() -> None:
    """`Job` has `id`, `state`, `record`, `outcome`; `subscribe` gives a receive channel of Trio's kind."""

    async def executor(job: jobtrio.JobContext) -> str:
        return "done"

    async with jobtrio.open_registry() as registry:
        job = await registry.create_job()
        assert (job.state, job.record.id, job.outcome) == ("QUEUED", job.id, None)
        async with registry.execute_and_stream(job.id, executor):
            await job.wait()
        assert job.outcome == jobtrio.Completed("done")
        with job.subscribe() as messages:
            assert isinstance(messages, trio.abc.ReceiveChannel)
            assert isinstance(messages, jobtrio.Subscription)
        async with job.open_channel() as channel:
            assert isinstance(channel, trio.MemoryReceiveChannel)
        assert job.id in registry
        assert len(registry) == 1


PUBLIC_VALUES = [
    value
    for module in (jobtrio, jobtrio.abc)
    for value in vars(module).values()
    if inspect.isclass(value) and attrs.has(value)
]
WITH_PRIVATE = {"JobEntry", "StoreSettings"}  # they hold a stream, whose class is not public


@pytest.mark.parametrize("value", [v for v in PUBLIC_VALUES if v.__name__ not in WITH_PRIVATE])
def test_annotations_can_be_resolved(value: type) -> None:
    """What converts by annotations, as msgspec and cattrs do, finds what those of public values name."""
    assert set(get_type_hints(value)) >= {field.name.lstrip("_") for field in attrs.fields(value) if field.init}


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("jobtrio.psycopg_trio", "psycopg", "postgres"),
        ("jobtrio.stores.postgres", "psycopg", "postgres"),
        ("jobtrio.stores.redis", "coredis", "redis"),
        ("jobtrio.websocket", "trio_websocket", "websocket"),
    ],
)
@pytest.mark.parametrize("error", ["ModuleNotFoundError", "ImportError"])
def test_without_its_extra(module: str, missing: str, extra: str, error: str) -> None:
    """A module says which extra it needs where that is not installed, or what is there of it is too old or half."""
    program = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {missing!r}:
            raise {error}(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import {module}
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.endswith(f"{module} needs an extra: pip install 'jobtrio[{extra}]'\n")


@pytest.mark.parametrize(
    "module",
    words("jobtrio jobtrio.executors jobtrio.psycopg_trio jobtrio.testing jobtrio.websocket")
    + words("jobtrio.stores.postgres jobtrio.stores.redis jobtrio.stores.sqlite"),
)
def test_lazy_imports(module: str) -> None:
    """Every public name is there also where Python imports a module only when one of its names is used."""
    program = f"import {module} as module; [getattr(module, name) for name in module.__all__]"
    # Before Python 3.15 the option says nothing.
    command = [sys.executable, "-X", "lazy_imports=all", "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
