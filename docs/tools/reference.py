"""The reference: signatures and docstrings of the public names, as Markdown.

It owns the form of an entry. It must not know which page an entry stands on, but for the links that it is given.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, TypeAlias

import attrs

from jobtrio.abc import JobStore

Links: TypeAlias = Callable[[str], "str | None"]
"""From a name in a docstring to where its entry is, or None."""

CONSTRUCTED = {"Executors", "GiveUp", "PostgresJobStore", "RedisJobStore", "RetryLater", "SqliteJobStore", "Submitter"}
"""Classes that users make themselves, besides the attrs ones. Of the others, the constructor is nobody's business."""

LINE = 100
"""Characters of a signature on one line."""

SECTIONS = {"Args": "Parameters", "Attributes": "Attributes", "Raises": "Raises", "Returns": "Returns"}


def resolve(dotted: str) -> Any:
    """Return what a dotted name stands for.

    Raises:
        LookupError: Nothing has this name.
    """
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        try:
            for part in parts[cut:]:
                found = _member(found, part)
        except AttributeError:
            break
        return found
    raise LookupError(dotted)


def entry(dotted: str, links: Links) -> str:
    """Return the whole entry of a public name, with an entry for each of its public members."""
    thing = resolve(dotted)
    name = dotted.rpartition(".")[2]
    parts = [f"## `{name}`"]
    if inspect.isclass(thing):
        parts += _class(name, thing, links)
    elif inspect.isfunction(thing):
        parts += [_fence(_signature(name, thing)), prose(inspect.getdoc(thing) or "", links)]
    else:
        parts += _value(name, thing, dotted, links)
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(dotted: str) -> str:
    """Return the first line of a public name's documentation."""
    thing = resolve(dotted)
    text = inspect.getdoc(thing) if inspect.isclass(thing) or inspect.isroutine(thing) else None
    if inspect.ismodule(thing):
        text = thing.__doc__
    return _ticks((text or _alias_doc(dotted)).strip().split("\n\n")[0].replace("\n", " "), lambda _: None)


def members(cls: type) -> dict[str, Any]:
    """Return a class's own public methods and properties, in the order of its source.

    Those of a store that are a part of the contract are not among them: that has a page of its own.
    """
    contract = vars(JobStore) if cls is not JobStore and issubclass(cls, JobStore) else {}
    return {
        name: value
        for name, value in vars(cls).items()
        if not name.startswith("_")
        and name not in contract
        and (inspect.isfunction(value) or isinstance(value, property))
    }


def documented_attributes(thing: Any) -> set[str]:
    """Return the names that a docstring lists as attributes."""
    found = re.search(r"^Attributes:\n((?:    .*\n?|\n)+)", inspect.getdoc(thing) or "", re.MULTILINE)
    return set(re.findall(r"^    (\w+):", found[1], re.MULTILINE)) if found else set()


def prose(doc: str, links: Links) -> str:
    """Return a docstring as Markdown."""
    out: list[str] = []
    lines = doc.strip().splitlines()
    while lines:
        line = lines.pop(0)
        heading = line.removesuffix(":")
        if line.endswith(":") and heading in SECTIONS:
            block = []
            while lines and (not lines[0] or lines[0].startswith(" ")):
                block.append(lines.pop(0))
            out += [f"**{SECTIONS[heading]}**", "", *_items(block, itemised=heading != "Returns"), ""]
        else:
            out.append(re.sub(r"(^|\. )\*?Cancellation\*?:", r"\1**Cancellation**:", line))
    return _ticks("\n".join(out).strip(), links)


# -- kinds of things


def _class(name: str, cls: type, links: Links) -> list[str]:
    parts = []
    if attrs.has(cls) or name in CONSTRUCTED:
        parts.append(_fence(_signature(name, cls)))
    bases = list(_bases(cls, links))
    if tuple in cls.__bases__:
        parts.append("A named tuple.")
    elif bases:
        parts.append("A subclass of " + _and(f"`{_qualified(base)}`" for base in bases) + ".")
        parts[-1] = _ticks(parts[-1], links)
    parts.append(prose(inspect.getdoc(cls) or "", links))
    if issubclass(cls, enum.Enum):
        parts.append("\n".join(f"- `{member.name}` = `{member.value!r}`" for member in cls))
    if name in CONSTRUCTED and cls.__init__.__doc__:  # type: ignore[misc]
        parts.append(prose(inspect.getdoc(cls.__init__) or "", links))  # type: ignore[misc]
    for member, value in members(cls).items():
        parts.append(f"### `{name}.{member}`")
        if isinstance(value, property):
            parts.append(_fence(f"{member}: {_returned(value.fget)}  # read-only"))
        else:
            parts.append(_fence(_signature(member, value)))
        parts.append(prose(inspect.getdoc(value) or "", links))
    return parts


