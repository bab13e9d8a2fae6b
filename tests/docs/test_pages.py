"""The pages: generated parts, links, and the names that they mention."""

from __future__ import annotations

import ast
import builtins
import enum
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import jobtrio
import jobtrio.executors
import jobtrio.stores
import jobtrio.testing
import jobtrio.websocket
from docs.tools import pages, reference
from jobtrio._state import FINAL_STATES, TRANSITIONS
from jobtrio.cli import build_parser

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES = [pytest.param(path, id=str(path.relative_to(pages.FOLDER))) for path in pages.paths()]

HANDLES: dict[str, tuple[type, ...]] = {
    "job": (jobtrio.Job, jobtrio.JobContext, jobtrio.ThreadJobContext),
    "registry": (jobtrio.JobRegistry,),
    "executors": (jobtrio.Executors,),
    "messages": (jobtrio.Subscription,),
    "record": (jobtrio.JobRecord,),
    "client": (jobtrio.websocket.JobClient,),
    "handshake": (jobtrio.websocket.Handshake,),
}
"""What the pages call a thing of some type, where they write of its members."""


def text_of(name: str) -> str:
    """Return a page's text."""
    return (pages.FOLDER / name).read_text(encoding="utf-8")


def has(thing: Any, member: str) -> bool:
    """Whether a class has a member, in its body or by its documentation."""
    return hasattr(thing, member) or member in reference.documented_attributes(thing)


def options(parser: Any) -> Iterator[str]:
    """Yield a parser's long options, its subcommands' included."""
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))
        if isinstance(action.choices, dict):
            for child in action.choices.values():
                yield from options(child)


@pytest.mark.once
@pytest.mark.parametrize("path", PAGES)
def test_generated_parts_are_up_to_date(path: Path) -> None:
    """The page is what `python -m docs.tools` makes of it."""
    assert path.read_text(encoding="utf-8") == pages.fill(path), "run: python -m docs.tools"


@pytest.mark.parametrize("path", PAGES)
def test_generated_parts_are_closed(path: Path) -> None:
    """Each mark of a generated part is that of a whole one."""
    text = path.read_text(encoding="utf-8")
    assert text.count("<!--") == 2 * len(pages.PART.findall(text))


@pytest.mark.parametrize("path", PAGES)
def test_links_lead_somewhere(path: Path) -> None:
    """Each link within the docs names a file that exists, and a heading of it."""
    for link in pages.links(path):
        target, _, anchor = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        assert found.is_file(), link
        assert not anchor or anchor in pages.anchors(found), link


@pytest.mark.parametrize("path", PAGES)
def test_names_exist(path: Path) -> None:
    """Each name of jobtrio's that the page mentions exists."""
    text = path.read_text(encoding="utf-8")
    for dotted in set(re.findall(r"\bjobtrio(?!\.v1\b|\.bearer\b)(?:\.\w+)+", text)):
        reference.resolve(dotted)
    for owner, member in set(re.findall(r"`(?:await )?(\w+)\.(\w+)", text)):
        if owner in jobtrio.__all__:
            assert has(getattr(jobtrio, owner), member), f"{owner}.{member}"
        elif owner in HANDLES:
            assert any(has(cls, member) for cls in HANDLES[owner]), f"{owner}.{member}"


def test_diagram_is_the_table() -> None:
    """The diagram in the page is the one that the transition table makes."""
    assert re.findall(r"```mermaid\n(.*?)```", text_of("explanation/lifecycle.md"), re.DOTALL) == [
        pages.state_diagram()
    ]


def test_diagram() -> None:
    """The diagram has every change of the table with its reason, and an exit for each final state."""
    lines = pages.state_diagram().splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert len(lines) == 1 + sum(map(len, TRANSITIONS.values())) + len(FINAL_STATES)
    assert "    [*] --> QUEUED: submitted" in lines
    assert "    QUEUED --> FAILED: expired in the queue" in lines
    assert "    COMPLETED --> [*]" in lines
    assert pages.state_diagram().endswith("\n")


@pytest.mark.parametrize(
    "module",
    [jobtrio, jobtrio.testing, jobtrio.abc, jobtrio.stores, jobtrio.websocket],
    ids=lambda module: str(module.__name__),
)
def test_public_names_are_in_the_reference(module: Any) -> None:
    """Each public name has an entry in the reference; of the contract for stores, each class."""
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
    ]
    assert [name for name in names if f"{module.__name__}.{name}" not in pages.places()] == []


