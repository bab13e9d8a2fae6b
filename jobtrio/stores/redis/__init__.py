"""`RedisJobStore`: jobs in Redis or Valkey, shared by the processes of many machines.

The public name, re-exported, and nothing else.
"""

from jobtrio.stores.redis._store import RedisJobStore as RedisJobStore

__all__ = ["RedisJobStore"]
