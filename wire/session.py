"""What a build asks of its client: files, secrets, credentials, places for output (BuildKit's session services).

A remote client answers over a `Control.Session` tunnel; an embedded one is called directly.
"""

from pathlib import Path
from typing import BinaryIO, Protocol


class Session(Protocol):
    """The client's side of one build."""

    id: str

    def local_dir(self, name: str) -> Path:
        """The folder that the local source `name` stands for. Raises KeyError where the client offers none."""

    def oci_layout(self, store: str) -> Path:
        """The OCI image layout folder that `oci-layout://` sources of this store read. Raises KeyError."""

    def secret(self, id: str) -> bytes | None:
        """The value of a secret, None where the client has none of that id."""

    def ssh_socket(self, id: str) -> Path | None:
        """The path of the agent's socket for this id, None where there is none."""

    def credentials(self, host: str) -> tuple[str, str] | None:
        """User name and password (or identity token, with an empty name) for a registry host, None where unknown."""

    def output_file(self, exporter: str) -> BinaryIO:
        """The stream that the exporter with this id writes its archive to."""

    def output_dir(self, exporter: str) -> Path:
        """The folder that the exporter with this id writes files to."""
