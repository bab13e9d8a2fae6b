"""Jobs that differ in all that commands filter by, by rules of their numbers, so that tests can tell which match."""

from __future__ import annotations

from jobtrio import JobSpec


def jobs_to_filter(count: int) -> list[JobSpec]:
    """Return so many jobs, with numbers for ids: every third is ann's, every second "work", and every fifth in "q0"."""
    return [
        JobSpec(
            "work" if n % 2 else "other",
            job_id=str(n),
            tags={"user": "bob" if n % 3 else "ann"},
            queue=f"q{n % 5}",
            key=f"k{n}",
        )
        for n in range(count)
    ]
