"""Git repositories, served by git's own daemon on this machine."""

import base64
import os
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from brickyard.llb.ops import SourceOp
from brickyard.solver.base import Cancelled, SolveError
from brickyard.solver.sources import git
from brickyard.wire.pb import gateway_pb2, ops_pb2

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "C",
    "GIT_COMMITTER_EMAIL": "c@example.com",
    "GIT_AUTHOR_DATE": "2024-05-06T07:08:09Z",
    "GIT_COMMITTER_DATE": "2024-05-06T07:08:09Z",
    "GIT_ALLOW_PROTOCOL": "file:git",
}
WHEN = 1714979289
TOKEN = "basic " + base64.b64encode(b"x-access-token:s3cret").decode()


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def session(yard: Any) -> None:
    """A session of its own for each test: answers are kept for a session's time, and ports come again."""
    yard.client.id = uuid.uuid4().hex


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder of repositories, and the address that serves it."""
    base = tmp_path_factory.mktemp("git")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["git", "daemon", "--export-all", "--reuseaddr", f"--base-path={base}", "--listen=127.0.0.1"]
    process = subprocess.Popen([*command, f"--port={port}", str(base)], env=ENVIRONMENT, start_new_session=True)
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    yield base, f"git://127.0.0.1:{port}"
    os.killpg(process.pid, 15)
    process.wait(10)


@pytest.fixture(scope="module")
def original(served: tuple[Path, str]) -> Path:
    """A repository of two commits with a branch, two tags and a submodule."""
    base, address = served
    part, folder = base / "part", base / "original"
    for place in (part, folder):
        place.mkdir()
        run(place, "init", "--quiet", "--initial-branch=main")
    (part / "inside").write_text("of the submodule")
    run(part, "add", ".")
    run(part, "commit", "--quiet", "-m", "part")
    (folder / "file").write_text("one")
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "sub/deep/exec").write_text("#!/bin/sh\n")
    (folder / "sub/deep/exec").chmod(0o755)
    (folder / "sub/link").symlink_to("../file")
    run(folder, "add", ".")
    run(folder, "commit", "--quiet", "-m", "first")
    run(folder, "tag", "-a", "-m", "annotated", "v1")
    run(folder, "tag", "light")
    (folder / "file").write_text("two")
    run(folder, "submodule", "--quiet", "add", f"{address}/part", "part")
    run(folder, "add", ".")
    run(folder, "commit", "--quiet", "-m", "second")
    run(folder, "branch", "side", "HEAD~1")
    return folder


@pytest.fixture
def repository(served: tuple[Path, str], original: Path, tmp_path: Path) -> tuple[Path, str]:
    """A copy of it for one test: its folder and its address."""
    folder = served[0] / tmp_path.name
    shutil.copytree(original, folder, symlinks=True)
    return folder, f"{served[1]}/{folder.name}"


@pytest.fixture
def web(served: tuple[Path, str]) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """The same repositories over HTTP for who knows the token; and what was asked, with what authorization."""
    base = served[0]
    asked: list[tuple[str, str | None]] = []

    class Handle(BaseHTTPRequestHandler):
        def handle_all(self) -> None:
            given = self.headers.get("Authorization")
            asked.append((self.path, given))
            if (given or "").partition(" ")[2] != TOKEN.partition(" ")[2]:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="x"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            environment = {
                **ENVIRONMENT,
                "GIT_PROJECT_ROOT": str(base),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
            }
            done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True)
            head, _, data = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.send_response(int(headers.pop("Status", "200").split()[0]))
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = handle_all

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handle)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def op(remote: str, ref: str = "", **attrs: str) -> SourceOp:
    fragment = f"#{ref}" if ref else ""
    return SourceOp(remote + fragment, {"git.fullurl": remote} | {f"git.{key}": value for key, value in attrs.items()})


def files(yard: Any, op: SourceOp) -> dict[str, str]:
    """The paths of a source with their content, a link's target, or "/" for a folder."""
    out = {}
    result = git.snapshot(op, None, yard.context)
    with yard.context.snapshots.mounted(result.snapshot) as root:
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if name.startswith(".git/"):
                continue
            out[name] = "-> " + os.readlink(path) if path.is_symlink() else "/" if path.is_dir() else path.read_text()
    return out


def test_the_default_branch(yard: Any, repository: tuple[Path, str]) -> None:
    found = files(yard, op(repository[1]))
    assert found["file"] == "two"
    assert found["part/inside"] == "of the submodule"
    assert ".git" not in found
    assert "part/.git" not in found
    assert found["sub/link"] == "-> ../file"
    skipped = files(yard, op(repository[1], skipsubmodules="true"))
    assert "part/inside" not in skipped


