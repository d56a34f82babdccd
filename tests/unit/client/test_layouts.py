"""`oci-layout://` references, resolved in a layout's index."""

from pathlib import Path

import pytest

from brickyard.client.errors import ClientError
from brickyard.client.layouts import LayoutRef, parse, resolve
from brickyard.oci.layout import Layout

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("oci-layout://a", LayoutRef("a", "latest")),
        ("oci-layout:///a/b:1", LayoutRef("/a/b", "1")),
        (f"oci-layout://a@{DIGEST}", LayoutRef("a", "", DIGEST)),
        (f"oci-layout://a:1@{DIGEST}", LayoutRef("a", "1", DIGEST)),
        ("oci-layout://a:1/b", LayoutRef("a:1/b", "latest")),
        ("oci-layout://a@b", LayoutRef("a@b", "latest")),
    ],
)
def test_the_text_form(text: str, ref: LayoutRef) -> None:
    assert parse(text) == ref
    assert parse(str(ref)) == ref


def test_resolving(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    one = layout.write_blob(b"1", "application/vnd.oci.image.manifest.v1+json")
    layout.add(one, "one")
    assert resolve(parse(f"oci-layout://{tmp_path}")).digest == one.digest
    two = layout.write_blob(b"2", "application/vnd.oci.image.manifest.v1+json")
    layout.add(two, "two")
    assert resolve(parse(f"oci-layout://{tmp_path}:two")) == LayoutRef(str(tmp_path), "two", two.digest)
    assert resolve(parse(f"oci-layout://{tmp_path}@{DIGEST}")).digest == DIGEST
    with pytest.raises(ClientError, match="has no image 'latest'") as caught:
        resolve(parse(f"oci-layout://{tmp_path}"))
    assert caught.value.hint == "it has one, two"


def test_what_is_no_layout(tmp_path: Path) -> None:
    for path, said in ((tmp_path, "is no OCI image layout"), (tmp_path / "none", "not found")):
        with pytest.raises(ClientError, match=said):
            resolve(parse(f"oci-layout://{path}"))
