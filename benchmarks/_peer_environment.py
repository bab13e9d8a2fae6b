"""The environments that hold the peers alone: each made once, from the package index, when it is first asked for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import attrs
import trio


@attrs.frozen
class Environment:
    """What one environment holds.

    Attributes:
        folder: Its name beside this file.
        requirements: The packages, each at the version that was measured.
        oldest: The oldest Python that all of them run on.
    """

    folder: str
    requirements: tuple[str, ...]
    oldest: tuple[int, int] = (3, 11)

    @property
    def python(self) -> str:
        """The interpreter's version: that of this process, so that none is ahead by it, unless that is too old."""
        here = sys.version_info[:2]
        return "{}.{}".format(*(here if here >= self.oldest else NEWER))


NEWER: Final = (3, 13)
"""Where this process's Python is too old for some peer."""

IN_PROCESS: Final = Environment(
    ".venv-peers",
    (
        "aiojobs==1.4.0",
        "apscheduler==4.0.0a6",
        "huey==3.5.4",
        "pgqueuer==1.6.0",
        "taskiq==0.13.0",
        "trio==0.35.0",
        "uvloop==0.23.0",
    ),
)
POSTGRES: Final = Environment(
    ".venv-postgres-peers",
    (
        "asyncpg==0.32.0",
        "oban==0.7.0",
        "pgqueuer==1.6.0",
        "procrastinate==3.10.0",
        "psycopg[binary]==3.3.9",
        "uvloop==0.23.0",
    ),
    oldest=(3, 12),  # Oban's
)
REDIS: Final = Environment(
    ".venv-redis-peers",
    ("coredis==6.9.0", "streaq==7.2.0", "taskiq==0.13.0", "taskiq-redis==1.2.4", "trio==0.35.0", "uvloop==0.23.0"),
)


async def make_environment(environment: Environment = IN_PROCESS) -> Path:
    """Make an environment unless it is there as wanted; return its interpreter.

    *Cancellation*: one that is not whole is made anew the next time.
    """
    folder = Path(__file__).parent / environment.folder
    python = folder / "bin" / "python"
    stamp = folder / "requirements.json"
    wanted = json.dumps([environment.python, *environment.requirements])
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        uv = shutil.which("uv")
        if uv is None:
            raise SystemExit("the peers need the program uv, to make an environment of their own")
        make = [uv, "venv", "--quiet", "--clear", "--python", environment.python, str(folder)]
        install = [uv, "pip", "install", "--quiet", "--python", str(python), *environment.requirements]
        try:
            for command in (make, install):
                await trio.run_process(command, start_new_session=True)  # Ctrl-C is for this process, which cancels it
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"the peers' environment {folder} can't be made: see what uv said") from error
        stamp.write_text(wanted, encoding="utf-8")
    return python