@pytest.mark.parametrize("path", PAGES)
def test_bases_are_public(path: Path) -> None:
    """What a class is said to be a subclass of has an entry of its own, or is not jobtrio's."""
    for bases in re.findall(r"^A subclass of (.+)\.$", path.read_text(encoding="utf-8"), re.MULTILINE):
        for name in re.findall(r"`(.+?)`", re.sub(r"\[`.+?\)", "", bases)):
            assert "." in name or hasattr(builtins, name) or hasattr(enum, name), name


def test_public_names_are_in_the_index() -> None:
    """Each name that the reference has is in the table of all names, but for those of the contract for stores."""
    text = text_of("reference/index.md")
    of_stores = ("jobtrio.abc.", "jobtrio.stores.memory.")
    names = [name for name in pages.places() if not name.startswith(of_stores)]
    assert [name for name in names if f"[`{name}`]" not in text] == []


def test_log_lines_are_those_of_the_code() -> None:
    """Each log line that the page on monitoring has is in the code, with anything in the place of each …."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in Path(jobtrio.__file__).parent.rglob("*.py"))
    rows = re.findall(r"^\| [^|]*\| (?:warning|error) \|([^|]+)\|", text_of("howto/monitor.md"), re.MULTILINE)
    lines = [line for row in rows for line in re.findall(r"`([^`]+)`", row)]
    assert len(lines) > len(rows)
    for line in lines:
        assert re.search(".*".join(map(re.escape, line.split("…"))), code), line


def test_every_page_is_found_from_the_start() -> None:
    """Each page is linked from the start page, or from that of the reference."""
    start, index = pages.FOLDER / "index.md", pages.FOLDER / "reference/index.md"
    found = {(page.parent / link.split("#")[0]).resolve() for page in (start, index) for link in pages.links(page)}
    assert [path for path in pages.paths() if path not in found and path != start] == []


def test_command_line_page_has_all_options() -> None:
    """The page of the command line has the options that the command has, and no others."""
    mentioned = set(re.findall(r"--[a-z][a-z-]+", text_of("reference/command-line.md")))
    assert mentioned == set(options(build_parser()))


def test_each_command_has_its_options() -> None:
    """Each command's section names the options that this command has, but for those that sections of their own tell."""
    section = re.compile(r"^## `jobtrio (\w+)`$\n(.*?)(?=^## )", re.MULTILINE | re.DOTALL)
    sections = dict(section.findall(text_of("reference/command-line.md")))
    [commands] = [action.choices for action in build_parser()._actions if isinstance(action.choices, dict)]
    assert set(sections) == set(commands)
    sections["serve"] += sections["worker"]  # of which it says that it takes all
    for name, parser in commands.items():
        missing = [each for each in options(parser) if not re.search(rf"{each}\b(?!-)", sections[name])]
        assert set(missing) <= {"--help", "--store", "--json"}, name


@pytest.mark.parametrize("path", PAGES)
def test_commands_that_go_on_are_complete(path: Path) -> None:
    """Each worker and server that a page starts knows its options, and has a store unless the page sets one."""
    page = path.read_text(encoding="utf-8")
    for line in re.findall(r"^jobtrio ((?:serve|worker) [^\[\n]+)$", page, re.MULTILINE):
        given = build_parser().parse_args(shlex.split(line, comments=True))
        assert given.store or "export JOBTRIO_STORE=" in page, line


LOGGERS = {"logger", "log", "self._log"}
"""What jobtrio's modules call their loggers."""


def logged(path: Path) -> Iterator[str]:
    """Yield what a module logs from warnings on, or at a level that depends, with ``x`` for what is filled in."""
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr in {"warning", "error", "exception", "log"}
            and ast.unparse(call.func.value) in LOGGERS
        ):
            text = call.args[call.func.attr == "log"]
            yield re.sub(r"%[\d.]*[a-z]", "x", ast.literal_eval(text))


def test_all_that_is_logged_is_on_the_page() -> None:
    """Each line that jobtrio logs from warnings on is in the table of them, and each line of the table is one."""
    table = text_of("howto/monitor.md").partition("## What jobtrio logs")[2]
    lines = [line for row in table.splitlines() for line in re.findall("`([^`]+)`", row) if " " in line]
    known = {line: re.compile(re.escape(line).replace("…", ".*")) for line in lines if not line.startswith("jobtrio ")}
    package = Path(jobtrio.__file__).parent
    said = {text for path in package.rglob("*.py") for text in logged(path)} - {"x", "x: x"}
    assert len(said) > 10
    assert [text for text in said if not any(pattern.fullmatch(text) for pattern in known.values())] == []
    assert [line for line, pattern in known.items() if not any(map(pattern.fullmatch, said))] == []
