"""Credentials from docker's configuration and from credential helpers."""

import base64
import json
import os
from pathlib import Path

import pytest

from brickyard.oci.dockerconfig import DockerConfig, DockerConfigError

AUTH = base64.b64encode(b"user:pass:word").decode()


def config(folder: Path, value: object) -> DockerConfig:
    (folder / "config.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return DockerConfig.load(folder)


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("example.com", "example.com"),
        ("https://example.com", "example.com"),
        ("https://example.com/v1/", "example.com"),
        ("example.com:5000", "example.com:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "registry-1.docker.io"),
    ],
)
def test_keys(tmp_path: Path, key: str, host: str) -> None:
    found = config(tmp_path, {"auths": {key: {"auth": AUTH}}})
    assert found.credentials(host) == ("user", "pass:word")
    assert found.credentials("other.example.com") is None
    assert "pass:word" not in repr(found)


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({}, None),
        ({"auth": ""}, None),
        ({"username": "u", "password": "p"}, ("u", "p")),
        ({"auth": AUTH, "identitytoken": "t"}, ("<token>", "t")),
        ({"identitytoken": "t"}, ("<token>", "t")),
        ("text", None),
    ],
)
def test_entries(tmp_path: Path, entry: object, found: tuple[str, str] | None) -> None:
    assert config(tmp_path, {"auths": {"example.com": entry}}).credentials("example.com") == found


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    assert DockerConfig.load() == DockerConfig()
    (tmp_path / ".docker").mkdir()
    config(tmp_path / ".docker", {"auths": {"example.com": {"auth": AUTH}}})
    assert DockerConfig.load().credentials("example.com")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert DockerConfig.load() == DockerConfig()
    (tmp_path / "config.json").write_text("")
    assert DockerConfig.load() == DockerConfig()


@pytest.mark.parametrize(
    "value",
    [
        "nonsense",
        "[]",
        {"auths": [1]},
        {"credHelpers": 1},
        {"credsStore": 1},
        {"auths": {"a": {"auth": "%"}}},
        {"auths": {"a": {"auth": base64.b64encode(b"user").decode()}}},
    ],
)
def test_broken(tmp_path: Path, value: object) -> None:
    with pytest.raises(DockerConfigError):
        config(tmp_path, value)


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper `test`: knows example.com, fails for broken.example.com."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "docker-credential-test"
    script.write_text(
        """#!/bin/sh
read -r server
test "$1" = get || exit 3
case "$server" in
  example.com) echo '{"ServerURL":"example.com","Username":"<token>","Secret":"s"}';;
  https://index.docker.io/v1/) echo '{"Username":"hub","Secret":"h"}';;
  empty.example.com) echo '{"Username":"","Secret":""}';;
  broken.example.com) echo 'secret: s'; exit 1;;
  strange.example.com) echo '[]';;
  numbers.example.com) echo '{"Username":1,"Secret":2}';;
  *) echo 'credentials not found in native keychain'; exit 1;;
esac
"""
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return script


def test_helpers(tmp_path: Path, helper: Path) -> None:
    found = config(tmp_path, {"auths": {"plain.example.com": {"auth": AUTH}}, "credsStore": "test"})
    assert found.credentials("example.com") == ("<token>", "s")
    assert found.credentials("docker.io") == ("hub", "h")
    assert found.credentials("empty.example.com") is None
    assert found.credentials("none.example.com") is None
    assert found.credentials("plain.example.com") == ("user", "pass:word")


def test_a_helper_of_one_host(tmp_path: Path, helper: Path) -> None:
    found = config(tmp_path, {"credHelpers": {"example.com": "test"}, "credsStore": "missing"})
    assert found.credentials("example.com") == ("<token>", "s")
    with pytest.raises(DockerConfigError, match="docker-credential-missing is not installed"):
        found.credentials("other.example.com")


@pytest.mark.parametrize("host", ["broken.example.com", "strange.example.com", "numbers.example.com"])
def test_failing_helpers(tmp_path: Path, helper: Path, host: str) -> None:
    with pytest.raises(DockerConfigError) as caught:
        config(tmp_path, {"credsStore": "test"}).credentials(host)
    assert "secret" not in str(caught.value)


def test_helpers_are_names_and_no_paths(tmp_path: Path) -> None:
    with pytest.raises(DockerConfigError, match="no name"):
        config(tmp_path, {"credsStore": "../../x"}).credentials("example.com")


def test_a_helper_that_cannot_run(tmp_path: Path, helper: Path) -> None:
    helper.write_text("no program")
    with pytest.raises(DockerConfigError, match="failed"):
        config(tmp_path, {"credsStore": "test"}).credentials("example.com")
