"""The environment that holds the peers alone: made once, from the package index."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

ENVIRONMENT: Final = Path(__file__).parent / ".venv-peers"
REQUIREMENTS: Final = ("aiojobs==1.4.0", "apscheduler==4.0.0a6", "huey==3.5.4", "taskiq==0.13.0", "trio==0.35.0")


def make_environment() -> Path:
    """Make the peers' environment unless it is there as wanted; return its interpreter."""
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / "requirements.json"
    wanted = json.dumps(REQUIREMENTS)
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        uv = shutil.which("uv")
        if uv is None:
            raise SystemExit("the peers need the program uv, to make an environment of their own")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", "3.11", str(ENVIRONMENT)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *REQUIREMENTS], check=True)
        stamp.write_text(wanted, encoding="utf-8")
    return python
