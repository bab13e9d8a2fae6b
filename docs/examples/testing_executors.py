"""Tests of an executor: what it sends, what it retries, and that cancelling it leaves nothing behind."""

import trio

import jobtrio
from jobtrio.testing import run_job, sweep_cancellation

CONNECTED: set[int] = set()  # stands for what the executor must give back


async def generate(job: jobtrio.JobContext) -> int:
    CONNECTED.add(job.attempt)
    try:
        if job.payload["unlucky"] and job.attempt == 1:
            raise ConnectionError("the model is away")
        for word in job.payload["prompt"].split():
            await job.send(word)
            await trio.sleep(10)
        return len(job.payload["prompt"])
    finally:
        CONNECTED.discard(job.attempt)


def test_sends_each_word() -> None:
    run = run_job(generate, {"prompt": "to be", "unlucky": False})
    assert run.outcome == jobtrio.Completed(5)
    assert [each.value for each in run.messages if isinstance(each, jobtrio.Token)] == ["to", "be"]


def test_tries_again() -> None:
    policy = jobtrio.RetryPolicy(initial=3600, max_delay=3600, jitter=0)
    run = run_job(generate, {"prompt": "to be", "unlucky": True}, retry=policy)
    assert run.outcome == jobtrio.Completed(5)
    assert isinstance(run.messages[0], jobtrio.Restart)
    assert run.messages[0].delay == 3600


def test_keeps_to_its_time() -> None:
    run = run_job(generate, {"prompt": "to be or not", "unlucky": False}, time_limit=15)
    assert isinstance(run.outcome, jobtrio.Failed)
    assert run.outcome.error.kind == "timeout"


def test_leaves_nothing_behind() -> None:
    policy = jobtrio.RetryPolicy()
    runs = sweep_cancellation(generate, {"prompt": "to be", "unlucky": True}, retry=policy)
    assert len(runs) > 3
    assert not CONNECTED
