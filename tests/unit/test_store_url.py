"""Store URLs: what they stand for, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import jobtrio
from jobtrio._errors import StoreError
from jobtrio.stores import store_from_url
from jobtrio.stores._url import Address, parse_store_url
from jobtrio.stores.postgres import PostgresJobStore
from jobtrio.stores.redis import RedisJobStore
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio.abc import JobStore


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///jobs.db", "jobs.db"),
        ("sqlite:///./a/jobs.db", "./a/jobs.db"),
        ("sqlite:////var/lib/jobs.db", "/var/lib/jobs.db"),
        ("SQLite:///jobs.db", "jobs.db"),
        ("sqlite:///my%20jobs%3F.db", "my jobs?.db"),
        ("sqlite:///%C3%A9.db", "é.db"),
        ("sqlite:///%E9.db", "\udce9.db"),  # as Python has a name that is not UTF-8
    ],
)
def test_path(url: str, path: str) -> None:
    """Three slashes come before the path, whose escapes are undone; a fourth begins an absolute one."""
    assert parse_store_url(url) == Address("sqlite", path)


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("synchronous=NORMAL", {"synchronous": "NORMAL"}),
        ("synchronous=full&outage_limit=0.5", {"synchronous": "FULL", "outage_limit": 0.5}),
    ],
)
def test_options(query: str, options: dict[str, object]) -> None:
    """How durable a commit is, and how long to wait for a file that is away, can be said in the URL."""
    assert parse_store_url(f"sqlite:///jobs.db?{query}") == Address("sqlite", "jobs.db", options)


def test_makes_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address makes the store that it names, a relative path seen from the current directory."""
    monkeypatch.chdir(tmp_path)
    store = parse_store_url("sqlite:///jobs.db?outage_limit=3").make_store()
    assert isinstance(store, SqliteJobStore)
    assert store.outage_limit == 3
    assert store.path == str(Path.cwd() / "jobs.db")


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("sqlite:////tmp/jobs.db?outage_limit=3", SqliteJobStore),
        ("postgresql://ann:secret@host/db?outage_limit=3", PostgresJobStore),
        ("rediss://:secret@host?outage_limit=3", RedisJobStore),
    ],
)
def test_public_way(url: str, kind: type[JobStore]) -> None:
    """One function makes the store that a URL names, of whatever kind, and opens nothing."""
    store = store_from_url(url)
    assert type(store) is kind
    assert store.outage_limit == 3
    assert "secret" not in repr(store)


