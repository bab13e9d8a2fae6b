"""Help for testing: jobs run on a virtual clock, cancelled at every step, and stores held to their contract.

The public names, re-exported, and nothing else.
"""

from jobtrio.testing._run_job import JobRun as JobRun
from jobtrio.testing._run_job import run_job as run_job
from jobtrio.testing._sweep import sweep_cancellation as sweep_cancellation

__all__ = ["JobRun", "run_job", "sweep_cancellation"]
