"""Filters of what the state folder holds: `type==regular,description~=npm`.

Source: containerd's filters, as BuildKit's usage records answer them: parts of one text must all match, of several
texts any may.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from ..wire import errors
from .base import SolveError

Filter = Callable[[Mapping[str, str | bool]], bool]
"""Takes the fields of a record: texts, and flags that are there or not."""

TEXTS = ("id", "parents", "description", "type")
FLAGS = ("inuse", "mutable", "immutable", "shared", "private")
TYPES = ("regular", "internal", "frontend", "source.local", "source.git.checkout", "exec.cachemount")

_PART = re.compile(
    r"""\s*(?P<field>[A-Za-z_][\w.]*)\s*
    (?:(?P<operator>==|!=|~=)\s*(?P<value>"(?:[^"\\]|\\.)*"|[^\s,"]*))?\s*(?P<end>,|\Z)""",
    re.VERBOSE,
)
_YES, _NO = ("true", "1"), ("false", "0")


def parse(texts: Sequence[str]) -> Filter:
    """One filter of several texts; none lets everything through.

    Raises:
        SolveError: for a text that is no filter, an unknown field or an unknown type.
    """
    found = [_all(text) for text in texts if text.strip()]
    if not found:
        return lambda fields: True
    return lambda fields: any(match(fields) for match in found)


def _all(text: str) -> Filter:
    parts: list[Filter] = []
    position = 0
    while position < len(text) or not parts:
        match = _PART.match(text, position)
        if match is None:
            raise _wrong(f"failed to parse the filter {text!r} at {text[position:]!r}")
        parts.append(_part(text, match["field"], match["operator"] or "", _unquoted(match["value"] or "")))
        position = match.end()
        if match["end"] and position == len(text):
            raise _wrong(f"failed to parse the filter {text!r}: it ends in a comma")
    return lambda fields: all(part(fields) for part in parts)


def _wrong(message: str) -> SolveError:
    return SolveError(message, code=errors.INVALID_ARGUMENT)


def _unquoted(value: str) -> str:
    if value[:1] != '"':
        return value
    return re.sub(r"\\(.)", r"\1", value[1:-1])


def _part(text: str, field: str, operator: str, value: str) -> Filter:
    name = "parents" if field == "parent" else field
    if name not in TEXTS + FLAGS:
        raise _wrong(f"unknown field {field!r} in the filter {text!r}: known are {', '.join(TEXTS + FLAGS)}")
    if not operator:
        return lambda fields: bool(fields[name])
    if name in FLAGS:
        return _flag(text, name, operator, value)
    if operator == "~=":
        try:
            expression = re.compile(value)
        except re.error as error:
            raise _wrong(f"broken expression in the filter {text!r}: {error}") from None
        return lambda fields: expression.search(str(fields[name])) is not None
    if name == "type" and value not in TYPES:
        raise _wrong(f"unknown type {value!r}: known are {', '.join(TYPES)}")

    def equal(fields: Mapping[str, str | bool]) -> bool:
        return fields[name] == value or (name == "parents" and value in str(fields[name]).split(";"))

    return equal if operator == "==" else lambda fields: not equal(fields)


def _flag(text: str, name: str, operator: str, value: str) -> Filter:
    if operator == "~=" or value not in _YES + _NO:
        raise _wrong(f"{name} is a flag: the filter {text!r} may say {name}, {name}==true or {name}==false")
    wanted = (value in _YES) == (operator == "==")
    return lambda fields: bool(fields[name]) is wanted
