"""What a build asks of its client: files, secrets, credentials, places for output (BuildKit's session services).

A remote client answers over a `Control.Session` tunnel; the client of an embedded solver is called directly.
"""

import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from .pb.stat_pb2 import Stat


@dataclass(frozen=True, slots=True)
class FileFilter:
    """The part of a folder that is transferred, in the patterns of `.dockerignore` files.

    `include` empty is everything; `follow` are paths whose links are followed, and which narrow the transfer to
    themselves. With `metadata_only` no content is sent but that of `metadata_only_except`.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()
    metadata_only: bool = False
    metadata_only_except: tuple[str, ...] = ()


class FileReceiver(Protocol):
    """The end of a file transfer that has the older files: told of entries in path order, parents first."""

    def entry(self, stat: Stat) -> bool:
        """One more entry. True where its content, of a regular file only, is wanted."""

    def data(self, path: str, data: bytes) -> None:
        """A piece of a wanted file's content."""

    def end(self, path: str) -> None:
        """All of a wanted file's content has come."""


class FileTree(Protocol):
    """Files to be sent: those of a folder or made up, with owners, modes and times as the other side shall see them."""

    def entries(self) -> Iterator[Stat]:
        """Every entry in path order (`/` sorts lowest), a folder before what it holds."""

    def open(self, path: str) -> BinaryIO:
        """The content of a regular file among the entries. Raises OSError."""


class Session(Protocol):
    """The client's side of one build. Calls may come from several threads at once."""

    id: str

    def other(self, id: str) -> "Session":
        """The session of another id that a source names (`local.session`); this one where it knows no others."""

    def receive(self, name: str, wanted: FileFilter, receiver: FileReceiver) -> None:
        """Transfer the local source `name`; returns when every wanted file has ended.

        Raises:
            KeyError: where the client offers none of that name.
            OSError: where it breaks off.
        """

    def shared_key(self) -> str:
        """What later builds of the same client and folder have in common; a session's id where it says nothing."""

    def open_blob(self, store: str, digest: str) -> BinaryIO:
        """A blob of the OCI image layout that `oci-layout://` sources call `store`.

        Raises:
            KeyError: where the client offers no such layout.
            FileNotFoundError: where the layout has no such blob.
        """

    def write_blob(self, store: str, digest: str, size: int, data: Iterable[bytes], labels: Mapping[str, str]) -> None:
        """Put a blob into one of the client's content stores; one that is there already is left as it is.

        Raises:
            KeyError: where the client offers no such store.
            OSError: where it can't be written, or is not what the digest names.
        """

    def secret(self, id: str) -> bytes | None:
        """The value of a secret, None where the client has none of that id."""

    def has_ssh(self, id: str) -> bool:
        """Whether the client forwards an agent or socket under this id; an empty one is `default`."""

    def forward_ssh(self, id: str, connection: socket.socket) -> None:
        """Serve one connection of a process to the agent, until either side closes. Raises KeyError, OSError."""

    def credentials(self, host: str) -> tuple[str, str] | None:
        """User name and password (or identity token, with an empty name) for a registry host, None where unknown."""

    def output_file(self, exporter: str, metadata: Mapping[str, str]) -> BinaryIO:
        """The stream that the exporter with this id writes its archive to; closing it ends the transfer."""

    def output_dir(self, exporter: str, files: FileTree, metadata: Mapping[str, str]) -> None:
        """Send files to where the exporter of this id puts them; `wire.fsutil.tree` makes trees of folders.

        With the metadata `buildkit-exporter-multi-platform` "1" the call brings everything of the export, so that a
        client may remove what else is at the destination (`mode=delete`).
        """

    def upload(self, url: str) -> BinaryIO:
        """What the client hands over under a URL that it made up (`http://buildkit-session/…`): an archive from its
        standard input, say. Raises KeyError."""
