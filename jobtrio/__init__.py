"""jobtrio: jobs whose output people watch, on Trio.

The public names, re-exported, and nothing else. Errors are called by them.
"""

from jobtrio import abc as abc
from jobtrio._context import JobContext as JobContext
from jobtrio._core import RegistryStats as RegistryStats
from jobtrio._errors import CommandFailedError as CommandFailedError
from jobtrio._errors import DuplicateJobError as DuplicateJobError
from jobtrio._errors import GiveUp as GiveUp
from jobtrio._errors import IllegalTransitionError as IllegalTransitionError
from jobtrio._errors import JobCancelledError as JobCancelledError
from jobtrio._errors import JobEndedError as JobEndedError
from jobtrio._errors import JobFailedError as JobFailedError
from jobtrio._errors import JobtrioError as JobtrioError
from jobtrio._errors import LaggedError as LaggedError
from jobtrio._errors import PayloadError as PayloadError
from jobtrio._errors import QueueFullError as QueueFullError
from jobtrio._errors import RetryLater as RetryLater
from jobtrio._errors import StoreError as StoreError
from jobtrio._errors import StoreUnavailableError as StoreUnavailableError
from jobtrio._errors import StoreVersionError as StoreVersionError
from jobtrio._errors import UnknownExecutorError as UnknownExecutorError
from jobtrio._errors import UnknownJobError as UnknownJobError
from jobtrio._errors import call_by_public_names as _call_by_public_names
from jobtrio._events import EventSubscription as EventSubscription
from jobtrio._job import Job as Job
from jobtrio._job import StreamSpan as StreamSpan
from jobtrio._messages import End as End
from jobtrio._messages import Gap as Gap
from jobtrio._messages import Message as Message
from jobtrio._messages import Progress as Progress
from jobtrio._messages import Restart as Restart
from jobtrio._messages import Token as Token
from jobtrio._opening import open_registry as open_registry
from jobtrio._policies import JobPriority as JobPriority
from jobtrio._policies import RateLimit as RateLimit
from jobtrio._policies import Retention as Retention
from jobtrio._policies import RetryPolicy as RetryPolicy
from jobtrio._records import Cancelled as Cancelled
from jobtrio._records import Completed as Completed
from jobtrio._records import Failed as Failed
from jobtrio._records import JobError as JobError
from jobtrio._records import JobRecord as JobRecord
from jobtrio._records import Outcome as Outcome
from jobtrio._records import Transition as Transition
from jobtrio._records import WorkerReport as WorkerReport
from jobtrio._registry import JobRegistry as JobRegistry
from jobtrio._state import JobState as JobState
from jobtrio._streams import TextStream as TextStream
from jobtrio._streams import TokenStream as TokenStream
from jobtrio._submission import JobSpec as JobSpec
from jobtrio._subscription import Subscription as Subscription
from jobtrio._threads import ThreadJobContext as ThreadJobContext
from jobtrio.executors import Executors as Executors

__version__ = "0.1.0"

__all__ = [
    "Cancelled",
    "CommandFailedError",
    "Completed",
    "DuplicateJobError",
    "End",
    "EventSubscription",
    "Executors",
    "Failed",
    "Gap",
    "GiveUp",
    "IllegalTransitionError",
    "Job",
    "JobCancelledError",
    "JobContext",
    "JobEndedError",
    "JobError",
    "JobFailedError",
    "JobPriority",
    "JobRecord",
    "JobRegistry",
    "JobSpec",
    "JobState",
    "JobtrioError",
    "LaggedError",
    "Message",
    "Outcome",
    "PayloadError",
    "Progress",
    "QueueFullError",
    "RateLimit",
    "RegistryStats",
    "Restart",
    "Retention",
    "RetryLater",
    "RetryPolicy",
    "StoreError",
    "StoreUnavailableError",
    "StoreVersionError",
    "StreamSpan",
    "Subscription",
    "TextStream",
    "ThreadJobContext",
    "Token",
    "TokenStream",
    "Transition",
    "UnknownExecutorError",
    "UnknownJobError",
    "WorkerReport",
    "abc",
    "open_registry",
]

_call_by_public_names(globals())
