"""What lies under a folder: file system, device, and what a sync costs there now.

The figures of durable stores mean nothing without it: a sync takes 10 microseconds on one disk and 10 milliseconds
on another, and nothing at all in memory.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks._harness import Session

PAGE: Final = 4096
SYNCS: Final = 50


@attrs.frozen
class Disk:
    """What is under a folder.

    Attributes:
        folder: The folder.
        file_system: The file system's kind, and where it is mounted from; ``"?"`` where the system does not say.
        device: The device's kind, and whether it has a cache that a sync has to empty; ``"?"`` likewise.
        sync: Median seconds of an ``fdatasync`` behind 4 KiB.
    """

    folder: str
    file_system: str
    device: str
    sync: float

    @property
    def keeps(self) -> bool:
        """Whether a sync does anything: a folder in memory keeps nothing, and answers at once."""
        return self.sync > 5e-6

    def __str__(self) -> str:
        return (
            f"{self.folder}: file system {self.file_system}; device {self.device}; "
            f"fdatasync of 4 KiB now {1e6 * self.sync:.0f} µs"
        )


@contextmanager
def new_file(folder: str) -> Iterator[Path]:
    """Give the path of a file that is not there yet; it is removed with all that will be beside it."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        yield Path(own) / "jobs.db"


def note(session: Session, what: str) -> None:
    """Say what is under the folder for temporary files, where stores are; if it keeps nothing, no row is scored."""
    place = describe(tempfile.gettempdir())
    session.note(f"{what} in {place}")
    if not place.keeps:
        session.do_not_score("nothing is kept there, so no speed is scored")


def describe(folder: str) -> Disk:
    """Look at what is under a folder, and sync there for a moment."""
    return Disk(folder, _file_system(folder), _device(folder), _time_syncs(folder))


def _number(folder: str) -> str:
    number = os.stat(folder).st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def _file_system(folder: str) -> str:
    wanted = _number(folder)
    for line in _read(Path("/proc/self/mountinfo")).splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            kind, source, *_ = after.split()
            return f"{kind} on {source}"
    return "?"


def _device(folder: str) -> str:
    place = Path(f"/sys/dev/block/{_number(folder)}")
    if not place.exists():
        return "none (memory or network)" if place.parent.exists() else "?"
    device = place.resolve()
    if not (device / "queue").exists():  # a partition's settings are its disk's
        device = device.parent
    cache = _read(device / "queue" / "write_cache").strip() or "unknown"
    return f"{device.name} ({_kind(device)}), write cache: {cache}"


def _kind(device: Path) -> str:
    if device.name.startswith("vd"):
        return "virtual disk"  # whose flag for spinning says nothing
    if device.name.startswith("nvme"):
        return "NVMe"
    return "spinning disk" if _read(device / "queue" / "rotational").strip() == "1" else "SSD"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _time_syncs(folder: str) -> float:
    sync = getattr(os, "fdatasync", os.fsync)
    samples = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(SYNCS):
            file.write(bytes(PAGE))
            started = time.perf_counter()
            sync(file.fileno())
            samples.append(time.perf_counter() - started)
    return statistics.median(samples)
