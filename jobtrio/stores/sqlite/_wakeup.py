"""Doorbells: how the processes on one file wake each other, and see that one of them is gone.

Each opened store binds a datagram socket in a folder beside the file, and after a commit sends the others a hint of
what to look at. Nothing rests on a hint: those who miss one find out by looking, later. A socket that nobody holds any
more refuses to be rung, and only that is taken for proof that its process has ended: one that is stopped still holds
it. Hence a folder that a stranger may have put there is not used. It must not know what the hints lead to.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
import stat
import time
from contextlib import suppress
from typing import Final

import msgspec

from jobtrio.stores._hints import Hints

LONGEST: Final = 100
"""Bytes of a path that a socket's address has room for everywhere."""

HEARD: Final = 64
"""Rings heard at once: anybody may ring without end."""

REMEMBERED: Final = 5000
"""Jobs that are kept in mind for one who does not listen: a process may stand still for days."""

SETTLED: Final = 2_000_000_000
"""Nanoseconds after which a folder's time of change tells it from a later change: some file systems keep seconds."""

DEAF: Final = (errno.EAGAIN, errno.ENOBUFS)
"""What it is called, by system, that a socket's ears are full."""

_UNBORN: Final = ".new-"
"""How names begin of sockets that are not yet bound, and so refuse though their process lives."""

_NAME: Final = re.compile(r"[0-9a-f]{16}")
"""A doorbell's name. Any other file in the folder is somebody's: it must not be removed, though it can't be rung."""

_decoder = msgspec.json.Decoder(Hints)
_encode = msgspec.json.Encoder().encode


