"""The little languages in flag values."""

import socket
from pathlib import Path
from typing import Any

import pytest

from brickyard.cli import specs
from brickyard.cli.flags import UsageError
from brickyard.client.options import Agent, Output, Secret


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("id=key", Secret("key")),
        ("id=key,src=/a/b", Secret("key", Path("/a/b"))),
        ("source=/a/b,id=key,type=file", Secret("key", Path("/a/b"))),
        ("id=key,env=KEY", Secret("key", None, "KEY")),
        ("type=env,id=key,src=KEY", Secret("key", None, "KEY")),
        ("type=env,id=key", Secret("key", None, "key")),
        ("type=file,id=key", Secret("key", Path("key"))),
        ('id=key,"src=/a,b"', Secret("key", Path("/a,b"))),
    ],
)
def test_secrets(text: str, secret: Secret) -> None:
    assert specs.secret(text) == secret


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("key", "'key' is no key=value pair"),
        ("src=/a", "the id is missing"),
        ("id=a,scr=/a", "unknown key 'scr'"),
        ("id=a,src=/a,env=A", "exclude each other"),
        ("id=a,type=vault", "the type is file or env"),
    ],
)
def test_wrong_secrets(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        specs.secret(text)


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("out", Output("local", "out")),
        ("-", Output("tar", "-")),
        ("type=local,dest=out", Output("local", "out")),
        ("type=tar", Output("tar", "-")),
        ("type=oci,dest=a.tar,compression=zstd", Output("oci", "a.tar", {"compression": "zstd"})),
        ("type=oci,tar=false,dest=out", Output("oci", "out", {"tar": "false"})),
        ("type=docker", Output("docker", "")),
        ("type=image,name=a,push=true", Output("image", "", {"name": "a", "push": "true"})),
        ("type=registry", Output("image", "", {"unpack": "false", "push": "true"})),
        ("type=cacheonly", Output("cacheonly", "")),
        ('type=image,"name=a,b"', Output("image", "", {"name": "a,b"})),
    ],
)
def test_outputs(text: str, output: Output) -> None:
    assert specs.output(text) == output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dest=out", "the type is missing"),
        ("type=loca,dest=out", "no exporter 'loca'"),
        ("type=local", "dest=FOLDER is missing"),
        ("type=oci,tar=perhaps", "tar is true or false"),
        ("", "--output needs a value"),
        ("type=local,dest=-", "a folder cannot go to standard output"),
        ("type=oci,tar=false,dest=-", "a folder cannot go to standard output"),
    ],
)
def test_wrong_outputs(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        specs.output(text)


def test_hosts() -> None:
    for text in ("a=1.2.3.4", "a:1.2.3.4", "a=[::1]", "a=1.2.3.4,::1"):
        assert specs.add_host(text) == text
    for text in ("a", "=1.2.3.4", "a=b", "a="):
        with pytest.raises(UsageError, match="write NAME=ADDRESS"):
            specs.add_host(text)


def test_privileges() -> None:
    assert specs.entitlement("network.host") == "network.host"
    with pytest.raises(UsageError, match="no such privilege") as caught:
        specs.entitlement("network.hos")
    assert caught.value.hint == "did you mean 'network.host'?"


def test_pairs_take_bare_names_from_the_environment() -> None:
    assert specs.pairs(["A=1", "B", "C=", "D"], {"B": "2"}) == {"A": "1", "B": "2", "C": ""}
    assert specs.pairs(["A=1=2", "B"]) == {"A": "1=2", "B": ""}


def test_ssh(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind("agent")
        assert specs.ssh("default", {"SSH_AUTH_SOCK": "agent"}) == ("default", Agent((Path("agent"),)))
        assert specs.ssh("git=agent", {}) == ("git", Agent((Path("agent"),)))
        assert specs.ssh("git=agent,raw=true", {}) == ("git", Agent((Path("agent"),), raw=True))
    (tmp_path / "key").write_text("-----BEGIN")
    assert specs.ssh("git=key,key", {}) == ("git", Agent((Path("key"), Path("key"))))
    for text, said in [("default", "no agent runs"), ("git=none", "is not there"), ("git=key,raw=x", "raw is true or")]:
        with pytest.raises(UsageError, match=said):
            specs.ssh(text, {})


@pytest.mark.parametrize(
    ("text", "size"), [("512", 512), ("64m", 64 << 20), ("1.5g", 3 << 29), ("2 KiB", 2048), ("1TB", 1 << 40)]
)
def test_sizes(text: str, size: int) -> None:
    assert specs.size(text, "shm-size") == size


def test_wrong_size() -> None:
    with pytest.raises(UsageError, match="--shm-size 5x"):
        specs.size("5x", "shm-size")


def test_durations() -> None:
    assert specs.duration("1h30m", "filter") == 5400 * 10**9
    assert specs.duration("1.5s", "filter") == 1_500_000_000
    for text in ("", "24", "1 h", "h"):
        with pytest.raises(UsageError):
            specs.duration(text, "filter")


def test_ulimits() -> None:
    assert specs.ulimit("nofile=1024") == "nofile=1024:1024"
    assert specs.ulimit("nofile=1024:2048") == "nofile=1024:2048"
    assert specs.ulimit("core=0:-1") == "core=0:-1"
    for text, said in [("nofiles=1", "no limit"), ("nofile=a", "with numbers"), ("nofile=2:1", "above")]:
        with pytest.raises(UsageError, match=said):
            specs.ulimit(text)


def test_names() -> None:
    assert specs.tag("app") == "docker.io/library/app:latest"
    assert specs.tag("host:5000/a/b:1") == "host:5000/a/b:1"
    with pytest.raises(UsageError, match="--tag App"):
        specs.tag("App")
    assert specs.named_context("base=oci-layout:///x") == ("base", "oci-layout:///x")
    assert specs.named_context("docker.io/library/alpine:latest=.") == ("alpine", ".")
    for text in ("base", "base=", "Ba se=x"):
        with pytest.raises(UsageError, match="--build-context"):
            specs.named_context(text)


def test_platforms() -> None:
    assert specs.platforms(["linux/amd64,linux/aarch64", "linux/x86_64"]) == ["linux/amd64", "linux/arm64"]
    with pytest.raises(UsageError, match="--platform plan"):
        specs.platforms(["plan/9/x/y"])


def test_annotations() -> None:
    assert specs.annotation("a.b=c") == {"annotation.a.b": "c"}
    assert specs.annotation("index,manifest[linux/amd64]:a=b") == {
        "annotation-index.a": "b",
        "annotation-manifest[linux/amd64].a": "b",
    }
    for text in ("a", "layer:a=b"):
        with pytest.raises(UsageError):
            specs.annotation(text)
