"""`sweep_cancellation`: an executor cancelled at its first step, its second, its third, to the last.

It owns the counting of a job's steps and what has to hold however a run was cut. A cancellation that leaves
something behind does so at one step among many; trying all of them finds it. It must not know what the
executor does.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from trio.testing import wait_all_tasks_blocked

from jobtrio._checks import check_count, show
from jobtrio._messages import End
from jobtrio._nursery import lineage
from jobtrio._opening import open_registry
from jobtrio._records import Cancelled
from jobtrio._settlement import CANCELLED
from jobtrio._submission import as_async
from jobtrio.executors import check_executor
from jobtrio.testing._clock import run_virtually
from jobtrio.testing._run_job import KEEP_ALL, JobRun, observe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from jobtrio._core import RegistryCore
    from jobtrio._records import Transition

T = TypeVar("T")

REASON = "cancelled by the sweep"
"""The reason that the job is cancelled with."""

IDLE = "Trio thread "
"""How the names of threads begin that Trio keeps for their next use."""


def sweep_cancellation(
    executor: Callable[[Any], Any], payload: Any = None, *, at_most: int = 10_000, **submit_options: Any
) -> list[JobRun]:
    """Run a job again and again, cancelled at its 1st, 2nd, 3rd … step, until a run ends untouched.

    A step is what one of the job's tasks does between two waits; those of all attempts count. Each run has a
    virtual clock, as `run_job` has, and is checked: the job ended once, as cancelled if it was; its stream is
    without holes and ends with `End`; no task of it and no thread is left.

    Args:
        executor: An async or plain function, or a partial or callable object of either kind.
        payload: What the executor is given; the same object each time.
        at_most: How many runs to make at most.
        submit_options: What else `JobRegistry.submit` takes.

    Returns:
        All runs in order, the untouched one last.

    Raises:
        AssertionError: A check failed, or ``at_most`` runs were all cancelled; the text names the step.
        TypeError, ValueError: A parameter is invalid.
        RuntimeError: It was called within Trio, for example in an async test.

    An exception that ends the registry, as where the executor leaves a nursery open, has the step as a note.
    """
    at_most = check_count("at_most", at_most)
    check_executor(executor)
    function = as_async(executor)
    runs: list[JobRun] = []
    for step in range(1, at_most + 1):
        aim = CancelAtStep(step)
        try:
            runs.append(run_virtually(partial(_trial, function, payload, submit_options, aim), aim))
        except (AssertionError, trio.TooSlowError) as exc:
            raise AssertionError(f"{aim}: {exc}") from exc
        except BaseException as exc:
            if aim.is_cancelled:
                exc.add_note(f"the job was {aim}")
            raise
        if not aim.is_cancelled:
            return runs
    raise AssertionError(f"{aim}: the job still takes more steps than at_most={at_most} allows")


class CancelAtStep(trio.abc.Instrument):
    """Counts the steps of a job's tasks and cancels the job at one of them.

    Attributes:
        is_cancelled: Whether it did.
    """

    def __init__(self, step: int) -> None:
        self.is_cancelled = False
        self._step = step
        self._taken = 0
        self._core: RegistryCore | None = None
        self._root: trio.lowlevel.Task | None = None
        self._job_id = ""

    def __str__(self) -> str:
        return f"cancelled at step {self._step}" if self.is_cancelled else "not cancelled"

    def begin(self, core: RegistryCore, job_id: str) -> None:
        """Count the current task's steps, this one included, and those of the tasks below it."""
        self._core, self._job_id = core, job_id
        self._root = trio.lowlevel.current_task()
        self._count(core)

    def end(self) -> None:
        """Count no more: what follows is not the job's to do."""
        self._core = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a step, if it is the job's."""
        if self._core is not None and any(each is self._root for each in lineage(task)):
            self._count(self._core)

    def _count(self, core: RegistryCore) -> None:
        self._taken += 1
        attempt = core._runner.running.get(self._job_id)
        if self._taken == self._step and attempt is not None and attempt.may_be_cancelled():
            self.is_cancelled = True
            at_once(core.store.request_cancel(self._job_id, REASON, 0.0))
            attempt.stop(CANCELLED, 0.0)


async def _trial(
    executor: Callable[[Any], Awaitable[Any]], payload: Any, options: dict[str, Any], aim: CancelAtStep
) -> JobRun:
    tasks = set(_tasks())
    threads = _threads()
    async with open_registry(retention=KEEP_ALL) as registry:

        async def watched(job: Any) -> Any:
            aim.begin(registry._core, job.id)
            return await executor(job)

        job = await registry.submit(watched, payload, **options)
        try:
            run = await observe(job)
        finally:
            aim.end()
        history = await registry.history(job.id)
    _check_run(run, history, is_cancelled=aim.is_cancelled)
    await wait_all_tasks_blocked()
    left = sorted(task.name for task in set(_tasks()) - tasks)
    _require(not left, f"tasks were left: {', '.join(left)}")
    names = [name for _, name in _threads() - threads]
    _require(not names, f"threads were left: {', '.join(names)}")
    _require(not trio.to_thread.current_default_thread_limiter().borrowed_tokens, "a worker thread was left")
    return run


def _check_run(run: JobRun, history: list[Transition], *, is_cancelled: bool) -> None:
    ends = [line.state for line in history if line.state.is_final]
    _require(len(ends) == 1, f"the job ended {len(ends)} times: {', '.join(ends)}")
    if is_cancelled:
        # By this reason, or by that of an earlier request, which the executor has made itself.
        _require(isinstance(run.outcome, Cancelled), f"the job did not end as cancelled, but as {show(run.outcome)}")
    numbers = [getattr(message, "seq", None) for message in run.messages]
    _require(numbers == list(range(1, len(numbers) + 1)), f"the stream's numbers have holes: {numbers}")
    last = run.messages[-1]  # not to be compared by value: a result may be NaN, or an array
    _require(isinstance(last, End) and last.outcome is run.outcome, f"the stream ends with {show(last)}")


def _require(condition: bool, otherwise: str) -> None:
    """Raise `AssertionError` unless the condition holds, also where ``assert`` is switched off."""
    if not condition:
        raise AssertionError(otherwise)


def _tasks(task: trio.lowlevel.Task | None = None) -> Iterator[trio.lowlevel.Task]:
    """Return the tasks below a task; without one, all of this run, Trio's own too."""
    parent = task or trio.lowlevel.current_root_task()
    for nursery in parent.child_nurseries if parent else ():
        for child in nursery.child_tasks:
            yield child
            yield from _tasks(child)


def _threads() -> set[tuple[threading.Thread, str]]:
    """Return the threads that do something, each with its name: a worker's is another one in each use."""
    named = {(thread, thread.name) for thread in threading.enumerate()}
    return {(thread, name) for thread, name in named if not name.startswith(IDLE)}


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """Return what a call to the memory store returns: it never waits, so that nothing comes between its parts."""
    try:
        call.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise RuntimeError("the call waits")
