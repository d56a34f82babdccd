"""Secrets, sockets and credentials of a session."""

import base64
import io
import json
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from brickyard.client.errors import ClientError
from brickyard.client.inputs import Inputs
from brickyard.client.options import Agent, Output, Secret
from brickyard.client.outputs import Outputs
from brickyard.client.secrets import MAX_SIZE, Secrets
from brickyard.client.session import LocalSession
from brickyard.wire.fsutil.tree import Made
from brickyard.wire.pb.stat_pb2 import Stat
from brickyard.wire.session import FileFilter


def test_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"\xffvalue\n")
    (tmp_path / "byname").write_bytes(b"n")
    environ = {"VAR": "v", "id-var": "i"}
    secrets = Secrets(
        [
            Secret("a", Path("file")),
            Secret("b", env="VAR"),
            Secret("id-var"),
            Secret("byname"),
            Secret("unset", env="NOT_SET"),
        ],
        environ,
    )
    assert secrets.get("a") == b"\xffvalue\n"
    assert secrets.get("b") == b"v"
    assert secrets.get("id-var") == b"i"
    assert secrets.get("byname") == b"n"
    assert secrets.get("unset") is None
    assert secrets.get("other") is None


def test_wrong_secrets(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="no id"):
        Secrets([Secret("")])
    with pytest.raises(ClientError, match=r"secret a: the file .*none is not there"):
        Secrets([Secret("a", tmp_path / "none")])
    big = tmp_path / "big"
    big.write_bytes(bytes(MAX_SIZE + 1))
    with pytest.raises(ClientError, match="the limit is"):
        Secrets([Secret("a", big)])


class Kept:
    """A receiver that keeps what comes."""

    def __init__(self) -> None:
        self.entries: dict[str, Stat] = {}
        self.files: dict[str, bytes] = {}

    def entry(self, stat: Stat) -> bool:
        self.entries[stat.path] = stat
        return stat.path != "unwanted"

    def data(self, path: str, data: bytes) -> None:
        self.files[path] = self.files.get(path, b"") + data

    def end(self, path: str) -> None:
        self.files.setdefault(path, b"")


def session_of(inputs: Inputs, outputs: Sequence[Output] = (), ssh: dict[str, Agent] | None = None) -> LocalSession:
    return LocalSession(inputs, Outputs(outputs, io.BytesIO()), Secrets([]), ssh or {})


def test_files_of_a_context(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a", "unwanted", "sub/b", "left-out"):
        (tmp_path / name).write_text(name)
    session = session_of(Inputs(dirs={"context": tmp_path}))
    receiver = Kept()
    session.receive("context", FileFilter(exclude=("left-out",)), receiver)
    assert list(receiver.entries) == ["a", "sub", "sub/b", "unwanted"]
    assert {(entry.uid, entry.gid) for entry in receiver.entries.values()} == {(0, 0)}
    assert receiver.files == {"a": b"a", "sub/b": b"sub/b"}
    with pytest.raises(KeyError):
        session.receive("other", FileFilter(), receiver)


def test_what_a_session_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auth = base64.b64encode(b"me:pw").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"example.com": {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    digest = "sha256:" + "a" * 64
    (tmp_path / "blobs/sha256").mkdir(parents=True)
    (tmp_path / "blobs/sha256" / ("a" * 64)).write_bytes(b"blob")
    inputs = Inputs({"context": tmp_path}, {"s": tmp_path}, {}, {"http://x": lambda: io.BytesIO(b"up")})
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        session = session_of(inputs, ssh={"default": Agent((tmp_path / "agent",))})
    assert session.open_blob("s", digest).read() == b"blob"
    with pytest.raises(KeyError):
        session.open_blob("other", digest)
    for wrong in ("sha256:" + "b" * 64, "sha256:../../config.json", "x/../..:" + "a" * 64):
        with pytest.raises(FileNotFoundError):
            session.open_blob("s", wrong)
    assert session.has_ssh("")
    assert session.has_ssh("default")
    assert not session.has_ssh("other")
    assert session.credentials("example.com") == ("me", "pw")
    assert session.credentials("other.com") is None
    assert session.upload("http://x").read() == b"up"
    with pytest.raises(KeyError):
        session.upload("http://y")
    assert session.shared_key() == inputs.shared_key()
    assert session_of(Inputs()).shared_key() != session_of(Inputs()).shared_key()
    assert session.other("any") is session


def test_outputs(tmp_path: Path) -> None:
    session = session_of(Inputs(), [Output("local", str(tmp_path / "out")), Output("tar", str(tmp_path / "t.tar"))])
    session.output_dir("0", Made(((Stat(path="x", mode=0o640, modTime=10**9), b"1"),)), {})
    assert (tmp_path / "out/x").read_bytes() == b"1"
    assert (tmp_path / "out/x").stat().st_mtime == 1
    with session.output_file("1", {}) as stream:
        stream.write(b"tar")
    with pytest.raises(KeyError):
        session.output_dir("1", Made(()), {})
