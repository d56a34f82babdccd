"""The offline base: what is in it, and that it is always the same."""

import io
import json
import shutil
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

from brickyard.client.base import busybox, host, image
from brickyard.client.base.elf import ElfError, libraries
from brickyard.client.base.tree import Tree
from brickyard.client.errors import ClientError
from brickyard.oci.descriptor import Manifest, decode
from brickyard.oci.layout import Layout


def rootfs(folder: Path) -> dict[str, tarfile.TarInfo]:
    """The entries of a base's layer by path."""
    layout = Layout.open(folder)
    manifest = decode(layout.read_blob(layout.resolve()))
    assert isinstance(manifest, Manifest)
    with tarfile.open(fileobj=io.BytesIO(layout.read_blob(manifest.layers[0]))) as tar:
        return {member.name: member for member in tar}


def test_the_same_programs_give_the_same_digest(tmp_path: Path) -> None:
    made = [image.make(tmp_path / name, "host") for name in ("a", "b", "a")]
    assert len({one.digest for one in made}) == 1
    assert len(Layout.open(tmp_path / "a").index().manifests) == 1


def test_the_host_base(tmp_path: Path) -> None:
    image.make(tmp_path / "base", "host", "mine")
    entries = rootfs(tmp_path / "base")
    assert entries["usr/bin/sh"].isreg()
    assert entries["bin"].linkname == "usr/bin"
    assert any("ld-" in name for name in entries)
    assert {(entry.uid, entry.mtime) for entry in entries.values()} == {(0, 0)}
    assert entries["tmp"].mode == 0o1777
    descriptor = Layout.open(tmp_path / "base").resolve("mine")
    assert descriptor.platform is not None
    config = decode(Layout.open(tmp_path / "base").read_blob(descriptor))
    assert isinstance(config, Manifest)
    assert json.loads(Layout.open(tmp_path / "base").read_blob(config.config))["config"]["Cmd"] == ["/bin/sh"]


def test_the_busybox_base(tmp_path: Path) -> None:
    program = tmp_path / "busybox"
    program.write_text("#!/bin/sh\nprintf 'bin/ash\\nbin/busybox\\nbin/sh\\nusr/bin/env\\n'\n")
    program.chmod(0o755)
    with pytest.raises(ElfError):
        busybox.busybox_tree(program)
    found = shutil.which("busybox")
    if found is not None:
        tree = busybox.busybox_tree(Path(found))
        assert tree.links["bin/sh"] == "/bin/busybox"
        assert "bin/busybox" not in tree.links
    program.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(ClientError, match="does not list its commands"):
        busybox.busybox_tree(program)


def test_a_machine_without_tools(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="has no cat"):
        host.host_tree(str(tmp_path))


def test_busybox_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClientError, match="busybox is not installed"):
        image.make(tmp_path / "base", "busybox")
    assert image.make(tmp_path / "base").source == "host"


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(ClientError, match="no OCI image layout"):
        image.make(tmp_path, "host")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_libraries_are_read_from_the_headers(tmp_path: Path) -> None:
    shell = Path(shutil.which("sh") or "/bin/sh").resolve()
    found = libraries(shell)
    assert any("libc" in path for path in found)
    assert all(source.is_file() for source in found.values())
    data = shell.read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(data[:70])
    with pytest.raises(ElfError, match="damaged"):
        libraries(cut)
    cut.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(ElfError, match="no ELF program"):
        libraries(cut)


def test_a_tree_writes_folders_before_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    tree = Tree()
    tree.add_file("/opt/deep/x", tmp_path / "x")
    tree.add_link("opt/y", "deep/x")
    tree.add_link("opt/deep/x", "nowhere")
    out = io.BytesIO()
    tree.write(out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        names = tar.getnames()
        assert names.index("opt") < names.index("opt/deep") < names.index("opt/deep/x")
        member = tar.extractfile("opt/deep/x")
        assert member is not None
        assert member.read() == b"12345"
        assert tar.getmember("opt/y").linkname == "deep/x"


def test_a_base_with_python(tmp_path: Path) -> None:
    image.make(tmp_path / "base", "host", python=True, interpreter=Path(sys.executable))
    entries = rootfs(tmp_path / "base")
    library = sysconfig.get_path("stdlib").lstrip("/")
    assert {"usr/bin/python3", f"{library}/os.py", f"{library}/encodings/__init__.py", "usr/bin/sh"} <= set(entries)
    target = entries["usr/bin/python3"].linkname or "usr/bin/python3"
    assert entries[target.lstrip("/")].isreg()
    assert not [name for name in entries if "/site-packages/" in name or f"{library}/test/" in name]


def test_no_python_to_take(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    fake.chmod(0o755)
    with pytest.raises(ClientError, match="broken"):
        image.make(tmp_path / "base", "host", python=True, interpreter=fake)
