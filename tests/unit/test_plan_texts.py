"""A plan as the durable stores write it."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from jobtrio._entry import Plan
from jobtrio._policies import JobPriority, RetryPolicy
from jobtrio.stores import _texts as row_texts
from jobtrio.stores.redis import _texts as redis_texts

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("plan_text", [row_texts.plan_text, redis_texts.plan_text])
def test_an_executor_is_let_go(plan_text: Callable[[Plan], str | bytes]) -> None:
    """What was written of a plan keeps nothing of its executor, which may refer to a whole application."""

    async def executor(job: Any) -> None:
        """Do nothing."""

    plan = Plan("executor", executor, "default", JobPriority.NORMAL, 30.0, RetryPolicy(), "worker")
    assert plan_text(plan)
    function = weakref.ref(executor)
    del plan, executor
    gc.collect()
    assert function() is None
