"""The frontend `gateway.v0`: an image whose process drives the build over its standard streams.

Source: BuildKit's frontend/gateway/gateway.go and docs/reference/frontend-design. The process is the gRPC client on one
HTTP/2 connection over its standard input and output; what it writes to standard error is kept for error messages.
"""

import json
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...frontend.dockerfile.context import BuildContext
from ...frontend.dockerfile.image import Image, load_image
from ...frontend.dockerfile.named_contexts import find
from ...frontend.gateway.client import Client, ResolvedElsewhere
from ...llb.bridge import BridgeError, FrontendCall
from ...llb.marshal import marshal
from ...llb.ops import NetMode
from ...llb.state import State, source
from ...oci.platform import host
from ...oci.reference import InvalidReference, parse
from ...wire import errors
from ...wire.h2.frames import ConnectionBroken
from ...wire.h2.server import Server
from ...wire.pb import errdefs_pb2, ops_pb2
from ...wire.pb import gateway_pb2 as gateway
from ..base import SolveError
from ..executor.base import BindMount, ExecError, Process
from .handlers import health, status_of
from .llbbridge import Served, bridge_service
from .log import log

if TYPE_CHECKING:
    from ..executor.base import Running
    from ..gateway.bridge import Gateway

CALLS = 64
"""The most calls that a frontend may have under way; one more is refused."""

LEAVE_SECONDS = 10.0
"""How long a frontend may go on after it has returned."""

INPUTS_CAP = "moby.buildkit.frontend.inputs"
METADATA_DIR = "run/config/buildkit/metadata"
_STDERR_KEPT = 4096


def run(bridge: "Gateway", call: FrontendCall, allowed: Sequence[str] = ()) -> gateway.Result:
    """Run the frontend image that the option `source` names.

    `allowed` are the repositories that frontends may come from, all where it is empty.

    Raises:
        SolveError: for an image that is not allowed or is none, one that lacks what is asked of it, and a frontend that
            ends without a result.
        BridgeError: where the image can't be fetched.
    """
    name = call.opts.get("source", "")
    if not name:
        raise SolveError("no source specified for gateway", code=errors.INVALID_ARGUMENT)
    try:
        reference = parse(name)
    except InvalidReference as error:
        raise SolveError(f"the frontend {name!r}: {error}", code=errors.INVALID_ARGUMENT) from None
    if allowed and reference.name not in {parse(one).name for one in allowed}:
        raise SolveError(f"'{name}' is not an allowed gateway source", code=errors.PERMISSION_DENIED)
    image, definition = _load(bridge, call, name)
    _check_caps(image, call, bridge)
    served = Served(bridge)
    with _rootfs(bridge, definition) as rootfs, _metadata(definition) as folder:
        process = Process(
            args=tuple(image.config.entrypoint or ["/run"]),
            env=(*image.config.env, *_environment(bridge, call)),
            cwd=image.config.working_dir or "/",
            user=image.config.user,
            rootfs=rootfs,
            mounts=(BindMount(METADATA_DIR, folder, readonly=True),),
            network=NetMode.NONE if _true(image, "moby.buildkit.frontend.network.none") else NetMode.SANDBOX,
            remove_mount_stubs=True,
        )
        _drive(bridge, served, process, name)
    return served.wait(bridge.build.context.cancel)


def _load(bridge: "Gateway", call: FrontendCall, name: str) -> tuple[Image, ops_pb2.Definition]:
    """The image's config, and the graph of its file system: a named context of its name goes first."""
    client = Client(bridge, call)
    platform = host()
    named = None
    if any(key.startswith("context:") for key in call.opts):
        named = find(BuildContext(client), name, platform, "", lambda: ())
    if named is not None:
        if named.settle is not None:
            named.settle()
        return named.image or load_image(b"{}"), marshal(named.state.output).to_pb()
    reference = parse(name).tag_name_only()
    try:
        found = client.image(str(reference), platform, "", f"resolve image config for docker-image://{reference}")
    except ResolvedElsewhere as moved:
        raise SolveError(str(moved)) from None
    exact = parse(found.reference)
    if found.digest:
        exact = exact.with_digest(found.digest)
    state: State = source(f"docker-image://{exact}", {"image.recordtype": "frontend"}, platform=platform)
    try:
        return load_image(found.config), marshal(state.output).to_pb()
    except ValueError as error:
        raise SolveError(f"the image config of the frontend {name}: {error}") from None


def _true(image: Image, label: str) -> bool:
    return image.config.labels.get(label, "") in ("1", "t", "T", "true", "TRUE", "True")


def _names(text: str) -> set[str]:
    """The names in a comma list of capabilities, without what follows a plus sign."""
    return {name for part in text.split(",") if (name := part.partition("+")[0].strip())}


