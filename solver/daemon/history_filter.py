"""Filters of the build history: `status==error,startedAt>=1h`, as BuildKit reads them.

Parts joined by commas must all match, and any of several filters. `ref`, `status` and `repository` are compared with
`==`, `!=` and `~=` (a regular expression); `startedAt` and `completedAt` with a time (RFC 3339) or an age, and
`duration` with a length, by `<`, `<=`, `>` and `>=`.
"""

import csv
import operator
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from ...wire.pb import control_pb2
from .durations import parse_duration

Match = Callable[[control_pb2.BuildHistoryRecord], bool]

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_TIME = re.compile(r"(startedAt|completedAt|duration)(>=|<=|>|<)(.*)\Z", re.DOTALL)
_FIELD = re.compile(r'(ref|status|repository)(?:(==|!=|~=)(?:"((?:[^"\\]|\\.)*)"|([^"]*)))?\Z', re.DOTALL)


def select(
    records: Sequence[control_pb2.BuildHistoryRecord], filters: Sequence[str], limit: int
) -> list[control_pb2.BuildHistoryRecord]:
    """The records that any filter lets through, the newest `limit` of them (0: all).

    Raises:
        ValueError: for a filter or limit that is not understood.
    """
    if limit < 0:
        raise ValueError(f"invalid limit {limit}")
    wanted = [parse(text) for text in filters]
    found = [record for record in records if not wanted or any(match(record) for match in wanted)]
    if limit:
        found.sort(key=lambda record: record.CreatedAt.ToNanoseconds(), reverse=True)
        del found[limit:]
    return found


def parse(text: str) -> Match:
    """One filter. Raises ValueError."""
    try:
        fields = next(csv.reader([text]), [])
    except csv.Error as error:
        raise ValueError(f"failed to parse history filter {text!r}: {error}") from None
    parts = [_part(part) for part in fields]
    return lambda record: all(match(record) for match in parts)


def _part(text: str) -> Match:
    timed = _TIME.match(text)
    if timed is not None:
        return _timed(timed[1], _COMPARE[timed[2]], timed[3])
    match = _FIELD.match(text)
    if match is None:
        raise ValueError(
            f"failed to parse history filter {text!r}: known are ref, status, repository (==, !=, ~=), startedAt, "
            "completedAt and duration (<, <=, >, >=)"
        )
    name, compare = match[1], match[2]
    value = re.sub(r"\\(.)", r"\1", match[3]) if match[3] is not None else match[4] or ""
    if compare is None:
        return lambda record: bool(_field(record, name))
    if compare == "~=":
        try:
            expression = re.compile(value)
        except re.error as error:
            raise ValueError(f"broken expression in the history filter {text!r}: {error}") from None
        return lambda record: expression.search(_field(record, name)) is not None
    return lambda record: (_field(record, name) == value) == (compare == "==")


def _timed(name: str, compare: Callable[[Any, Any], bool], value: str) -> Match:
    if name == "duration":
        length = parse_duration(value)
        return lambda record: compare(_length(record), length)
    try:
        limit = datetime.now().timestamp() - parse_duration(value)
    except ValueError:
        try:
            limit = datetime.fromisoformat(value).timestamp()
        except ValueError:
            raise ValueError(f"invalid time {value!r} in a history filter") from None
    if name == "startedAt":
        return lambda record: compare(record.CreatedAt.seconds, int(limit))
    return lambda record: compare(record.CompletedAt.seconds, int(limit))


def _length(record: control_pb2.BuildHistoryRecord) -> float:
    if not record.HasField("CompletedAt"):
        return 0.0
    return (record.CompletedAt.ToNanoseconds() - record.CreatedAt.ToNanoseconds()) / 1e9


def _field(record: control_pb2.BuildHistoryRecord, name: str) -> str:
    if name == "ref":
        return record.Ref
    if name == "repository":
        context = record.FrontendAttrs.get("context", "")
        remote = context.partition("#")[0] if "://" in context or context.startswith("git@") else ""
        return record.FrontendAttrs.get("vcs:source", "") or remote
    if not record.HasField("CompletedAt"):
        return "running"
    if not record.HasField("error"):
        return "completed"
    return "canceled" if "context canceled" in record.error.message else "error"
