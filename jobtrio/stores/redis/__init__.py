"""`RedisJobStore`: jobs in Redis or Valkey, shared by the processes of many machines.

The public name, re-exported, and what is said where coredis is missing.
"""

try:
    from jobtrio.stores.redis._store import RedisJobStore as RedisJobStore
except ImportError as _exc:
    _exc.add_note("jobtrio.stores.redis needs an extra: pip install 'jobtrio[redis]'")
    raise

__all__ = ["RedisJobStore"]
