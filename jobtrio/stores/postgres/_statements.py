"""The store's SQL, read from ``statements.sql`` and completed for a schema.

It owns how that file is read, and what the parts in braces stand for. It must not know what the statements are for.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

from jobtrio._policies import ROUNDED
from jobtrio.stores._texts import PARTS

ENTRY: Final = PARTS
"""The columns that make a `JobEntry`, in the order in which `_rows.entry_of` takes them."""

GIVEN: Final = frozenset({"payload", "metadata", "tags", "saved_state"})
"""What users gave, which may be large."""

ENDING: Final = frozenset({"error", "result"})
"""How a job has ended, which may be large as well."""

NEWEST_FIRST: Final = "newest_first"
"""What the names of statements end with that find the newest first, beside those that find the oldest."""

_NOW = "extract(epoch FROM clock_timestamp())::float8"

_CLOCK = """clock AS MATERIALIZED (
    SELECT n, n::float8 AS at FROM (SELECT extract(epoch FROM clock_timestamp()) AS n) AS time
)"""

_PLACED = """placed AS (
    INSERT INTO {schema}.jobs (
        seq, ticket, id, key, submission, executor, queue, priority, state, plan, payload, metadata, tags,
        created_at, run_at, delay, expires_in, due, expires
    )
    SELECT
        number, number, id, key, submission, executor, queue, priority,
        CASE WHEN delay > 0::float8 THEN 'SCHEDULED' ELSE 'QUEUED' END, plan, payload, metadata, tags,
        at, run_at, delay, expires_in,
        CASE WHEN delay > 0::float8 THEN at + delay + place::float8 * 1e-6::float8 ELSE 0 END, at + wait
    FROM (
        SELECT nextval('{schema}.numbers') AS number, clock.at, given.*
        FROM clock CROSS JOIN unnest(
            $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::float8[], $12::float8[], $13::float8[], $14::float8[]
        ) WITH ORDINALITY AS given (
            id, key, submission, executor, queue, priority, plan, payload, metadata, tags,
            run_at, delay, expires_in, wait, place
        )
    ) AS numbered"""

_TAGGED = """tagged AS (
    INSERT INTO {schema}.tags (job, name, value)
    SELECT placed.seq, tag.name, tag.value
    FROM placed JOIN unnest($15::text[], $16::text[], $17::text[]) AS tag (id, name, value) ON tag.id = placed.id
)"""

# All groups of jobs by queue, state and executor that there are, by leaps from one to the next.
_ALL_CELLS = """cells AS (
    (SELECT queue, state, executor FROM {schema}.jobs ORDER BY queue, state, executor LIMIT 1)
    UNION ALL
    SELECT next.queue, next.state, next.executor FROM cells CROSS JOIN LATERAL (
        SELECT queue, state, executor FROM {schema}.jobs
        WHERE (queue, state, executor) > (cells.queue, cells.state, cells.executor)
        ORDER BY queue, state, executor LIMIT 1
    ) AS next
)"""

_CELLS = f"""{_ALL_CELLS},
groups AS MATERIALIZED (
    SELECT * FROM cells
    WHERE ($1::text IS NULL OR queue = $1) AND ($2::text IS NULL OR executor = $2)
        AND ($3::text[] IS NULL OR state = ANY($3::text[]))
)"""

# With an offset each tag is looked up. Without, the planner may have all tags read beforehand where it knows of few.
_HAVING = r"""NOT EXISTS (
    SELECT FROM unnest($\1::text[], $\2::text[]) AS want (name, value) WHERE NOT EXISTS (
        SELECT FROM {schema}.tags AS other
        WHERE other.name = want.name AND other.value = want.value AND other.job = job.seq
        OFFSET 0
    )
)"""


def _size(names: Iterable[str]) -> str:
    return f"({' + '.join(f'coalesce(octet_length(job.{name}), 0)' for name in sorted(names))})"


_SIZE = _size({*GIVEN, *ENDING})

_IN_ORDER = f"""count(*) OVER () AS many,
    sum({_SIZE}) OVER (ORDER BY job.seq {{way}} ROWS UNBOUNDED PRECEDING) - {_SIZE} AS before"""

_AS_MANY = r"""\1 LIMIT (
    SELECT count(*) FROM (
        SELECT sum(size) OVER (ROWS UNBOUNDED PRECEDING) - size AS before
        FROM (SELECT {size} AS size FROM {schema}.jobs AS job WHERE \1 LIMIT $1::integer) AS first
    ) AS sized
    WHERE before < $2::bigint
)"""

_LONGEST = r"""CASE WHEN $\1::text[] IS NOT NULL THEN (
                SELECT most FROM unnest($\1::text[], $\2::\3[]) AS pattern (prefix, most)
                WHERE starts_with(head.queue, prefix) ORDER BY length(prefix) DESC LIMIT 1
            ) END"""

_FUNCTIONS: Final = (
    "array_agg|bool_or|clock_timestamp|count|current_setting|floor|generate_series|hashtextextended|length|max|min|nextval"
    "|octet_length|pg_advisory_xact_lock|pg_logical_emit_message|pg_notify|pg_sequence_last_value|row_number"
    "|set_config|starts_with|statement_timestamp|substr|sum"
    r"|unnest(?=\([^,()]+\))"  # that of several lists is the server's own in any case, and has no full name
)
"""The functions that the statements call: not those of somebody in the search path that take what is given as it is."""

_CALL = re.compile(rf"(?<![\w.])(?=(?:{_FUNCTIONS})\()")
_TELLING = re.compile(r"\{told (\d+) (\d+)\}")
_HAS_TAGS = re.compile(r"\{has tags (\d+) (\d+)\}")
_BY_PATTERN = re.compile(r"\{by pattern (\d+) (\d+) (\w+)\}")
_FIRST = re.compile(r"\{first of ([^{}]*)\}")
_HEADING = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def _column(name: str, given: str) -> str:
    if name == "history":
        return "'[' || substr(job.history, 2) || ']'"
    return given.format(name) if name in GIVEN else f"job.{name}"


def _columns(given: str) -> str:
    """Return the columns of an entry, with ``given`` in place of those that users gave."""
    return ", ".join(_column(name, given) for name in ENTRY)


def _when_whole(given: str) -> str:
    """Return the same, but nothing but the id where a job is not "whole"."""
    columns = {name: _column(name, given) for name in ENTRY}
    return ", ".join(sql if name == "id" else f"CASE WHEN job.whole THEN {sql} END" for name, sql in columns.items())


_PARTS: Final = {
    "{clock}": _CLOCK,
    "{held by given}": (
        "(job.id, job.state, job.claim, job.attempt) "
        "IS NOT DISTINCT FROM (given.id, 'RUNNING', given.claim, given.attempt)"
    ),
    "{has id in 2}": "id = ANY(ARRAY(SELECT unnest($2::text[])))",
    "{stands in line}": (
        "state = 'QUEUED' AND executor > '' AND queue = line.queue AND executor = line.executor "
        "AND (attempt > 0 OR expires IS NULL OR expires > clock.at) ORDER BY priority DESC, ticket"
    ),
    "{placed}": _PLACED,
    "{tagged}": _TAGGED,
    "{now}": _NOW,
    "{rounded}": f"{ROUNDED!r}::float8",
    "{size}": _SIZE,
    "{light size}": _size(ENDING),
    "{in order}": _IN_ORDER,
    "{asked}": _NOW.replace("clock_timestamp", "statement_timestamp"),
    "{entry}": _columns("job.{}"),
    "{nothing}": ", ".join("NULL" for _ in ENTRY),
    "{light}": _columns("NULL::text"),
    "{entry when whole}": _when_whole("job.{}"),
    "{light when whole}": _when_whole("NULL::text"),
    "{when whole}": _columns("CASE WHEN wanted.whole THEN job.{} END"),
    "{all cells}": _ALL_CELLS,
    "{cells}": _CELLS,
}


@lru_cache(maxsize=16)
def statements(schema: str) -> dict[str, str]:
    """Return each statement's text, by its name, given the schema's name as SQL has it."""
    text = resources.files("jobtrio.stores.postgres").joinpath("statements.sql").read_text("utf-8")
    text = _FIRST.sub(_AS_MANY, text.replace("{asked}", _PARTS["{asked}"]))
    for part, meaning in _PARTS.items():
        text = text.replace(part, meaning)
    text = _HAS_TAGS.sub(_HAVING, _BY_PATTERN.sub(_LONGEST, text))
    text = _TELLING.sub(r"(SELECT count(pg_notify($\1, told)) FROM unnest($\2::text[]) AS told)", text)
    text = _CALL.sub("pg_catalog.", text).replace("{schema}", schema)
    _, *parts = _HEADING.split(text)
    found: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        statement = body.partition(";\n")[0].strip()
        found[name] = statement.replace("{behind}", ">").replace(" {way}", "")
        if "{behind}" in statement:
            found[f"{name}_{NEWEST_FIRST}"] = statement.replace("{behind}", "<").replace("{way}", "DESC")
    return found