@pytest.mark.parametrize("ref", ["v1", "light", "side", "refs/heads/side", "refs/tags/v1", "tags/v1", "heads/side"])
def test_refs(yard: Any, repository: tuple[Path, str], ref: str) -> None:
    assert files(yard, op(repository[1], ref))["file"] == "one"


def test_keys(yard: Any, repository: tuple[Path, str]) -> None:
    folder, remote = repository
    first = run(folder, "rev-parse", "HEAD~1")

    def key(ref: str = "", **attrs: str) -> str:
        return git.cache_key(op(remote, ref, **attrs), None, yard.context)

    assert key("v1") == key("light") == key("side") == key(first) == f"git:{first}"
    assert key() == f"git:{run(folder, 'rev-parse', 'HEAD')}"
    others = [key("v1:sub"), key("v1", keepgitdir="true"), key("v1", skipsubmodules="true"), key("v1", mtime="commit")]
    assert len({key("v1"), *others}) == 5


def test_a_commit(yard: Any, repository: tuple[Path, str]) -> None:
    folder, remote = repository
    first = run(folder, "rev-parse", "HEAD~1")
    assert files(yard, op(remote, first))["file"] == "one"
    run(folder, "checkout", "--quiet", "--detach", first)
    run(folder, "branch", "-D", "side")
    assert files(yard, op(remote, fetchbycommit="true", checksum=first))["file"] == "one"


def test_a_subfolder(yard: Any, repository: tuple[Path, str]) -> None:
    assert files(yard, op(repository[1], ":sub/deep")) == {"exec": "#!/bin/sh\n"}
    with pytest.raises(SolveError, match="no folder 'none'"):
        files(yard, op(repository[1], ":none"))
    with pytest.raises(SolveError, match="is no folder of the repository"):
        files(yard, op(repository[1], ":sub/link"))


def test_with_the_git_folder(yard: Any, repository: tuple[Path, str]) -> None:
    folder, remote = repository
    result = git.snapshot(op(remote, "main", keepgitdir="true"), None, yard.context)
    with yard.context.snapshots.mounted(result.snapshot) as root:
        assert run(root, "-c", "safe.directory=*", "rev-parse", "HEAD", "main") == "\n".join(
            [run(folder, "rev-parse", "HEAD")] * 2
        )
        assert run(root, "-c", "safe.directory=*", "status", "--porcelain") == ""
        assert run(root, "-c", "safe.directory=*", "remote", "get-url", "origin") == remote
        assert (root / "part/inside").read_text() == "of the submodule"
        assert not (root / ".git/FETCH_HEAD").exists()
        assert str(yard.context.root) not in (root / ".git/config").read_text()


def test_commit_times(yard: Any, repository: tuple[Path, str]) -> None:
    result = git.snapshot(op(repository[1], "v1", mtime="commit"), None, yard.context)
    with yard.context.snapshots.mounted(result.snapshot) as root:
        assert {path.lstat().st_mtime for path in root.rglob("*")} == {WHEN}


def test_checksums(yard: Any, repository: tuple[Path, str]) -> None:
    folder, remote = repository
    first = run(folder, "rev-parse", "HEAD~1")
    tag = run(folder, "rev-parse", "v1")
    for checksum in (first, first[:12], tag):
        assert files(yard, op(remote, "v1", checksum=checksum))["file"] == "one"
    with pytest.raises(SolveError, match="expected checksum to match 1234"):
        files(yard, op(remote, "v1", checksum="1234"))
    with pytest.raises(SolveError, match="is no commit hash"):
        files(yard, op(remote, "v1", checksum="main"))


def test_a_branch_that_moved(yard: Any, repository: tuple[Path, str]) -> None:
    folder, remote = repository
    before = git.cache_key(op(remote, "side"), None, yard.context)
    assert files(yard, op(remote, "side"))["file"] == "one"
    run(folder, "branch", "-f", "side", "main")
    # One session sees one repository; the next sees the new one.
    assert git.cache_key(op(remote, "side"), None, yard.context) == before
    yard.client.id = "another-session"
    assert git.cache_key(op(remote, "side"), None, yard.context) != before
    assert files(yard, op(remote, "side"))["file"] == "two"


def test_a_branch_that_moved_in_between(yard: Any, repository: tuple[Path, str]) -> None:
    folder, remote = repository
    git.cache_key(op(remote, "side"), None, yard.context)
    run(folder, "branch", "-f", "side", "main")
    assert files(yard, op(remote, "side"))["file"] == "one"


def test_what_a_ref_means(yard: Any, repository: tuple[Path, str]) -> None:
    folder, remote = repository
    response = gateway_pb2.ResolveSourceGitResponse()
    source = ops_pb2.SourceOp(identifier=f"{remote}#v1", attrs={"git.fullurl": remote})
    git.resolve_meta(source, True, yard.context, response)
    assert response.Ref == "refs/tags/v1"
    assert response.Checksum == run(folder, "rev-parse", "v1")
    assert response.CommitChecksum == run(folder, "rev-parse", "v1^{}")
    assert b"first" in response.CommitObject
    assert b"annotated" in response.TagObject


