"""A build's session before it is there: its client may open it after it asked for the build."""

import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO

from ...wire import errors
from ...wire.calls import CallError
from ...wire.session import FileFilter, FileReceiver, FileTree
from .session import GrpcSession
from .sessions import SessionGone, Sessions


class LateSession:
    """A `wire.session.Session` by id, which is waited for where a build first needs it."""

    def __init__(self, sessions: Sessions, id: str, stop: threading.Event) -> None:
        self.id = id
        self._sessions = sessions
        self._stop = stop

    def other(self, id: str) -> "LateSession":
        """Another session that the build's definition or options name."""
        return self if id in ("", self.id) else LateSession(self._sessions, id, self._stop)

    def _there(self) -> GrpcSession:
        try:
            return self._sessions.get(self.id, stop=self._stop)
        except SessionGone as error:
            raise CallError(errors.UNAVAILABLE, str(error)) from None

    def receive(self, name: str, wanted: FileFilter, receiver: FileReceiver) -> None:
        """As `Session.receive`."""
        self._there().receive(name, wanted, receiver)

    def shared_key(self) -> str:
        """As `Session.shared_key`."""
        return self._there().shared_key()

    def open_blob(self, store: str, digest: str) -> BinaryIO:
        """As `Session.open_blob`."""
        return self._there().open_blob(store, digest)

    def write_blob(self, store: str, digest: str, size: int, data: Iterable[bytes], labels: Mapping[str, str]) -> None:
        """As `GrpcSession.write_blob`."""
        self._there().write_blob(store, digest, size, data, labels)

    def secret(self, id: str) -> bytes | None:
        """As `Session.secret`."""
        return self._there().secret(id)

    def has_ssh(self, id: str) -> bool:
        """As `Session.has_ssh`."""
        return self._there().has_ssh(id)

    def forward_ssh(self, id: str, connection: socket.socket) -> None:
        """As `Session.forward_ssh`."""
        self._there().forward_ssh(id, connection)

    def credentials(self, host: str) -> tuple[str, str] | None:
        """As `Session.credentials`; a build without a session has none."""
        return self._there().credentials(host) if self.id else None

    def fetch_token(self, host: str, realm: str, service: str, scopes: Sequence[str]) -> tuple[str, int] | None:
        """As `GrpcSession.fetch_token`."""
        return self._there().fetch_token(host, realm, service, scopes) if self.id else None

    def output_file(self, exporter: str, metadata: Mapping[str, str]) -> BinaryIO:
        """As `Session.output_file`."""
        return self._there().output_file(exporter, metadata)

    def output_dir(self, exporter: str, files: FileTree, metadata: Mapping[str, str]) -> None:
        """As `Session.output_dir`."""
        self._there().output_dir(exporter, files, metadata)

    def upload(self, url: str) -> BinaryIO:
        """As `Session.upload`."""
        return self._there().upload(url)
