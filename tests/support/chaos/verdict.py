"""What was promised, compared with what was seen: all checks of one run, and what they found.

A check takes the facts and yields a violation for each thing that is not as promised. It must not know how the facts
came about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.facts import Facts


@attrs.frozen
class Violation:
    """One broken promise.

    Attributes:
        check: The check's name.
        job_id: The job, or None where it is not about one.
        text: What was seen.
    """

    check: str
    job_id: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.check}: {self.job_id or '-'}: {self.text}"


Finding: TypeAlias = tuple["str | None", str]
"""A job, or None, and what was seen of it."""

Check: TypeAlias = "Callable[[Facts], Iterator[Finding]]"

CHECKS: dict[str, Check] = {}
"""All checks, by name."""


def promise(check: Check) -> Check:
    """Have a check be made of every run."""
    CHECKS[check.__name__] = check
    return check


def judge(facts: Facts) -> list[Violation]:
    """Return all that is not as promised."""
    from chaos import check_changes, check_endings, check_fleet, check_streams, check_work  # noqa: F401 - they make themselves known

    return [Violation(name, *finding) for name, check in CHECKS.items() for finding in check(facts)]
