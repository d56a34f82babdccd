"""The client's side of an embedded build: what the solver asks for comes from this machine."""

import socket
import uuid
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

from ..wire.session import FileFilter, FileReceiver, FileTree
from .agents import Agents
from .inputs import Inputs
from .options import Agent
from .outputs import Outputs
from .secrets import Secrets

if TYPE_CHECKING:
    from ..oci.dockerconfig import DockerConfig


class LocalSession:
    """A `wire.session.Session` over local folders, files and sockets."""

    def __init__(self, inputs: Inputs, outputs: Outputs, secrets: Secrets, ssh: Mapping[str, Agent]) -> None:
        """Raises ClientError for an agent or key that can't be used."""
        self.id = uuid.uuid4().hex
        self._inputs = inputs
        self._outputs = outputs
        self._secrets = secrets
        self._agents = Agents(ssh)

    def other(self, id: str) -> "LocalSession":
        """This session: there are no others."""
        return self

    def receive(self, name: str, wanted: FileFilter, receiver: FileReceiver) -> None:
        """Hand over the files of a local source."""
        from ..wire.fsutil.direct import transfer
        from ..wire.fsutil.tree import folder, without_owners

        transfer(folder(self._inputs.dirs[name], wanted, without_owners), receiver)

    def shared_key(self) -> str:
        """What builds of the same context folder have in common."""
        return self._inputs.shared_key() or self.id

    def open_blob(self, store: str, digest: str) -> BinaryIO:
        """A blob of an OCI image layout."""
        from .layouts import open_blob

        return open_blob(self._inputs.layouts[store], digest)

    def write_blob(self, store: str, digest: str, size: int, data: Iterable[bytes], labels: Mapping[str, str]) -> None:
        """Add a blob to a folder with cache."""
        from .layouts import write_blob

        write_blob(self._inputs.layouts[store], digest, data)

    def secret(self, id: str) -> bytes | None:
        """The value of a secret."""
        return self._secrets.get(id)

    def has_ssh(self, id: str) -> bool:
        """Whether there is an agent of this id."""
        return self._agents.has(id or "default")

    def forward_ssh(self, id: str, connection: socket.socket) -> None:
        """Let an agent answer a connection."""
        self._agents.serve(id or "default", connection)

    def credentials(self, host: str) -> tuple[str, str] | None:
        """What the user's docker configuration has for a registry host."""
        return self._docker_config.credentials(host)

    @cached_property
    def _docker_config(self) -> "DockerConfig":
        # A build that reads no registry does not read the user's configuration either.
        from ..oci.dockerconfig import DockerConfig

        return DockerConfig.load()

    def output_file(self, exporter: str, metadata: Mapping[str, str]) -> BinaryIO:
        """The stream of an exporter's archive."""
        return self._outputs.file(int(exporter))

    def output_dir(self, exporter: str, files: FileTree, metadata: Mapping[str, str]) -> None:
        """Copy an exporter's files to their folder."""
        self._outputs.receive(int(exporter), files, metadata)

    def upload(self, url: str) -> BinaryIO:
        """What was read from standard input, under the URL that stands for it in the request."""
        return self._inputs.uploads[url]()
