"""The registry client of a client's session."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..wire.session import Session

if TYPE_CHECKING:
    from ..oci.registry import HostOptions, Registry


@runtime_checkable
class _FetchesTokens(Protocol):
    """A session of a client that fetches bearer tokens itself, so that its credentials stay with it."""

    def fetch_token(self, host: str, realm: str, service: str, scopes: Sequence[str]) -> tuple[str, int] | None:
        """A token and its seconds of life, None where there is none for the host."""


def open_registry(session: Session, hosts: "Mapping[str, HostOptions] | None" = None) -> "Registry":
    """A registry client with the tokens and credentials of a session; `hosts` are the daemon's options for hosts."""
    from ..oci.registry import Registry

    def credentials(host: str) -> tuple[str, str] | None:
        return session.credentials(_asked(host))

    def tokens(host: str, realm: str, service: str, scopes: Sequence[str]) -> tuple[str, int] | None:
        if not isinstance(session, _FetchesTokens):
            return None
        return session.fetch_token(_asked(host), realm, service, scopes)

    return Registry(credentials, hosts=hosts, tokens=tokens)


def _asked(host: str) -> str:
    """The name under which clients are asked for the credentials of a registry: that of Docker Hub's own host."""
    return "registry-1.docker.io" if host == "docker.io" else host
