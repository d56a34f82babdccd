"""Layers of snapshots.

`buildkit/` holds the layers of an image that BuildKit 0.25 (in Docker Engine 28.5) made, without its first two, which
brought busybox. Its Dockerfile went on with:

    RUN ["/bin/busybox","mkdir","-p","/usr/bin","/etc","/tmp/a/b","/var/x/y/z","/opq/one/two"]
    RUN /bin/busybox --install -s /usr/bin
    RUN hard links, a symbolic one, setuid, a named pipe and two devices in /etc
    RUN names of 120 characters and more, of a file, a folder, a link's target; one that is not ASCII
    RUN chown of one of two hard links; rm -rf /tmp/a; a link replaced by a folder
    RUN rm -rf /opq and made anew with some of what it held; a folder replaced by a file
    RUN touch; mv /var /var2
    RUN true
    RUN touch, far in the future
    WORKDIR /work/dir
    COPY --chown=5:6 Dockerfile /work/dir/x/
"""

import hashlib
import io
import lzma
import os
import shutil
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Literal

import pytest

from brickyard.oci import descriptor as d
from brickyard.oci.layer import Folder, Stack, of_upper
from brickyard.solver.base import Cancelled, SolveError
from brickyard.solver.exporters.blobs import Rewrite, layers_of
from brickyard.solver.exporters.options import LayerForm
from brickyard.solver.layers import get_layer, set_layer
from brickyard.solver.snapshots.store import Snapshots

THEIRS = sorted((Path(__file__).parent / "buildkit").glob("*.tar.xz"))
PLAIN = LayerForm("uncompressed")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners and devices")
@pytest.mark.parametrize("mode", ["overlay", "copy"])
def test_layers_are_those_of_buildkit(yard: Any, tmp_path: Path, mode: Literal["overlay", "copy"]) -> None:
    store = Snapshots(tmp_path / mode, mode=mode)
    context = replace(yard.context, snapshots=store)
    name, expected = None, []
    for path in THEIRS:
        data = lzma.decompress(path.read_bytes())
        expected.append(f"sha256:{hashlib.sha256(data).hexdigest()}")
        name = store.apply_layer(name, lambda data=data: io.BytesIO(data))
    assert len(expected) == 11
    assert [layer.diff_id for layer in layers_of(name, PLAIN, context)] == expected
    store.close()


def test_nothing_is_written_twice(yard: Any) -> None:
    name = yard.snapshot({"b": b"2"}, yard.snapshot({"a": b"1"}))
    first = layers_of(name, LayerForm(), yard.context)
    before = list(yard.context.content.digests())
    assert layers_of(name, LayerForm("zstd"), yard.context) == first
    assert list(yard.context.content.digests()) == before
    assert {layer.descriptor.media_type for layer in first} == {d.OCI_LAYER_GZIP}


def test_other_compressions(yard: Any) -> None:
    name = yard.snapshot({"a": os.urandom(100) * 1000})
    first = layers_of(name, LayerForm(), yard.context)
    for kind, type in (("zstd", d.OCI_LAYER_ZSTD), ("uncompressed", d.OCI_LAYER), ("gzip", d.OCI_LAYER_GZIP)):
        forced = layers_of(name, LayerForm(kind, force=True), yard.context)  # type: ignore[arg-type]
        assert [layer.diff_id for layer in forced] == [layer.diff_id for layer in first]
        assert forced[0].descriptor.media_type == type
    assert forced == first
    levels = [layers_of(name, LayerForm("zstd", level, True), yard.context)[0].descriptor for level in (1, 19)]
    assert levels[0].size > levels[1].size


def test_lost_blobs_are_written_again(yard: Any) -> None:
    name = yard.snapshot({"a": b"1"})
    first = layers_of(name, LayerForm(), yard.context)
    yard.context.content.remove(first[0].descriptor.digest)
    assert layers_of(name, LayerForm(), yard.context) == first
    assert yard.context.content.has(first[0].descriptor.digest)


def times(layer: Any, yard: Any) -> dict[str, int]:
    import tarfile

    with tarfile.open(yard.context.content.path(layer.descriptor.digest)) as tar:
        return {entry.name: int(entry.mtime) for entry in tar}


