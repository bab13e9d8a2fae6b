"""Values to and from the texts that jobs are stored as: JSON, as bytes.

It must not know which key holds what.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import attrs
import msgspec

from jobtrio._checks import check_seconds, show
from jobtrio._entry import CancelRequest, Plan
from jobtrio._policies import JobPriority, RetryPolicy
from jobtrio.stores._salvage import check_time
from jobtrio.stores._texts import limit_of, stored_limit

DIGITS: Final = 15
"""Digits of a number of things at most: the server's scripts count no further."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


@attrs.frozen
class _Plan:
    executor: str | None
    queue: str
    priority: int
    time_limit: float | None
    retry: RetryPolicy | None
    worker: str


_name_decoder = msgspec.json.Decoder(str)
_reason_decoder = msgspec.json.Decoder(str | None)
_tags_decoder = msgspec.json.Decoder(dict[str, str])
_plan_decoder = msgspec.json.Decoder(_Plan)


# -- encoding


def plan_text(plan: Plan) -> bytes:
    """Return a plan as JSON, but for a function that came with it."""
    return _text_of(
        plan.executor, plan.queue, int(plan.priority), stored_limit(plan.time_limit), plan.retry, plan.worker
    )


@lru_cache(maxsize=256)
def _text_of(
    executor: str | None, queue: str, priority: int, time_limit: float | None, retry: RetryPolicy | None, worker: str
) -> bytes:
    # Not by the plan: with its function, all that an executor refers to would outlive the registry.
    return _encode(_Plan(executor, queue, priority, time_limit, retry, worker))


# -- decoding


def name_of(text: bytes) -> str:
    """Return a name."""
    return _name_decoder.decode(text)


def parts_of(text: bytes) -> list[Any]:
    """Return the values of an array."""
    parts: list[Any] = _decode(text)
    return parts


def tags_of(text: bytes) -> dict[str, str]:
    """Return a job's tags."""
    return _tags_decoder.decode(text)


def count_of(text: bytes) -> int:
    """Return a number of things; what is one, the scripts decide alike."""
    if text.isdigit() and len(text) <= DIGITS:
        return int(text)
    raise ValueError(f"it is {show(text)}")


def time_of(text: bytes) -> float:
    """Return a time."""
    return check_time(float(text))


def cancel_of(text: bytes) -> CancelRequest:
    """Return a request to cancel: its time, its grace, its reason, with commas between."""
    at, grace, reason = text.split(b",", 2)
    return CancelRequest(
        time_of(at), _reason_decoder.decode(reason), check_seconds("grace", float(grace), infinite=True)
    )


@lru_cache(maxsize=256)
def plan_of(text: bytes) -> Plan:
    """Return a plan; jobs submitted alike share one."""
    plan = _plan_decoder.decode(text)
    limit = limit_of(plan.time_limit)
    return Plan(plan.executor, None, plan.queue, JobPriority(plan.priority), limit, plan.retry, plan.worker)
