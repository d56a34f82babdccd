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

    tokens = session.fetch_token if isinstance(session, _FetchesTokens) else None
    return Registry(session.credentials, hosts=hosts, tokens=tokens)