class Doorbell:
    """One opened store's socket, and its way to the others'.

    Attributes:
        name: This store's name among those on the file.
        socket: What rings; None where there can be none, so that one has to look.
    """

    def __init__(self, path: str) -> None:
        self.name: str = secrets.token_hex(8)
        self.socket: socket.socket | None = None
        self._file = os.path.realpath(path)
        self._folder = f"{self._file}-doorbells"
        self._descriptor: int | None = None  # of the folder, where its path is too long for an address
        self._others: list[str] = []
        self._listed: int | None = None  # when the folder had last changed as it was listed
        self._unheard: dict[str, Hints] = {}

    # -- opening and closing

    def open(self) -> None:
        """Bind the socket, so that others can ring. Without it they can't, and it is looked instead."""
        if not _has_sockets():
            return
        for _ in range(3):  # another store that closes may remove the folder in between
            with suppress(OSError):
                with suppress(FileExistsError):
                    os.mkdir(self._folder, self._rights())
                self._bind()
                return

    def _rights(self) -> int:
        """Return the rights of the folder: who may not write to the file must not have its processes look dead."""
        with suppress(OSError):
            return 0o755 | os.stat(self._file).st_mode & 0o022
        return 0o755

    def _bind(self) -> None:
        self._let_go_of_folder()  # of the one before, which another store may have removed
        self._look_at_folder()
        if len(os.fsencode(self._folder)) + 32 > LONGEST:
            self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        unborn = _UNBORN + self.name
        try:
            bell.setblocking(False)
            bell.bind(self._address(unborn))
            os.rename(self._path(unborn), self._path(self.name))
        except BaseException:
            bell.close()
            self.forget(unborn)
            raise
        self.socket = bell

    def close(self, *, keep_name: bool) -> None:
        """Let nobody ring any more; ``keep_name`` leaves the name there, for others to see that nobody holds it."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        if not keep_name:
            self.forget(self.name)
        with suppress(OSError):
            os.rmdir(self._folder)
        self._let_go_of_folder()

    def _let_go_of_folder(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    # -- ringing

    def ring(self, hints: Hints) -> bool:
        """Give all others a hint; tell whether one of them turned out to be gone."""
        if self.socket is None:
            return False
        if hints:
            for name in self._list():
                unheard = self._unheard.setdefault(name, Hints())
                unheard.add(hints)
                if len(unheard.messages) + len(unheard.cancels) > REMEMBERED:
                    self._unheard[name] = _without_particulars(unheard)
        return self.ring_again()

    def ring_again(self) -> bool:
        """Try those whose ears were full; tell whether one of them turned out to be gone."""
        is_one_gone = False
        for name, hints in list(self._unheard.items()):
            try:
                self._send(name, hints)
            except OSError as exc:
                if exc.errno in DEAF:
                    continue
                is_one_gone |= exc.errno == errno.ECONNREFUSED
            del self._unheard[name]
        return is_one_gone

    def _send(self, name: str, hints: Hints) -> None:
        assert self.socket is not None  # whoever rings has seen it
        try:
            self.socket.sendto(_encode(hints), self._address(name))
        except OSError as exc:
            if exc.errno != errno.EMSGSIZE:
                raise
            self.socket.sendto(_encode(_without_particulars(hints)), self._address(name))

    def heard(self) -> Hints:
        """Return what others have rung for since the last time; there may be more."""
        hints = Hints()
        if self.socket is None:
            return hints
        for _ in range(HEARD):
            try:
                data = self.socket.recv(1 << 18)
            except OSError:
                break
            with suppress(msgspec.MsgspecError, RecursionError):  # anybody may write to it
                hints.add(_decoder.decode(data))
        return hints

    # -- who is gone

    def gone(self) -> list[str]:
        """Return the names that nobody holds any more."""
        return [name for name in self._list() if self._is_gone(name)]

    def has_others(self) -> bool:
        """Whether other stores have this file open, or had it as they died."""
        return bool(self._list())

    def forget(self, name: str) -> None:
        """Remove a name that nobody holds."""
        with suppress(OSError):
            os.unlink(self._path(name))

    def _is_gone(self, name: str) -> bool:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                probe.setblocking(False)
                probe.connect(self._address(name))
        except ConnectionRefusedError:
            return True
        except OSError:
            pass  # which proves nothing: there may be no descriptor left to look with
        return False

    # -- names

    def _list(self) -> list[str]:
        """Return the others' names."""
        if not _has_sockets():
            return []  # whatever another system has left there
        try:
            changed = self._look_at_folder().st_mtime_ns
            if changed != self._listed:
                self._others = [name for name in os.listdir(self._folder) if self._is_others(name)]
                # A folder that has just changed may change again without its time showing it.
                self._listed = changed if time.time_ns() - changed > SETTLED else None
        except OSError:
            self._others, self._listed = [], None
        return self._others

    def _look_at_folder(self) -> os.stat_result:
        """Return what the folder is, which must be none that a stranger has put there, nor a link to another.

        Whoever owns it can have live processes look dead. Where all may put something beside the file, as in /tmp, but
        not touch it, that must be one who could do as much by the file itself.

        Raises:
            OSError: It is not there, or may be a stranger's.
        """
        found = os.lstat(self._folder)
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(self._folder)
        if found.st_uid not in (os.geteuid(), 0):
            is_sticky = os.stat(os.path.dirname(self._file)).st_mode & stat.S_ISVTX
            if is_sticky and found.st_uid != os.stat(self._file).st_uid:
                raise PermissionError(self._folder)
        return found

    def _is_others(self, name: str) -> bool:
        return name != self.name and _NAME.fullmatch(name) is not None

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def _address(self, name: str) -> str:
        folder = self._folder if self._descriptor is None else f"/proc/self/fd/{self._descriptor}"
        return f"{folder}/{name}"


def _has_sockets() -> bool:
    """Whether the system has such sockets: Windows, say, has none."""
    return hasattr(socket, "AF_UNIX")


def _without_particulars(hints: Hints) -> Hints:
    """Return what is said instead of too much: those who hear it find out by looking."""
    return Hints(ready=True, due=hints.due)
