"""Blobs: whole or not at all, and what a loss of power takes."""

import os
import time
from pathlib import Path

import pytest

from brickyard.solver.content import store as module
from brickyard.solver.content.store import ContentStore, DigestMismatchError


def test_blobs_are_found_by_their_digest(tmp_path: Path) -> None:
    content = ContentStore(tmp_path)
    digest = content.put(b"data")
    assert content.put(b"data") == digest
    assert (content.read(digest), content.size(digest), content.has(digest)) == (b"data", 4, True)
    with content.open(digest) as file:
        assert file.read() == b"data"
    assert list(content.digests()) == [digest]
    content.remove(digest)
    content.remove(digest)
    assert not content.has(digest)
    with pytest.raises(FileNotFoundError):
        content.read(digest)


@pytest.mark.parametrize(
    "name", ["", "sha256:", "sha256:../../x", "sha256:" + "A" * 64, "md5:" + "a" * 32, "sha512:" + "a" * 64]
)
def test_names_that_are_no_digests(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a sha256 digest"):
        ContentStore(tmp_path).path(name)


def test_what_is_not_committed_is_dropped(tmp_path: Path) -> None:
    content = ContentStore(tmp_path)
    with content.writer() as out:
        out.write(b"half")
    with pytest.raises(DigestMismatchError), content.writer() as out:
        out.commit("sha256:" + "0" * 64)
    assert list(content.digests()) == []
    assert os.listdir(tmp_path / "ingest") == []
    # A process that was killed leaves a part behind.
    (tmp_path / "ingest" / "left").write_bytes(b"half")
    ContentStore(tmp_path)
    assert os.listdir(tmp_path / "ingest") == []


def test_pieces(tmp_path: Path) -> None:
    content = ContentStore(tmp_path)
    with content.writer() as out:
        for _ in range(3):
            assert out.write(b"abc") == 3
        digest = out.commit()
    assert content.read(digest) == b"abc" * 3


def test_a_loss_of_power_takes_the_last_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = ContentStore(tmp_path)
    old, young = content.put(b"old"), content.put(b"young")
    past = time.time() - 3600
    os.utime(content.path(old), (past, past))
    assert set(ContentStore(tmp_path).digests()) == {old, young}
    monkeypatch.setattr(module, "boot_id", lambda: "another")
    assert set(ContentStore(tmp_path).digests()) == {old}
    again = ContentStore(tmp_path)
    young = again.put(b"young")
    assert set(ContentStore(tmp_path).digests()) == {old, young}