def _value(name: str, thing: Any, dotted: str, links: Links) -> list[str]:
    if inspect.ismodule(thing):
        return [prose(thing.__doc__ or "", links)]
    shown = re.sub(r"\b[\w.]+\.(\w+)", r"\1", str(thing)) if hasattr(thing, "__args__") else ""
    line = f"{name} = {shown}".replace("'", '"')
    if len(line) > LINE:
        head, _, inner = line.removesuffix("]").partition("[")
        line = f"{head}[\n    {inner}\n]"
    return [_fence(line) if shown else "", prose(_alias_doc(dotted), links)]


def _alias_doc(dotted: str) -> str:
    """Return the string that stands behind the assignment of a name, wherever in the package that is."""
    name = dotted.rpartition(".")[2]
    for module in [module for key, module in sys.modules.items() if key.split(".")[0] == "jobtrio"]:
        body = ast.parse(inspect.getsource(module)).body if getattr(module, "__file__", None) else []
        for node, after in pairwise(body):
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            is_it = any(isinstance(target, ast.Name) and target.id == name for target in targets)
            if is_it and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                return str(after.value.value)
    raise LookupError(f"{dotted} has no documentation")


# -- signatures


def _signature(name: str, thing: Any) -> str:
    parameters = [each for each in inspect.signature(thing).parameters.values() if each.name != "self"]
    shown = [_parameter(each) for each in parameters]
    for n, each in enumerate(parameters):
        if each.kind is each.KEYWORD_ONLY:
            shown.insert(n, "*")  # behind it, callers have to name the parameters
            break
    before, after = _frame(thing)
    line = f"{before}{name}({', '.join(shown)}){after}"
    if len(line) <= LINE:
        return line
    return f"{before}{name}(\n" + "".join(f"    {each},\n" for each in shown) + f"){after}"


def _frame(thing: Any) -> tuple[str, str]:
    """Return what stands before a signature's name and behind its parameters."""
    if inspect.isclass(thing):
        return "class ", ""
    returned = _returned(thing)
    inner = inspect.unwrap(thing)
    if inspect.isasyncgenfunction(inner):
        return "async with ", f" as {returned.removeprefix('AsyncIterator[').removesuffix(']')}"
    return ("async def " if inspect.iscoroutinefunction(inner) else "def "), f" -> {returned}"


def _parameter(parameter: inspect.Parameter) -> str:
    annotation = "" if parameter.annotation is parameter.empty else f": {_annotation(parameter.annotation)}"
    if parameter.default is parameter.empty:
        star = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        return f"{star}{parameter.name}{annotation}"
    return f"{parameter.name}{annotation} = {_default(parameter.default)}"


def _annotation(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return text.strip("\"'")


def _returned(function: Any) -> str:
    return _annotation(function.__annotations__["return"])


def _default(value: Any) -> str:
    if value is attrs.NOTHING:
        return "…"  # made anew each time
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_default, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, type):
        return value.__name__
    if attrs.has(type(value)) and value == type(value)():
        return f"{type(value).__name__}()"
    if type(value).__module__.startswith("jobtrio"):
        return "…"
    return "inf" if value == math.inf else repr(value)


# -- small parts


def _member(thing: Any, name: str) -> Any:
    try:
        return getattr(thing, name)
    except AttributeError:
        if name in documented_attributes(thing):
            return None
        raise


def _items(block: list[str], *, itemised: bool) -> list[str]:
    """Return the lines of a section, each ``name: text`` as a list item, anything else as it is."""
    out: list[str] = []
    for line in inspect.cleandoc("\n".join(["", *block])).splitlines():
        item = re.match(r"([\w., *]+): (.*)", line) if itemised else None
        if item and not line.startswith(" "):
            named = ", ".join(f"`{each.strip()}`" for each in item[1].split(","))
            out.append(f"- {named}: {item[2]}")
        elif out and line.startswith(" "):
            out.append(f"  {line.strip()}")
        else:
            out.append(line)
    return out


def _ticks(text: str, links: Links) -> str:
    """Return text in which names in single backticks are linked, and double backticks are single ones."""

    def link(found: re.Match[str]) -> str:
        if found[1] is not None:
            return f"`{found[1]}`"
        target = links(found[2])
        return f"`{found[2]}`" if target is None else f"[`{found[2]}`]({target})"

    return re.sub(r"``(.+?)``|`([^`]+)`", link, text, flags=re.DOTALL)


def _fence(text: str) -> str:
    return f"```python\n{text}\n```"


def _qualified(cls: type) -> str:
    module = cls.__module__.split(".")[0]
    if module in ("builtins", "jobtrio", "enum", "typing"):
        return cls.__qualname__
    return f"{cls.__module__}.{cls.__name__}"


def _bases(cls: type, links: Links) -> Iterator[type]:
    """Yield a class's public bases; in the place of a private one, those of that."""
    for base in cls.__bases__:
        if _is_private(base, links):
            yield from _bases(base, links)
        elif base not in (object, tuple, enum.Enum):
            yield base


def _is_private(cls: type, links: Links) -> bool:
    is_own = cls.__module__.partition(".")[0] == "jobtrio"
    return links(cls.__name__) is None if is_own else cls.__module__ in ("abc", "typing", "typing_extensions")


def _and(items: Any) -> str:
    *rest, last = items
    return f"{', '.join(rest)} and {last}" if rest else str(last)
