"""A socket of this machine behind which a client's ssh agent answers."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ..wire.session import Session
from .base import SolveError


@contextmanager
def agent_socket(session: Session, id: str) -> Iterator[Path]:
    """The path of a socket for the time of the block. Raises SolveError where the client forwards no such agent."""
    if not session.has_ssh(id):
        raise SolveError(f"the client forwards no ssh agent {id or 'default'!r}", hint="give one with --ssh")
    with TemporaryDirectory(prefix="brickyard-ssh-") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "agent"
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen()
        connections: set[socket.socket] = set()
        accepting = threading.Thread(target=_accept, args=(listener, session, id, connections), daemon=True)
        accepting.start()
        try:
            yield path
        finally:
            # `close` alone does not wake a thread that waits in `accept`.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for connection in list(connections):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, session: Session, id: str, connections: set[socket.socket]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connections.add(connection)
        threading.Thread(target=_serve, args=(connection, session, id, connections), daemon=True).start()


def _serve(connection: socket.socket, session: Session, id: str, connections: set[socket.socket]) -> None:
    with connection, contextlib.suppress(KeyError, OSError):
        session.forward_ssh(id, connection)
    connections.discard(connection)
