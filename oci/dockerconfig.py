"""Credentials as `docker login` keeps them: `config.json` and the credential helpers that it names."""

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

IDENTITY_TOKEN_USER = "<token>"
"""The user name that stands before an identity token instead of a password."""

_HUB = "docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_HELPER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HELPER_SECONDS = 60


class DockerConfigError(ValueError):
    """A broken `config.json`, or a credential helper that fails."""


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """What `docker login` left behind; secrets are not part of its text form."""

    auths: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    store: str = ""
    helpers: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def load(directory: Path | None = None) -> "DockerConfig":
        """Read `config.json` of `directory`, or of DOCKER_CONFIG, or of `~/.docker`; none there is an empty one.

        Raises:
            DockerConfigError: where it is broken.
        """
        folder = directory or Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
        path = folder / "config.json"
        try:
            value = json.loads(path.read_bytes() or b"{}")
        except (FileNotFoundError, NotADirectoryError):
            return DockerConfig()
        except (OSError, ValueError, RecursionError) as error:
            raise DockerConfigError(f"{path}: {error}") from None
        if not isinstance(value, dict):
            raise DockerConfigError(f"{path}: expected an object")
        auths = value.get("auths") or {}
        helpers = value.get("credHelpers") or {}
        store = value.get("credsStore") or ""
        if not isinstance(auths, dict) or not isinstance(helpers, dict) or not isinstance(store, str):
            raise DockerConfigError(f"{path}: auths, credHelpers or credsStore is of a wrong type")
        return DockerConfig(
            {
                _host(key): found
                for key, entry in auths.items()
                if isinstance(entry, dict) and (found := _auth(entry, f"{path}: auths.{key}"))
            },
            store,
            {_host(key): name for key, name in helpers.items() if isinstance(name, str)},
        )

    def credentials(self, host: str) -> tuple[str, str] | None:
        """User and secret for a registry host; the user is `<token>` where the secret is an identity token.

        Raises:
            DockerConfigError: where a credential helper is missing or fails.
        """
        host = _host(host)
        helper = self.helpers.get(host) or self.store
        if helper:
            found = _ask(helper, _HUB_KEY if host == _HUB else host)
            if found is not None:
                return found
        return self.auths.get(host)


def _host(key: str) -> str:
    """The host that a key of the config is for: keys may be addresses with a scheme and a path."""
    host = key.split("://", 1)[-1].split("/", 1)[0]
    return _HUB if host in _HUB_HOSTS else host


def _auth(entry: dict[str, object], where: str) -> tuple[str, str] | None:
    user, password = entry.get("username"), entry.get("password")
    auth = entry.get("auth")
    if isinstance(auth, str) and auth:
        try:
            decoded = base64.b64decode(auth, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise DockerConfigError(f"{where}: auth is not base64 of user:password") from None
        user, colon, password = decoded.partition(":")
        if not colon:
            raise DockerConfigError(f"{where}: auth is not base64 of user:password")
        password = password.rstrip("\0")
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return IDENTITY_TOKEN_USER, token
    if isinstance(user, str) and isinstance(password, str) and user and password:
        return user, password
    return None


def _ask(helper: str, server: str) -> tuple[str, str] | None:
    """Ask a credential helper (the protocol of docker-credential-helpers)."""
    if not _HELPER.fullmatch(helper):
        raise DockerConfigError(f"{helper!r} is no name of a credential helper")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_SECONDS)
    except FileNotFoundError:
        raise DockerConfigError(
            f"the credential helper {program} is not installed; install it, or remove it from docker's config.json"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DockerConfigError(f"the credential helper {program} failed: {error}") from None
    if done.returncode:
        # What a helper prints may hold secrets, except for this one sentence of the protocol.
        text = (done.stdout + done.stderr).decode(errors="replace")
        if "credentials not found" in text.lower():
            return None
        raise DockerConfigError(f"the credential helper {program} failed with status {done.returncode} for {server}")
    try:
        value = json.loads(done.stdout)
        user, secret = value["Username"], value["Secret"]
    except (ValueError, KeyError, TypeError):
        raise DockerConfigError(f"the credential helper {program} gave no credentials") from None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise DockerConfigError(f"the credential helper {program} gave no credentials")
    return (user, secret) if secret else None
