"""Canned status messages for the tests of displays."""

from collections.abc import Callable
from typing import Any

import pytest

from brickyard.wire.pb import control_pb2

START = 1_700_000_000


def put(time: Any, seconds: float) -> None:
    """Set a time field to a moment, in seconds after the start of the build."""
    time.seconds, time.nanos = START + int(seconds), round((seconds - int(seconds)) * 1e9)


class Events:
    """Status messages in short form; times are in seconds after the start."""

    def vertex(
        self,
        name: str,
        started: float | None = None,
        completed: float | None = None,
        cached: bool = False,
        error: str = "",
        group: tuple[str, str, bool] | None = None,
    ) -> control_pb2.StatusResponse:
        """A vertex; its digest is its name's last word."""
        vertex = control_pb2.Vertex(digest=f"sha256:{name.split()[-1]}", name=name, cached=cached, error=error)
        if started is not None:
            put(vertex.started, started)
        if completed is not None:
            put(vertex.completed, completed)
        if group is not None:
            vertex.progressGroup.id, vertex.progressGroup.name, vertex.progressGroup.weak = group
        return control_pb2.StatusResponse(vertexes=[vertex])

    def log(self, name: str, text: str, when: float) -> control_pb2.StatusResponse:
        """A piece of a vertex's log."""
        log = control_pb2.VertexLog(vertex=f"sha256:{name.split()[-1]}", stream=1)
        put(log.timestamp, when)
        log.msg = text.encode()
        return control_pb2.StatusResponse(logs=[log])

    def item(
        self,
        name: str,
        id: str,
        current: int,
        total: int,
        when: float,
        started: float = 0.0,
        completed: float | None = None,
    ) -> control_pb2.StatusResponse:
        """The progress of a part of a vertex."""
        item = control_pb2.VertexStatus(ID=id, vertex=f"sha256:{name.split()[-1]}", current=current, total=total)
        put(item.timestamp, when)
        put(item.started, started)
        if completed is not None:
            put(item.completed, completed)
        return control_pb2.StatusResponse(statuses=[item])

    def warning(self, name: str, text: str) -> control_pb2.StatusResponse:
        """A warning about a vertex."""
        one = control_pb2.VertexWarning(vertex=f"sha256:{name.split()[-1]}", level=1)
        one.short = text.encode()
        return control_pb2.StatusResponse(warnings=[one])


@pytest.fixture
def events() -> Events:
    """The maker of canned messages."""
    return Events()


@pytest.fixture
def clock() -> Callable[[], float]:
    """A clock that stands still until its `now` is moved."""

    class Clock:
        now = 100.0

        def __call__(self) -> float:
            return self.now

    return Clock()
