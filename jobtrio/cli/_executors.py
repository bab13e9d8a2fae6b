"""Executors, and what is open around them, as the command line names them: ``MODULE:NAME``, or an executor's name.

It must not know what they are needed for.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from contextlib import nullcontext, suppress
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, cast

from jobtrio._checks import show
from jobtrio.executors import Executors

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from types import ModuleType

Lifespan: TypeAlias = "Callable[[], AbstractAsyncContextManager[Any]]"

IMPORTING = {__file__, importlib.__file__, "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>"}
"""The files that stand in a traceback before an imported module's own code."""


def load_executors(options: argparse.Namespace) -> Executors:
    """Return the `Executors` that the options name, or end with 2, or with 1 where importing their module raises.

    They are named as ``MODULE:EXECUTORS``; the module is looked for beside the user as well.
    """
    rule = "executors must be given as MODULE:EXECUTORS, as in app.jobs:executors"
    module, name, found = _look_up(options, options.executors, rule)
    if not isinstance(found, Executors):
        has = [each for each, value in vars(module).items() if isinstance(value, Executors)]
        is_not = f"{options.executors} is {show(found)}, not an Executors"
        flaw = f"{module.__name__} has no Executors {name!r}" if found is None else is_not
        options.parser.error(f"{flaw}; the module has {', '.join(has) or 'none'}")
        raise AssertionError  # error() has ended the program
    if not len(found):
        options.parser.error(f"{options.executors} has no executor: nothing could be run")
    return found


def load_lifespan(options: argparse.Namespace) -> Lifespan:
    """Return what makes the block that is to be open around the registry, likewise; an empty one if none is named."""
    if options.lifespan is None:
        return nullcontext
    rule = "--lifespan must be given as MODULE:NAME, as in app.jobs:open_clients"
    module, name, found = _look_up(options, options.lifespan, rule)
    if not callable(found) or isasyncgenfunction(found) or iscoroutinefunction(found):
        flaw = f"{module.__name__} has no {name!r}" if found is None else f"{options.lifespan} is {show(found)}"
        hint = "; decorate it with contextlib.asynccontextmanager" if isasyncgenfunction(found) else ""
        options.parser.error(f"--lifespan must name a function that returns an async context manager; {flaw}{hint}")
    return cast("Lifespan", found)


def _look_up(options: argparse.Namespace, target: str, rule: str) -> tuple[ModuleType, str, Any]:
    """Return the module, the name in it and what it stands for, None for nothing."""
    module_name, colon, name = target.partition(":")
    is_module = "/" not in module_name and all(module_name.split("."))  # neither a file nor relative to anything
    if not (is_module and colon and name):
        options.parser.error(f"{rule}; got {show(target)}")
    module = _import(options, module_name)
    try:
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part, None)
        return module, name, found
    except Exception as exc:  # of the module's own __getattr__
        _fail(options, f"looking up {name} in {module_name}", exc)


def _import(options: argparse.Namespace, name: str) -> Any:
    # The installed command's path begins with its own folder, unlike that of `python -m`.
    with suppress(FileNotFoundError):  # it may be gone, and all modules in it
        if (here := os.getcwd()) not in sys.path and "" not in sys.path:
            sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not (name == exc.name or name.startswith(exc.name + ".")):
            _fail(options, f"importing {name}", exc)
        hint = "; modules are named without .py" if name.endswith(".py") else ""
        where = f"on sys.path, which begins with {show(sys.path[0])}"
        options.parser.error(f"there is no module {exc.name!r} {where}{hint}")
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # a script's own exit code, 0 often, must not pass for this command's
        _fail(options, f"importing {name}", exc)


def _fail(options: argparse.Namespace, what: str, error: BaseException) -> NoReturn:
    """End with 1 and the traceback, from the user's module on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in IMPORTING:
        frames = frames.tb_next
    if sys.stderr is not None:  # or it would go to stdout
        with suppress(OSError):  # there is nobody to tell
            traceback.print_exception(error.with_traceback(frames))
            print(f"jobtrio {options.command}: {what} has failed", file=sys.stderr)
    raise SystemExit(1)


def stand_in(name: str, executors: Executors | None = None) -> Executors:
    """Return `Executors`, new or those given, in which ``name`` stands for an executor that other processes have.

    A durable store refuses names that are not registered, and a process that only submits has no use for the
    executor itself. What belongs to a registration, such as a queue, is not known here.
    """
    executors = Executors() if executors is None else executors
    if name not in executors:
        executors.register(name)(_refuse)
    return executors


async def _refuse(job: Any) -> None:
    raise RuntimeError("this process only submits: the executor is another's")
