"""Files that a user names for results."""

import io
import os
import stat
import threading
from pathlib import Path

import pytest

from brickyard.client import places
from brickyard.client.errors import ClientError
from brickyard.client.options import Output
from brickyard.client.outputs import Outputs


def test_a_file_is_replaced_as_a_whole_and_through_links(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    places.write(str(tmp_path / "link"), b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    places.write(str(tmp_path / "a/b"), b"deep")
    assert (tmp_path / "a/b").read_bytes() == b"deep"
    assert sorted(os.listdir(tmp_path)) == ["a", "link", "real"]


def test_pipes_and_devices_are_written_to_in_place(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    places.check(str(pipe), "--iidfile")
    places.forget(str(pipe))
    places.write(str(pipe), b"abc")
    reader.join(10)
    assert read == [b"abc"]
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)
    outputs = Outputs([Output("tar", "/dev/null")], io.BytesIO())
    with outputs.file(0) as out:
        out.write(b"abc")
    outputs.commit()
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_what_is_in_the_way_is_told_before(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    places.check(str(tmp_path / "new/x"), "output file")
    with pytest.raises(ClientError, match=r"output file '.*' is a folder"):
        places.check(str(tmp_path), "output file")
    with pytest.raises(ClientError, match=r"--iidfile '.*/file/x': .*/file is not a folder"):
        places.check(str(tmp_path / "file/x"), "--iidfile")
    with pytest.raises(ClientError, match=r"cannot write .*/file/x: Not a directory|File exists"):
        places.write(str(tmp_path / "file/x"), b"")
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path))
    with pytest.raises(ClientError, match=r"output folder 'x': .* cannot be written to"):
        places.check_folder(str(tmp_path / "new"), "output folder 'x'")
    places.check_folder(str(tmp_path.parent), "output folder 'x'")
