"""The exporter of archives of files."""

import io
import json
import os
import tarfile
from typing import Any

import pytest

from brickyard.oci.platform import Platform
from brickyard.solver.base import Attestation, Exportable, Result, SolveError
from brickyard.solver.exporters import find

CONFIG = json.dumps({"architecture": "amd64", "os": "linux"}).encode()
PLATFORMS = [("linux/arm64", Platform("linux", "arm64")), ("linux/amd64", Platform("linux", "amd64"))]


def exported(yard: Any, result: Exportable, **attrs: str) -> tarfile.TarFile:
    assert find("tar").export(result, "0", attrs, yard.context) == {}
    return tarfile.open(fileobj=io.BytesIO(yard.client.files["0"]))


def tree(yard: Any) -> Result:
    store = yard.context.snapshots
    name = store.prepare(None)
    with store.mounted(name, readonly=False) as root:
        (root / "d/e").mkdir(parents=True)
        (root / "d/file").write_bytes(b"content" * 1000)
        (root / "d/file").chmod(0o4755)
        os.utime(root / "d/file", ns=(0, 1_700_000_000_600_000_000))
        os.link(root / "d/file", root / "z")
        (root / "d/link").symlink_to("/somewhere")
        os.mkfifo(root / "pipe")
        os.setxattr(root / "z", "user.note", b"x")
    store.commit(name)
    return Result(name)


def test_files(yard: Any) -> None:
    with exported(yard, Exportable({"": (tree(yard), CONFIG)})) as tar:
        assert [entry.name for entry in tar] == ["d", "d/e", "d/file", "d/link", "pipe", "z"]
        file = tar.getmember("d/file")
        assert (file.mode, file.mtime, file.size) == (0o4755, 1_700_000_001, 7000)
        assert file.pax_headers["SCHILY.xattr.user.note"] == "x"
        assert tar.extractfile("d/file").read() == b"content" * 1000  # type: ignore[union-attr]
        assert (tar.getmember("z").islnk(), tar.getmember("z").linkname) == (True, "d/file")
        assert (tar.getmember("d/link").issym(), tar.getmember("d/link").linkname) == (True, "/somewhere")
        assert tar.getmember("pipe").isfifo()


def test_times(yard: Any) -> None:
    with exported(yard, Exportable({"": (tree(yard), CONFIG)}), **{"source-date-epoch": "77"}) as tar:
        assert {entry.mtime for entry in tar} == {77}
    metadata = {"source.date.epoch": b"78"}
    with exported(yard, Exportable({"": (tree(yard), CONFIG)}, metadata)) as tar:
        assert {entry.mtime for entry in tar} == {78}


def test_a_folder_for_each_platform(yard: Any) -> None:
    refs = {key: (tree(yard), CONFIG) for key, _ in PLATFORMS}
    with exported(yard, Exportable(refs, platforms=PLATFORMS)) as tar:
        names = [entry.name for entry in tar]
        assert names[0] == "linux_amd64"
        assert names.index("linux_arm64") == 7
        assert tar.getmember("linux_arm64/z").linkname == "linux_arm64/d/file"


def test_nothing(yard: Any) -> None:
    with exported(yard, Exportable({"": (Result(None), None)})) as tar:
        assert tar.getmembers() == []


def test_attestations(yard: Any) -> None:
    def entry(name: str, inline: bytes = b"false") -> Attestation:
        return Attestation("intoto", None, name, "type", metadata={"inline-only": inline}, content=lambda: b"1")

    entries = [entry("dir/sbom.json"), entry("hidden.json", b"true")]
    result = Exportable({"": (Result(yard.snapshot({"x": b"1"})), CONFIG)}, attestations={"": entries})
    with exported(yard, result, **{"attestation-prefix": "pre-"}) as tar:
        assert [entry.name for entry in tar] == ["pre-sbom.json", "x"]
        statement = json.load(tar.extractfile("pre-sbom.json"))  # type: ignore[arg-type]
        assert [subject["name"] for subject in statement["subject"]] == ["x"]
        assert tar.getmember("pre-sbom.json").mode == 0o600
    twice = Exportable({"": (Result(None), CONFIG)}, attestations={"": [entry("a/x.json"), entry("b/x.json")]})
    with pytest.raises(SolveError, match=r"duplicate attestation path name x\.json"):
        exported(yard, twice)


def test_a_client_that_takes_none(yard: Any) -> None:
    yard.client.takes_output = False
    with pytest.raises(SolveError, match="takes no archive"):
        find("tar").export(Exportable({"": (Result(None), None)}), "0", {}, yard.context)
