"""Which of several Redis servers is connected to."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from coredis.exceptions import AuthenticationError, MovedError, ReadOnlyError

from jobtrio import StoreError, StoreUnavailableError
from jobtrio.stores.redis._address import Address
from jobtrio.stores.redis._connector import Connector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ONE, TWO, THREE = ("one", 6379), ("two", 6379), ("three", 7000)


class FakeLink:
    """A link over which the server says no more than that another one has to be asked, if that."""

    def __init__(self, astray: BaseException | None) -> None:
        self.astray = astray


class Rig:
    """A connector to fake servers.

    Attributes:
        tried: The places that were connected to.
        refuses: What each place fails with.
        astray: What each place says once it is connected to.
    """

    def __init__(self) -> None:
        self.connector = Connector(Address((ONE, TWO)), 1.0)
        self.tried: list[tuple[str, int]] = []
        self.refuses: dict[tuple[str, int], Exception] = {}
        self.astray: dict[tuple[str, int], Exception] = {}

    @asynccontextmanager
    async def open_link(self, _: Address, place: tuple[str, int], patience: float) -> AsyncIterator[FakeLink]:
        self.tried.append(place)
        if place in self.refuses:
            raise self.refuses[place]
        yield FakeLink(self.astray.get(place))

    async def connect(self) -> None:
        """Connect, and lose the link."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.connector.connect())

    async def connect_beside(self) -> None:
        """Likewise, beside the link in use."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.connector.connect(turns=False))


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    """Return a connector whose servers are all there."""
    rig = Rig()
    monkeypatch.setattr("jobtrio.stores.redis._connector.open_link", rig.open_link)
    return rig


async def test_the_first_that_serves(rig: Rig) -> None:
    """The hosts are tried in turn, and the one that serves is kept to, also after its link was lost."""
    rig.refuses = {ONE: OSError("refused"), TWO: AuthenticationError("WRONGPASS")}
    with pytest.raises(StoreUnavailableError, match="one:6379: refused"):
        await rig.connect()
    with pytest.raises(StoreError, match="two:6379: WRONGPASS"):
        await rig.connect()
    rig.refuses = {ONE: TimeoutError("late")}
    with pytest.raises(StoreUnavailableError, match="one:6379: late"):
        await rig.connect()
    await rig.connect()
    await rig.connect()
    assert rig.tried == [ONE, TWO, ONE, TWO, TWO]


async def test_one_that_does_not_write(rig: Rig) -> None:
    """Where a server turns out to be a replica, the next is tried."""
    rig.astray = {ONE: ReadOnlyError("You can't write against a read only replica")}
    await rig.connect()
    await rig.connect()
    assert rig.tried == [ONE, TWO]


@pytest.mark.parametrize(("target", "place"), [("three:7000", THREE), (":7000", ("one", 7000))])
async def test_one_that_has_not_got_the_keys(rig: Rig, target: str, place: tuple[str, int]) -> None:
    """Where a server says who has the keys, that one is followed, as long as it serves."""
    moved = MovedError(f"1234 {target}")
    rig.astray = {ONE: moved}
    await rig.connect()
    await rig.connect()
    await rig.connect()
    rig.refuses = {place: OSError("refused")}
    with pytest.raises(StoreUnavailableError):
        await rig.connect()
    rig.refuses[ONE] = moved
    with pytest.raises(StoreUnavailableError, match="MOVED"):
        await rig.connect()
    assert rig.connector.place == place
    assert rig.tried == [ONE, place, place, place, ONE]


async def test_beside(rig: Rig) -> None:
    """Who connects beside goes to the server in use, and turns to no other where that fails."""
    rig.refuses = {ONE: OSError("refused")}
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="one:6379: refused"):
            await rig.connect_beside()
    rig.refuses, rig.astray = {}, {ONE: ReadOnlyError("")}
    await rig.connect_beside()
    assert rig.connector.place == ONE
