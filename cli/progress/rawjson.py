"""Progress as one JSON object a line, in the form of buildx's `--progress=rawjson` (client.SolveStatus of BuildKit)."""

import base64
import json
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from ...wire.pb import control_pb2
from .sink import Sink

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp


class RawJsonDisplay:
    """Writes each status message as a line of JSON."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = Sink(stream)
        self._lock = threading.Lock()

    def update(self, status: control_pb2.StatusResponse) -> None:
        """Take in one message."""
        line = json.dumps(to_json(status), separators=(",", ":"), ensure_ascii=False)
        with self._lock:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Every message has been written."""


def to_json(status: control_pb2.StatusResponse) -> dict[str, Any]:
    """A status message in the JSON shape that BuildKit's Go client gives it."""
    return _given(
        vertexes=[_vertex(vertex) for vertex in status.vertexes],
        statuses=[_item(item) for item in status.statuses],
        logs=[_log(log) for log in status.logs],
        warnings=[_warning(warning) for warning in status.warnings],
    )


def _given(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value}


def _time(time: "Timestamp") -> str:
    moment = datetime.fromtimestamp(time.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{time.nanos:09d}".rstrip("0")
    return f"{moment}.{fraction}Z" if fraction else f"{moment}Z"


def _maybe(message: Any, name: str) -> str:
    return _time(getattr(message, name)) if message.HasField(name) else ""


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _vertex(vertex: control_pb2.Vertex) -> dict[str, Any]:
    group = vertex.progressGroup
    return _given(
        digest=vertex.digest,
        inputs=list(vertex.inputs),
        name=vertex.name,
        started=_maybe(vertex, "started"),
        completed=_maybe(vertex, "completed"),
        cached=vertex.cached,
        error=vertex.error,
        progressGroup=_given(id=group.id, name=group.name, weak=group.weak) if vertex.HasField("progressGroup") else {},
    )


def _item(item: control_pb2.VertexStatus) -> dict[str, Any]:
    return {
        "id": item.ID,
        **_given(vertex=item.vertex, name=item.name, total=item.total),
        "current": item.current,
        "timestamp": _time(item.timestamp),
        **_given(started=_maybe(item, "started"), completed=_maybe(item, "completed")),
    }


def _log(log: control_pb2.VertexLog) -> dict[str, Any]:
    return {
        **_given(vertex=log.vertex, stream=log.stream),
        "data": _text(log.msg),
        "timestamp": _time(log.timestamp),
    }


def _warning(warning: control_pb2.VertexWarning) -> dict[str, Any]:
    return _given(
        vertex=warning.vertex,
        level=warning.level,
        short=_text(warning.short),
        detail=[_text(line) for line in warning.detail],
        url=warning.url,
        sourceInfo=_given(
            filename=warning.info.filename, data=_text(warning.info.data), language=warning.info.language
        ),
        range=[
            {
                "start": _given(line=one.start.line, character=one.start.character),
                "end": _given(line=one.end.line, character=one.end.character),
            }
            for one in warning.ranges
        ],
    )
