"""References in the forms that Docker's `distribution/reference` accepts and refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.oci.digest import InvalidDigest
from brickyard.oci.reference import InvalidReference, Reference, parse

SHA = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("alpine", "docker.io/library/alpine", "alpine"),
        ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
        ("docker.io/alpine", "docker.io/library/alpine", "alpine"),
        ("index.docker.io/alpine", "docker.io/library/alpine", "alpine"),
        ("index.docker.io/library/alpine:1", "docker.io/library/alpine:1", "alpine:1"),
        ("user/app", "docker.io/user/app", "user/app"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("example.com/app:x", "example.com/app:x", "example.com/app:x"),
        ("EXAMPLE/app", "EXAMPLE/app", "EXAMPLE/app"),
        ("[2001:db8::1]:5000/app", "[2001:db8::1]:5000/app", "[2001:db8::1]:5000/app"),
        (f"alpine@{SHA}", f"docker.io/library/alpine@{SHA}", f"alpine@{SHA}"),
        (f"alpine:3@{SHA}", f"docker.io/library/alpine:3@{SHA}", f"alpine:3@{SHA}"),
        ("a--b__c.d", "docker.io/library/a--b__c.d", "a--b__c.d"),
        ("app:A_b.C-d", "docker.io/library/app:A_b.C-d", "app:A_b.C-d"),
        ("xn--n3h.com/app", "xn--n3h.com/app", "xn--n3h.com/app"),
        ("foo/foo_bar.com:8080", "docker.io/foo/foo_bar.com:8080", "foo/foo_bar.com:8080"),
    ],
)
def test_normal_forms(text: str, full: str, familiar: str) -> None:
    ref = parse(text)
    assert str(ref) == full
    assert ref.familiar == familiar
    assert parse(str(ref)) == ref
    assert parse(ref.familiar) == ref


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("Alpine", "lower case"),
        ("docker.io/Library/alpine", "lower case"),
        ("0123456789abcdef" * 4, "64 hexadecimal"),
        ("alpine:", "not an image"),
        ("alpine:3:4", "not an image"),
        (":3", "not an image"),
        ("a b", "not an image"),
        ("alpine\n", "not an image"),
        ("a//b", "not an image"),
        ("/a", "not an image"),
        ("a/", "not an image"),
        ("-a", "not an image"),
        ("a-", "not an image"),
        ("a___b", "not an image"),
        ("a..b/c:5", "not an image"),
        ("https://example.com/app", "not an image"),
        ("alpine@sha256:abc", "not an image"),
        ("alpine@sha256:" + "a" * 63, "64 lower case"),
        ("alpine@md5:" + "a" * 32, "unsupported"),
        ("alpine@sha256:" + "A" * 64, "64 lower case"),
        ("alpine:" + "a" * 129, "not an image"),
        ("a/" * 128 + "a", "longer than 255"),
        ("-example.com/app", "not an image"),
        ("[fe80::1%eth0]:80/app", "not an image"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidReference, match=reason):
        parse(text)


def test_tag_name_only() -> None:
    assert parse("alpine").tag_name_only().tag == "latest"
    assert parse("alpine:3").tag_name_only().tag == "3"
    assert parse(f"alpine@{SHA}").tag_name_only() == parse(f"alpine@{SHA}")


def test_changes() -> None:
    ref = parse("alpine:3")
    assert str(ref.with_digest(SHA)) == f"docker.io/library/alpine:3@{SHA}"
    assert ref.with_tag("4").tag == "4"
    assert ref.with_digest(SHA).trimmed() == parse("alpine")
    with pytest.raises(InvalidDigest):
        ref.with_digest("sha256:x")
    with pytest.raises(InvalidReference):
        ref.with_tag("a b")


@given(st.text(alphabet="aA0.-_/:@[]\n é", max_size=24))
def test_whatever_is_read_is_read_back(text: str) -> None:
    try:
        ref = parse(text)
    except InvalidReference:
        return
    assert isinstance(ref, Reference)
    assert parse(str(ref)) == ref
