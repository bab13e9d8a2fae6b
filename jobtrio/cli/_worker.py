"""``jobtrio worker``: its options, and what they mean.

The work itself, with its log and its signals, is `Worker`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobtrio._policies import Retention
from jobtrio.cli import _options, _program
from jobtrio.cli._executors import load_executors, load_lifespan
from jobtrio.cli._output import outlive_readers
from jobtrio.cli._store import add_store_options, run_with_store
from jobtrio.cli._working import Worker, WorkerPlan, serve_and_exit

if TYPE_CHECKING:
    import argparse

    from jobtrio.abc import JobStore

HELP = "run the jobs of a store"

DESCRIPTION = """\
Run the jobs of a store whose executors a module has, until told to stop. Each
start and each end is a line on stderr. SIGTERM or Ctrl-C drains, and so does
SIGHUP, unless it is ignored, as under nohup: no more jobs are started, running
ones are told to stop and have the grace period to end, and what is left then
returns to its queue. Ctrl-C after any of them ends everything at once.

Only workers, `jobtrio remove` and `jobtrio prune` remove ended jobs: see --keep
and --keep-for.
"""

EPILOG = f"""\
{_options.DURATIONS}
exit code:
  0 drained      1 it could not work; stderr says why      2 bad usage
  130 Ctrl-C, as a second signal, found jobs that did not end

examples:
  jobtrio worker app.jobs:executors --store sqlite:///jobs.db
  jobtrio worker app.jobs:executors --queue gpu=1 --queue default=8
  jobtrio worker app.jobs:executors --queue 'user:*=2' --total 'user:*=3'
  jobtrio worker app.jobs:executors --rate api=60/m
  jobtrio worker app.jobs:executors --lifespan app.jobs:open_clients
  jobtrio worker jobtrio.cli:programs    runs what `jobtrio run --store` stored
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_worker_options(parser)
    add_store_options(parser, json="print each change of a job's state as a line of JSON on stdout")


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Add what a worker is to run, and how."""
    add = parser.add_argument
    add("executors", metavar="MODULE:EXECUTORS", help="the executors to run jobs with")
    add(
        "--lifespan",
        metavar="MODULE:NAME",
        help="an async context manager's function: the block that is open as long as the worker runs jobs",
    )
    add("--max-running", metavar="N", type=_options.positive_count, default=100, help="jobs at once (default: 100)")
    add(
        "--queue",
        metavar="NAME[=N]",
        type=_options.queue_limit,
        action=_options.OnceEach,
        default=[],
        help="a queue to serve, and how many of its jobs at once; NAME may be a pattern such as 'user:*', which stands "
        "for each queue whose name begins so; may be given several times (default: every queue)",
    )
    add(
        "--total",
        metavar="NAME=N",
        type=_options.total_limit,
        action=_options.OnceEach,
        default=[],
        help="how many jobs of a queue, or of each queue of a pattern, may run at once across all workers, if all are "
        "given the same (default: no limit)",
    )
    add(
        "--rate",
        metavar="NAME=N/TIME[,BURST]",
        type=_options.rate_limit,
        action=_options.OnceEach,
        default=[],
        help="how many jobs of a queue, or of each queue of a pattern, may start in a time across all workers, if all "
        "are given the same: 60/m, 5/10s; at even intervals, or with up to BURST at once (default: no limit)",
    )
    add(
        "--name",
        metavar="NAME",
        type=_options.name,
        help="this worker's name in the history (default: host, process, a random part)",
    )
    add(
        "--grace",
        metavar="DURATION",
        type=_options.duration,
        default=10.0,
        help="how long running jobs have to end after the first signal (default: 10s)",
    )
    add(
        "--lease",
        metavar="DURATION",
        type=_options.lease,
        default=30.0,
        help="the time after which a job whose worker has vanished starts again elsewhere (default: 30s)",
    )
    _add_retention(parser)


def _add_retention(parser: argparse.ArgumentParser) -> None:
    kept = Retention()
    parser.add_argument(
        "--keep-for",
        metavar="DURATION",
        type=_options.age,
        default=kept.finished_for,
        help="how long ended jobs are kept; inf for ever (default: 1h)",
    )
    parser.add_argument(
        "--keep",
        metavar="N",
        type=_options.count,
        default=kept.finished_jobs,
        help=f"how many ended jobs are kept (default: {kept.finished_jobs})",
    )
    parser.add_argument(
        "--tokens-per-job",
        metavar="N",
        type=_options.positive_count,
        default=kept.tokens_per_job,
        help=f"how many messages are kept of each job, the newest (default: {kept.tokens_per_job})",
    )


def run(options: argparse.Namespace) -> int:
    """Work until told to stop, and return the exit code."""
    _program.heed_children()
    outlive_readers()
    options.loaded = load_executors(options)
    options.around = load_lifespan(options)
    return run_with_store(options, work, make=True, quiet=False)


async def work(options: argparse.Namespace, store: JobStore) -> int:
    """Run jobs until told to stop.

    *Cancellation*: running jobs return to their queue.
    """
    return await serve_and_exit(Worker(store, worker_plan(options), as_json=options.json))


def worker_plan(options: argparse.Namespace) -> WorkerPlan:
    """Return what a worker is to run by its options."""
    queues = {name: options.max_running if most is None else most for name, most in options.queue}
    return WorkerPlan(
        executors=options.loaded,
        lifespan=options.around,
        max_running=options.max_running,
        queues=queues or None,
        totals=dict(options.total),
        rates=dict(options.rate),
        name=options.name,
        grace=options.grace,
        lease=options.lease,
        retention=Retention(
            finished_jobs=options.keep, finished_for=options.keep_for, tokens_per_job=options.tokens_per_job
        ),
    )
