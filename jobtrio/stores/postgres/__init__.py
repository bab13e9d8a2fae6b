"""`PostgresJobStore`: jobs in a PostgreSQL database, shared by workers on many machines.

The public names, re-exported, and nothing else.
"""

from jobtrio.stores.postgres._store import PostgresJobStore as PostgresJobStore
from jobtrio.stores.postgres._submitting import Submitter as Submitter

__all__ = ["PostgresJobStore", "Submitter"]
