"""The log of a build's events."""

import os
import struct
from pathlib import Path

import pytest

from brickyard.solver.daemon.status import StatusLog, replay, summarize
from brickyard.wire.pb import control_pb2

Status = control_pb2.StatusResponse


def log_of(text: bytes) -> Status:
    return Status(logs=[control_pb2.VertexLog(vertex="v", stream=1, msg=text)])


def test_the_file_is_buildkits_form(tmp_path: Path):
    log = StatusLog(tmp_path / "log")
    log.send(log_of(b"a"))
    log.send(log_of(b"bb"))
    log.close()
    log.send(log_of(b"too late"))
    data = (tmp_path / "log").read_bytes()
    messages = []
    while data:
        (size,) = struct.unpack("<I", data[:4])
        messages.append(Status.FromString(data[4 : 4 + size]))
        data = data[4 + size :]
    assert messages == [log_of(b"a"), log_of(b"bb")]


def test_messages_are_joined_but_not_without_end(tmp_path: Path):
    log = StatusLog(tmp_path / "log")
    for _ in range(2000):
        log.send(log_of(b"x" * 1000))
    log.close()
    messages = [Status.FromString(data) for data in replay(tmp_path / "log")]
    assert sum(len(message.logs) for message in messages) == 2000
    assert 2 <= len(messages) < 20
    assert max(message.ByteSize() for message in messages) < 2 << 20


def test_a_huge_event_is_sent_in_parts(tmp_path: Path):
    log = StatusLog(tmp_path / "log")
    log.send(log_of(b"y" * (9 << 20)))
    log.close()
    messages = list(replay(tmp_path / "log"))
    assert max(map(len, messages)) < 2 << 20
    assert b"".join(e.msg for m in messages for e in Status.FromString(m).logs) == b"y" * (9 << 20)


def test_on_a_full_disk_events_are_lost_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = StatusLog(tmp_path / "log")
    log.send(log_of(b"first"))

    def full(file: int, data: bytes, at: int) -> int:
        pwrite(file, data[:5], at)
        return 5

    pwrite = os.pwrite
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        log.send(log_of(b"lost"))
    log.send(log_of(b"last"))
    log.close()
    assert log.lost == 1
    found = [entry.msg for data in replay(tmp_path / "log") for entry in Status.FromString(data).logs]
    assert found == [b"first", b"last"]


def test_a_broken_file(tmp_path: Path):
    (tmp_path / "log").write_bytes(b"\xff\xff\xff\x7f....")
    with pytest.raises(ValueError, match="broken"):
        list(replay(tmp_path / "log"))


def test_a_summary(tmp_path: Path):
    log = StatusLog(tmp_path / "log")
    log.send(Status(warnings=[control_pb2.VertexWarning(short=b"w")]))
    log.send(Status(vertexes=[control_pb2.Vertex(digest="a")]))
    log.close()
    found = summarize(tmp_path / "log")
    assert (found.steps, found.completed, found.cached, found.warnings) == (1, 0, 0, 1)
    assert found.digest.startswith("sha256:")
