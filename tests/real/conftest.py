"""What real tests run against: registries (Debian's `docker-registry`), an offline base image, a Docker Engine.

There is one of each for a worker of the test run.
"""

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from engine import Engine, buildx, docker_engine
from frontend_image import pushed, sources
from services import program, serving

__all__ = ["buildx", "docker_engine"]

USER, PASSWORD = "mason", "brick by brick"
IDENTITY = "an-identity-token"
ISSUER, SERVICE = "brickyard-test", "registry-test"


@dataclass(frozen=True)
class Login:
    """A registry that wants credentials."""

    host: str
    user: str = USER
    password: str = PASSWORD
    identity: str = IDENTITY
    requests: list[str] = field(default_factory=list)
    """What the token server was asked, as method and scope."""


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry for everybody: its `host:port`."""
    with serving(tmp_path_factory.mktemp("registry"), {}) as host:
        yield host


@pytest.fixture(scope="session")
def base_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The offline base, an OCI image layout with busybox: `--build-context base=oci-layout://DIR`."""
    folder = tmp_path_factory.mktemp("base") / "layout"
    program("busybox")
    command = [sys.executable, "-m", "brickyard", "base", "make", "--from", "busybox", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def base_image(base_layout: Path, registry: str) -> str:
    """The offline base in the test registry: its reference."""
    reference = f"{registry}/base:latest"
    command = [program("skopeo"), "copy", "--quiet", "--dest-tls-verify=false"]
    subprocess.run([*command, f"oci:{base_layout}:latest", f"docker://{reference}"], check=True)
    return reference


@pytest.fixture(scope="session")
def frontend_sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The flags of a build of our frontend image, which fetches nothing."""
    return sources(tmp_path_factory.mktemp("frontend"))


@pytest.fixture(scope="session")
def frontend_image(docker_engine: Engine, registry: str, frontend_sources: tuple[str, ...]) -> str:
    """Our frontend image, built by Docker and pushed to the test registry: its reference."""
    return pushed(docker_engine, registry, frontend_sources)


@pytest.fixture(scope="session")
def registry_basic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Login]:
    """A registry that wants user and password."""
    folder = tmp_path_factory.mktemp("registry-basic")
    line = subprocess.run([program("htpasswd"), "-Bbn", USER, PASSWORD], capture_output=True, check=True).stdout
    (folder / "htpasswd").write_bytes(line)
    with serving(folder, {"htpasswd": {"realm": "bricks", "path": str(folder / "htpasswd")}}) as host:
        yield Login(host)


@pytest.fixture(scope="session")
def registry_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A registry with TLS: its `host:port`, and the file with the certificate that it shows."""
    folder = tmp_path_factory.mktemp("registry-tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with serving(folder, {}, {"certificate": str(certificate), "key": str(key)}) as host:
        yield host, certificate


class TokenServer(BaseHTTPRequestHandler):
    """Gives tokens as distribution's token and oauth2 specifications say, signed by the openssl program."""

    sign: ClassVar[Callable[[bytes], bytes]]
    certificate: ClassVar[str]
    seen: ClassVar[list[str]]

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        scopes = query.get("scope", [])
        self.seen.append(f"GET {' '.join(scopes)}")
        header = self.headers.get("Authorization")
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if header not in (None, wanted):
            self.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]})
            return
        # Whoever has no name may read what is public.
        self.give(scopes, None if header else "public/", "token")

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        scopes = form.get("scope", [""])[0].split()
        self.seen.append(f"POST {' '.join(scopes)}")
        if form.get("grant_type") != ["refresh_token"] or form.get("refresh_token") != [IDENTITY]:
            self.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong token"}]})
            return
        self.give(scopes, None, "access_token")

    def give(self, scopes: list[str], only: str | None, key: str) -> None:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            if only is None:
                access.append({"type": kind, "name": name, "actions": actions.split(",")})
            elif name.startswith(only):
                access.append({"type": kind, "name": name, "actions": ["pull"]})
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [self.certificate]}
        claims = {"iss": ISSUER, "sub": USER, "aud": SERVICE, "nbf": now - 10, "iat": now, "exp": now + 300}
        parts = [
            encode(json.dumps(header).encode()),
            encode(json.dumps({**claims, "jti": "1", "access": access}).encode()),
        ]
        signature = type(self).sign(".".join(parts).encode())
        self.answer(200, {key: ".".join([*parts, encode(signature)]), "expires_in": 300})

    def answer(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture(scope="session")
def registry_token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Login]:
    """A registry that wants bearer tokens; anybody may pull `public/…`."""
    folder, openssl = tmp_path_factory.mktemp("registry-token"), program("openssl")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=brickyard-test"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    log: list[str] = []

    def sign(data: bytes) -> bytes:
        return subprocess.run(
            [openssl, "dgst", "-sha256", "-sign", key], input=data, capture_output=True, check=True
        ).stdout

    body = "".join(certificate.read_text().splitlines()[1:-1])
    handler = type("Handler", (TokenServer,), {"sign": staticmethod(sign), "certificate": body, "seen": log})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    auth = {
        "token": {
            "realm": f"http://127.0.0.1:{server.server_port}/token",
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(certificate),
        }
    }
    try:
        with serving(folder, auth) as host:
            yield Login(host, requests=log)
    finally:
        server.shutdown()
        server.server_close()
