"""Executors: the functions that do the jobs, by name, and the ready one that runs a program.

It owns names and the options that belong to an executor rather than to a job. It must not know how
attempts are started.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from jobtrio._checks import check_flag, check_name, check_seconds, clean_text, show
from jobtrio._command import run_command
from jobtrio._errors import UnknownExecutorError
from jobtrio._policies import check_retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobtrio._policies import RetryPolicy

__all__ = ["Executors", "Registration", "check_executor", "executor_name", "is_async_executor", "run_command"]

F = TypeVar("F", bound="Callable[[Any], Any]")


@attrs.frozen(eq=False)
class Registration:
    """A registered executor with its options.

    Attributes:
        name: Its name.
        function: The executor.
        time_limit: Seconds an attempt may take, if the job does not say; None for no limit.
        retry: The retry policy, if the job does not say; None for a single attempt.
        queue: The queue, if the job does not say; None for ``"default"``.
        retry_on: Which exceptions to retry under a policy. A timeout is always retried.
        expose: Whether clients outside the process may submit it.
    """

    name: str
    function: Callable[[Any], Any]
    time_limit: float | None = None
    retry: RetryPolicy | None = None
    queue: str | None = None
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    expose: bool = False


class Executors:
    """A collection of named executors.

    Attributes:
        changes: How often an executor was registered.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, Registration] = {}
        self.changes: int = 0

    def register(
        self,
        name: str,
        *,
        time_limit: float | None = None,
        retry: RetryPolicy | None = None,
        queue: str | None = None,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = (Exception,),
        expose: bool = False,
    ) -> Callable[[F], F]:
        """Return a decorator that registers an executor and leaves it as it is.

        A registry that is open already, on a durable store, takes up to five seconds to notice.

        Args:
            name: 1 to 200 printable characters, not in use.
            time_limit: Seconds an attempt may take, if the job does not say.
            retry: The retry policy, if the job does not say.
            queue: The queue, if the job does not say.
            retry_on: Exception classes to retry under a policy, or a single one. A timeout is always retried.
            expose: Whether clients outside the process may submit it.

        Raises:
            ValueError: The name is in use, or an option is invalid.
            TypeError: An option is of the wrong type.
        """
        if callable(name):
            given = executor_name(name)
            raise TypeError(f'name must be text, as in @executors.register("{given}"); got {show(name)}')
        name = check_name("name", name)
        if name in self._by_name:
            raise ValueError(f"name must be one not in use; {name!r} is registered already")
        if time_limit is not None:
            time_limit = check_seconds("time_limit", time_limit, zero=False)
        retry = check_retry(retry)
        if queue is not None:
            queue = check_name("queue", queue)
        check_flag("expose", expose)
        classes = _check_retry_on(retry_on)

        def decorate(function: F) -> F:
            check_executor(function)
            if name in self._by_name:
                raise ValueError(f"name must be one not in use; {name!r} is registered already")
            self._by_name[name] = Registration(name, function, time_limit, retry, queue, classes, expose)
            self.changes += 1
            return function

        return decorate

    def get(self, name: str) -> Registration:
        """Return what is registered as ``name``.

        Raises:
            UnknownExecutorError: No executor has this name.
        """
        try:
            return self._by_name[name]
        except (KeyError, TypeError):
            raise UnknownExecutorError(name, self._by_name) from None

    def find(self, function: Callable[[Any], Any]) -> Registration | None:
        """Return the first registration of ``function``, or None."""
        for registration in tuple(self._by_name.values()):  # another thread may register one meanwhile
            if registration.function is function or registration.function == function:
                return registration
        return None

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._by_name))  # another thread may register one meanwhile

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"<Executors {', '.join(self._by_name) or 'none'}>"


def check_executor(function: Any) -> None:
    """Raise `TypeError` unless ``function`` can be an executor."""
    allowed = "an async function, a plain function, or a partial or callable object of either kind"
    hint = _hint(function)
    if hint or isinstance(function, type) or not callable(function):
        raise TypeError(f"executor must be {allowed}; got {show(function)}{hint}")


def _hint(function: Any) -> str:
    """Return what to do about something that can't be an executor, where its kind tells that."""
    inner = _innermost(function)
    if inspect.iscoroutine(function):
        function.close()  # nobody will await it, and that is told here
        return ", a coroutine: give the function itself, and don't call it"
    if inspect.isasyncgenfunction(inner):
        return ", an async generator: send its values with job.send"
    if inspect.isgeneratorfunction(inner):
        return ", a generator: send its values with job.send"
    return ""


def is_async_executor(function: Callable[[Any], Any]) -> bool:
    """Whether an executor is to be awaited rather than run in a thread."""
    function = _unwrapped(function)
    # The object itself is asked as well: it may be marked as a coroutine function whatever its class is.
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(_innermost(function))


def executor_name(function: Callable[[Any], Any]) -> str:
    """Return the name that a job's record gives to an executor without a registered name."""
    inner = _unwrapped(function)
    name = str(getattr(inner, "__qualname__", None) or type(inner).__qualname__).rpartition("<locals>.")[2]
    # Programs name functions by what they find, such as files: half a character can't be shown.
    return clean_text(name)[:200]


def _unwrapped(function: Any) -> Any:
    """Return what a partial calls, or a static method that is given as the class's body has it."""
    while isinstance(function, functools.partial | staticmethod):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    return function


def _innermost(function: Any) -> Any:
    function = _unwrapped(function)
    if inspect.isroutine(function) or isinstance(function, type) or not callable(function):
        return function
    return type(function).__call__


def _check_retry_on(value: Any) -> tuple[type[BaseException], ...]:
    classes = (value,) if isinstance(value, type) else value
    if (
        not isinstance(classes, tuple)
        or not classes
        or not all(isinstance(each, type) and issubclass(each, BaseException) for each in classes)
    ):
        raise TypeError(f"retry_on must be an exception class, or a tuple of one or several; got {show(value)}")
    return classes