def test_times_are_bounded(yard: Any) -> None:
    below = yard.snapshot({"a": b"1"})
    name = yard.snapshot({"b": b"2"}, below)
    found = layers_of(name, LayerForm(), yard.context, Rewrite(1000))
    assert [times(layer, yard) for layer in found] == [{"a": 1000}, {"b": 1000}]
    assert found[0].descriptor.annotations == {"buildkit/rewritten-timestamp": "1000"}
    # The same comes out of a blob that was not made here.
    plain = layers_of(name, LayerForm(), yard.context)
    for snapshot, layer in zip((below, name), plain, strict=True):
        set_layer(yard.context, snapshot, replace(layer, own=False))
    assert layers_of(name, LayerForm(), yard.context, Rewrite(1000)) == found
    other = layers_of(name, LayerForm(), yard.context, Rewrite(1001))
    assert [times(layer, yard) for layer in other] == [{"a": 1001}, {"b": 1001}]


def test_times_of_the_base_image_stay(yard: Any) -> None:
    below = yard.snapshot({"a": b"1"})
    name = yard.snapshot({"b": b"2"}, below)
    plain = layers_of(name, LayerForm(), yard.context)
    found = layers_of(name, LayerForm(), yard.context, Rewrite(1000, (plain[0].diff_id,)))
    assert found[0] == plain[0]
    assert times(found[1], yard) == {"b": 1000}
    # Nothing is kept above the first difference.
    other = layers_of(name, LayerForm(), yard.context, Rewrite(1000, ("sha256:" + "0" * 64, plain[1].diff_id)))
    assert times(other[0], yard) == {"a": 1000}


def test_damage_is_seen(yard: Any) -> None:
    name = yard.snapshot({"a": b"1" * 10000})
    layers_of(name, LayerForm(), yard.context)
    layer = get_layer(yard.context, name)
    assert layer is not None
    set_layer(yard.context, name, replace(layer, own=False))
    path = yard.context.content.path(layer.descriptor.digest)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SolveError, match="cannot export a layer"):
        layers_of(name, LayerForm("zstd", force=True), yard.context)


def test_a_stopped_build(yard: Any) -> None:
    name = yard.snapshot({"a": b"1", "b": b"2"})
    yard.context.cancel.set()
    with pytest.raises(Cancelled):
        layers_of(name, LayerForm(), yard.context)
    assert list(yard.context.content.digests()) == []


def test_the_disk_is_full(yard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = yard.snapshot({"a": b"1"})

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("brickyard.solver.content.store.Writer.write", full)
    with pytest.raises(OSError, match="No space left"):
        layers_of(name, LayerForm(), yard.context)
    assert list(yard.context.content.digests()) == []
    assert list((yard.context.root / "ingest").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: an overlay")
@pytest.mark.parametrize("seed", range(4))
def test_looking_through_layers_is_as_good_as_a_mount(yard: Any, seed: int) -> None:
    """Random changes on changes: what a layer differs in, told with and without mounting what is below it."""
    store, random = yard.context.snapshots, Random(seed)
    if store.mode != "overlay":
        pytest.skip("needs overlay mounts")
    name = None
    for _ in range(7):
        parent, name = name, store.prepare(name)
        with store.mounted(name, readonly=False) as root:
            for _ in range(12):
                change(root, random)
        store.commit(name)
        if parent is None:
            continue
        upper = os.fsencode(store.own_files(name))
        stack = Stack([os.fsencode(folder) for folder in store.folders(parent)])
        with store.mounted(parent) as below:
            mounted = Folder(os.fsencode(below))
            seen = [(d.path, d.status is None, d.unchanged) for d in of_upper(upper, mounted)]
            assert [(d.path, d.status is None, d.unchanged) for d in of_upper(upper, stack)] == seen
            for path in (b"", b"a", b"a/b", b"a/b/c", b"b"):
                found, expected = stack.find(path or b"."), mounted.find(path or b".")
                if path:
                    assert (found and found[1].st_mode) == (expected and expected[1].st_mode)
                if expected and (not path or expected[1].st_mode & 0o170000 == 0o040000):
                    assert stack.names(path) == mounted.names(path)


def change(root: Path, random: Random) -> None:
    """Make or remove something."""
    path = root.joinpath(*random.choices("abc", k=random.randint(1, 3)))
    if any(above.is_symlink() or (above.exists() and not above.is_dir()) for above in path.relative_to(root).parents):
        return
    try:
        match random.choice("write write mkdir mkdir link remove remove chmod".split()):
            case "write":
                path.write_text(str(random.random()))
            case "mkdir":
                path.mkdir(parents=True)
            case "link":
                path.symlink_to("a")
            case "chmod":
                path.chmod(random.choice([0o700, 0o755]))
            case "remove":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except OSError:
        # Something else is there, or nothing.
        return
