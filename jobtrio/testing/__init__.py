"""Help for testing: jobs run on a virtual clock, cancelled at every step, and stores held to their contract.

The public names, re-exported, and nothing else.
"""

from jobtrio.testing._conformance import STORE_CHECKS as STORE_CHECKS
from jobtrio.testing._run_job import JobRun as JobRun
from jobtrio.testing._run_job import run_job as run_job
from jobtrio.testing._sweep import sweep_cancellation as sweep_cancellation
from jobtrio.testing._workers import OpenStore as OpenStore
from jobtrio.testing._workers import StoreCheck as StoreCheck

__all__ = ["STORE_CHECKS", "JobRun", "OpenStore", "StoreCheck", "run_job", "sweep_cancellation"]
