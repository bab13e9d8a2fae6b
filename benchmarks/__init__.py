"""How fast jobtrio is, always beside a floor or a peer measured in the same run.

``uv run python -m benchmarks`` runs all of it; this package's own `__init__` imports nothing, so that
the peers' scripts can run from it in an environment without jobtrio.
"""
