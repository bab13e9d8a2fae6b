"""What the server's and the driver's errors mean for a store's callers, decided once.

It owns which of them pass by themselves, and which say that another server has to be asked. It must not know what was
being done.
"""

from __future__ import annotations

from typing import Final

from coredis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    TryAgainError,
)

from jobtrio._errors import StoreError, StoreUnavailableError

_REFUSALS: Final = ("OOM", "BUSY", "MASTERDOWN", "MISCONF", "NOREPLICAS", "LOADING")
"""How errors begin by which a server says that it can't do what it is asked for now."""

_BROKEN: Final = "Protocol error"
"""How errors begin behind which the server closes the connection."""

_PASSING: Final = (
    *(*_REFUSALS, "UNBLOCKED", "REDIRECT"),
    "max number of clients",  # of a cluster's node
    f"{_BROKEN}: invalid bulk length",  # of what is longer than proto-max-bulk-len, which may be raised
)
"""How errors begin that pass by themselves, of those for which the driver has no class."""

_KILLED: Final = "Script killed by user"
"""What is said of a script that somebody has stopped; it had not written anything."""

_DAMAGED: Final = (
    "against a key holding the wrong kind of value",
    "value is not an integer",
    "value is not a valid float",
)
"""What commands say of a key that has something else than it had."""

_PASSING_CLASSES: Final = (
    *(AskError, BusyLoadingError, ClusterDownError, ConnectionError, MovedError, ReadOnlyError, TryAgainError),
    *(TimeoutError, OSError),
    IndexError,  # of the driver's reader, where a connection is reset in the middle of answers
)

_NAMES: Final = {
    ReadOnlyError: "READONLY",
    ClusterDownError: "CLUSTERDOWN",
    TryAgainError: "TRYAGAIN",
    BusyLoadingError: "LOADING",
    MovedError: "MOVED",
    AskError: "ASK",
}
"""The codes that the driver has taken off its errors' texts."""


def is_unknown_script(exc: BaseException) -> bool:
    """Whether the server has not been given a script yet, or has forgotten it."""
    return isinstance(exc, NoScriptError)


def moved_to(exc: BaseException) -> tuple[str, int] | None:
    """Return the address of the cluster's node that has the keys, where an error tells it."""
    return (exc.host, exc.port) if isinstance(exc, MovedError) else None


def is_wrong_server(exc: BaseException) -> bool:
    """Whether another server has to be asked: this one is a replica, has lost its cluster, or has not got the keys."""
    return isinstance(exc, (MovedError, ReadOnlyError, ClusterDownError))


def is_last(exc: BaseException) -> bool:
    """Whether the server closes the connection behind this answer: it has found in it what it does not take."""
    return str(exc).startswith(_BROKEN)


def is_refusal(exc: BaseException) -> bool:
    """Whether the server is there, and says that it can't do this for now."""
    return isinstance(exc, (BusyLoadingError, ClusterDownError, TryAgainError)) or str(exc).startswith(_REFUSALS)


def is_forbidden(exc: BaseException) -> bool:
    """Whether the user may not do this, or is nobody that the server knows."""
    return isinstance(exc, (AuthenticationError, AuthorizationError)) or "ACL failure in script" in str(exc)


def is_damaged(exc: BaseException) -> bool:
    """Whether somebody has put something else in the place of what all jobs share, as the set of those that run."""
    return any(text in str(exc) for text in _DAMAGED)


def translate(exc: BaseException, place: str, *, is_open: bool = False) -> StoreError:
    """Return an error as the store's own; raise it ``from`` the original.

    What a user may do, may be changed, and what is damaged may be mended: in the way of a store that ``is_open`` that
    is an outage, which may pass.
    """
    text = f"{place}: {_describe(exc)}"
    if is_forbidden(exc):
        text = f"{text} (check the user, the password and what it is allowed)"
    is_passing = isinstance(exc, _PASSING_CLASSES) or str(exc).startswith(_PASSING) or _KILLED in str(exc)
    if is_passing or (is_open and (is_forbidden(exc) or is_damaged(exc))):
        return StoreUnavailableError(text)
    return StoreError(text)


def _describe(exc: BaseException) -> str:
    root = exc
    while root.__cause__ is not None and str(root.__cause__):
        root = root.__cause__  # the driver wraps what the system said
    code = next((name for kind, name in _NAMES.items() if isinstance(root, kind)), None)
    text = str(root) or type(root).__name__
    return text if code is None or text.startswith(code) else f"{code} {text}"
