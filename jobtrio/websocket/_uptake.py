"""How much of what was sent has arrived, where the system tells.

It must not know what is sent, nor who waits for it.
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, NamedTuple

try:
    import fcntl
    import termios
except ModuleNotFoundError:  # on Windows
    IS_TOLD = False
else:
    IS_TOLD = sys.platform == "linux"

if TYPE_CHECKING:
    import trio


class Uptake(NamedTuple):
    """How far the bytes of a connection have come.

    Attributes:
        arrived: Those that the other side's system has acknowledged.
        sent: Those that this side's system was given.
    """

    arrived: int
    sent: int


UNKNOWN = Uptake(0, 0)

_ACKNOWLEDGED = slice(120, 128)
"""Where `tcpi_bytes_acked` stands in a `tcp_info`."""


def uptake_of(connection: trio.socket.SocketType) -> Uptake:
    """Return how far a connection's bytes have come, `UNKNOWN` where nobody tells."""
    if not IS_TOLD:
        return UNKNOWN
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.stop)
        waiting = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:  # it is closed
        return UNKNOWN
    arrived = int.from_bytes(info[_ACKNOWLEDGED], sys.byteorder)
    return Uptake(arrived, arrived + int.from_bytes(waiting, sys.byteorder))
