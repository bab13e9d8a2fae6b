"""The file's format: its mark, its version, and how it comes to be the newest.

Migrations are numbered files of SQL; a new file goes through all of them, an old one through those that it lacks,
within one transaction. It must not know what the tables are for.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from jobtrio._errors import StoreError, StoreVersionError

if TYPE_CHECKING:
    from collections.abc import Iterator

APPLICATION_ID: Final = 0x4A6F6254
"""``PRAGMA application_id`` of a file of jobs: "JobT"."""


def _read_migrations() -> tuple[str, ...]:
    folder = resources.files("jobtrio.stores.sqlite").joinpath("schema")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return tuple(file.read_text("utf-8") for file in files)


MIGRATIONS: Final = _read_migrations()
"""The migrations' text, in order; the n-th makes version n."""


def check(connection: sqlite3.Connection, path: str, migrations: tuple[str, ...] = MIGRATIONS) -> int:
    """Return a file's version; 0 for an empty one. Reads only.

    Raises:
        StoreVersionError: It is newer than what this version of jobtrio knows.
        StoreError: It is of another program.
    """
    application_id, version = (_pragma(connection, name) for name in ("application_id", "user_version"))
    if application_id == 0 and version == 0 and not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
        return 0
    if application_id != APPLICATION_ID:
        raise StoreError(f"{path} is an SQLite file of another program (application_id {application_id:#x})")
    check_version(path, version, migrations)
    try:
        found = _parts(connection)
    except UnicodeDecodeError as exc:  # SQLite's error tells what it can't read, and Python can't read that either
        raise StoreError(f"{path} is damaged: what it consists of can't be read") from exc
    missing = _parts_of(migrations[:version]) - found
    if missing:
        raise StoreError(f"{path} is damaged: {', '.join(sorted(name for name, _ in missing))} is not as it was made")
    return version


def _parts(connection: sqlite3.Connection) -> frozenset[tuple[str, str | None]]:
    """Return the tables and indices of a file, by name, and how they were made."""
    return frozenset(connection.execute("SELECT name, sql FROM sqlite_schema").fetchall())


@lru_cache
def _parts_of(migrations: tuple[str, ...]) -> frozenset[tuple[str, str | None]]:
    """Return the parts that migrations make."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for migration in migrations:
            connection.executescript(migration)
        return _parts(connection)


def check_version(path: str, version: int, migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Raise `StoreVersionError` for a version from the future."""
    if version > len(migrations):
        raise StoreVersionError(
            f"{path} has the format {version}, and this version of jobtrio knows those up to {len(migrations)}"
        )


def version_of(connection: sqlite3.Connection) -> int:
    """Return ``PRAGMA user_version``."""
    return _pragma(connection, "user_version")


def migrate(connection: sqlite3.Connection, path: str, migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Bring a file to the newest format, or leave it as it was. Many processes may do so at once.

    A file of the newest format is only read, without the lock of writers: while others write to a slow disk without a
    pause, it is hardly ever free.
    """
    try:
        connection.execute("BEGIN")
        version = check(connection, path, migrations)
        connection.execute("COMMIT")
        if version == len(migrations):
            return
        connection.execute("BEGIN IMMEDIATE")
        version = check(connection, path, migrations)  # once more: somebody else may just have done it
        if version < len(migrations):
            for migration in migrations[version:]:
                for statement in statements(migration):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def statements(script: str) -> Iterator[str]:
    """Cut a script into its statements; ``executescript`` would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
