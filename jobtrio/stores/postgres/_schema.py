"""The schema's format: its version, whether it is as it was made, and how it comes to be the newest.

Migrations are numbered files of SQL; a new schema goes through all of them, an old one through those that it lacks, in
one transaction, one process at a time. Each says with its first line which version's workers, the oldest, can go on
with what it makes. It must not know what the tables are for.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec
import psycopg

from jobtrio._checks import show
from jobtrio._errors import StoreError, StoreUnavailableError, StoreVersionError
from jobtrio.stores.postgres._statements import statements

if TYPE_CHECKING:
    from jobtrio.psycopg_trio import TrioConnection

OLDEST_SERVER: Final = 140000
"""The oldest PostgreSQL that knows all that the statements use, as ``server_version_num`` has it."""

PROGRAM: Final = "jobtrio"

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")
_OLDEST: Final = re.compile(r"-- oldest: (\d+)\n")

_LOOK: Final = """
SELECT
    pg_catalog.current_setting('server_version_num')::integer, pg_catalog.current_setting('server_encoding'),
    pg_catalog.pg_is_in_recovery(),
    EXISTS (SELECT FROM pg_class WHERE relnamespace = pg_catalog.to_regnamespace(%(schema)s::text)::oid),
    EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = pg_catalog.to_regclass(%(schema)s::text || '.meta')::oid AND attname IN ('key', 'value')
            AND NOT attisdropped
        HAVING pg_catalog.count(*) = 2
    )
"""

_PARTS: Final = """
SELECT
    relname::text || CASE relkind::text
        WHEN 'r' THEN '.' || attname::text || ' ' || pg_catalog.format_type(atttypid, atttypmod)
        ELSE ' ' || relkind::text
    END
FROM pg_class
LEFT JOIN pg_index ON pg_index.indexrelid = pg_class.oid
LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
WHERE relnamespace = pg_catalog.to_regnamespace(%(schema)s::text)::oid AND relkind IN ('r', 'i', 'S')
    AND indisvalid IS NOT FALSE AND (relkind <> 'r' OR attname IS NOT NULL)
"""


@attrs.frozen
class Migration:
    """One step of the format.

    Attributes:
        text: Its SQL.
        oldest: The oldest version whose workers can use what it makes.
    """

    text: str
    oldest: int


def _read_migrations() -> tuple[Migration, ...]:
    folder = resources.files("jobtrio.stores.postgres").joinpath("schema")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return tuple(migration_of(file.read_text("utf-8")) for file in files)


def migration_of(text: str) -> Migration:
    """Return a migration, given its file's text."""
    oldest = _OLDEST.match(text)
    assert oldest is not None, "a migration's first line says which version, the oldest, can use what it makes"
    return Migration(text, int(oldest[1]))


MIGRATIONS: Final = _read_migrations()
"""The migrations, in order; the n-th makes version n."""


def check_schema_name(name: Any) -> str:
    """Return a schema's name: what can be quoted, and leaves room for what is named after it."""
    allowed = "a letter or underscore and up to 47 more letters, digits or underscores, not beginning with pg_"
    if not isinstance(name, str):
        raise TypeError(f"schema must be {allowed}; got {show(name)}")
    if not _NAME.fullmatch(name) or name.lower().startswith("pg_"):
        raise ValueError(f"schema must be {allowed}; got {show(name)}")
    return name


