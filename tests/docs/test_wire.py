"""The wire protocol's page and schema: complete, up to date, and true."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from docs.tools import conversations, pages, wire_schema
from jobtrio.websocket import ErrorCode, protocol
from jobtrio.websocket._codes import CloseCode

PAGE = (pages.FOLDER / "reference" / "wire-protocol.md").read_text(encoding="utf-8")


def test_schema_is_up_to_date() -> None:
    """The schema's file is what the structs make of it."""
    assert wire_schema.PATH.read_text(encoding="utf-8") == wire_schema.text(), "run: python -m docs.tools"


def test_schema_holds_together() -> None:
    """Each reference of the schema leads somewhere, and each field says what it means."""
    schema: dict[str, Any] = json.loads(wire_schema.text())
    for name in re.findall(r'"#/\$defs/(\w+)"', wire_schema.text()):
        assert name in schema["$defs"], name
    for name in ("Submit", "Subscribed", "Events", "Refused"):
        properties = schema["$defs"][name]["properties"]
        assert all("description" in each for field, each in properties.items() if field not in ("type", "id", "sub"))


def test_a_client_can_be_written_by_the_tables() -> None:
    """The page says what a field that is left out stands for, and how times are written, in the words of the wire."""
    table = wire_schema.table("client subscribe")
    assert '| `after` | whole number, 0 or more or `"end"`; if left out `0` |' in table
    assert '| `on_gap` | `"raise"`, `"yield"`; if left out `"raise"` |' in table
    assert "| `epoch` | text; may be left out |" in table
    assert "`newest_first` | boolean; if left out `false` |" in wire_schema.table("client find")
    assert "| `created_at` | RFC 3339 time |" in wire_schema.table("record")
    names = re.findall(r"<!-- wire: (.*) -->", PAGE)
    assert not [each for each in names if re.search(r"\bNone\b|`(Error|Gap)`", wire_schema.table(each))]


@pytest.mark.parametrize("root", wire_schema.ROOTS)
def test_every_message_is_on_the_page(root: str) -> None:
    """Each type of message has a heading and its fields on the page."""
    for tag in wire_schema.tags(root):
        assert f"### `{tag}`\n\n<!-- wire: {root} {tag} -->" in PAGE


def test_every_code_is_on_the_page() -> None:
    """Each error code and each close code is on the page."""
    for code in ErrorCode:
        assert f"- `{code}`\n" in PAGE
    for number in CloseCode:
        assert f"| {number.value} | {number.name.lower()} |" in PAGE


@pytest.mark.parametrize("name", conversations.CONVERSATIONS)
def test_conversations_are_protocol(name: str) -> None:
    """Each message of a conversation is one of the protocol; that it is what is said is told by the page's test."""
    assert f"<!-- conversation: {name} -->" in PAGE
    broken = 0
    for line in conversations.hold(name).splitlines():
        sign, _, text = line.partition(" ")
        if sign == ">":
            try:
                protocol.decode_request(text)
            except protocol.ProtocolError:
                broken += 1
        elif sign == "<" and text.startswith("{"):
            protocol.decode_reply(text)
    assert broken == (3 if name == "refusing" else 0)


def test_conversations_show_every_message() -> None:
    """Between them, the conversations have a message of every type, but for the one that comes after silence."""
    said = "".join(map(conversations.hold, conversations.CONVERSATIONS))
    for root in wire_schema.ROOTS:
        for tag in set(wire_schema.tags(root)) - {"heartbeat"}:
            assert f'{{"type":"{tag}"' in said, tag


def test_outcomes_are_outcomes() -> None:
    """The outcomes on the page are outcomes of the protocol."""
    (block,) = re.findall(r"#### Outcome\n\n```json\n(.*?)```", PAGE, re.DOTALL)
    kinds = {type(msgspec.json.decode(line, type=protocol.WireOutcome)) for line in block.splitlines()}
    assert kinds == set(protocol.WireOutcome.__args__)
