"""`OutageLog`: what the log says of an outage, and how often."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from jobtrio.stores._outages import OutageLog

if TYPE_CHECKING:
    import pytest


def test_an_outage_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """However often the store fails and answers, each outage makes two lines."""
    outages = OutageLog(logging.getLogger("test"))
    outages.answered()
    assert caplog.messages == []
    for why in ("first", "second"):
        for _ in range(3):
            outages.failed(why)
        for _ in range(3):
            outages.answered()
    assert caplog.messages == [
        *("the store is away: first", "the store is back"),
        *("the store is away: second", "the store is back"),
    ]


def test_one_call_among_others(caplog: pytest.LogCaptureFixture) -> None:
    """A call that fails while others are answered makes no outage; one that began after them does."""
    outages = OutageLog(logging.getLogger("test"))
    asked = time.monotonic()
    outages.answered()
    outages.failed("slow", asked)
    assert caplog.messages == []
    outages.failed("gone", time.monotonic() + 1)
    assert caplog.messages == ["the store is away: gone"]


def test_what_was_asked_before_the_outage(caplog: pytest.LogCaptureFixture) -> None:
    """An answer to a call that began before the outage did does not end it; one to a later call does."""
    outages = OutageLog(logging.getLogger("test"))
    asked = time.monotonic()
    for _ in range(2):
        outages.failed("gone")
        outages.answered(asked)
    assert caplog.messages == ["the store is away: gone"]
    outages.answered(time.monotonic() + 1)
    assert caplog.messages[1:] == ["the store is back"]


def test_what_was_refused(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that refuses some things and does others is back when it does one of the former."""
    monkeypatch.setattr("jobtrio.stores._outages.CALM", 0.0)
    outages = OutageLog(logging.getLogger("test"))
    for what in ("insert", "finish"):
        outages.failed("full", refused=what)
        outages.answered(what="look")
        outages.answered()
    assert caplog.messages == ["the store is away: full"]
    outages.answered(what="insert")
    assert caplog.messages[1:] == ["the store is back"]
    outages.failed("gone")
    outages.answered(what="look")
    assert caplog.messages[2:] == ["the store is away: gone", "the store is back"]


def test_what_is_refused_now_and_then(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the same is refused of some, for their size, and done for others, the store is not back in between."""
    outages = OutageLog(logging.getLogger("test"))
    for _ in range(3):
        outages.failed("full", refused="insert")
        outages.answered(what="insert")
        outages.answered(what="look")
    outages.settle()
    assert caplog.messages == ["the store is away: full"]
    monkeypatch.setattr("jobtrio.stores._outages.CALM", 0.0)
    outages.settle()
    assert caplog.messages[1:] == ["the store is back"]


def test_what_is_not_done_yet(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """That nothing is asked for does not say that the store is back: only what it does."""
    monkeypatch.setattr("jobtrio.stores._outages.CALM", 60.0)
    outages = OutageLog(logging.getLogger("test"))
    outages.settle()
    outages.failed("full", refused="insert")
    outages.answered(what="insert")
    outages.failed("gone")
    monkeypatch.setattr("jobtrio.stores._outages.CALM", 0.0)
    outages.settle()
    assert caplog.messages == ["the store is away: full"]
    outages.failed("full", refused="insert")
    outages.settle()
    assert caplog.messages == ["the store is away: full"]


def test_what_was_refused_and_given_up(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing was refused for some time, any answer says that the store is back."""
    monkeypatch.setattr("jobtrio.stores._outages.QUIET", 0.0)
    monkeypatch.setattr("jobtrio.stores._outages.CALM", 0.0)
    outages = OutageLog(logging.getLogger("test"))
    outages.failed("full", refused="insert")
    outages.answered(what="look")
    assert caplog.messages == ["the store is away: full", "the store is back"]


def test_what_was_asked_before_it_was_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Of what is refused by now, only what was asked for since says that the store is back."""
    outages = OutageLog(logging.getLogger("test"))
    asked = time.monotonic()
    outages.failed("full", refused="insert")
    outages.answered(asked, "insert")
    outages.answered(what="look")
    assert caplog.messages == ["the store is away: full"]
