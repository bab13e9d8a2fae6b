"""The pages: what in them is generated, and what they say of names and links.

A generated part stands between ``<!-- kind: argument -->`` and ``<!-- end -->``. It is written by this module and
by nobody else; `fill` gives a page's text with all its parts as they have to be.
"""

from __future__ import annotations

import re
import shlex
from functools import cache
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING

from docs.tools import conversations, examples, json_lines, limits, reference, sessions, web, wire_schema
from jobtrio._state import FINAL_STATES, TRANSITIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER = Path(__file__).parents[1]

PART = re.compile(r"^<!-- (\w+)(?:: (.+?))? -->\n(.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)


def paths() -> list[Path]:
    """Return all pages."""
    return sorted(FOLDER.rglob("*.md"))


def fill(path: Path) -> str:
    """Return a page's text with its generated parts made anew."""

    def part(found: re.Match[str]) -> str:
        kind, argument = found[1], found[2] or ""
        content = KINDS[kind](argument, path).strip("\n")
        head = f"<!-- {kind}: {argument} -->" if argument else f"<!-- {kind} -->"
        return f"{head}\n\n{content}\n\n<!-- end -->"

    return PART.sub(part, path.read_text(encoding="utf-8"))


def files() -> dict[Path, str]:
    """Return the files that are generated as a whole, and what has to be in them."""
    return {wire_schema.PATH: wire_schema.text()}


def without_fences(path: Path) -> str:
    """Return a page's text without its blocks of code."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """Return what a link into a page may name: its headings' slugs."""
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", without_fences(path), re.MULTILINE)}


def slug(heading: str) -> str:
    """Return a heading's anchor, as GitHub and MkDocs agree on it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def links(path: Path) -> Iterator[str]:
    """Yield the targets of a page's links that are not to other sites."""
    yield from re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", without_fences(path))


# -- where the reference has what


@cache
def places() -> dict[str, Path]:
    """Return the page of each name that has an entry in the reference."""
    found = {}
    for path in paths():
        for kind, argument, _ in PART.findall(path.read_text(encoding="utf-8")):
            if kind == "reference":
                found[argument] = path
            elif kind == "module":
                found.update(dict.fromkeys(_names_of(argument), path))
    return found


def link_to(dotted: str, page: Path) -> str:
    """Return a link from a page to a name's entry, or to that of one of its members."""
    entry = dotted if dotted in places() else dotted.rpartition(".")[0]
    anchor = slug(dotted.removeprefix(entry.rpartition(".")[0]))
    target = places()[entry]
    return f"#{anchor}" if target == page else f"{relpath(target, page.parent)}#{anchor}"


def _names_of(module: str) -> list[str]:
    return [f"{module}.{name}" for name in reference.resolve(module).__all__]


def _find(name: str, around: str, page: Path) -> str | None:
    """Return a link to what a docstring calls ``name``, seen from the entry that it belongs to."""
    short = {dotted.rpartition(".")[2]: dotted for dotted in places()}
    owner, _, member = name.rpartition(".")
    if name == around.rpartition(".")[2]:
        return None
    if name in short:
        return link_to(short[name], page)
    dotted = short.get(owner) if owner else around
    thing = dotted and reference.resolve(dotted)
    if isinstance(thing, type) and member in reference.members(thing):
        return link_to(f"{dotted}.{member}", page)
    return None


# -- the kinds of generated parts


def _example(argument: str, _: Path) -> str:
    name, *definitions = argument.replace(",", " ").split()
    return f"```python\n{examples.source(name, *definitions)}```"


def _output(argument: str, _: Path) -> str:
    return f"```text\n{examples.run(argument)}```"


def _session(argument: str, _: Path) -> str:
    """What terminals show, one below the other."""
    return f"```text\n{''.join(map(sessions.shown, argument.split()))}```"


def _web(argument: str, _: Path) -> str:
    """Requests to the web application, and its answers, in one terminal."""
    return f"```text\n{''.join(map(web.shown, argument.split()))}```"


def _reference(argument: str, page: Path) -> str:
    return reference.entry(argument, lambda name: _find(name, argument, page))


def _module(argument: str, page: Path) -> str:
    """The entries of all public names of a module."""
    return "\n".join(_reference(dotted, page) for dotted in _names_of(argument))


def _names(argument: str, page: Path) -> str:
    """A table of names and what they are, all of them or some."""
    rows = ["| name | what it is |", "|---|---|"]
    for dotted in shlex.split(argument):
        rows.append(f"| [`{dotted}`]({link_to(dotted, page)}) | {reference.summary(dotted)} |")
    return "\n".join(rows)


def _diagram(_: str, __: Path) -> str:
    return f"```mermaid\n{state_diagram()}```"


def state_diagram() -> str:
    """Return the table of transitions as a Mermaid state diagram."""
    lines = ["stateDiagram-v2"]
    for previous, following in TRANSITIONS.items():
        if previous in FINAL_STATES:
            lines.append(f"    {previous} --> [*]")
        for state, when in following.items():
            lines.append(f"    {previous or '[*]'} --> {state}: {when}")
    return "\n".join(lines) + "\n"


def _transitions(_: str, __: Path) -> str:
    rows = ["| from | to | when |", "|---|---|---|"]
    for previous, following in TRANSITIONS.items():
        rows += [f"| {f'`{previous}`' if previous else '(new)'} | `{to}` | {when} |" for to, when in following.items()]
        if not following:
            rows.append(f"| `{previous}` | | final |")
    return "\n".join(rows)


def _limits(argument: str, _: Path) -> str:
    return {"durable": limits.durable_table, "bridge": limits.bridge_table}.get(argument, limits.table)()


def _conversation(argument: str, _: Path) -> str:
    return f"```text\n{conversations.hold(argument)}```"


def _wire(argument: str, _: Path) -> str:
    """The fields of a message of the wire protocol."""
    return wire_schema.table(argument)


def _codes(argument: str, _: Path) -> str:
    return wire_schema.codes(argument)


def _file(argument: str, _: Path) -> str:
    """A file of another kind, or its lines from one that has a text up to one that has another."""
    name, *bounds = argument.split(" | ")
    text = (FOLDER / name).read_text(encoding="utf-8")
    if bounds:
        first, last = bounds
        text = text[text.index(first) : text.index(last)].rstrip() + "\n"
    return f"```{'js' if bounds else name.rpartition('.')[2]}\n{text}```"


def _json(argument: str, _: Path) -> str:
    """What the command prints with ``--json``, of each kind one line."""
    return f"```json\n{json_lines.shown(argument)}```"


KINDS: dict[str, Callable[[str, Path], str]] = {
    "example": _example,
    "output": _output,
    "session": _session,
    "web": _web,
    "reference": _reference,
    "module": _module,
    "names": _names,
    "diagram": _diagram,
    "transitions": _transitions,
    "limits": _limits,
    "conversation": _conversation,
    "wire": _wire,
    "codes": _codes,
    "file": _file,
    "json": _json,
}
"""What makes the generated parts, from the argument and the page."""
