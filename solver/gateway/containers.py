"""Containers of a frontend: `NewContainer`, the processes in them, and the files that these see.

Source: BuildKit's frontend/gateway/container for what a container is given. Every process has a sandbox of its own over
the container's file systems, where BuildKit's share one.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...llb.bridge import BridgeError
from ...llb.load import meta_of, mount_of
from ...llb.ops import ExecOp, HostIP, Meta, Mount, NetMode, SecretEnv, SecurityMode
from ...wire import errors
from ...wire.pb import gateway_pb2
from .. import entitlements
from ..base import Result, SolveError
from ..ops import exec

if TYPE_CHECKING:
    from ..executor.base import Running
    from .bridge import Gateway

_MOST = 64
"""How many containers a frontend may have at the same time."""


@dataclass(slots=True)
class _Container:
    op: ExecOp
    prepared: exec.Prepared
    stack: ExitStack
    folders: list[Path | None]
    """For each mount of the request, the folder that it shows."""
    running: list["Running"]


class Containers:
    """The containers of one frontend. May be used by several threads."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._context = gateway.build.context
        self._lock = threading.Lock()
        self._containers: dict[str, _Container | None] = {}
        self._closed = False

    def create(self, request: gateway_pb2.NewContainerRequest) -> gateway_pb2.NewContainerResponse:
        """Mount what a container is to see.

        Raises:
            BridgeError: for an id that is taken, mounts that are not possible, or a result that fails.
        """
        id = request.ContainerID
        with self._gateway.errors():
            with self._lock:
                if self._closed:
                    raise SolveError("the frontend has returned", code=errors.FAILED_PRECONDITION)
                if id in self._containers:
                    raise BridgeError(f"Container {id} already exists", errors.ALREADY_EXISTS)
                if len(self._containers) >= _MOST:
                    raise SolveError(f"more than {_MOST} containers", code=errors.RESOURCE_EXHAUSTED)
                self._containers[id] = None
            try:
                made = self._make(request)
            except BaseException:
                with self._lock:
                    del self._containers[id]
                raise
            with self._lock:
                if not self._closed:
                    self._containers[id] = made
                    return gateway_pb2.NewContainerResponse()
            self._end(made)
            raise SolveError("the frontend has returned", code=errors.FAILED_PRECONDITION)

    def _make(self, request: gateway_pb2.NewContainerRequest) -> _Container:
        inputs: list[Result] = []
        mounts: list[Mount] = []
        for message in request.Mounts:
            position = -1
            if message.resultID:
                ref = self._gateway.ref(message.resultID)
                position = len(inputs)
                inputs.append(Result(None) if ref is None else ref.result())
            mounts.append(replace(mount_of(message), input=position, output=-1))
        op = ExecOp(
            Meta(
                args=(f"container {request.ContainerID}",),
                hostname=request.hostname,
                extra_hosts=tuple(HostIP(host.Host, host.IP) for host in request.extraHosts),
            ),
            tuple(mounts),
            network=_network(request.Network),
        )
        entitlements.check_op(op, self._context.entitlements)
        if not any(mount.dest == "/" for mount in mounts):
            raise SolveError("the container has no root file system", code=errors.INVALID_ARGUMENT)
        prepared = exec.Prepared()
        stack = ExitStack()
        try:
            stack.callback(self._drop, prepared)
            root = stack.enter_context(exec.mounted(op, inputs, self._context, prepared))
        except BaseException:
            stack.close()
            raise
        return _Container(op, prepared, stack, _folders(mounts, root, prepared), [])

    def _drop(self, prepared: exec.Prepared) -> None:
        for snapshot in reversed(prepared.made):
            self._context.snapshots.remove(snapshot)

    def _find(self, id: str) -> _Container:
        with self._lock:
            found = self._containers.get(id)
        if found is None:
            raise BridgeError(f"container {id!r} previously released or not created", errors.NOT_FOUND)
        return found

    def start(self, init: gateway_pb2.InitMessage, output: Callable[[int, bytes], None]) -> "Running":
        """Start a process in a container; `output` takes the stream (1 or 2) and bytes.

        Raises:
            BridgeError: for a container that is not there, or a process that can't be started.
        """
        from ..executor.base import ExecError

        found = self._find(init.ContainerID)
        with self._gateway.errors():
            meta = meta_of(init.Meta)
            env = meta.env
            if init.Tty and not any(entry.startswith("TERM=") for entry in env):
                env = (*env, "TERM=xterm")
            base = found.op.meta
            op = replace(
                found.op,
                meta=replace(meta, env=env, hostname=base.hostname, extra_hosts=base.extra_hosts),
                security=_security(init.Security),
                secretenv=tuple(SecretEnv(s.ID, s.name, s.optional) for s in init.secretenv),
            )
            if not meta.args:
                raise SolveError("the process has no arguments", code=errors.INVALID_ARGUMENT)
            entitlements.check_op(op, self._context.entitlements)
            process = replace(exec.process_of(op, found.prepared, self._context), tty=init.Tty)
            try:
                running = self._context.executor().start(process, output, stdin=0 in init.Fds)
            except ExecError as error:
                raise SolveError(str(error), exit_code=error.exit_code) from error
            with self._lock:
                if self._containers.get(init.ContainerID) is found:
                    found.running.append(running)
                    return running
            running.kill()
            raise BridgeError(f"container {init.ContainerID!r} was released", errors.NOT_FOUND)

    def release(self, request: gateway_pb2.ReleaseContainerRequest) -> gateway_pb2.ReleaseContainerResponse:
        """End a container with all its processes. Raises BridgeError for one that is not there."""
        found = self._find(request.ContainerID)
        with self._lock:
            mine = self._containers.pop(request.ContainerID, None) is found
        if mine:
            with self._gateway.errors():
                self._end(found)
        return gateway_pb2.ReleaseContainerResponse()

    @staticmethod
    def _end(container: _Container) -> None:
        from ..executor.base import ExecError

        for running in container.running:
            running.kill()
        for running in container.running:
            try:
                running.wait()
            except ExecError:
                continue
        container.stack.close()

    def close(self) -> None:
        """End all containers."""
        with self._lock:
            self._closed = True
            left = [one for one in self._containers.values() if one is not None]
            self._containers.clear()
        for container in left:
            self._end(container)

    def _folder(self, id: str, index: int) -> Path:
        found = self._find(id)
        if not 0 <= index < len(found.folders):
            raise SolveError(f"the container {id!r} has no mount {index}", code=errors.INVALID_ARGUMENT)
        folder = found.folders[index]
        if folder is None:
            raise SolveError(
                f"mount {index} of the container {id!r} has no files to read", code=errors.INVALID_ARGUMENT
            )
        return folder

    def read_file(self, request: gateway_pb2.ReadFileRequest) -> gateway_pb2.ReadFileResponse:
        """A file, or a range of it, of a mount of a container (`Ref` is its id)."""
        from .files import read_file

        place = request.Range
        bounds = (place.Offset, place.Length) if request.HasField("Range") else (0, None)
        with self._gateway.errors():
            folder = self._folder(request.Ref, request.MountIndex)
            return gateway_pb2.ReadFileResponse(Data=read_file(folder, request.FilePath, *bounds))

    def read_dir(self, request: gateway_pb2.ReadDirRequest) -> gateway_pb2.ReadDirResponse:
        """A folder of a mount of a container."""
        from .files import read_dir

        with self._gateway.errors():
            folder = self._folder(request.Ref, request.MountIndex)
            return gateway_pb2.ReadDirResponse(entries=read_dir(folder, request.DirPath, request.IncludePattern))

    def stat_file(self, request: gateway_pb2.StatFileRequest) -> gateway_pb2.StatFileResponse:
        """What is known of a path of a mount of a container."""
        from .files import stat_file

        with self._gateway.errors():
            folder = self._folder(request.Ref, request.MountIndex)
            return gateway_pb2.StatFileResponse(stat=stat_file(folder, request.Path))


def _folders(mounts: Sequence[Mount], root: Path, prepared: exec.Prepared) -> list[Path | None]:
    shown = {bind.dest: bind.source for bind in prepared.binds}
    out: list[Path | None] = []
    for mount in mounts:
        folder = root if mount.dest == "/" else shown.get(mount.dest.strip("/"))
        out.append(folder if folder is not None and folder.is_dir() else None)
    return out


def _network(value: int) -> NetMode:
    try:
        return NetMode(value)
    except ValueError:
        raise SolveError(f"unknown network mode {value}", code=errors.INVALID_ARGUMENT) from None


def _security(value: int) -> SecurityMode:
    try:
        return SecurityMode(value)
    except ValueError:
        raise SolveError(f"unknown security mode {value}", code=errors.INVALID_ARGUMENT) from None