class Schema:
    """One schema, seen through a connection.

    Args:
        connection: The connection, without a transaction.
        name: The schema's name.
        migrations: The migrations.
    """

    def __init__(self, connection: TrioConnection[Any], name: str, migrations: tuple[Migration, ...]) -> None:
        self._connection = connection
        self._name = name
        self._quoted = f'"{name}"'
        self._migrations = migrations

    async def prepare(self, *, create: bool) -> None:
        """Check the schema, or make it, and bring it to the newest format. Many processes may do so at once.

        Args:
            create: Whether to make it where it is missing.

        Raises:
            StoreUnavailableError: The server takes no writes for now.
            StoreVersionError: It is newer than this version can use.
            StoreError: It is no schema of jobs, or damaged, or missing and not to be made; nothing was written.

        Cancellation: it may have been made.
        """
        # Whatever the database has by default: what is looked at behind the lock is what others have left.
        await self._connection.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
        async with self._connection.transaction():  # a pooler that allows none says so here, and not amid the work
            version = await self._check()
        if version >= len(self._migrations):
            await self._catch_up()
            return
        if not version and not create:
            raise StoreError(f"there is no schema {self._name!r} with jobs in this database")
        async with self._connection.transaction():
            # Until its end others wait here, then find that there is nothing to do.
            key = f"jobtrio: migrations of {self._name}"
            lock = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(%s::text, 0::bigint))"
            await self._connection.execute(lock, [key])
            version = await self._check()
            if version < len(self._migrations):
                await self._migrate(version)

    async def _catch_up(self) -> None:
        """Have new jobs numbered behind those that there are, where this role numbers any."""
        may = (
            "SELECT pg_catalog.has_sequence_privilege(%s::text, 'USAGE')"
            " AND pg_catalog.current_setting('transaction_read_only') = 'off'"
        )
        if await self._value(may, f"{self._quoted}.numbers"):
            while await self._value(statements(self._quoted)["catch_up"]):
                pass

    async def _migrate(self, version: int) -> None:
        connection = self._connection
        if not await self._value("SELECT pg_catalog.to_regnamespace(%s::text) IS NOT NULL", self._quoted):
            await connection.execute(f"CREATE SCHEMA {self._quoted}".encode())
        meta = f"INSERT INTO {self._quoted}.meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        for number, migration in enumerate(self._migrations[version:], version + 1):
            await connection.execute(migration.text.replace("{schema}", self._quoted).encode())
            await connection.execute(meta.encode(), [f"oldest:{number}", str(migration.oldest)])
        values = {
            "program": PROGRAM,
            "version": str(len(self._migrations)),
            "parts": msgspec.json.encode(sorted(await self._parts())).decode(),
        }
        for key, value in values.items():
            await connection.execute(meta.encode(), [key, value])

    async def _check(self) -> int:
        """Return the version; 0 where there is nothing yet. Reads only."""
        row = await (await self._connection.execute(_LOOK, {"schema": self._quoted})).fetchone()
        assert row is not None  # it is a statement of one row
        server, encoding, is_standby, has_parts, has_meta = row
        if server < OLDEST_SERVER:
            raise StoreError(f"PostgreSQL {OLDEST_SERVER // 10000} or newer is needed; the server is {server // 10000}")
        if encoding != "UTF8":
            raise StoreError(f"the database must have the encoding UTF8; it has {encoding}")
        if is_standby:
            raise StoreUnavailableError("the server is a standby: nothing can be written")
        if not has_parts:
            return 0
        if not has_meta:
            raise StoreError(f"the schema {self._name!r} is another program's: it has no table of jobtrio's")
        return await self._check_meta()

    async def _check_meta(self) -> int:
        cursor = await self._connection.execute(f"SELECT key, value FROM {self._quoted}.meta".encode())
        meta: dict[str, str] = dict(await cursor.fetchall())
        version = meta.get("version", "")
        if meta.get("program") != PROGRAM or not _NUMBER.fullmatch(version):
            raise StoreError(f"the schema {self._name!r} is another program's, or damaged: its table meta says nothing")
        self._check_version(int(version), meta.get(f"oldest:{version}", version))
        made = _decode_parts(meta.get("parts", ""))
        missing = set(made) - await self._parts()
        if missing or not made:
            what = ", ".join(sorted(missing)) or "the list of its parts"
            raise StoreError(f"the schema {self._name!r} is damaged: {what} is not as it was made")
        return int(version)

    def _check_version(self, version: int, oldest: str) -> None:
        known = len(self._migrations)
        if version > known and not (_NUMBER.fullmatch(oldest) and int(oldest) <= known):
            raise StoreVersionError(
                f"the schema {self._name!r} has the format {version}, "
                f"and this version of jobtrio knows those up to {known}"
            )

    async def _parts(self) -> set[str]:
        """Return the schema's columns, valid indices and sequences."""
        cursor = await self._connection.execute(_PARTS, {"schema": self._quoted})
        return {part for (part,) in await cursor.fetchall()}

    async def _value(self, statement: str, *parameters: Any) -> Any:
        row = await (await self._connection.execute(statement.encode(), parameters)).fetchone()
        assert row is not None  # it is a statement of one row
        return row[0]


def _decode_parts(text: str) -> list[str]:
    """Return the parts that a schema was made with; none where the list can't be read."""
    try:
        return msgspec.json.decode(text, type=list[str])
    except msgspec.MsgspecError:
        return []
