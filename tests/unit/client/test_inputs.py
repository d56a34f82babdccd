"""Build contexts: folders, standard input, named ones."""

import io
import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from brickyard.client.errors import ClientError
from brickyard.client.inputs import UPLOAD_URL, Inputs, is_remote, prepare
from brickyard.client.options import BuildOptions


def prepared(options: BuildOptions) -> Inputs:
    """The inputs, while what came from standard input is still there."""
    stack = ExitStack()
    inputs = prepare(options, stack)
    inputs.attrs["texts"] = repr({p.name: p.read_text() for p in sorted(inputs.dirs["dockerfile"].iterdir())})
    stack.close()
    return inputs


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "ctx"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM a")
    return folder


def test_a_folder(context: Path) -> None:
    inputs = prepared(BuildOptions("ctx"))
    assert inputs.dirs == {"context": context, "dockerfile": context}
    assert inputs.attrs["filename"] == "Dockerfile"


def test_a_dockerfile_outside(context: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/App.dockerfile").write_text("FROM b")
    inputs = prepared(BuildOptions("ctx", file="other/App.dockerfile"))
    assert inputs.dirs == {"context": context, "dockerfile": tmp_path / "other"}
    assert inputs.attrs["filename"] == "App.dockerfile"


def test_a_lower_case_dockerfile(context: Path) -> None:
    (context / "Dockerfile").rename(context / "dockerfile")
    assert prepared(BuildOptions("ctx")).attrs["filename"] == "dockerfile"


def test_a_dockerfile_on_standard_input(context: Path) -> None:
    inputs = prepared(BuildOptions("ctx", file="-", stdin=io.BytesIO(b"FROM c")))
    assert inputs.dirs["context"] == context
    assert inputs.attrs["texts"] == "{'Dockerfile': 'FROM c'}"
    assert not inputs.dirs["dockerfile"].exists()


def test_only_a_dockerfile_on_standard_input() -> None:
    for text in (b"FROM c\n", b"# " + b"x" * 5000 + b"\nFROM c\n", b""):
        inputs = prepared(BuildOptions("-", stdin=io.BytesIO(text)))
        assert inputs.attrs["texts"] == repr({"Dockerfile": text.decode()})
        assert inputs.dirs["context"] != inputs.dirs["dockerfile"]
        assert not inputs.dirs["context"].exists()


def archive(names: dict[str, str], mode: str) -> io.BytesIO:
    """A tar of texts."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{mode}") as tar:
        for name, text in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    out.seek(0)
    return out


@pytest.mark.parametrize("mode", ["", "gz", "bz2", "xz"])
def test_a_tar_on_standard_input_is_handed_over_as_it_is(mode: str) -> None:
    tar = archive({"Dockerfile": "FROM d", "sub/file": "x"}, mode)
    stack = ExitStack()
    inputs = prepare(BuildOptions("-", stdin=tar), stack)
    (url,) = inputs.uploads
    assert url.startswith(UPLOAD_URL)
    assert inputs.attrs == {"context": url, "filename": "Dockerfile"}
    assert inputs.dirs == {}
    for _ in range(2):
        with inputs.uploads[url]() as stream:
            assert stream.read() == tar.getvalue()
    stack.close()
    with pytest.raises(FileNotFoundError):
        inputs.uploads[url]()


def test_a_dockerfile_inside_of_a_tar() -> None:
    stack = ExitStack()
    inputs = prepare(BuildOptions("-", file="sub/my", stdin=archive({"sub/my": "FROM e"}, "gz")), stack)
    assert inputs.attrs["filename"] == "sub/my"
    stack.close()


@pytest.mark.parametrize(
    ("url", "caps"),
    [
        ("https://example.com/a.git#main:sub", None),
        ("https://example.com/a.git?branch=main", "moby.buildkit.frontend.gitquerystring"),
        ("https://example.com/context.tar.gz", None),
        ("http://example.com/Dockerfile", None),
        ("git@example.com:a/b.git", None),
        ("ssh://git@example.com/a/b", None),
        ("git://example.com/a", None),
        ("github.com/a/b", None),
    ],
)
def test_a_context_that_is_elsewhere(url: str, caps: str | None) -> None:
    stack = ExitStack()
    inputs = prepare(BuildOptions(url), stack)
    assert inputs.attrs.pop("frontend.caps", None) == caps
    assert inputs.attrs == {"context": url, "filename": "Dockerfile"}
    assert inputs.dirs == {}
    assert prepare(BuildOptions(url, file="a/b"), stack).attrs["filename"] == "a/b"


def test_a_dockerfile_beside_a_context_that_is_elsewhere(context: Path) -> None:
    stack = ExitStack()
    url = "https://example.com/a.git"
    inputs = prepare(BuildOptions(url, file=str(context / "Dockerfile")), stack)
    assert inputs.attrs == {"context": url, "filename": "Dockerfile", "dockerfilekey": "dockerfile"}
    assert inputs.dirs == {"dockerfile": context}
    inputs = prepared(BuildOptions(url, file="-", stdin=io.BytesIO(b"FROM c")))
    assert (inputs.attrs["dockerfilekey"], inputs.attrs["texts"]) == ("dockerfile", "{'Dockerfile': 'FROM c'}")


@pytest.mark.parametrize("text", ["./a", "a", "/a/b", "a@b", "ftp://x/y", "c:/x", ".", "x:y"])
def test_what_is_no_url(text: str) -> None:
    assert not is_remote(text)


def test_a_folder_wins_over_a_repository_of_its_name(context: Path, tmp_path: Path) -> None:
    (tmp_path / "github.com/a").mkdir(parents=True)
    (tmp_path / "github.com/a/Dockerfile").write_text("FROM a")
    assert prepared(BuildOptions("github.com/a")).dirs["context"] == tmp_path / "github.com/a"


@pytest.fixture
def server() -> Iterator[str]:
    """A web server with a Dockerfile, a way to it, and one that is too large."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/Dockerfile")
                self.end_headers()
                return
            found = {"/Dockerfile": b"FROM web\n", "/large": bytes(3 << 20)}.get(self.path)
            self.send_response(200 if found is not None else 404)
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, format: str, *args: object) -> None:
            return

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    http.server_close()


