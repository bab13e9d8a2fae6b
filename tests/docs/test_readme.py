"""The README: its example, its commands, its links."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def test_example_is_the_file() -> None:
    """The example in the README is the file in docs/examples, word for word."""
    assert blocks("python") == [(ROOT / "docs/examples/first_job.py").read_text(encoding="utf-8")]


def test_example_shows_what_the_readme_says() -> None:
    """The example, run as the README says, prints what stands below it."""
    argv = [sys.executable, "docs/examples/first_job.py"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout in blocks("")


def test_links_lead_somewhere() -> None:
    """Each relative link of README, CHANGELOG and CONTRIBUTING leads to a file or folder."""
    for page in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
        missing = [link for link in links if not (ROOT / link).exists()]
        assert missing == [], page
