"""psycopg 3 on Trio: connections, transactions, notifications and a pool.

psycopg's protocol is a set of generators that say what they wait for; here Trio waits for it. What is cancelled is
cancelled on the server as well, and a connection whose caller was interrupted is at rest again or closed. This package
stands alone: it knows psycopg and Trio, and nothing of what uses it.
"""

try:
    from ._connection import TrioConnection as TrioConnection
except ImportError as _exc:
    _exc.add_note("jobtrio.psycopg_trio needs an extra: pip install 'jobtrio[postgres]'")
    raise
from ._connection import connect as connect
from ._notifications import Notifications as Notifications
from ._pool import Pool as Pool
from ._pool import PoolStatistics as PoolStatistics
from ._pool import open_pool as open_pool
from ._transaction import OutcomeUnknownError as OutcomeUnknownError

__all__ = [
    "Notifications",
    "OutcomeUnknownError",
    "Pool",
    "PoolStatistics",
    "TrioConnection",
    "connect",
    "open_pool",
]