def test_a_dockerfile_from_a_url(context: Path, server: str) -> None:
    for name in ("Dockerfile", "moved"):
        inputs = prepared(BuildOptions("ctx", file=f"{server}/{name}"))
        assert inputs.attrs["texts"] == "{'Dockerfile': 'FROM web\\n'}"
        assert inputs.attrs["dockerfilekey"] == "dockerfile"
        assert inputs.dirs["context"] == context
    with pytest.raises(ClientError, match="none: 404"):
        prepared(BuildOptions("ctx", file=f"{server}/none"))
    with pytest.raises(ClientError, match="larger than 2 MiB"):
        prepared(BuildOptions("ctx", file=f"{server}/large"))
    with pytest.raises(ClientError, match="failed to read the Dockerfile"):
        prepared(BuildOptions("ctx", file="http://127.0.0.1:1/Dockerfile"))


def test_the_same_folder_has_the_same_key(context: Path, tmp_path: Path) -> None:
    assert prepared(BuildOptions("ctx")).shared_key() == prepared(BuildOptions(str(context))).shared_key() != ""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/Dockerfile").write_text("FROM a")
    assert prepared(BuildOptions("other")).shared_key() != prepared(BuildOptions("ctx")).shared_key()
    assert prepared(BuildOptions("https://example.com/a.git", file=str(context / "Dockerfile"))).shared_key() == ""


def test_named_contexts(context: Path, tmp_path: Path) -> None:
    inputs = prepared(
        BuildOptions(
            "ctx",
            named_contexts={
                "lib": ".",
                "context": "ctx",
                "base": "docker-image://alpine:3",
                "repo": "https://example.com/a.git?tag=v1",
                "file": "https://example.com/file",
            },
        )
    )
    assert inputs.dirs["lib"] == tmp_path
    assert inputs.dirs["_context"] == context
    assert {key: value for key, value in inputs.attrs.items() if key.startswith("context:")} == {
        "context:lib": "local:lib",
        "context:context": "local:_context",
        "context:base": "docker-image://alpine:3",
        "context:repo": "https://example.com/a.git?tag=v1",
        "context:file": "https://example.com/file",
    }
    assert inputs.attrs["sharedkey:localdir:lib"] == tmp_path.name
    assert inputs.attrs["sharedkey:localdir:context"] == "ctx"
    assert inputs.attrs["frontend.caps"] == (
        "moby.buildkit.frontend.contexts+forward,moby.buildkit.frontend.gitquerystring+forward"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (BuildOptions("none"), "'none' is not a folder: there is no such path"),
        (BuildOptions("ctx/Dockerfile"), "is not a folder"),
        (BuildOptions("ctx", file="ctx"), "is a folder, not a file"),
        (BuildOptions("ctx", file="Dockerfile"), "Dockerfile is not there"),
        (BuildOptions("-", file="-", stdin=io.BytesIO(b"x")), "both the build context and the Dockerfile"),
        (BuildOptions("-", file="x", stdin=io.BytesIO(b"FROM a")), "ambiguous Dockerfile"),
        (BuildOptions("ctx", named_contexts={"a": "none"}), "build context a: 'none' is not a folder"),
        (BuildOptions("ctx", named_contexts={"a": "target:b"}), "names a target of a bake file"),
        (BuildOptions("a\0b"), "is not a folder"),
    ],
)
def test_what_is_not_there(context: Path, options: BuildOptions, said: str) -> None:
    with pytest.raises(ClientError, match=said):
        prepared(options)


def test_a_dockerfile_behind_a_link(context: Path) -> None:
    (context / "link").symlink_to("Dockerfile")
    inputs = prepared(BuildOptions("ctx", file="ctx/link"))
    assert (inputs.dirs["dockerfile"], inputs.attrs["filename"]) == (context, "link")
    (context.parent / "elsewhere").mkdir()
    (context.parent / "elsewhere/D").write_text("FROM b")
    (context / "out").symlink_to("../elsewhere/D")
    inputs = prepared(BuildOptions("ctx", file="ctx/out"))
    assert (inputs.dirs["dockerfile"], inputs.attrs["filename"]) == (context.parent / "elsewhere", "D")


def test_a_dockerfile_out_of_a_pipe(context: Path) -> None:
    pipe = context / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_bytes, args=(b"FROM b",)).start()
    inputs = prepared(BuildOptions("ctx", file="ctx/pipe"))
    assert inputs.attrs["texts"] == "{'Dockerfile': 'FROM b'}"
    assert inputs.attrs["dockerfilekey"] == "dockerfile"
