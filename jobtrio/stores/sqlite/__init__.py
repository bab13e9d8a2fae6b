"""`SqliteJobStore`: jobs in one SQLite file, shared by the processes of one machine.

The public name, re-exported, and nothing else.
"""

from jobtrio.stores.sqlite._store import SqliteJobStore as SqliteJobStore

__all__ = ["SqliteJobStore"]
