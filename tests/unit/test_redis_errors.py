"""What a Redis server's errors mean for callers, and how they are told."""

from __future__ import annotations

import pytest
from coredis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    WrongTypeError,
)

from jobtrio import StoreError, StoreUnavailableError
from jobtrio.stores.redis._errors import translate

FORBIDDEN = [
    AuthenticationError("WRONGPASS invalid username-password pair"),
    AuthorizationError("NOPERM no permissions to access a key"),
    ResponseError("ERR ACL failure in script: No permissions to access a key script: abc, on @user_script:7."),
]
DAMAGED = [
    WrongTypeError("Operation against a key holding the wrong kind of value"),
    ResponseError("ERR value is not an integer or out of range script: abc, on @user_script:7."),
    ResponseError("ERR value is not a valid float script: abc, on @user_script:7."),
]
OTHERS = [NoScriptError("No matching script"), ResponseError("ERR unknown command")]
PASSING = [
    *(ReadOnlyError("You can't write"), ClusterDownError("The cluster is down"), MovedError("1 host:7000")),
    *(ConnectionError("lost"), TimeoutError("late"), OSError("refused")),
    *(ResponseError(f"{code} text") for code in ("OOM", "BUSY", "MISCONF", "NOREPLICAS", "MASTERDOWN", "LOADING")),
    *(ResponseError(f"{code} text") for code in ("UNBLOCKED", "REDIRECT", "Protocol error: invalid bulk length")),
]


@pytest.mark.parametrize("error", [*FORBIDDEN, *DAMAGED, *OTHERS, *PASSING], ids=lambda error: str(error)[:30])
@pytest.mark.parametrize("is_open", [False, True])
def test_what_passes(error: Exception, is_open: bool) -> None:
    """What may be mended is an outage in the way of a store that is open, and a refusal to one that is not yet."""
    translated = translate(error, "host:6379", is_open=is_open)
    assert type(translated) is (
        StoreUnavailableError if error in PASSING or (is_open and error in [*FORBIDDEN, *DAMAGED]) else StoreError
    )
    assert ("check the user" in str(translated)) == (error in FORBIDDEN)
    if not is_open:
        assert type(translate(error, "host:6379")) is type(translated)


def _caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ReadOnlyError("You can't write"), "READONLY You can't write"),
        (ReadOnlyError("READONLY You can't write"), "READONLY You can't write"),
        (ResponseError("ERR wrong"), "ERR wrong"),
        (TimeoutError(), "TimeoutError"),
        (_caused(ConnectionError("Unable to establish"), OSError("refused")), "refused"),
        (_caused(ConnectionError("Unable to establish"), OSError()), "Unable to establish"),
    ],
)
def test_text(error: Exception, text: str) -> None:
    """The text is what the server or the system said, with the code that the driver took off, and what the place is."""
    assert str(translate(error, "host:6379")) == f"host:6379: {text}"
