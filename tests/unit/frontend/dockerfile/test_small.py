"""Small parts: git references, devices, suggestions, Go's forms of text and JSON, times of archives."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.frontend.dockerfile.context import is_archive
from brickyard.frontend.dockerfile.epoch import latest
from brickyard.frontend.dockerfile.gitref import GitRefError, parse_context_ref, parse_git_ref
from brickyard.frontend.dockerfile.gojson import dumps
from brickyard.frontend.dockerfile.gotext import quote, quote_number
from brickyard.frontend.dockerfile.suggest import nearest
from brickyard.frontend.gateway.together import together


@pytest.mark.parametrize(
    ("text", "remote", "host", "path", "ref", "subdir"),
    [
        ("https://h/x.git", "https://h/x.git", "h", "/x.git", "", ""),
        ("https://u:p@h:8/x.git#main:a/../b", "https://u:p@h:8/x.git", "h:8", "/x.git", "main", "b"),
        ("https://h/a%20b.git#f%2Fg", "https://h/a%20b.git", "h", "/a b.git", "f/g", ""),
        ("git://h/x?tag=v1&subdir=s", "git://h/x", "h", "/x", "refs/tags/v1", "s"),
        ("ssh://git@h/x", "ssh://git@h/x", "h", "/x", "", ""),
        ("git@h:o/x.git#r", "git@h:o/x.git", "h", "o/x.git", "r", ""),
        ("git@h:o/x.git?branch=b#", "git@h:o/x.git", "h", "o/x.git", "refs/heads/b", ""),
    ],
)
def test_repositories(text: str, remote: str, host: str, path: str, ref: str, subdir: str) -> None:
    found = parse_git_ref(text)
    assert found is not None
    assert (found.remote, found.host, found.path, found.ref, found.subdir) == (remote, host, path, ref, subdir)


@pytest.mark.parametrize(
    "text", ["a", "./git@h:x", "../x", "https://h/x", "ftp://h/x.git", "h:x", "github.com/o/n", "@h:x"]
)
def test_what_is_no_repository(text: str) -> None:
    assert parse_git_ref(text) is None


@pytest.mark.parametrize(
    "query",
    ["?x=1", "?ref=a&ref=b", "?ref=", "?tag=a&branch=b", "?ref=a#b", "?keep-git-dir=x", "?mtime=x", "?subdir=a#r:b"],
)
def test_queries_that_are_wrong(query: str) -> None:
    with pytest.raises(GitRefError):
        parse_git_ref(f"https://h/x.git{query}")


def test_a_context_without_a_scheme() -> None:
    found = parse_context_ref("github.com/o/n#v1:d")
    assert found is not None
    assert (found.remote, found.ref, found.subdir) == ("https://github.com/o/n", "v1", "d")


@pytest.mark.parametrize(
    ("flag", "name", "optional"),
    [
        ("vendor.com/gpu=all", "vendor.com/gpu=all", True),
        ("name=vendor.com/gpu=0,required", "vendor.com/gpu=0", False),
        ("vendor.com/gpu,required=true", "vendor.com/gpu", False),
    ],
)
def test_devices_in_the_labs_channel(frontend, flag: str, name: str, optional: bool) -> None:
    gateway = frontend.gateway(f"# syntax=brickyard/frontend:1-labs\nFROM scratch\nRUN --device={flag} x\n")
    frontend.build(gateway)
    (run,) = (op.exec for op in gateway.ops() if op.WhichOneof("op") == "exec")
    assert [(device.name, device.optional) for device in run.cdiDevices] == [(name, optional)]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("a=b,name=c", "device name already set to a=b"),
        ("a,b", "invalid field 'b'"),
        ("a,required=x", "invalid value for required: x"),
        ("a,requird=1", "unexpected key 'requird'"),
    ],
)
def test_devices_that_are_none(frontend, flag: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        frontend.build(frontend.gateway(f"FROM scratch\nRUN --device={flag} x\n"), cmdline="x:labs")


def test_devices_outside_the_labs_channel(frontend) -> None:
    with pytest.raises(Exception, match="only supported in the labs channel"):
        frontend.build(frontend.gateway("FROM scratch\nRUN --device=a x\n"), cmdline="x:1")


@pytest.mark.parametrize(
    ("word", "found"), [("PAHT", "PATH"), ("PATH", ""), ("PTH", "PATH"), ("XXXX", ""), ("HOM", "HOME"), ("", "")]
)
def test_what_was_meant(word: str, found: str) -> None:
    assert nearest(word, ["PATH", "HOME"]) == found


@given(st.text(max_size=6), st.text(max_size=6))
def test_suggestions_are_near(word: str, option: str) -> None:
    found = nearest(word, [option])
    assert found in ("", option)
    if word != option and len(word) == len(option) > 0 and sum(a != b for a, b in zip(word, option, strict=True)) <= 2:
        assert found == option


@pytest.mark.parametrize(
    ("number", "text"), [(0, r"'\x00'"), (9, r"'\t'"), (34, "'\"'"), (39, r"'\''"), (65, "'A'"), (0x110000, "'\ufffd'")]
)
def test_numbers_as_characters(number: int, text: str) -> None:
    assert quote_number(number) == text


def test_quoted_text() -> None:
    assert quote('a"\\\x01\u200b\U000e0001é') == '"a\\"\\\\\\x01\\u200b\\U000e0001é"'


def test_json_as_go_writes_it() -> None:
    assert dumps({"a": "<&>\u2028é\x7f"}) == '{"a":"\\u003c\\u0026\\u003e\\u2028é\x7f"}'.encode()
    assert dumps("\ud800") == b'"?"'


def archive(times: list[int]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for number, time in enumerate(times):
            member = tarfile.TarInfo(f"f{number}")
            member.mtime = time
            tar.addfile(member, io.BytesIO())
        folder = tarfile.TarInfo("folder")
        folder.type, folder.mtime = tarfile.DIRTYPE, 10**9
        tar.addfile(folder)
    return data.getvalue()


def test_the_latest_time_of_an_archive() -> None:
    assert latest(archive([5, 9, 7])) == 9
    assert latest(archive([])) is None
    assert latest(b"no archive") is None
    assert latest(archive([1])[:20]) is None


def test_archives_by_their_first_bytes() -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    assert is_archive(plain.getvalue()[:1024])
    assert is_archive(archive([1])[:1024])
    assert not is_archive(b"FROM scratch\n" * 100)
    assert not is_archive(bytes(1024))
    assert not is_archive(b"")


@given(st.binary(max_size=1100))
def test_any_bytes_are_an_archive_or_not(data: bytes) -> None:
    assert is_archive(data) in (True, False)


def test_calls_at_once_give_the_first_failure() -> None:
    def fail(text: str) -> None:
        raise ValueError(text)

    assert together([lambda: 1, lambda: 2]) == [1, 2]
    with pytest.raises(ValueError, match="first"):
        together([lambda: None, lambda: fail("first"), lambda: fail("second")])