@pytest.mark.parametrize(
    ("remote", "attrs", "message"),
    [
        ("file:///etc", {}, "not by 'file:///etc'"),
        ("ext::sh -c id", {}, "not a git remote|not by"),
        ("--upload-pack=id", {}, "not a git remote|not by|failed"),
        ("https://example.com/x.git", {"bundle": "docker-image+blob://x"}, "git.bundle is not supported"),
        ("https://example.com/x.git", {"sig.pubkey": "x"}, "git.sig.pubkey is not supported"),
    ],
)
def test_what_is_refused(yard: Any, remote: str, attrs: dict[str, str], message: str) -> None:
    names = {"git.fullurl": remote} | {f"git.{key}": value for key, value in attrs.items()}
    with pytest.raises(SolveError, match=message):
        git.cache_key(SourceOp("git://example.com/x.git", names), None, yard.context)


def test_no_such_ref(yard: Any, repository: tuple[Path, str]) -> None:
    with pytest.raises(SolveError, match="does not contain the ref none"):
        git.cache_key(op(repository[1], "none"), None, yard.context)
    with pytest.raises(SolveError, match=r"no commit 0000|failed to fetch"):
        files(yard, op(repository[1], "0" * 40))


def test_no_such_repository(yard: Any, served: tuple[Path, str]) -> None:
    with pytest.raises(SolveError, match="git ls-remote failed"):
        git.cache_key(op(f"{served[1]}/none"), None, yard.context)


def test_secrets_are_not_shown(yard: Any) -> None:
    yard.client.secrets["GIT_AUTH_TOKEN.127.0.0.1:1"] = b"s3cret-token\n"
    remote = "http://user:pa55word@127.0.0.1:1/x.git"
    said: list[bytes] = []
    yard.context.log = lambda stream, data: said.append(data)
    with pytest.raises(SolveError) as caught:
        git.cache_key(op(remote, authtokensecret="GIT_AUTH_TOKEN"), None, yard.context)
    shown = str(caught.value) + b"".join(said).decode()
    assert "127.0.0.1" in shown
    assert "pa55word" not in shown
    assert "s3cret" not in shown


def test_a_token(yard: Any, web: tuple[str, list[tuple[str, str | None]]], repository: tuple[Path, str]) -> None:
    url, asked = web
    remote = f"{url}/{repository[0].name}"
    attrs = {"authtokensecret": "GIT_AUTH_TOKEN", "authheadersecret": "GIT_AUTH_HEADER", "skipsubmodules": "true"}
    with pytest.raises(SolveError, match=r"git ls-remote failed: .*(Authentication failed|could not read Username)"):
        git.cache_key(op(remote, **attrs), None, yard.context)
    yard.client.secrets["GIT_AUTH_TOKEN"] = b"wrong"
    host = url.removeprefix("http://")
    # The one for the host comes first.
    yard.client.secrets[f"GIT_AUTH_TOKEN.{host}"] = b"s3cret\n"
    asked.clear()
    assert files(yard, op(remote, **attrs))["file"] == "two"
    assert {authorization for _, authorization in asked} == {TOKEN}
    assert files(yard, op(remote, "v1", keepgitdir="true", **attrs))["file"] == "one"
    yard.client.secrets = {"GIT_AUTH_HEADER": TOKEN.encode()}
    yard.client.id = "another"
    assert git.cache_key(op(remote, "light", **attrs), None, yard.context)
    found = subprocess.run(
        ["grep", "-rF", "-e", "s3cret", "-e", TOKEN.partition(" ")[2], yard.context.root],
        capture_output=True,
        check=False,
    )
    assert found.returncode == 1, found.stdout


def test_a_password_in_the_address(
    yard: Any, web: tuple[str, list[tuple[str, str | None]]], repository: tuple[Path, str]
) -> None:
    url, asked = web
    remote = f"{url.replace('//', '//x-access-token:s3cret@')}/{repository[0].name}"
    assert files(yard, op(remote, keepgitdir="true", skipsubmodules="true"))["file"] == "two"
    assert asked[-1][1] == "Basic " + TOKEN.partition(" ")[2]
    found = subprocess.run(["grep", "-rF", "s3cret", yard.context.root], capture_output=True, check=False)
    assert found.returncode == 1, found.stdout


def test_a_stopped_build(yard: Any, repository: tuple[Path, str]) -> None:
    yard.context.cancel.set()
    with pytest.raises(Cancelled):
        git.cache_key(op(repository[1]), None, yard.context)
