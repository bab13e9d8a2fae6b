"""Watchers in a process of their own: ``python -m benchmarks._websocket_watchers PORT WATCHERS SAMPLED``.

For each path that it reads it connects so many plain sockets, says ``watching`` once all of them are served, and at the
end how late the tokens were, as one JSON list: those that the first few watchers received, in seconds. It does as
little as it can: what is measured is the server.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import sys
import time
from typing import Final

CHUNK: Final = 1 << 18
TEXT, CLOSE = 0x81, 0x88

HANDSHAKE: Final = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Watcher:
    """One connection, from its handshake to the end of the job."""

    def __init__(self, port: int, path: str, late: list[float] | None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(HANDSHAKE.format(path=path, port=port).encode())
        self.socket.setblocking(False)
        self.is_served = False
        self.has_ended = False
        self._late = late
        self._rest = b""
        self._is_open = False

    def read(self) -> None:
        """Take what has come."""
        data = self.socket.recv(CHUNK)
        assert data, "the server has left before the end"
        now = time.monotonic()
        self._rest += data
        if not self._is_open:
            head, found, self._rest = self._rest.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            assert b" 101 " in head, head
            self._is_open = True
        at = 0
        while (frame := _frame(self._rest, at)) is not None:
            start, stop = frame
            self._take(self._rest[at], start, stop, now)
            at = stop
        self._rest = self._rest[at:]

    def _take(self, kind: int, start: int, stop: int, now: float) -> None:
        if kind == CLOSE:
            return
        assert kind == TEXT, kind
        if not self.is_served:
            self.is_served = True  # the first message says so
        elif self._late is not None or stop - start < 200:
            message = json.loads(self._rest[start:stop])
            if message["type"] == "end":
                self.has_ended = True
            elif self._late is not None and message["type"] == "events":
                self._late += [now - sent for sent in message["items"]]


def _frame(data: bytes, at: int) -> tuple[int, int] | None:
    """Return where the payload of the frame begins and ends that begins at ``at``, if it is whole."""
    if len(data) < at + 2:
        return None
    length, start = data[at + 1], at + 2
    if length == 126:
        length, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
    elif length == 127:
        length, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
    stop = start + length
    return (start, stop) if stop <= len(data) else None


def watch(port: int, path: str, count: int, sampled: int) -> list[float]:
    """Have so many watchers see one job to its end; return how late the tokens of some of them were."""
    late: list[float] = []
    with selectors.DefaultSelector() as selector:
        waiting = {Watcher(port, path, late if n < sampled else None) for n in range(count)}
        for watcher in waiting:
            selector.register(watcher.socket, selectors.EVENT_READ, watcher)
        _read_until(selector, waiting, "is_served")
        print("watching", flush=True)
        everybody = set(waiting)
        _read_until(selector, waiting, "has_ended")
        for watcher in everybody:
            watcher.socket.close()
    return late


def _read_until(selector: selectors.BaseSelector, watchers: set[Watcher], what: str) -> None:
    left = {watcher for watcher in watchers if not getattr(watcher, what)}
    while left:
        for key, _ in selector.select():
            watcher: Watcher = key.data
            watcher.read()
            if getattr(watcher, what):
                left.discard(watcher)
                if watcher.has_ended:
                    selector.unregister(watcher.socket)


def main() -> None:
    """Watch jobs, until the input ends."""
    port, count, sampled = map(int, sys.argv[1:])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for line in sys.stdin:
        print(json.dumps(watch(port, line.strip(), count, sampled)), flush=True)


if __name__ == "__main__":
    main()
