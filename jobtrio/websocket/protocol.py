"""The wire protocol ``jobtrio.v1``: text in, typed messages out, and back.

It is pure: no connection, no clock, no task. Whatever comes in, decoding returns a message or raises
`ProtocolError`, nothing else. Server and client both stand on it; it must not know either.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec
from msgspec.structs import replace

from jobtrio._checks import show
from jobtrio._codec import encode_value, is_deeper, read_float
from jobtrio._state import JobState
from jobtrio.websocket._codes import FINAL_CODES as FINAL_CODES
from jobtrio.websocket._codes import OUTCOME_CODES as OUTCOME_CODES
from jobtrio.websocket._codes import CloseCode as CloseCode
from jobtrio.websocket._codes import ErrorCode as ErrorCode
from jobtrio.websocket._codes import ProtocolError as ProtocolError
from jobtrio.websocket._replies import PROTOCOL as PROTOCOL
from jobtrio.websocket._replies import AnyReply as AnyReply
from jobtrio.websocket._replies import Ended as Ended
from jobtrio.websocket._replies import Events as Events
from jobtrio.websocket._replies import GapFound as GapFound
from jobtrio.websocket._replies import Heartbeat as Heartbeat
from jobtrio.websocket._replies import Hello as Hello
from jobtrio.websocket._replies import HelloLimits as HelloLimits
from jobtrio.websocket._replies import JobFound as JobFound
from jobtrio.websocket._replies import JobsFound as JobsFound
from jobtrio.websocket._replies import Ok as Ok
from jobtrio.websocket._replies import Pong as Pong
from jobtrio.websocket._replies import ProgressMade as ProgressMade
from jobtrio.websocket._replies import Refused as Refused
from jobtrio.websocket._replies import Restarted as Restarted
from jobtrio.websocket._replies import Submitted as Submitted
from jobtrio.websocket._replies import Subscribed as Subscribed
from jobtrio.websocket._replies import WireCancelled as WireCancelled
from jobtrio.websocket._replies import WireCompleted as WireCompleted
from jobtrio.websocket._replies import WireError as WireError
from jobtrio.websocket._replies import WireFailed as WireFailed
from jobtrio.websocket._replies import WireOutcome as WireOutcome
from jobtrio.websocket._replies import WireRecord as WireRecord
from jobtrio.websocket._requests import AnyRequest as AnyRequest
from jobtrio.websocket._requests import Auth as Auth
from jobtrio.websocket._requests import Cancel as Cancel
from jobtrio.websocket._requests import Find as Find
from jobtrio.websocket._requests import Get as Get
from jobtrio.websocket._requests import MessageId as MessageId
from jobtrio.websocket._requests import OnGap, PriorityName
from jobtrio.websocket._requests import Ping as Ping
from jobtrio.websocket._requests import Submit as Submit
from jobtrio.websocket._requests import Subscribe as Subscribe
from jobtrio.websocket._requests import Unsubscribe as Unsubscribe
from jobtrio.websocket._requests import WireRetry as WireRetry
from jobtrio.websocket._translation import JobStreamReply as JobStreamReply
from jobtrio.websocket._translation import messages_of as messages_of
from jobtrio.websocket._translation import progress_of as progress_of
from jobtrio.websocket._translation import record_of as record_of
from jobtrio.websocket._translation import reply_to as reply_to
from jobtrio.websocket._translation import retry_of as retry_of
from jobtrio.websocket._translation import wire_record as wire_record
from jobtrio.websocket._translation import wire_retry as wire_retry
from jobtrio.websocket._values import DEPTH_LIMIT, value_json, values_json

if TYPE_CHECKING:
    from collections.abc import Collection


class _Envelope(msgspec.Struct):
    """As much of a message as an answer to a wrong one needs."""

    type: Any = None
    id: Any = None
    sub: Any = None


_requests: Final = msgspec.json.Decoder[AnyRequest](AnyRequest, float_hook=read_float)
_replies: Final = msgspec.json.Decoder[AnyReply](AnyReply, float_hook=read_float)
_envelopes: Final = msgspec.json.Decoder(_Envelope, float_hook=read_float)
_encoder: Final = msgspec.json.Encoder()


_WORDS: Final = {
    "after": ("a whole number", "end"),
    "on_gap": get_args(OnGap),
    "priority": get_args(PriorityName),
    "state": tuple(JobState),
}
"""What is allowed in the fields that hold a word of a few."""

_WRONG_WORD: Final = re.compile(r"Invalid enum value .* - at `\$\.(\w+)")

TOO_DEEP: Final = "nested too deeply"

_BEGINNING: Final = re.compile(
    r'\s*\{\s*"type"\s*:\s*"\w*"\s*,\s*"(id|sub)"\s*:\s*("[ -!#-\[\]-~]{0,100}"|0|-?[1-9][0-9]{0,17})\s*,'
)
"""How a message begins of which can be told, without reading on, what it is about: jobtrio sends it so, both ways."""


def _tags(union: Any) -> frozenset[str]:
    return frozenset(str(member.__struct_config__.tag) for member in union.__args__)


_REQUEST_TYPES: Final = _tags(AnyRequest)
_REPLY_TYPES: Final = _tags(AnyReply)


def decode_request(data: str | bytes) -> AnyRequest:
    """Return what a client says.

    Raises:
        ProtocolError: It is not a message of the protocol; the error says why, and whose answer it belongs in.
    """
    if is_deeper(data if isinstance(data, bytes) else data.encode(errors="replace"), DEPTH_LIMIT):
        raise _unreadable(data, TOO_DEEP)
    request: AnyRequest = _decode(_requests, _REQUEST_TYPES, data)
    return request


def decode_reply(data: str | bytes) -> AnyReply:
    """Return what a server says.

    Raises:
        ProtocolError: It is not a message of the protocol. A client passes over those of code ``unknown_type``.
    """
    reply: AnyReply = _decode(_replies, _REPLY_TYPES, data)
    return reply


def encode_request(request: AnyRequest) -> str:
    """Return a client's message as text.

    Raises:
        PayloadError: A payload or metadata that JSON can't hold.
        ProtocolError: A text that UTF-8 can't hold.
    """
    if isinstance(request, Submit):
        payload = msgspec.Raw(encode_value("payload", request.payload))
        metadata: Any = request.metadata
        if metadata is not None:
            metadata = msgspec.Raw(encode_value("metadata", metadata))
        request = replace(request, payload=payload, metadata=metadata)
    try:
        return _encoder.encode(request).decode()
    except UnicodeEncodeError as exc:
        raise ProtocolError(ErrorCode.INVALID, f"text must be what UTF-8 can hold; got {show(exc.object)}") from None


def encode_reply(reply: AnyReply) -> str:
    """Return a server's message as text; a value that JSON can't hold goes as ``{"repr": …}``."""
    return _encoder.encode(_with_values(reply)).decode()


def encode_events(sub: int | None, seq: int, attempt: int, items: bytes) -> str:
    """Return an `Events` as text, whose items are a JSON array already."""
    head = "" if sub is None else f'"sub":{sub},'
    return f'{{"type":"events",{head}"seq":{seq},"attempt":{attempt},"items":{items.decode()}}}'


def encode_retry_after(seconds: float) -> str:
    """Return the reason of a close that says after how many seconds to come back."""
    return _encoder.encode({"retry_after": round(seconds, 3)}).decode()


def decode_retry_after(reason: str | None) -> float | None:
    """Return the seconds that a close's reason says to wait, or None where it says nothing of the kind."""
    try:
        seconds = msgspec.json.decode(reason or "", type=dict[str, float]).get("retry_after")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return seconds if seconds is not None and seconds >= 0 else None


