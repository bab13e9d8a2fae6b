"""Doorbells: hints arrive, none is waited for, and only a process that has ended is taken to be gone."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from jobtrio.stores._hints import Hints
from jobtrio.stores.sqlite._wakeup import REMEMBERED, Doorbell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType


DEEP = b'{"deep": ' + b"[" * 4_000 + b"]" * 4_000 + b"}"


@contextmanager
def opened(path: Path) -> Iterator[Doorbell]:
    """Open a doorbell for the file."""
    bell = Doorbell(str(path))
    bell.open()
    try:
        yield bell
    finally:
        bell.close(keep_name=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file would be."""
    return tmp_path / "jobs.db"


def test_all_others_hear(path: Path) -> None:
    """Whoever rings is heard by all others, and not by itself."""
    hints = Hints(ready=True, due=1.5, messages={"é", "b"}, cancels={"c"})
    with opened(path) as a, opened(path) as b, opened(path) as c:
        assert not a.ring(hints)
        assert a.heard() == Hints()
        assert b.heard() == c.heard() == hints
        assert b.heard() == Hints()


def test_hints_add_up(path: Path) -> None:
    """What was rung for several times is heard of once, with the earliest time."""
    with opened(path) as a, opened(path) as b:
        a.ring(Hints(due=5.0, messages={"a"}))
        a.ring(Hints(due=3.0, messages={"b"}))
        a.ring(Hints(ready=True, due=4.0))
        assert b.heard() == Hints(ready=True, due=3.0, messages={"a", "b"})


def test_nobody_is_waited_for(path: Path) -> None:
    """One who does not listen holds nobody up, and hears of all of it later."""
    with opened(path) as a, opened(path) as b:
        rung = {str(n) for n in range(5000)}
        for job_id in rung:
            a.ring(Hints(messages={job_id}))
        heard = Hints()
        for _ in range(100):
            heard.add(b.heard())
            a.ring_again()
        assert heard.messages == rung


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS])
def test_full_ears_by_any_name(path: Path, number: int) -> None:
    """Whoever does not listen hears of it later, however the system says that his ears are full."""

    class Full:
        def sendto(self, data: bytes, address: str) -> None:
            raise OSError(number, os.strerror(number))

    with opened(path) as a, opened(path) as b:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(a, "socket", Full())
            assert not a.ring(Hints(messages={"a"}))
        a.ring_again()
        assert b.heard() == Hints(messages={"a"})


