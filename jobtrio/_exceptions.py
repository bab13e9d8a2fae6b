"""Looking into exceptions, however deep groups are nested and however long the chain behind one is.

`BaseExceptionGroup.split` and `subgroup` recurse: deep within, their `RecursionError` can pass for "no match", or end
the process. What is here does not recurse. It must not know what the exceptions mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Kinds: TypeAlias = "type[BaseException] | tuple[type[BaseException], ...]"


def leaves(exception: BaseException) -> Iterator[BaseException]:
    """Give what is in a group and in the groups in it, in order; an exception that is no group, itself."""
    left = [exception]
    while left:
        exc = left.pop()
        if isinstance(exc, BaseExceptionGroup):
            left.extend(reversed(exc.exceptions))
        else:
            yield exc


def lone_leaf(exception: BaseException) -> BaseException:
    """Return the one exception that nested nurseries have wrapped, or the group that holds several."""
    while isinstance(exception, BaseExceptionGroup) and len(exception.exceptions) == 1:
        exception = exception.exceptions[0]
    return exception


def holds(exception: BaseException, kinds: Kinds) -> bool:
    """Whether an exception is of ``kinds``, or a group with one of them in it."""
    return any(isinstance(leaf, kinds) for leaf in leaves(exception))


def is_all(exception: BaseException, kinds: Kinds) -> bool:
    """Whether an exception is of ``kinds``, or a group of nothing else."""
    left = [exception]
    while left:
        exc = left.pop()
        if isinstance(exc, kinds):
            continue
        if not isinstance(exc, BaseExceptionGroup):
            return False
        left.extend(exc.exceptions)
    return True


def is_more_than(most: int, exception: BaseException) -> bool:
    """Whether a traceback would have to tell of more than so many exceptions: those in it, and those it came from."""
    seen = {id(exception)}
    left = [exception]
    while left:
        for exc in _beside(left.pop()):
            if id(exc) not in seen:
                seen.add(id(exc))
                left.append(exc)
        if len(seen) > most:
            return True
    return False


def _beside(exception: BaseException) -> Iterator[BaseException]:
    if isinstance(exception, BaseExceptionGroup):
        yield from exception.exceptions
    if exception.__cause__ is not None:
        yield exception.__cause__
    elif exception.__context__ is not None and not exception.__suppress_context__:
        yield exception.__context__
