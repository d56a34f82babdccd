"""The flags of `brickyard daemon`, which are buildkitd's, over its configuration."""

import socket
import sys
from pathlib import Path

import pytest

from brickyard.cli.commands import daemon
from brickyard.cli.flags import UsageError, parse
from brickyard.cli.main import run
from brickyard.solver.daemon.config import Config
from brickyard.solver.daemon.config import parse as parse_config
from brickyard.solver.daemon.daemon import Options


def options(*words: str, config: str = "") -> Options:
    return daemon._options(parse(daemon.COMMAND, list(words)), parse_config(config, "x.toml")[0])


def test_flags_win_over_the_file():
    text = """
root = "/file"
insecure-entitlements = ["security.insecure"]
[grpc]
address = ["unix:///file.sock"]
gid = 5
[worker.oci]
max-parallelism = 2
binary = "runc"
platforms = ["linux/arm64"]
labels = { a = "1" }
"""
    found = options(config=text)
    assert (found.root, found.addresses, found.gid) == (Path("/file"), ["unix:///file.sock"], 5)
    assert (found.executor, found.entitlements) == ("runc", {"security.insecure"})
    assert found.config.worker.oci.max_parallelism == 2
    given = options(
        "--root", "/flag", "--addr", "unix:///one", "--addr", "tcp://:1", "--group", "7", "--oci-max-parallelism=4",
        "--oci-worker-binary", "crun", "--oci-worker-platform", "linux/amd64", "--oci-worker-labels", "b=2",
        "--allow-insecure-entitlement", "network.host", "--oci-worker-gc=false", config=text,
    )  # fmt: skip
    assert (given.root, given.addresses, given.gid) == (Path("/flag"), ["unix:///one", "tcp://:1"], 7)
    assert (given.executor, given.entitlements) == ("crun", {"security.insecure", "network.host"})
    oci = given.config.worker.oci
    assert (oci.max_parallelism, oci.labels, oci.gc) == (4, {"a": "1", "b": "2"}, False)
    assert [platform.architecture for platform in given.platforms] == ["amd64"]


@pytest.mark.parametrize(("binary", "name"), [("", None), ("/usr/sbin/runc", "runc"), ("buildkit-runc", "runc")])
def test_the_runtime(binary: str, name: str | None):
    assert options("--oci-worker-binary", binary).executor == name


def test_what_collection_keeps():
    oci = options("--oci-worker-gc-keepstorage", "100,20%,5GB").config.worker.oci
    assert (oci.reserved_space.bytes, oci.min_free_space.percent, oci.max_used_space.bytes) == (100 << 20, 20, 5 << 30)


def test_tls():
    assert options().tls is None
    tls = options("--tlscert", "/c", "--tlskey", "/k", "--tlscacert", "/a").tls
    assert tls is not None
    assert (tls.cert, tls.key, tls.ca) == (Path("/c"), Path("/k"), Path("/a"))
    plain = options(config="[grpc.tls]\ncert = '/c'\nkey = '/k'").tls
    assert plain is not None
    assert plain.ca is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--tlscert", "/c"], "only work together"),
        (["--tlscacert", "/a"], "needs a certificate and a key"),
        (["--oci-worker=false"], "the only one there is"),
        (["--containerd-worker=true"], "no containerd worker"),
        (["--oci-max-parallelism", "many"], "write a number"),
        (["--oci-worker-labels", "x"], "write KEY=VALUE"),
        (["--oci-worker-platform", "a/b/c/d"], "--oci-worker-platform"),
        (["--group", "nobody-has-this-name"], "no such group"),
        (["--oci-worker-binary", "kata"], "known are crun, runc and bwrap"),
    ],
)
def test_flags_that_make_no_sense(words: list[str], says: str):
    with pytest.raises(UsageError, match=says):
        options(*words)


@pytest.mark.parametrize(
    ("config", "words", "says"),
    [
        ("root = 3", [], "root: "),
        (None, [], "no such file"),
        ("[log]\nlevel = 'loud'", [], "unsupported log level"),
        ("", ["--addr", "npipe://x"], "'npipe' is not supported"),
        ("", ["--addr", "tcp://127.0.0.1:1", "--tlscert", "/none", "--tlskey", "/none"], "cannot read /none"),
    ],
)
def test_a_daemon_that_cannot_start_says_why(
    config: str | None, words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "x.toml"
    if config is not None:
        path.write_text(config)
    code = run(["daemon", "--config", str(path), "--root", str(tmp_path / "root"), *words])
    said = capsys.readouterr().err
    assert code == 1
    assert says in said
    assert "Traceback" not in said


def test_the_other_name_has_a_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["brickyardd", "--version"])
    with pytest.raises(SystemExit) as caught:
        daemon.main()
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("brickyard ")


def test_a_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        daemon._tell_ready()
        assert manager.recv(100) == b"READY=1"
    daemon._tell_ready()


def test_the_default_root_is_private_to_its_user(monkeypatch: pytest.MonkeyPatch):
    assert options("--root", "").root.is_absolute()
    assert isinstance(options().config, Config)