def _decode(decoder: msgspec.json.Decoder[Any], types: Collection[str], data: str | bytes) -> Any:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as exc:
        raise _wrong(data, types, _explained(str(exc))) from None
    except RecursionError:
        raise _unreadable(data, TOO_DEEP) from None
    except (msgspec.DecodeError, UnicodeError) as exc:
        raise _unreadable(data, _reason(exc)) from None


def _explained(why: str) -> str:
    """Return why a message is wrong, with what is allowed where that does not say so."""
    found = _WRONG_WORD.match(why)
    words = None if found is None else _WORDS.get(found[1])
    return why if words is None else f"{why}; allowed: {', '.join(words)}"


def _wrong(data: str | bytes, types: Collection[str], why: str) -> ProtocolError:
    """Return the error for JSON that is no message."""
    try:
        envelope = _envelopes.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ProtocolError(ErrorCode.INVALID, why)
    id, sub = _usable(envelope.id), _usable(envelope.sub)
    if isinstance(envelope.type, str) and envelope.type not in types:
        return ProtocolError(ErrorCode.UNKNOWN_TYPE, f"no message has the type {show(envelope.type)}", id, sub)
    return ProtocolError(ErrorCode.INVALID, why, id, sub)


def _usable(name: Any) -> MessageId | None:
    """Return what names a request or a subscription, or None where it can't."""
    try:
        usable: MessageId = msgspec.convert(name, MessageId)
    except msgspec.ValidationError:
        return None
    return usable


def _unreadable(data: str | bytes, why: str) -> ProtocolError:
    """Return the error for a message that can't be read whole, with what it is about where its beginning tells that.

    Else a client whose request is too deep for the server would wait for its answer without end, and one that can't
    read a deep message of the server's would lose all its streams by it.
    """
    text = data if isinstance(data, str) else data[:200].decode("utf-8", "replace")
    match = _BEGINNING.match(text)
    about = {} if match is None else {match[1]: msgspec.json.decode(match[2], type=MessageId)}
    return ProtocolError(ErrorCode.INVALID, f"not a message: {why}", **about)


def _reason(exc: Exception) -> str:
    return f"not UTF-8: {exc.reason}" if isinstance(exc, (UnicodeDecodeError, UnicodeEncodeError)) else str(exc)


def _with_values(reply: AnyReply) -> AnyReply:
    """Return a reply whose values of any kind are JSON already."""
    match reply:
        case Events(items=items):
            return replace(reply, items=msgspec.Raw(values_json(items)))
        case Ended(outcome=WireCompleted(result=result)):
            return replace(reply, outcome=WireCompleted(result=msgspec.Raw(value_json(result))))
    return reply