async def test_store_of_a_url_is_used(tmp_path: Path) -> None:
    """A registry takes what it returns, and what is stored there is found under the same URL."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    executors = jobtrio.Executors()
    executors.register("echo")(echo)
    async with jobtrio.open_registry(executors, store=store_from_url(url)) as registry:
        job = await registry.submit("echo", "hello")
        assert await job.result() == "hello"
    async with jobtrio.open_registry(store=store_from_url(url), queues={}) as registry:
        assert await (await registry.get(job.id)).result() == "hello"


async def echo(job: jobtrio.JobContext) -> str:
    text: str = job.payload
    return text


@pytest.mark.parametrize(
    ("url", "error", "what"),
    [
        ("jobs.db", ValueError, r"sqlite:///jobs\.db .* got 'jobs\.db'"),
        ("mysql://ann:secret@host/jobs", ValueError, "got 'mysql://…@host/jobs'"),
        ("postgresql://ann:secret@host/db?schema=a b", ValueError, "schema must be"),
        ("redis://ann:secret@host:x", ValueError, "redis://HOST:6379"),
        (None, TypeError, "got <class 'NoneType'>"),
        (Path("jobs.db"), TypeError, "must be sqlite:///"),
    ],
)
def test_public_way_refuses(url: Any, error: type[Exception], what: str) -> None:
    """What names no store is refused with what is allowed, and without a password."""
    with pytest.raises(error, match=what) as caught:
        store_from_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        (SqliteJobStore, "sqlite:///jobs.db"),
        (PostgresJobStore, "postgresql://ann:secret@host/db?schema=work"),
        (RedisJobStore, "redis://ann:secret@host/0?prefix=work"),
    ],
)
def test_store_itself_names_the_public_way(kind: Callable[[str], JobStore], url: str) -> None:
    """A URL from a program's environment that a store itself can't take is said to be one for ``store_from_url``."""
    with pytest.raises(ValueError, match="store_from_url") as caught:
        kind(url)
    assert "secret" not in str(caught.value)
    store_from_url(url)


def test_public_way_makes_what_is_not_there() -> None:
    """A store that is named by its URL is made where it is missing, as one that is named by its class is."""
    of_postgres, of_redis = store_from_url("postgresql://host/db"), store_from_url("redis://host")
    assert isinstance(of_postgres, PostgresJobStore)
    assert isinstance(of_redis, RedisJobStore)
    assert of_postgres._create
    assert of_redis._creates


def test_looking_makes_nothing() -> None:
    """Who only looks at a store can have it not made where it is missing."""
    of_postgres = parse_store_url("postgresql://host/db").make_store(make=False)
    of_redis = parse_store_url("redis://host").make_store(make=False)
    assert isinstance(of_postgres, PostgresJobStore)
    assert isinstance(of_redis, RedisJobStore)
    assert not of_postgres._create
    assert not of_redis._creates


def test_public_way_imports_one_store_alone() -> None:
    """Who names a file in a URL needs no extra, and who names none at all imports no store of a URL."""
    program = (
        "import sys; sys.modules.update(psycopg=None, coredis=None); import jobtrio; from jobtrio.stores import *;"
        "assert 'jobtrio.stores._url' not in sys.modules; store_from_url('sqlite:///jobs.db')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("", ["got ''"]),
        ("jobs.db", ["'jobs.db'"]),
        ("redis", ["got 'redis'"]),
        ("mysql://host/jobs", ["'mysql://host/jobs'"]),
        ("mysql://ann:secret@host/jobs", ["'mysql://…@host/jobs'"]),
        ("http://ann:se/secret@host/jobs", ["'http://…@host/jobs'"]),
        ("sqlite:jobs.db", ["three slashes"]),
        ("sqlite://jobs.db", ["three slashes"]),
        ("sqlite:///", ["name a file"]),
        ("sqlite:///:memory:", ["name a file"]),
        ("sqlite:///a%00b", ["name a file"]),
        ("sqlite:///jobs.db?synchronous=OFF", ["synchronous=NORMAL", "synchronous='OFF'"]),
        ("sqlite:///jobs.db?mode=ro", ["synchronous=NORMAL", "'mode'"]),
        ("sqlite:///jobs.db?synchronous", ["synchronous=NORMAL", "synchronous=''"]),
        ("sqlite:///jobs.db?outage_limit=0", ["outage_limit=SECONDS"]),
        ("sqlite:///jobs.db?outage_limit=-1", ["outage_limit=SECONDS"]),
        ("sqlite:///jobs.db?outage_limit=inf", ["outage_limit=SECONDS"]),
        ("sqlite:///jobs.db?outage_limit=soon", ["outage_limit=SECONDS"]),
    ],
)
def test_refused(url: str, parts: list[str]) -> None:
    """What is no URL of a store is refused with the URL and what is allowed."""
    with pytest.raises(ValueError, match=r"a store") as caught:
        parse_store_url(url)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://ann:secret@host/jobs",
        "mysql:ann:secret@host/jobs",
        "mysql://ann:a\nsecret@host/jobs",
        "mysql://host/jobs?password=secret",
        "mysql://host/jobs?password=a\nsecret",
        "sqlite://ann:secret@host/jobs",
        "sqlite:///jobs.db?key=secret",
        "redis://host?password=secret",
        "postgresql:ann:secret@host",
        "postgresql://ann:secret@host?pool_size=0",
    ],
)
def test_no_password_is_shown(url: str) -> None:
    """Whatever is wrong with a URL, the error has no password that stands in it."""
    with pytest.raises(ValueError, match="a store") as caught:
        parse_store_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "conninfo", "options"),
    [
        ("postgresql://", "postgresql://", {}),
        ("postgres://ann:secret@host:5433/db", "postgresql://ann:secret@host:5433/db", {}),
        ("PostgreSQL:///db?host=/run/pg", "postgresql:///db?host=%2Frun%2Fpg", {}),
        (
            "postgresql://host/db?sslmode=require&schema=jobs&pool_size=8&listen=false&outage_limit=0.5&application_name=a%20b",
            "postgresql://host/db?sslmode=require&application_name=a%20b",
            {"schema": "jobs", "pool_size": 8, "listen": False, "outage_limit": 0.5},
        ),
        ("postgresql://host/db?password=a+b%2Bc", "postgresql://host/db?password=a%2Bb%2Bc", {}),
        ("postgresql://host/db?listen=TRUE", "postgresql://host/db", {"listen": True}),
        ("postgresql://host/db?listen=1", "postgresql://host/db", {"listen": True}),
        ("postgresql://host/db?listen=0", "postgresql://host/db", {"listen": False}),
    ],
)
def test_postgres(url: str, conninfo: str, options: dict[str, object]) -> None:
    """What is jobtrio's is taken out of the query, and libpq is given the rest."""
    address = parse_store_url(url)
    assert address == Address("postgres", conninfo, options)
    assert "secret" not in repr(address)
    assert address.missing() is None
    store = address.make_store()
    assert isinstance(store, PostgresJobStore)
    assert store.schema == options.get("schema", "jobtrio")
    assert store.outage_limit == options.get("outage_limit", 10.0)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:host",
        "postgresql:/host/db",
        "postgresql://ann:secret@host/db?pool_size=0",
        "postgresql://ann:secret@host/db?pool_size=-1",
        "postgresql://ann:secret@host/db?pool_size=x",
        "postgresql://ann:secret@host/db?pool_size=%D9%A3",
        f"postgresql://ann:secret@host/db?pool_size={'9' * 5000}",
        "postgresql://ann:secret@host/db?listen=maybe",
        "postgresql://ann:secret@host/db?schema=",
        "postgresql://ann:secret@host/db?outage_limit=0",
        "postgresql://ann:secret@host/db?outage_limit=nan",
    ],
)
def test_refused_of_postgres(url: str) -> None:
    """What makes no sense is refused, and a password is not shown."""
    with pytest.raises(ValueError, match="a store") as caught:
        parse_store_url(url)
    assert "secret" not in str(caught.value)


