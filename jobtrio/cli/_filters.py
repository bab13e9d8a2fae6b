"""Which jobs of a store a command is about, where it is about all that match: its options, and what they stand for.

It must not know what becomes of the jobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobtrio.cli import _options

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from jobtrio._state import JobState


FILTERS = "--tag, --queue, --executor, --key and --state for all that match"
"""The options that `add_filters` adds, as errors name them."""


def add_filters(parser: argparse.ArgumentParser, states: Iterable[JobState]) -> None:
    """Add the options that say which jobs; ``--state`` may name these states."""
    add = parser.add_argument
    add(
        "--state",
        metavar="STATE,…",
        type=_options.states,
        action="extend",
        help=f"only jobs in these states: {', '.join(states).lower()}",
    )
    add_tag_option(parser, help="only jobs with this tag")
    add("--queue", metavar="NAME", type=_options.name, help="only jobs of this queue")
    add("--executor", metavar="NAME", type=_options.name, help="only jobs of this executor")
    add("--key", metavar="KEY", type=_options.name, help="only the job with this key")


def add_tag_option(parser: argparse.ArgumentParser, *, help: str) -> None:
    """Add ``--tag``, of which there may be several; ``help`` says what a tag is for."""
    parser.add_argument(
        "--tag",
        metavar="NAME=VALUE",
        type=_options.tag,
        action=_options.OnceEach,
        default=[],
        help=f"{help}; may be given several times",
    )


def check_states(options: argparse.Namespace, allowed: Iterable[JobState], why: str) -> None:
    """End with 2 where ``--state`` names a state that is not allowed; ``why`` says what the allowed ones are."""
    if not {*allowed}.issuperset(options.state or ()):
        must, given = (",".join(states).lower() for states in (allowed, options.state))
        options.parser.error(f"argument --state: must be one or several of {must}, {why}; got {given!r}")


def is_filtered(options: argparse.Namespace, *, is_named: bool, named: str = "jobs' IDs") -> bool:
    """Return whether the options say which jobs, rather than what names them; end with 2 where both or neither do."""
    is_filtered = bool(filters_of(options))
    if is_filtered == is_named:
        options.parser.error(f"say which: {named}, or {FILTERS}")
    return is_filtered


def filters_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return those of the options that were given, as `JobRegistry.find` takes them.

    A client's takes them as well: ``--queue`` and ``--executor``, which it has not, are refused for a server before.
    """
    filters = {
        "state": options.state,
        "tags": dict(options.tag),
        "queue": options.queue,
        "executor": options.executor,
        "key": options.key,
    }
    return {name: value for name, value in filters.items() if value}
