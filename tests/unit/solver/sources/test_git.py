"""Git repositories, served by git's own daemon on this machine."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
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


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


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


def test_a_stopped_build(yard: Any, repository: tuple[Path, str]) -> None:
    yard.context.cancel.set()
    with pytest.raises(Cancelled):
        git.cache_key(op(repository[1]), None, yard.context)
