"""The exporter `local`: what the client is sent."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from brickyard.client.inputs import Inputs
from brickyard.client.options import Output
from brickyard.client.outputs import Outputs
from brickyard.client.secrets import Secrets
from brickyard.client.session import LocalSession
from brickyard.oci.platform import Platform
from brickyard.solver.base import Attestation, Cancelled, Exportable, Result, SolveError
from brickyard.solver.exporters import find

TWO = (("linux/amd64", Platform("linux", "amd64")), ("linux/arm/v7", Platform("linux", "arm", "v7")))


def exported(yard, result: Exportable, folder: Path, **attrs: str) -> dict[str, str]:  # type: ignore[no-untyped-def]
    """Every file that the client got, with its content."""
    attrs = {key.replace("_", "-"): value for key, value in attrs.items()}
    outputs = Outputs([Output("local", str(folder), attrs)], None)  # type: ignore[arg-type]
    yard.context.session = LocalSession(Inputs(), outputs, Secrets(()), {})
    assert find("local").export(result, "0", attrs, yard.context) == {}
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def two(yard, amd64: dict[str, bytes], arm: dict[str, bytes], **metadata: bytes) -> Exportable:  # type: ignore[no-untyped-def]
    refs = {
        "linux/amd64": (Result(yard.snapshot(amd64)), None),
        "linux/arm/v7": (Result(yard.snapshot(arm)), None),
    }
    return Exportable(refs, metadata, TWO)


def test_one_result(yard, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    base = yard.snapshot({"a": b"1", "d/b": b"2"})
    top = yard.snapshot({"d/c": b"3"}, base)
    result = Exportable({"": (Result(top), None)})
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("kept")
    assert exported(yard, result, tmp_path / "out") == {"a": "1", "d/b": "2", "d/c": "3", "mine": "kept"}
    assert ("copying files", 0, 0) in yard.progress
    assert yard.progress[-2][1] > 0
    assert yard.progress[-1] == ("copying files", -1, 0)


def test_an_empty_result(yard, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert exported(yard, Exportable({"": (Result(None), None)}), tmp_path / "out") == {}
    assert (tmp_path / "out").is_dir()
    assert yard.progress[-1] == ("copying files", -1, 0)


def test_a_folder_for_each_platform(yard, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = two(yard, {"bin/x": b"amd64"}, {"bin/x": b"arm"})
    assert exported(yard, result, tmp_path / "out") == {"linux_amd64/bin/x": "amd64", "linux_arm_v7/bin/x": "arm"}
    assert {name for name, _, _ in yard.progress} == {"copying files linux/amd64", "copying files linux/arm/v7"}


def test_platforms_in_one_folder(yard, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = two(yard, {"bin/x86": b"1"}, {"bin/arm": b"2"})
    assert exported(yard, result, tmp_path / "out", platform_split="false") == {"bin/arm": "2", "bin/x86": "1"}
    result = two(yard, {"bin/x": b"1"}, {"bin/x": b"2"})
    with pytest.raises(SolveError, match="cannot overwrite bin/x from linux/amd64 with linux/arm/v7"):
        exported(yard, result, tmp_path / "none", platform_split="false")
    assert not (tmp_path / "none").exists()


def test_one_platform_can_be_split_too(yard, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = Exportable({"linux/amd64": (Result(yard.snapshot({"x": b"1"})), None)}, {}, TWO[:1])
    assert exported(yard, result, tmp_path / "a") == {"linux_amd64/x": "1"}
    assert exported(yard, result, tmp_path / "b", platform_split="0") == {"x": "1"}


def test_times(yard, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = two(yard, {"d/x": b"1"}, {"x": b"2"}, **{"source.date.epoch/linux/arm/v7": b"11"})
    exported(yard, result, tmp_path / "a", source_date_epoch="7")
    for path in (tmp_path / "a").rglob("*"):
        assert path.stat().st_mtime == 7
    exported(yard, result, tmp_path / "b")
    assert (tmp_path / "b/linux_arm_v7/x").stat().st_mtime == 11
    assert (tmp_path / "b/linux_amd64/d/x").stat().st_mtime > 11


@pytest.mark.parametrize("split", ["true", "false"])
def test_mode_delete_brings_all_at_once(yard, tmp_path: Path, split: str) -> None:  # type: ignore[no-untyped-def]
    result = two(yard, {"x86": b"1"}, {"arm": b"2"})
    (tmp_path / "out/linux_amd64/stale").mkdir(parents=True)
    (tmp_path / "out/stale").touch()
    found = exported(yard, result, tmp_path / "out", platform_split=split, mode="delete")
    if split == "true":
        assert found == {"linux_amd64/x86": "1", "linux_arm_v7/arm": "2"}
    else:
        assert found == {"arm": "2", "x86": "1"}
    assert not list((tmp_path / "out").rglob("stale"))


def test_exported_files_are_not_those_of_the_store(yard, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    snapshot = yard.snapshot({"a": b"1"})
    exported(yard, Exportable({"": (Result(snapshot), None)}), tmp_path / "out")
    (tmp_path / "out/a").write_text("changed")
    assert (yard.context.snapshots.own_files(snapshot) / "a").read_text() == "1"
    assert (tmp_path / "out/a").stat().st_uid == os.geteuid()


def test_what_cannot_be_exported(yard, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = two(yard, {"x": b"1"}, {"x": b"1"})
    with pytest.raises(SolveError, match="unknown mode 'wipe'"):
        exported(yard, result, tmp_path / "a", mode="wipe")
    with pytest.raises(SolveError, match="platform-split='maybe' must be true or false"):
        exported(yard, result, tmp_path / "a", platform_split="maybe")
    with pytest.raises(SolveError, match="missing platforms mapping"):
        exported(yard, Exportable(result.refs), tmp_path / "a")
    with pytest.raises(SolveError, match=r"failed to find ref for ID linux/arm/v7"):
        exported(yard, Exportable({"linux/amd64": result.refs["linux/amd64"]}, {}, TWO), tmp_path / "a")
    (tmp_path / "file").touch()
    with pytest.raises(SolveError, match=r"failed to export files: /.*/file: File exists"):
        exported(yard, result, tmp_path / "file")
    yard.context.cancel.set()
    with pytest.raises(Cancelled):
        exported(yard, result, tmp_path / "a")


def test_attestations_lie_beside_the_files(yard, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    sbom = yard.snapshot(
        {"sboms/app.spdx.json": b'{"_type": "x", "predicateType": "spdx", "subject": [], "predicate": 1}'}
    )
    own = Attestation(
        "intoto", None, "provenance.json", "https://slsa.dev/provenance/v1", content=lambda: b'{"a": "<"}'
    )
    inline = Attestation("intoto", None, "inline.json", "x", metadata={"inline-only": b"true"}, content=lambda: b"{}")
    bundle = Attestation("bundle", Result(sbom), "/sboms")
    ref = Result(yard.snapshot({"bin/x": b"1"}))
    result = Exportable({"linux/amd64": (ref, None)}, {}, TWO[:1], {"linux/amd64": [own, inline, bundle]})
    found = exported(yard, result, tmp_path / "out")
    assert sorted(found) == [f"linux_amd64/{name}" for name in ("app.spdx.json", "bin/x", "provenance.json")]
    statement = json.loads(found["linux_amd64/provenance.json"])
    assert list(statement) == ["_type", "predicateType", "subject", "predicate"]
    assert statement["subject"] == [{"name": "bin/x", "digest": {"sha256": hashlib.sha256(b"1").hexdigest()}}]
    assert "\\u003c" in found["linux_amd64/provenance.json"]
    assert (tmp_path / "out/linux_amd64/provenance.json").stat().st_mode & 0o777 == 0o600
    found = exported(yard, result, tmp_path / "flat", platform_split="false", attestation_prefix="my.")
    assert sorted(found) == ["bin/x", "my.app.spdx.linux_amd64.json", "my.provenance.linux_amd64.json"]


@pytest.mark.parametrize(
    ("attestation", "said"),
    [
        (Attestation("intoto", None, "", "x", content=lambda: b"{}"), "does not have set path"),
        (Attestation("intoto", None, "a", "x"), "does not have available content"),
        (Attestation("intoto", Result(None), "a", "https://slsa.dev/provenance/v1"), "may not set provenance"),
        (Attestation("intoto", None, "a", "x", content=lambda: b"{"), "it is no JSON"),
        (Attestation("intoto", Result(None), "../../etc/passwd", "x"), "cannot read in-toto attestation"),
        (Attestation("bundle", Result(None), "/none"), "cannot read the attestation bundle"),
        (Attestation("bundle", None, "/"), "no ref provided"),
    ],
)
def test_broken_attestations(yard, tmp_path: Path, attestation: Attestation, said: str) -> None:  # type: ignore[no-untyped-def]
    result = Exportable({"": (Result(None), None)}, {}, (), {"": [attestation]})
    with pytest.raises(SolveError, match=said):
        exported(yard, result, tmp_path / "out")


def test_a_bundle_of_a_hostile_frontend(yard, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    snapshot = yard.snapshot({"d/x": b'{"predicateType": "https://slsa.dev/provenance/v1"}'})
    for path, said in (("d", "may not bundle provenance"), ("d/x", "cannot read the attestation bundle")):
        result = Exportable({"": (Result(None), None)}, {}, (), {"": [Attestation("bundle", Result(snapshot), path)]})
        with pytest.raises(SolveError, match=said):
            exported(yard, result, tmp_path / "out")
    name = yard.context.snapshots.prepare(None)
    root = yard.context.snapshots.own_files(name)
    (root / "link").symlink_to("/etc/passwd")
    os.mkfifo(root / "pipe")
    yard.context.snapshots.commit(name)
    for path, said in (("link", "cannot read in-toto"), ("pipe", "not a regular file")):
        result = Exportable({"": (Result(None), None)}, {}, (), {"": [Attestation("intoto", Result(name), path, "x")]})
        with pytest.raises(SolveError, match=said):
            exported(yard, result, tmp_path / "out")
