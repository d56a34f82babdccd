"""The registry client of a session."""

from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from brickyard.oci.reference import parse
from brickyard.oci.registry import Registry, Unauthorized
from brickyard.solver.registries import open_registry


class Client:
    """A session with credentials, and with tokens where `token` is set."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def credentials(self, host: str) -> tuple[str, str] | None:
        self.asked.append(host)
        return None


class TokenClient(Client):
    def fetch_token(self, host: str, realm: str, service: str, scopes: Sequence[str]) -> tuple[str, int] | None:
        self.asked.append(f"{host} {realm} {service} {' '.join(scopes)}")
        return "token", 60


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked wants a bearer token."""

    def answer(self: Any, request: httpx.Request, **more: Any) -> httpx.Response:
        if request.headers.get("Authorization") == "Bearer token":
            return httpx.Response(404, request=request)
        if request.url.host == "auth.example.com":
            return httpx.Response(401, request=request)
        header = 'Bearer realm="https://auth.example.com/token",service="hub"'
        return httpx.Response(401, headers={"WWW-Authenticate": header}, request=request)

    monkeypatch.setattr(httpx.Client, "send", answer)


def ask(registry: Registry, name: str) -> None:
    with registry, pytest.raises(Unauthorized):
        registry.resolve(parse(name))


def test_docker_hub_is_asked_for_by_its_own_host(hub: None) -> None:
    client = Client()
    ask(open_registry(client), "alpine")  # type: ignore[arg-type]
    assert set(client.asked) == {"registry-1.docker.io"}
    client = Client()
    ask(open_registry(client), "host.example.com/x")  # type: ignore[arg-type]
    assert set(client.asked) == {"host.example.com"}


def test_tokens_come_first(hub: None) -> None:
    client = TokenClient()
    with open_registry(client) as registry, pytest.raises(Exception, match="has no image library/alpine"):  # type: ignore[arg-type]
        registry.resolve(parse("alpine"))
    assert client.asked == ["registry-1.docker.io https://auth.example.com/token hub repository:library/alpine:pull"]