def test_without_such_sockets(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no such sockets, nobody can ring, and nothing is taken for gone."""
    monkeypatch.delattr(socket, "AF_UNIX")
    monkeypatch.delattr(os, "geteuid")
    folder = path.with_name("jobs.db-doorbells")
    for is_there in (False, True):  # as where the file was copied from another system
        if is_there:
            folder.mkdir()
            (folder / "0123456789abcdef").touch()
        with opened(path) as bell:
            assert bell.socket is None
            assert not bell.ring(Hints(ready=True))
            assert bell.heard() == Hints()
            assert not bell.gone()
            assert not bell.has_others()
        assert folder.exists() is is_there


def test_too_much_for_one_ring(path: Path) -> None:
    """What no datagram has room for becomes a ring without particulars."""
    with opened(path) as a, opened(path) as b:
        a.ring(Hints(due=2.0, messages={f"{n:0200}" for n in range(5000)}))
        assert b.heard() == Hints(ready=True, due=2.0)


def test_too_much_for_one_who_does_not_listen(path: Path) -> None:
    """Of what is kept for one who stands still the particulars are dropped where they become too many."""
    with opened(path) as a, opened(path) as b:
        for n in range(4 * REMEMBERED):
            a.ring(Hints(due=100.0 - n, messages={f"m{n}"}, cancels={f"c{n}"}))
        kept = a._unheard[b.name]
        assert len(kept.messages) + len(kept.cancels) <= REMEMBERED
        heard = Hints()
        for _ in range(100):
            heard.add(b.heard())
            a.ring_again()
        assert heard.ready
        assert heard.due == 101.0 - 4 * REMEMBERED


def test_nonsense_is_not_heard(path: Path) -> None:
    """Anybody may ring; what is no hint is passed over."""
    with opened(path) as a, opened(path) as b, closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as stranger:
        for data in (b"", b"\xff", b"[]", b'{"messages": [1]}', b'{"due": "soon"}', b"{" * 10_000, DEEP):
            stranger.sendto(data, os.path.join(f"{path}-doorbells", b.name))
        a.ring(Hints(ready=True))
        assert b.heard() == Hints(ready=True)


def test_who_is_gone(path: Path) -> None:
    """A closed doorbell whose name is kept, or one of a process that died, is gone; a live or unknown one is not."""
    with opened(path) as a, opened(path) as alive:
        left = Doorbell(str(path))
        left.open()
        left.close(keep_name=True)
        program = (
            "import os, sys; from jobtrio.stores.sqlite._wakeup import Doorbell; bell = Doorbell(sys.argv[1]); "
            "bell.open(); print(bell.name); sys.stdout.flush(); os.kill(os.getpid(), 9)"
        )
        command = [sys.executable, "-c", program, str(path)]
        run = subprocess.run(command, check=False, stdout=subprocess.PIPE, timeout=60)
        died = run.stdout.decode().strip()
        assert set(a.gone()) == {left.name, died}
        assert a.ring(Hints(ready=True))  # and notices
        for name in a.gone():
            a.forget(name)
        assert a.gone() == []
        assert not a.ring(Hints(ready=True))
        assert alive.heard().ready


def test_no_descriptor_left_to_look_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it can't be seen who is gone, nobody is taken to be."""
    with opened(path) as a:
        left = Doorbell(str(path))
        left.open()
        left.close(keep_name=True)
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", _refuse)
            assert a.gone() == []
        assert a.gone() == [left.name]


def test_nothing_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no socket can be had in a folder with a long path either, none of the tries leaves the folder open."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    before = len(os.listdir("/dev/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", _refuse)
        with opened(folder / "jobs.db") as bell:
            assert bell.socket is None
    assert len(os.listdir("/dev/fd")) == before


def _refuse(*_: object) -> None:
    raise OSError(errno.EMFILE, "too many open files")


@pytest.mark.parametrize(("module", "what"), [(socket, "socket"), (os, "rename")])
def test_no_folder_is_left(path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, what: str) -> None:
    """Where no socket can be had, or none gets its name, the folder that was made for it goes all the same."""
    monkeypatch.setattr(module, what, _refuse)
    with opened(path) as bell:
        assert bell.socket is None
    assert os.listdir(path.parent) == []


def test_a_folder_that_goes_while_it_is_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one that closes removes the folder as another opens, that one makes it again."""
    mkdir, others = os.mkdir, [True]

    def make(folder: str, mode: int) -> None:
        mkdir(folder, mode)
        if others:
            others.pop()
            os.rmdir(folder)

    monkeypatch.setattr(os, "mkdir", make)
    with opened(path) as bell:
        assert bell.socket is not None
    assert not others


def test_one_that_is_just_opening_is_not_gone(path: Path) -> None:
    """A socket refuses while it is being bound; by then it has no name that others look at."""
    with opened(path) as a:
        unbound = os.path.join(f"{path}-doorbells", ".new-0123")
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as other:
            other.bind(unbound)
        assert a.gone() == []
        os.unlink(unbound)


def test_newcomers_are_seen(path: Path) -> None:
    """However soon after a ring somebody opens a doorbell, the next ring is heard there."""
    with opened(path) as a, ExitStack() as stack:
        bells = []
        for _ in range(20):
            a.ring(Hints(ready=True))
            bells.append(stack.enter_context(opened(path)))
            a.ring(Hints(ready=True))
            assert all(bell.heard().ready for bell in bells)


def test_a_folder_whose_time_is_in_whole_seconds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems keep no parts of a second: who opens a doorbell within the second of a ring is seen as well."""
    folder, second = f"{path}-doorbells", 1_700_000_000
    monkeypatch.setattr(time, "time_ns", lambda: second * 10**9 + 900_000_000)
    with opened(path) as a:
        os.utime(folder, (second, second))
        a.ring(Hints(ready=True))
        with opened(path) as b:
            os.utime(folder, (second, second))
            a.ring(Hints(ready=True))
            assert b.heard().ready


def test_the_folder_goes_with_the_last(path: Path) -> None:
    """The last to close removes the folder; one that opens at that moment makes it anew."""
    folder = f"{path}-doorbells"
    with opened(path):
        with opened(path):
            pass
        assert len(os.listdir(folder)) == 1
    assert not os.path.exists(folder)


def test_by_way_of_links(tmp_path: Path, path: Path) -> None:
    """Different names of one file lead to the same doorbells."""
    path.touch()
    (tmp_path / "link.db").symlink_to(path)
    with opened(path) as a, opened(tmp_path / "link.db") as b:
        a.ring(Hints(ready=True))
        assert b.heard().ready


def test_no_socket_to_be_had(path: Path) -> None:
    """Without sockets there is nothing to ring, and nobody is taken to be gone."""
    path.with_name("jobs.db-doorbells").write_text("a file is in the way")
    with opened(path) as bell:
        assert bell.socket is None
        assert not bell.ring(Hints(ready=True))
        assert bell.heard() == Hints()
        assert bell.gone() == []


def test_files_of_others_in_the_folder(path: Path) -> None:
    """What is no doorbell is neither rung, nor taken for one that nobody holds any more, which would be removed."""
    folder = path.with_name("jobs.db-doorbells")
    with opened(path) as a:
        (folder / "thesis.txt").touch()
        (folder / "0123456789ABCDEF").touch()
        assert a.gone() == []
        assert not a.has_others()


def test_a_link_in_the_place_of_the_folder(path: Path, tmp_path: Path) -> None:
    """A link leads to where others have put whatever they like: there is no doorbell then."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0123456789abcdef").touch()
    path.with_name("jobs.db-doorbells").symlink_to(tmp_path / "elsewhere")
    with opened(path) as bell:
        assert bell.socket is None
        assert bell.gone() == []
    assert os.listdir(tmp_path / "elsewhere") == ["0123456789abcdef"]


@pytest.mark.parametrize(
    ("parent", "folder", "file", "is_used"),
    [
        (0o1777, 1001, 1000, False),  # as in /tmp, by somebody who was there first
        (0o1777, 1000, 1000, True),
        (0o1777, 1001, 1001, True),  # theirs, as the jobs are
        (0o1777, 0, 1000, True),
        (0o770, 1001, 1000, True),  # in a folder of theirs together, each can do all to it
    ],
)
def test_whose_the_folder_is(
    path: Path, monkeypatch: pytest.MonkeyPatch, parent: int, folder: int, file: int, is_used: bool
) -> None:
    """In a folder where everybody may put things, that of the doorbells must be of one who is trusted already."""
    found = {
        str(path.parent): SimpleNamespace(st_mode=stat.S_IFDIR | parent, st_uid=0),
        str(path): SimpleNamespace(st_mode=stat.S_IFREG | 0o644, st_uid=file),
        f"{path}-doorbells": SimpleNamespace(st_mode=stat.S_IFDIR | 0o777, st_uid=folder, st_mtime_ns=1),
    }
    left = Doorbell(str(path))
    left.open()
    left.close(keep_name=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 1000)
        for name in ("stat", "lstat"):
            real = getattr(os, name)
            patch.setattr(os, name, lambda at, *args, real=real, **more: found.get(str(at)) or real(at, *args, **more))
        bell = Doorbell(str(path))
        bell.open()
        assert (bell.socket is not None) is is_used
        assert bell.gone() == [left.name] * is_used
    bell.close(keep_name=False)


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0, 0o644, 0o755), (0, 0o664, 0o775), (0o022, 0o664, 0o755), (0o077, 0o600, 0o700)]
)
def test_who_may_put_something_into_the_folder(path: Path, umask: int, file: int, folder: int) -> None:
    """None but who may write to the file: SQLite makes it without such rights for others, whatever the umask is."""
    path.touch()
    path.chmod(file)
    before = os.umask(umask)
    try:
        with opened(path):
            assert stat.S_IMODE(os.stat(f"{path}-doorbells").st_mode) == folder
    finally:
        os.umask(before)
