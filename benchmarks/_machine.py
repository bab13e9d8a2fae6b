"""Says where and with what a run was made: for the JSON file, since ratios of other machines differ."""

from __future__ import annotations

import os
import platform
import resource
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

PACKAGES = (
    *("jobtrio", "trio", "attrs", "outcome", "sortedcontainers"),
    *("msgspec", "psycopg", "coredis", "trio-websocket"),
)


def describe_machine() -> dict[str, object]:
    """Return the processor, the memory and the system."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": pages,
        "load": os.getloadavg(),
    }


def describe_versions() -> dict[str, str]:
    """Return the interpreter's, the packages' and the sources' versions."""
    found = {"python": sys.version.split()[0], "implementation": platform.python_implementation()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {**found, "sqlite": sqlite3.sqlite_version, "commit": _commit()}


def peak_memory() -> int:
    """Return the most bytes that this process was resident with so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def timestamp() -> str:
    """Return the time in UTC, as text that sorts and may stand in a file's name."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
