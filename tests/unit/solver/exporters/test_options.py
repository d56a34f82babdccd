"""Attributes of the exporters of images."""

import pytest

from brickyard.oci.platform import Platform
from brickyard.solver.base import SolveError
from brickyard.solver.exporters.options import LayerForm, metadata_epoch, read_options


def test_defaults() -> None:
    found = read_options({})
    assert (found.names, found.form, found.oci_types, found.epoch) == ((), LayerForm(), True, None)


def test_everything() -> None:
    found = read_options(
        {
            "name": "a, b:1",
            "compression": "zstd",
            "compression-level": "7",
            "force-compression": "",
            "oci-mediatypes": "1",
            "oci-artifact": "f",
            "rewrite-timestamp": "true",
            "source-date-epoch": "12",
            "buildinfo": "true",
            "push": "true",
        }
    )
    assert found.names == ("a", "b:1")
    assert found.form == LayerForm("zstd", 7, True)
    assert (found.oci_types, found.oci_artifact, found.rewrite_timestamp, found.epoch) == (True, False, True, 12)
    assert found.rest == {"buildinfo": "true", "push": "true"}


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"compression": "estargz"}, "estargz is not supported"),
        ({"compression": "lz4"}, "unknown compression 'lz4'"),
        ({"compression": "gzip", "compression-level": "10"}, "0 to 9"),
        ({"compression": "zstd", "compression-level": "-1"}, "0 to 22"),
        ({"compression-level": "high"}, "must be a whole number"),
        ({"force-compression": "maybe"}, "must be true or false"),
        ({"oci-mediatypes": "no"}, "must be true or false"),
        ({"oci-mediatypes": "false", "oci-artifact": "true"}, "contradict"),
        ({"prefer-nondist-layers": "true"}, "prefer-nondist-layers is not supported"),
        ({"source-date-epoch": "now"}, "must be a whole number"),
        ({"annotation-none.key": "x"}, "unknown kind of annotation 'none'"),
        ({"annotation[no/such/thing/at/all].key": "x"}, "is not a platform"),
    ],
)
def test_what_is_refused(attrs: dict[str, str], message: str) -> None:
    with pytest.raises(SolveError, match=message):
        read_options(attrs)


def test_annotations() -> None:
    found = read_options(
        {
            "annotation.all": "1",
            "annotation-manifest.all2": "2",
            "annotation[linux/amd64].one": "3",
            "annotation-manifest-descriptor[linux/amd64].d": "4",
            "annotation-index.i": "5",
            "annotation-index-descriptor.id": "6",
            "annotation.all[x]": "7",
        }
    ).annotations
    amd64, arm64 = Platform("linux", "amd64"), Platform("linux", "arm64")
    assert found.get("manifest", amd64) == {"all": "1", "all2": "2", "one": "3", "all[x]": "7"}
    assert found.get("manifest", arm64) == {"all": "1", "all2": "2", "all[x]": "7"}
    assert found.get("manifest-descriptor", amd64) == {"d": "4"}
    assert (found.get("index"), found.get("index-descriptor")) == ({"i": "5"}, {"id": "6"})
    assert found.platforms() == {"linux/amd64"}


def test_times_of_frontends() -> None:
    metadata = {"source.date.epoch": b"1", "source.date.epoch/linux/amd64": b"2"}
    assert metadata_epoch(metadata, "linux/amd64") == 2
    assert metadata_epoch(metadata, "linux/arm64") == 1
    assert metadata_epoch({}, "") is None
    with pytest.raises(SolveError, match="SOURCE_DATE_EPOCH"):
        metadata_epoch({"source.date.epoch": b"x"}, "")
