"""A state folder for tests of what works on one: snapshots, cache, content, a session that offers what a test says.

`state` has a client with secrets and agents, for ops; `yard` one with layouts and places for output, and a registry's
client, for sources, exporters and the gateway.
"""

import io
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from brickyard.oci.layout import Layout
from brickyard.oci.registry import Registry
from brickyard.solver.base import Context
from brickyard.solver.cache.store import CacheStore
from brickyard.solver.content.store import ContentStore
from brickyard.solver.snapshots.leases import Leases
from brickyard.solver.snapshots.store import Mode, Snapshots
from brickyard.wire.session import FileFilter, FileReceiver, FileTree

Files = dict[str, bytes | str | None]


@dataclass
class FakeSession:
    """What the client of a test offers."""

    secrets: dict[str, bytes] = field(default_factory=dict)
    agents: set[str] = field(default_factory=set)
    id: str = "test"

    def secret(self, id: str) -> bytes | None:
        return self.secrets.get(id)

    def has_ssh(self, id: str) -> bool:
        return (id or "default") in self.agents

    def forward_ssh(self, id: str, connection: Any) -> None:
        connection.sendall(b"agent " + id.encode())


@dataclass
class State:
    """A state folder, with the context of a build in it."""

    root: Path
    context: Context
    session: FakeSession

    def snapshot(self, files: Files, parent: str | None = None) -> str:
        """A snapshot of files (bytes), links (text) and folders (None)."""
        name = self.context.snapshots.prepare(parent)
        with self.context.snapshots.mounted(name, readonly=False) as root:
            for path, content in files.items():
                place = root / path
                place.parent.mkdir(parents=True, exist_ok=True)
                if content is None:
                    place.mkdir()
                elif isinstance(content, str):
                    place.symlink_to(content)
                else:
                    place.write_bytes(content)
        self.context.snapshots.commit(name)
        return name

    def files(self, snapshot: str | None) -> Files:
        """What is in a snapshot; folders only where they are empty."""
        out: Files = {}
        with self.context.snapshots.mounted(snapshot) as root:
            for folder, names, found in os.walk(root):
                for name in [*names, *found]:
                    path = Path(folder, name)
                    key = str(path.relative_to(root))
                    if path.is_symlink():
                        out[key] = os.readlink(path)
                    elif path.is_file():
                        out[key] = path.read_bytes()
                    elif path.is_dir() and not any(path.iterdir()):
                        out[key] = None
        return out


@pytest.fixture
def make_state(tmp_path: Path) -> Iterator[Callable[[Mode | None], State]]:
    """Makes state folders of a mode, or of the best one here."""
    made: list[State] = []

    def make(mode: Mode | None = None) -> State:
        root = tmp_path / f"state{len(made)}"
        snapshots, session = Snapshots(root, mode=mode), FakeSession()
        context = Context(
            root=root,
            session=session,  # type: ignore[arg-type]
            snapshots=snapshots,
            content=ContentStore(root),
            cache=CacheStore(root),
            executor=_none,
            cancel=threading.Event(),
            leases=Leases(snapshots),
        )
        made.append(State(root, context, session))
        return made[-1]

    yield make
    for state in made:
        state.context.snapshots.close()
        state.context.cache.close()


def _none() -> Any:
    raise AssertionError("this test runs nothing")


@pytest.fixture
def state(make_state: Callable[[Mode | None], State]) -> State:
    """A state folder."""
    return make_state(None)


class _Kept(io.BytesIO):
    """An archive that is still there after the exporter closed its stream."""

    def __init__(self, done: Callable[[bytes], None]) -> None:
        super().__init__()
        self._done = done

    def close(self) -> None:
        if not self.closed:
            self._done(self.getvalue())
        super().close()


@dataclass
class MadeUpClient:
    """A client's session with what a test gives it; what exporters send is in `files` and `folders`."""

    id: str = "a-session"
    layouts: dict[str, Path] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    logins: dict[str, tuple[str, str]] = field(default_factory=dict)
    agents: dict[str, Callable[[socket.socket], None]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    folders: dict[str, dict[str, bytes]] = field(default_factory=dict)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    takes_output: bool = True

    def other(self, id: str) -> "MadeUpClient":
        return self

    def receive(self, name: str, wanted: FileFilter, receiver: FileReceiver) -> None:
        raise KeyError(name)

    def shared_key(self) -> str:
        return self.id

    def open_blob(self, store: str, digest: str) -> BinaryIO:
        return Layout(self.layouts[store]).blob_path(digest).open("rb")

    def secret(self, id: str) -> bytes | None:
        return self.secrets.get(id)

    def has_ssh(self, id: str) -> bool:
        return (id or "default") in self.agents

    def forward_ssh(self, id: str, connection: socket.socket) -> None:
        self.agents[id or "default"](connection)

    def credentials(self, host: str) -> tuple[str, str] | None:
        return self.logins.get(host)

    def output_file(self, exporter: str, metadata: Mapping[str, str]) -> BinaryIO:
        if not self.takes_output:
            raise KeyError(exporter)
        self.metadata[exporter] = dict(metadata)
        return _Kept(lambda data: self.files.__setitem__(exporter, data))

    def output_dir(self, exporter: str, files: FileTree, metadata: Mapping[str, str]) -> None:
        if not self.takes_output:
            raise KeyError(exporter)
        self.metadata[exporter] = dict(metadata)
        found = {}
        for entry in files.entries():
            if entry.mode >> 31 & 1:
                continue
            with files.open(entry.path) as stream:
                found[entry.path] = stream.read()
        self.folders[exporter] = found

    def upload(self, url: str) -> BinaryIO:
        return io.BytesIO(self.uploads[url])


@dataclass
class Yard:
    """A context, its client, and what was reported."""

    context: Context
    client: MadeUpClient
    progress: list[tuple[str, int, int]]

    def snapshot(self, files: Mapping[str, bytes], parent: str | None = None) -> str:
        """A committed snapshot with files in it."""
        store = self.context.snapshots
        name = store.prepare(parent)
        with store.mounted(name, readonly=False) as root:
            for path, data in files.items():
                place = root / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
        store.commit(name)
        return name


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    """A state folder with nothing in it."""
    root = tmp_path / "state"
    client = MadeUpClient()
    progress: list[tuple[str, int, int]] = []
    snapshots, cache = Snapshots(root), CacheStore(root)
    with Registry(client.credentials, timeout=2, retries=2) as registry:
        context = Context(
            root=root,
            session=client,
            snapshots=snapshots,
            content=ContentStore(root),
            cache=cache,
            executor=_none,
            cancel=threading.Event(),
            leases=Leases(snapshots),
            progress=lambda name, current, total: progress.append((name, current, total)),
            registry=lambda: registry,
        )
        yield Yard(context, client, progress)
    snapshots.close()
    cache.close()
