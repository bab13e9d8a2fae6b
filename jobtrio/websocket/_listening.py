"""Where a bridge listens: from a host's name to sockets on all its addresses, with one port.

It owns the rule that without authentication it is reached from this machine alone. It must not know what is served.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

import attrs
import trio

from jobtrio._checks import show

if TYPE_CHECKING:
    from collections.abc import Sequence

TRIES = 10
"""How often a free port is looked for that all addresses have."""

_ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


@attrs.frozen
class Place:
    """Where a bridge listens.

    Attributes:
        host: The name or address that was asked for; "" for all addresses.
        addresses: The addresses that it has.
        port: The port.
        listeners: The sockets.
    """

    host: str
    addresses: tuple[str, ...]
    port: int
    listeners: list[trio.SocketListener]

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names and addresses under which it is reached, as far as can be told."""
        names = [name for name in (self.host, *self.addresses) if name and not _is_wildcard(name)]
        if any(_is_wildcard(address) or ip_address(address).is_loopback for address in self.addresses):
            names.append("localhost")
        return tuple(dict.fromkeys(names))

    def close(self) -> None:
        """Listen no more."""
        for listener in self.listeners:
            listener.socket.close()

    def url(self, scheme: str) -> str:
        """Return the address for clients of this machine."""
        host = self.hosts[0] if self.hosts else "localhost"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"


async def open_place(host: str, port: int, *, anywhere: bool) -> Place:
    """Listen on all addresses of a host, on the same port.

    Args:
        host: A name or an address; "" for all addresses of this machine.
        port: The port; 0 for any that is free.
        anywhere: Whether it may be reached from other machines.

    Raises:
        ValueError: It would be reached from other machines, and must not be; or the host can't be a name.
        OSError: The host has no address, or the port is not free.

    Cancellation: nothing is left open.
    """
    addresses = await _resolve(host)
    if not anywhere and not all(ip_address(address.partition("%")[0]).is_loopback for address in addresses):
        raise ValueError(
            f"host must be this machine's own (127.0.0.1, ::1, localhost) unless authenticate is given; got {host!r}, "
            f"which is {', '.join(addresses)}"
        )
    for attempt in range(TRIES):
        try:
            listeners = await _listen(addresses, port)
        except OSError as exc:
            if port or attempt == TRIES - 1 or exc.errno != errno.EADDRINUSE:
                raise
        else:
            names = [listener.socket.getsockname() for listener in listeners]
            return Place(host, tuple(name[0] for name in names), names[0][1], listeners)
    raise AssertionError("unreachable")


async def _resolve(host: str) -> list[str]:
    if not host:
        return ["0.0.0.0", "::"]
    try:
        found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError:  # as of a name with a dot too many
        raise ValueError(f"host must be a name or an address; got {show(host)}") from None
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


async def _listen(addresses: Sequence[str], port: int) -> list[trio.SocketListener]:
    """Listen on the addresses that this machine has, the first one's port on all."""
    listeners: list[trio.SocketListener] = []
    absent: OSError | None = None
    try:
        for address in addresses:
            try:
                [listener] = await trio.open_tcp_listeners(port, host=address)
            except OSError as exc:
                if exc.errno not in _ABSENT:
                    raise
                absent = exc
                continue
            listeners.append(listener)
            port = listener.socket.getsockname()[1]
    except BaseException:
        for listener in listeners:
            listener.socket.close()
        raise
    if not listeners:
        assert absent is not None  # there was at least one address
        raise absent
    return listeners


def _is_wildcard(address: str) -> bool:
    return address in ("0.0.0.0", "::")
