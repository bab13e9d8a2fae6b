"""The peers' scripts: each runs in an environment without jobtrio and imports nothing of it."""