REST = ["//host:port/db:secret", "//ann:se/secret@host/db", "//h/db?nonsense=secret", "//h?schema=a b"]


@pytest.mark.parametrize("rest", REST)
def test_refused_by_the_store(rest: str) -> None:
    """What only the store can tell makes no sense is refused by it, and a password is not shown."""
    address = parse_store_url(f"postgresql:{rest}")
    with pytest.raises(ValueError, match=r"must be") as caught:
        address.make_store()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("password", ["pa?secret", "p/a?secret=b", "pa/secret", "pa%secret"])
def test_what_ends_a_password(password: str) -> None:
    """Of what a password of PostgreSQL's can't hold as it is, it is said how it is written; none of it is shown."""
    with pytest.raises(ValueError, match="%3F") as caught:
        store_from_url(f"postgresql://ann:{password}@host/db")
    assert "secret" not in str(caught.value)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where psycopg is not installed, it is said what to install."""
    for name in [name for name in sys.modules if name.startswith("jobtrio.stores.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install 'jobtrio\[postgres\]'"):
        store_from_url("postgresql://host/db")


@pytest.mark.parametrize(
    ("url", "place", "options"),
    [
        ("redis://host", "redis://host", {}),
        ("Redis://ann:secret@host:6380/1", "redis://ann:secret@host:6380/1", {}),
        (
            "rediss://one,two:6380/0?prefix=jobs&replicas=1&outage_limit=0.5",
            "rediss://one,two:6380/0",
            {"prefix": "jobs", "replicas": 1, "outage_limit": 0.5},
        ),
        ("redis://host?replicas=0", "redis://host", {"replicas": 0}),
    ],
)
def test_redis(url: str, place: str, options: dict[str, object]) -> None:
    """What is behind the question mark is for the store, and the rest says where the server is."""
    address = parse_store_url(url)
    assert address == Address("redis", place, options)
    assert "secret" not in repr(address)
    assert address.missing() is None
    store = address.make_store()
    assert isinstance(store, RedisJobStore)
    assert store.outage_limit == options.get("outage_limit", 10.0)


@pytest.mark.parametrize(
    "query", ["prefix=", "replicas=-1", "replicas=x", "outage_limit=0", "outage_limit=inf", "db=1"]
)
def test_refused_of_redis(query: str) -> None:
    """Options that make no sense are refused, and a password is not shown."""
    with pytest.raises(ValueError, match="prefix=NAME") as caught:
        parse_store_url(f"redis://ann:secret@host?{query}")
    assert "secret" not in str(caught.value)


def test_question_mark_in_a_password() -> None:
    """It begins the options, so the password ends there; what comes behind is not shown."""
    with pytest.raises(ValueError, match=r"%3F") as caught:
        parse_store_url("redis://ann:pa?secret@host/0")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "rest", ["//ann:secret@host:port", "//:secret@", "host:secret", "//h/secret", "//h?prefix={a}"]
)
def test_refused_by_the_redis_store(rest: str) -> None:
    """What only the store can tell makes no sense is refused by it, and a password is not shown."""
    address = parse_store_url(f"redis:{rest}")
    with pytest.raises(ValueError, match=r"must") as caught:
        address.make_store()
    assert "secret@" not in str(caught.value)


def test_without_the_redis_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where coredis is not installed, it is said what to install."""
    for name in [name for name in sys.modules if name.startswith("jobtrio.stores.redis")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "coredis"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(StoreError, match=r"pip install 'jobtrio\[redis\]'"):
        store_from_url("redis://host")