def _check_caps(image: Image, call: FrontendCall, bridge: "Gateway") -> None:
    wanted = _names(call.opts.get("frontend.caps", ""))
    if bridge.inputs().Definitions:
        wanted.add(INPUTS_CAP)
    missing = sorted(wanted - _names(image.config.labels.get("moby.buildkit.frontend.caps", "")))
    if missing:
        text = f"unsupported frontend capability {missing[0]}"
        status = errors.make_status(errors.UNIMPLEMENTED, text, [errdefs_pb2.FrontendCap(name=missing[0])])
        raise BridgeError(text, errors.UNIMPLEMENTED, status.SerializeToString())


def _environment(bridge: "Gateway", call: FrontendCall) -> Iterator[str]:
    for number, (key, value) in enumerate(call.opts.items()):
        yield f"BUILDKIT_FRONTEND_OPT_{number}={key}={value}"
    yield f"BUILDKIT_SESSION_ID={call.session_id}"
    yield f"BUILDKIT_WORKERS={json.dumps([_worker(bridge)], separators=(',', ':'))}"
    yield "BUILDKIT_EXPORTEDPRODUCT=brickyard"


def _worker(bridge: "Gateway") -> Mapping[str, Any]:
    """The worker as Go's client writes it in JSON."""
    record = bridge.build.worker()
    platforms = []
    for one in record.platforms:
        fields = {"architecture": one.Architecture, "os": one.OS, "os.version": one.OSVersion, "variant": one.Variant}
        platforms.append({key: value for key, value in fields.items() if value or key in ("architecture", "os")})
    return {"ID": record.ID, "Labels": dict(record.Labels), "Platforms": platforms, "GCPolicy": None}


@contextmanager
def _rootfs(bridge: "Gateway", definition: ops_pb2.Definition) -> Iterator[Path]:
    """The image's files in a snapshot that the process may write to, dropped afterwards."""
    snapshots = bridge.build.context.snapshots
    result = bridge.build.ref(definition).result()
    snapshot = snapshots.prepare(result.snapshot)
    try:
        with snapshots.mounted(snapshot, readonly=False) as folder:
            yield folder
    finally:
        snapshots.remove(snapshot)


@contextmanager
def _metadata(definition: ops_pb2.Definition) -> Iterator[Path]:
    """A folder with the frontend's own graph, as frontends that look for it find it."""
    folder = Path(tempfile.mkdtemp(prefix="brickyard-"))
    try:
        folder.chmod(0o755)
        (folder / "frontend.bin").write_bytes(definition.SerializeToString())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Stderr:
    """The end of what a frontend wrote."""

    def __init__(self) -> None:
        self._tail = bytearray()

    def add(self, data: bytes) -> None:
        self._tail += data
        del self._tail[:-_STDERR_KEPT]

    def __str__(self) -> str:
        return self._tail.decode(errors="replace").strip()


def _drive(bridge: "Gateway", served: Served, process: Process, name: str) -> None:
    """Run the process with its streams as a connection to a server of its own, until it has ended."""
    stderr = _Stderr()
    server = Server({**bridge_service(lambda call: served), **health()}, CALLS, status_of)
    started = threading.Event()
    running: list[Running] = []

    def write(data: bytes) -> None:
        started.wait()
        if not running:
            raise OSError("the frontend was not started")
        running[0].write(data)

    connection = server.connect(write)

    def output(stream: int, data: bytes) -> None:
        if stream == 2:
            stderr.add(data)
            log.debug("frontend %s: %s", name, data.decode(errors="replace").rstrip())
        elif not connection.broken:
            try:
                connection.feed(data)
            except ConnectionBroken as error:
                served.fail(SolveError(f"the frontend {name} does not speak HTTP/2 as it should: {error}"))

    context = bridge.build.context
    try:
        running.append(context.executor().start(process, output, stdin=True))
    except ExecError as error:
        raise SolveError(f"the frontend {name} could not be started: {error}") from None
    finally:
        started.set()
    ended, killed = threading.Event(), threading.Event()
    waiter = threading.Thread(
        target=_wait, args=(running[0], served, ended, killed, stderr, name), name="frontend-wait"
    )
    waiter.start()
    try:
        served.wait_quietly(context.cancel)
        if served.returned:
            ended.wait(LEAVE_SECONDS)
    finally:
        if not ended.is_set():
            killed.set()
        running[0].kill()
        connection.lost("the frontend has ended")
        server.stop()
        waiter.join()


def _wait(
    running: "Running",
    served: Served,
    ended: threading.Event,
    killed: threading.Event,
    stderr: _Stderr,
    name: str,
) -> None:
    """See how the process ends. A success that it returned does not count where it fails afterwards by itself."""
    try:
        code = running.wait()
    except ExecError as error:
        served.fail(SolveError(f"the frontend {name} could not be started: {error}"))
        ended.set()
        return
    said = f": {stderr}" if str(stderr) else ""
    if killed.is_set():
        # Its result stands: it only took too long to leave, or nobody waits for it.
        log.debug("the frontend %s was ended", name)
    elif code:
        served.fail(SolveError(f"the frontend {name} ended with exit code {code}{said}", exit_code=code))
    elif not served.returned:
        served.fail(SolveError(f"the frontend {name} ended without a result{said}"))
    ended.set()
