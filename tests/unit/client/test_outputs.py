"""Where exporters write: whole archives or none."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pytest

from brickyard.client.errors import ClientError
from brickyard.client.options import Output
from brickyard.client.outputs import Outputs, check
from brickyard.wire.fsutil.modes import DIRECTORY
from brickyard.wire.fsutil.tree import Made
from brickyard.wire.pb.stat_pb2 import Stat


def opened(outputs: Sequence[Output], stdout: BinaryIO | None = None) -> Outputs:
    """The destinations, checked."""
    stdout = stdout or io.BytesIO()
    check(outputs, stdout)
    return Outputs(outputs, stdout)


def test_an_archive_appears_on_commit(tmp_path: Path) -> None:
    target = tmp_path / "new/a.tar"
    outputs = opened([Output("tar", str(target))])
    with outputs.file(0) as out:
        out.write(b"abc")
    assert not target.exists()
    outputs.commit()
    assert target.read_bytes() == b"abc"
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask
    assert os.listdir(target.parent) == ["a.tar"]


def test_discarding_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"old")
    outputs = opened([Output("oci", str(tmp_path / "a.tar"))])
    outputs.file(0).write(b"abc")
    outputs.discard()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.tar": b"old"}


def test_standard_output_stays_open() -> None:
    stdout = io.BytesIO()
    outputs = opened([Output("tar", "-")], stdout)
    with outputs.file(0) as out:
        out.write(b"abc")
    outputs.commit()
    assert stdout.getvalue() == b"abc"


def test_folders(tmp_path: Path) -> None:
    outputs = opened([Output("local", str(tmp_path / "a/b")), Output("oci", str(tmp_path / "c"), {"tar": "false"})])
    assert outputs.folder(0) == tmp_path / "a/b"
    assert outputs.folder(1).is_dir()
    with pytest.raises(KeyError):
        outputs.file(0)


def made(*entries: tuple[str, int, bytes]) -> Made:
    return Made(tuple((Stat(path=path, mode=mode, modTime=5 * 10**9), data) for path, mode, data in entries))


def test_files_are_laid_over_what_is_there(tmp_path: Path) -> None:
    outputs = opened([Output("local", str(tmp_path / "out"))])
    (tmp_path / "out/sub").mkdir(parents=True)
    (tmp_path / "out/kept").write_text("kept")
    (tmp_path / "out/sub/old").write_text("old")
    outputs.receive(0, made(("sub", DIRECTORY | 0o700, b""), ("sub/new", 0o755, b"new")), {})
    assert (tmp_path / "out/kept").read_text() == "kept"
    assert sorted(os.listdir(tmp_path / "out/sub")) == ["new", "old"]
    assert (tmp_path / "out/sub/new").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out/sub").stat().st_mtime == 5


def test_mode_delete_leaves_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outputs = opened([Output("local", "out", {"mode": "delete"})])
    (tmp_path / "out/gone/deep").mkdir(parents=True)
    (tmp_path / "out/link").symlink_to(tmp_path)
    files = made(("x", 0o644, b"1"))
    with pytest.raises(OSError, match="sends the files in parts"):
        outputs.receive(0, files, {})
    outputs.receive(0, files, {"buildkit-exporter-multi-platform": "1"})
    assert os.listdir(tmp_path / "out") == ["x"]


def test_mode_delete_of_any_folder_must_be_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here/link").symlink_to("..")
    for dest in (".", "..", str(tmp_path / "other"), "link", "link/here", "x/../.."):
        output = Output("local", dest, {"mode": "delete"})
        with pytest.raises(ClientError, match="mode=delete would clear") as caught:
            check([output], io.BytesIO())
        assert "--allow buildx.local.delete" in caught.value.hint
        check([output], io.BytesIO(), ["buildx.local.delete"])
    check([Output("local", "sub/dir", {"mode": "delete"})], io.BytesIO())
    with pytest.raises(ClientError, match="unknown mode 'wipe'"):
        check([Output("local", "x", {"mode": "wipe"})], io.BytesIO())


def test_docker_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\n[ "$(cat "$3")" = abc ] && echo "Loaded $1 $2" || { echo broken >&2; exit 1; }\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    outputs = opened([Output("docker")])
    with outputs.file(0) as out:
        out.write(b"abc")
    assert outputs.commit() == ["Loaded load -i"]
    with outputs.file(0) as out:
        out.write(b"xyz")
    with pytest.raises(ClientError, match="docker load failed: broken"):
        outputs.commit()
    outputs.discard()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ClientError, match="--load needs the docker command"):
        opened([Output("docker")])


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ([Output("local", "-")], "cannot go to standard output"),
        ([Output("local", "file")], "'file' is a file"),
        ([Output("local")], "needs dest=FOLDER"),
        ([Output("tar", ".")], "'.' is a folder"),
        ([Output("tar", "-"), Output("oci", "-")], "more than one output"),
    ],
)
def test_what_cannot_work(outputs: list[Output], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ClientError, match=said):
        opened(outputs)


def test_no_archive_on_a_terminal() -> None:
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    with pytest.raises(ClientError, match="to the terminal"):
        opened([Output("tar", "-")], Terminal())
