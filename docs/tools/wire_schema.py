"""The wire protocol as it is written down: a JSON Schema, and a table of fields for each message.

Both are made from the structs that the bridge itself decodes with. It must not know what is said when.
"""

from __future__ import annotations

import inspect
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

import jobtrio
from jobtrio.websocket import protocol
from jobtrio.websocket._codes import CloseCode, ErrorCode

PATH = Path(__file__).parents[1] / "reference" / "jobtrio.v1.schema.json"

ROOTS = {"client": protocol.AnyRequest, "server": protocol.AnyReply}
"""Who says what: the two roots of the schema."""

SHARED = {"WireError": "error", "WireRecord": "record", "WireRetry": "retry", "HelloLimits": "limits"}
"""Structs that are parts of messages, as the page calls them."""


def text() -> str:
    """Return the schema's file."""
    defs = {name: _described(name, schema) for name, schema in _components()[1].items()}
    roots = dict(zip(ROOTS, _components()[0], strict=True))
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": protocol.PROTOCOL,
        "description": "A message of a client is one of $defs/client, a message of a server one of $defs/server.",
        "anyOf": [{"$ref": f"#/$defs/{root}"} for root in ROOTS],
        "$defs": {**roots, **defs},
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def tags(root: str) -> list[str]:
    """Return the types of the messages that one side sends."""
    return [member.__struct_config__.tag for member in ROOTS[root].__args__]


def table(argument: str) -> str:
    """Return what a message says in general, and its fields, from ``client submit`` or the name of a part."""
    struct = _struct(argument)
    schema = _components()[1][struct.__name__]
    rows = ["| field | what it may be | meaning |", "|---|---|---|"]
    for field in (each.encode_name for each in msgspec.structs.fields(struct)):
        kind = _kind(schema["properties"][field])
        if field not in schema.get("required", ()):
            default = schema["properties"][field]["default"]
            left_out = "may be left out" if default is None else f"if left out `{json.dumps(default)}`"
            kind = f"{kind.removesuffix(' or null')}; {left_out}"
        rows.append(f"| `{field}` | {kind} | {_meaning(struct, field)} |")
    return "\n\n".join([_doc(struct)[0], "\n".join(rows)])


def codes(argument: str) -> str:
    """Return the error codes or the close codes as a table."""
    if argument == "errors":
        return "\n".join(f"- `{code.value}`" for code in ErrorCode)
    final = protocol.FINAL_CODES
    rows = ["| code | name | try again? |", "|---|---|---|"]
    for code in CloseCode:
        again = "it is a tail's outcome" if code in protocol.OUTCOME_CODES else "no" if code in final else "yes"
        rows.append(f"| {code.value} | {code.name.lower()} | {again} |")
    return "\n".join(rows)


@cache
def _components() -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    roots, components = msgspec.json.schema_components(ROOTS.values(), ref_template="#/$defs/{name}")
    return list(roots), components


def _struct(argument: str) -> type[msgspec.Struct]:
    root, _, tag = argument.partition(" ")
    if tag:
        names = {each.__name__ for each in ROOTS[root].__args__ if each.__struct_config__.tag == tag}
    else:
        names = {name for name, part in SHARED.items() if part == root}
    return next(each for each in _all_structs() if each.__name__ in names)


def _described(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a component with its fields' meanings, and without the parts of a docstring that are for Python."""
    struct = next((each for each in _all_structs() if each.__name__ == name), None)
    if struct is None:
        return schema
    properties = {
        field: {**each, "description": _plain(_meaning(struct, field))} if field in struct.__struct_fields__ else each
        for field, each in schema["properties"].items()
    }
    return {**schema, "description": _plain(_doc(struct)[0]), "properties": properties}


def _all_structs() -> list[type[msgspec.Struct]]:
    return [each for each in vars(protocol).values() if isinstance(each, type) and issubclass(each, msgspec.Struct)]


def _doc(struct: type) -> tuple[str, dict[str, str]]:
    """Return what a docstring says in general, and of each field."""
    about, _, listed = (inspect.getdoc(struct) or "").partition("\n\nAttributes:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", listed, re.MULTILINE)
    return _named(" ".join(about.split())), {name: _named(" ".join(meaning.split())) for name, meaning in found}


def _named(text: str) -> str:
    """Return a text that names messages by their types on the wire, and fields in single backticks."""
    by_name = {
        each.__name__: f"`{each.__struct_config__.tag}`" for each in _all_structs() if each.__struct_config__.tag
    }
    text = re.sub(r"(?<!`)`(\w+)`(?!`)", lambda found: by_name.get(found[1], found[0]), text)
    return re.sub(r"\bNone\b", "null", text.replace("``", "`"))


def _meaning(struct: type, field: str) -> str:
    """Return a field's meaning from a struct or a base of it, or from what a record is made of."""
    for each in (*struct.__mro__, jobtrio.JobRecord):
        if meaning := _doc(each)[1].get(field):
            return meaning
    raise LookupError(f"{struct.__name__}.{field} has no description")


def _plain(text: str) -> str:
    return text.replace("`", "'")


def _kind(schema: dict[str, Any]) -> str:
    """Return in words what a schema allows."""
    match schema:
        case {"anyOf": options}:
            kinds = dict.fromkeys(_kind(option) for option in options)
            return " or ".join(kind for kind in kinds if kind != "whole number" or "number" not in kinds)
        case {"$ref": reference}:
            return _reference(reference.rpartition("/")[2])
        case {"enum": values} | {"const": values}:
            return ", ".join(f"`{json.dumps(value)}`" for value in (values if isinstance(values, list) else [values]))
        case {"type": "integer", "minimum": low} if low >= 0:
            return f"whole number, {low} or more"
        case {"type": "integer"}:
            return "whole number"
        case {"type": "string", "format": "date-time"}:
            return "RFC 3339 time"
        case {"type": "array", "items": items} if items:
            return f"list of {_kind(items)}"
        case {"type": "object", "additionalProperties": values} if values:
            return f"object of {_kind(values)} by name"
        case {"type": name}:
            return {"string": "text", "array": "list of anything"}.get(name, str(name))
        case _:
            return "anything"


def _reference(name: str) -> str:
    if name in SHARED:
        return f"[{SHARED[name]}](#{SHARED[name]})"
    if name == "JobState":
        return "[state](states.md)"
    if name == protocol.ProgressMade.__name__:
        return "[`progress`](#progress)"
    return "[outcome](#outcome)"
