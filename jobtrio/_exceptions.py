"""Looking into exceptions, however deep groups are nested and however long the chain behind one is.

`BaseExceptionGroup.split` and `subgroup` recurse: deep within, their `RecursionError` can pass for "no match", or end
the process. What is here does not recurse, but for `parted`. It must not know what the exceptions mean.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

Kinds: TypeAlias = "type[BaseException] | tuple[type[BaseException], ...]"

EXITS: Final = (KeyboardInterrupt, SystemExit)
"""What ends the program rather than a job."""


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


def parted(exception: BaseException, kinds: Kinds) -> tuple[BaseException | None, BaseException | None]:
    """Return what of an exception is of ``kinds``, and what is not; a group is split only where it holds some."""
    if isinstance(exception, kinds):
        return exception, None
    if isinstance(exception, BaseExceptionGroup) and holds(exception, kinds):
        return exception.split(kinds)
    return None, exception


def frames_of(exception: BaseException) -> Iterator[TracebackType]:
    """Give the parts of an exception's own traceback, the outermost first."""
    part = exception.__traceback__
    while part is not None:
        yield part
        part = part.tb_next


def is_more_than(exceptions: int, frames: int, exception: BaseException) -> bool:
    """Whether a traceback has to tell of more exceptions, those in it and those it came from, or of more frames."""
    seen = {id(exception)}
    left = [exception]
    while left:
        exc = left.pop()
        frames -= sum(1 for _ in islice(frames_of(exc), frames + 1))
        for other in _beside(exc):
            if id(other) not in seen:
                seen.add(id(other))
                left.append(other)
        if len(seen) > exceptions or frames < 0:
            return True
    return False


def _beside(exception: BaseException) -> Iterator[BaseException]:
    if isinstance(exception, BaseExceptionGroup):
        yield from exception.exceptions
    if exception.__cause__ is not None:
        yield exception.__cause__
    elif exception.__context__ is not None and not exception.__suppress_context__:
        yield exception.__context__
