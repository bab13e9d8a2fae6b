"""The examples: each runs, and each is shown somewhere."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections import Counter
from datetime import timedelta

import pytest
import trio
import trio.testing

import jobtrio
from docs.tools import examples, pages, sessions


@pytest.mark.parametrize("name", examples.names())
def test_example_runs(name: str) -> None:
    """The example runs to its end; what it prints is compared with its page by the tests of the pages."""
    printed = examples.run(name)
    has_tests = "def test_" in examples.source(name)
    assert bool(printed) != has_tests, "an example prints, or consists of tests"


@pytest.mark.parametrize("name", examples.names())
def test_example_is_shown(name: str) -> None:
    """The example is on a page, and so is what it prints."""
    kinds = {
        kind
        for path in pages.paths()
        for kind, argument, _ in pages.PART.findall(path.read_text(encoding="utf-8"))
        if argument.split(" ")[0] == name
    }
    assert kinds == ({"example", "output"} if examples.run(name) else {"example"})


@pytest.mark.parametrize("name", sessions.programs())
def test_program_of_several_is_shown(name: str) -> None:
    """Each of the programs that run together is on a page; what they show is compared by the tests of the pages."""
    shown = [
        (kind, argument)
        for path in pages.paths()
        for kind, argument, _ in pages.PART.findall(path.read_text(encoding="utf-8"))
    ]
    assert ("example", name) in shown


def test_tests_of_a_registry() -> None:
    """The tests that the page on testing shows are found and pass, under the settings that stand beside them."""
    argv = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-Werror", "-v"]
    folder = examples.FOLDER / "testing"
    run = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=240)
    count = examples.source("testing/test_answers.py").count("def test_")
    assert (run.returncode, run.stdout.count(" PASSED")) == (0, count), run.stdout


async def test_the_count_of_ends_goes_on() -> None:
    """What counts the ends goes on behind more changes at once than are kept for it."""
    count_ends = runpy.run_path(str(examples.FOLDER / "monitor.py"))["count_ends"]
    executors = jobtrio.Executors()
    executors.register("nothing")(no_work)
    ended: Counter[str] = Counter()
    with trio.fail_after(60):
        async with jobtrio.open_registry(executors) as registry, trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: count_ends(registry, ended, task_status=task_status))
            await registry.submit_many([jobtrio.JobSpec("nothing", delay=3600)] * 10_001)
            await (await registry.submit("nothing")).wait()
            await trio.testing.wait_all_tasks_blocked()
            assert ended == {"COMPLETED": 1}
            await registry.shutdown()
            nursery.cancel_scope.cancel()


async def no_work(job: jobtrio.JobContext) -> None:
    pass


async def test_what_an_outage_kept_from_being_submitted_is_tried_again(autojump_clock: object) -> None:
    """What submits a job for each moment does not sleep until that moment when an outage kept it from submitting."""
    submit_each = runpy.run_path(str(examples.FOLDER / "periodic.py"))["submit_each"]
    submit_each.__globals__["PERIOD"] = timedelta(days=36_500)
    outcomes = iter([jobtrio.StoreUnavailableError("away"), jobtrio.StoreUnavailableError("away"), None])
    asked: list[tuple[float, str]] = []

    class Registry:
        async def submit(self, executor: str, payload: object, *, run_at: object, key: str) -> None:
            asked.append((trio.current_time(), key))
            if (exc := next(outcomes, trio.ClosedResourceError())) is not None:
                raise exc

    await submit_each(Registry(), "report")
    assert len(asked) == 4
    assert set(asked[:3]) == {asked[0]}
    assert asked[3][0] > asked[0][0]


async def test_the_newest_jobs_are_told_apart() -> None:
    """The page of the newest jobs shows nothing of a job that was removed at another one that has its id now."""
    make_overview = runpy.run_path(str(examples.FOLDER / "newest_jobs.py"))["Overview"]

    async def work(job: jobtrio.JobContext) -> None:
        job.progress(1, job.payload)
        await job.send(job.payload)

    async with jobtrio.open_registry() as registry:
        overview = make_overview(registry)
        for payload in (1, 2):
            await (await registry.submit(work, payload, job_id="a")).wait()
            for _ in range(2):
                [row] = await overview.refresh()
                assert (row.line, row.progress.total, row.is_complete) == (payload, payload, True)
            await registry.remove("a")
        assert await overview.refresh() == []


def test_no_code_but_the_examples() -> None:
    """Python on a page is a generated part: an example that runs, or a signature."""
    for path in pages.paths():
        rest = pages.PART.sub("", path.read_text(encoding="utf-8"))
        assert re.findall(r"```py.*", rest) == [], path
