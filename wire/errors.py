"""Typed error details: what a `google.rpc.Status` says beside its text, in the JSON forms that BuildKit gives them.

A detail is an `Any` whose type URL is `github.com/moby/buildkit/NAME+json` and whose value is the JSON of the message
with the field names of its proto file (BuildKit's util/grpcerrors).
"""

import base64
import json
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from .pb import rpc_status_pb2

DETAILS_KEY = "grpc-status-details-bin"
"""The trailer that carries a status with its details."""
CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
ALREADY_EXISTS = 6
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
ABORTED = 10
OUT_OF_RANGE = 11
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
DATA_LOSS = 15
UNAUTHENTICATED = 16
"""gRPC's status codes."""

_PREFIX = "github.com/moby/buildkit/"
_ERRDEFS = (
    "Source Vertex Solve Frontend FrontendCap Subrequest CompatibilityFeature ProvenanceMaterialsIncomplete"
).split()
_TYPES = {f"{_PREFIX}errdefs.{name}+json": ("errdefs", name) for name in _ERRDEFS}
_TYPES |= {
    f"{_PREFIX}stack.Stack+json": ("stack", "Stack"),
    f"{_PREFIX}gatewayapi.ExitMessage+json": ("gateway", "ExitMessage"),
    f"{_PREFIX}policysession.DecisionResponse+json": ("policysession", "DecisionResponse"),
}
_PROTO_JSON = "errdefs.Solve"
"""The one type that BuildKit writes as protobuf's JSON, since it has a choice of fields."""


@cache
def _kind(url: str) -> type[Message] | None:
    from importlib import import_module

    known = _TYPES.get(url)
    if known is None:
        return None
    kind: type[Message] = getattr(import_module(f".pb.{known[0]}_pb2", __package__), known[1])
    return kind


def _url(message: Message) -> str:
    for url, (_, name) in _TYPES.items():
        if message.DESCRIPTOR.name == name and type(message) is _kind(url):
            return url
    raise KeyError(f"{message.DESCRIPTOR.full_name} is no detail of an error")


def make_status(code: int, message: str, details: Iterable[Message] = ()) -> rpc_status_pb2.Status:
    """A status with typed details. Raises KeyError for a detail of a type that BuildKit does not know."""
    status = rpc_status_pb2.Status(code=code, message=message)
    add_details(status, details)
    return status


def add_details(status: rpc_status_pb2.Status, details: Iterable[Message]) -> None:
    """Add typed details to a status. Raises KeyError as `make_status` does."""
    for detail in details:
        if detail.DESCRIPTOR.full_name == _PROTO_JSON:
            from google.protobuf.json_format import MessageToDict

            document = MessageToDict(detail, preserving_proto_field_name=True)
        else:
            document = to_json(detail)
        status.details.add(type_url=_url(detail), value=json.dumps(document, separators=(",", ":")).encode())


def read_details(status: rpc_status_pb2.Status) -> Iterator[Message]:
    """The details of a status whose types are known, in order; the others, and broken ones, are left out."""
    for detail in status.details:
        kind = _kind(detail.type_url)
        if kind is None:
            continue
        message = kind()
        if message.DESCRIPTOR.full_name == _PROTO_JSON:
            whole = _from_proto_json(detail.value, message)
        else:
            whole = _from_own_json(detail.value, message)
        if whole:
            yield message


def _from_proto_json(data: bytes, message: Message) -> bool:
    from google.protobuf.json_format import ParseDict, ParseError

    try:
        ParseDict(json.loads(data), message, ignore_unknown_fields=True)
    except (ValueError, TypeError, AttributeError, RecursionError, ParseError):
        return False
    return True


def _from_own_json(data: bytes, message: Message) -> bool:
    try:
        _from_json(json.loads(data), message)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False
    return True


def _entry(field: Any) -> tuple[Any, Any] | None:
    """The key and value fields of a map."""
    if field.message_type is None or not field.message_type.GetOptions().map_entry:
        return None
    return field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]


def to_json(message: Message) -> dict[str, Any]:
    """A message as Go's JSON has it: names as in the proto file, defaults left out, bytes in base 64."""
    out: dict[str, Any] = {}
    for field, value in message.ListFields():
        entry = _entry(field)
        if entry is not None:
            out[field.name] = {str(key): _scalar(entry[1], value[key]) for key in sorted(value)}
        elif field.is_repeated:
            out[field.name] = [_scalar(field, item) for item in value]
        else:
            out[field.name] = _scalar(field, value)
    return out


def _scalar(field: Any, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return to_json(value)
    return base64.b64encode(value).decode() if field.type == FieldDescriptor.TYPE_BYTES else value


def _from_json(document: Any, message: Message) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in document.items():
        field = fields.get(name)
        if field is None or value is None:
            continue
        entry = _entry(field)
        target = getattr(message, name)
        if entry is not None:
            for key, item in value.items():
                if entry[1].type == FieldDescriptor.TYPE_MESSAGE:
                    _from_json(item, target[key])
                else:
                    target[key] = _value(entry[1], item)
        elif field.is_repeated:
            for item in value:
                if field.type == FieldDescriptor.TYPE_MESSAGE:
                    _from_json(item, target.add())
                else:
                    target.append(_value(field, item))
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            target.SetInParent()
            _from_json(value, target)
        else:
            setattr(message, name, _value(field, value))


def _value(field: Any, value: Any) -> Any:
    return base64.b64decode(value) if field.type == FieldDescriptor.TYPE_BYTES else value
