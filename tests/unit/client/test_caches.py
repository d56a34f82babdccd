"""Cache in folders: what the client offers, and the index that it keeps."""

import hashlib
import json
from pathlib import Path

import pytest

from brickyard.client.caches import prepare
from brickyard.client.errors import ClientError
from brickyard.client.layouts import write_blob
from brickyard.oci.descriptor import OCI_MANIFEST, Descriptor
from brickyard.oci.layout import Layout


def test_a_folder_is_written_and_then_read(tmp_path: Path) -> None:
    folder = str(tmp_path / "cache")
    made = prepare([], [("local", {"dest": folder, "mode": "max"})])
    assert made.exports == [("local", {"dest": folder, "mode": "max"})]
    assert made.stores == {f"local:{folder}": Path(folder)}
    data = b'{"schemaVersion":2}'
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    write_blob(Path(folder), digest, [data[:5], data[5:]])
    made.commit({"cache.manifest": json.dumps(Descriptor(OCI_MANIFEST, digest, len(data)).to_json())})
    assert Layout.open(Path(folder)).resolve("latest").digest == digest
    found = prepare([("local", {"src": folder})], [])
    assert found.imports == [("local", {"src": folder, "digest": digest})]
    assert found.stores == {f"local:{folder}": Path(folder)}


def test_a_build_without_an_export_changes_no_index(tmp_path: Path) -> None:
    made = prepare([], [("local", {"dest": str(tmp_path)})])
    made.commit({})
    assert not Layout.open(tmp_path).index().manifests


def test_no_cache_yet_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = prepare([("local", {"src": str(tmp_path / "none")})], [])
    assert not found.imports
    assert "WARNING: no cache is imported from" in capsys.readouterr().err


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    prepare([], [("local", {"dest": str(tmp_path)})])
    digest = "sha256:" + hashlib.sha256(b"a").hexdigest()
    with pytest.raises(OSError, match="sha256"):
        write_blob(tmp_path, digest, [b"b"])
    assert not Layout.open(tmp_path).has(digest)


@pytest.mark.parametrize("given", [([("local", {})], []), ([], [("local", {"src": "x"})])])
def test_the_folder_must_be_named(
    given: tuple[list[tuple[str, dict[str, str]]], list[tuple[str, dict[str, str]]]],
) -> None:
    with pytest.raises(ClientError, match="needs"):
        prepare(*given)
