"""`PostgresJobStore`: jobs in a PostgreSQL database, shared by workers on many machines.

The public names, re-exported, and what is said where psycopg is missing.
"""

try:
    from jobtrio.stores.postgres._store import PostgresJobStore as PostgresJobStore
except ImportError as _exc:
    _exc.add_note("jobtrio.stores.postgres needs an extra: pip install 'jobtrio[postgres]'")
    raise
from jobtrio.stores.postgres._submitting import Submitter as Submitter

__all__ = ["PostgresJobStore", "Submitter"]
