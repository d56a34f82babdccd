"""Exec ops: a process over mounts."""

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...llb.graph import Vertex
from ...llb.ops import CacheSharing, ExecOp, Mount, MountType, ProxyEnv
from ...oci.rootfs import Root, UnsafePath, from_root
from .. import entitlements
from ..base import Context, Result, Selection, SolveError
from ..executor.base import BindMount, ExecError, Process, Resources
from .cache_mounts import CacheFolders
from .clip import Clip
from .private_files import secret_file

_LOG_LIMIT = 64 << 10
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONTENT_ON, _CONTENT_OFF = 1, 2


def _op(vertex: Vertex) -> ExecOp:
    assert isinstance(vertex.op, ExecOp)
    return vertex.op


def selections(vertex: Vertex) -> Sequence[Selection | None]:
    """A mount counts by the content that it shows, unless what the process makes of it holds more of the input."""
    op = _op(vertex)
    chosen: list[Selection | None] = [None] * len(vertex.inputs)
    for position in range(len(vertex.inputs)):
        mounts = [
            mount for mount in op.mounts if mount.input == position and mount.type in (MountType.BIND, MountType.CACHE)
        ]
        if mounts and all(_by_content(mount) for mount in mounts):
            paths = sorted({from_root(mount.selector) for mount in mounts})
            chosen[position] = Selection() if "/" in paths else Selection(tuple(paths), follow=True)
    return chosen


def _by_content(mount: Mount) -> bool:
    """Whether a mount's content may stand for its input (BuildKit's solver/llbsolver/ops/exec.go)."""
    # What is written to a part of an input comes out together with the rest, which the content leaves out.
    safe = mount.output < 0 or mount.readonly or from_root(mount.selector) == "/"
    if mount.content_cache == _CONTENT_ON and not safe:
        raise SolveError(f"the mount at {mount.dest} can't be cached by its content: it has an output and a selector")
    if mount.content_cache in (_CONTENT_ON, _CONTENT_OFF):
        return mount.content_cache == _CONTENT_ON
    return safe and mount.dest != "/"


def cache_key(vertex: Vertex, context: Context) -> str:
    """All of the op but what changes no result: proxies, addresses of hosts, how a cache is named and shared."""
    return _key(_op(vertex), vertex)


def _key(op: ExecOp, vertex: Vertex) -> str:
    meta = replace(op.meta, proxy_env=None, extra_hosts=tuple(replace(h, ip="") for h in op.meta.extra_hosts))
    mounts = tuple(replace(mount, cache_id="", cache_sharing=CacheSharing.SHARED) for mount in op.mounts)
    return repr((replace(op, meta=meta, mounts=mounts), vertex.platform))


def content_op_key(vertex: Vertex) -> str:
    """As `cache_key`, without the selector of a mount that alone shows an input which counts by its content."""
    op = _op(vertex)
    chosen = selections(vertex)
    mounts = []
    for mount in op.mounts:
        alone = sum(other.input == mount.input for other in op.mounts) == 1
        if mount.input >= 0 and alone and chosen[mount.input] is not None:
            mount = replace(mount, selector="")
        mounts.append(mount)
    return _key(replace(op, mounts=tuple(mounts)), vertex)


@dataclass(slots=True)
class Prepared:
    """What stands ready for the process. `made` are the snapshots that can be written to, `outputs` the results."""

    binds: list[BindMount] = field(default_factory=list)
    outputs: dict[int, str | None] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    rootfs: Path | None = None
    readonly_root: bool = False


def run(vertex: Vertex, inputs: Sequence[Result], context: Context) -> Sequence[Result]:
    """Run the process and keep what it wrote."""
    op = _op(vertex)
    entitlements.check(vertex, context.entitlements)
    _check(op)
    prepared = Prepared()
    kept: set[str] = set()
    try:
        with mounted(op, inputs, context, prepared):
            _run(vertex, op, prepared, context)
        wanted = set(prepared.outputs.values())
        for snapshot in prepared.made:
            if snapshot in wanted:
                context.snapshots.commit(snapshot)
                kept.add(snapshot)
    except BaseException:
        kept.clear()
        raise
    finally:
        for snapshot in prepared.made:
            if snapshot not in kept:
                context.snapshots.remove(snapshot)
    return [Result(prepared.outputs[number]) for number in range(len(prepared.outputs))]


def _check(op: ExecOp) -> None:
    """Refuse what can't be run. Raises SolveError."""
    if not op.meta.args:
        raise SolveError("the process has no arguments")
    if not any(mount.dest == "/" for mount in op.mounts):
        raise SolveError("the process has no root file system")
    # The definition of a mount of another kind leaves its output at 0, which means nothing.
    kinds = (MountType.BIND, MountType.CACHE)
    outputs = sorted(mount.output for mount in op.mounts if mount.output >= 0 and mount.type in kinds)
    if outputs != list(range(len(outputs))):
        raise SolveError(f"the outputs of the mounts are not numbered from 0 without gaps: {outputs}")
    wanted = [device.name for device in op.cdi_devices if not device.optional]
    if wanted:
        raise SolveError(f"devices are not supported by this solver: {', '.join(wanted)}")


def process_of(op: ExecOp, prepared: Prepared, context: Context) -> Process:
    """The process of an op over what stands ready for it. Raises SolveError for a secret that is not there."""
    assert prepared.rootfs is not None
    return Process(
        args=op.meta.args,
        env=_env(op, context),
        cwd=op.meta.cwd or "/",
        user=op.meta.user,
        rootfs=prepared.rootfs,
        mounts=tuple(sorted(prepared.binds, key=lambda bind: bind.dest)),
        hostname=op.meta.hostname,
        network=op.network,
        security=op.security,
        extra_hosts=op.meta.extra_hosts,
        ulimit=op.meta.ulimit,
        cgroup_parent=op.meta.cgroup_parent,
        readonly_root=prepared.readonly_root,
        remove_mount_stubs=op.meta.remove_mount_stubs_recursive,
    )


def _run(vertex: Vertex, op: ExecOp, prepared: Prepared, context: Context) -> None:
    tail = bytearray()
    clip = Clip(context.log)

    def output(stream: int, data: bytes) -> None:
        tail.extend(data)
        del tail[:-_LOG_LIMIT]
        clip.write(stream, data)

    process = replace(process_of(op, prepared, context), resources=_resources(vertex))
    try:
        code = context.executor().run(process, output, context.cancel)
    except ExecError as error:
        context.check()
        clip.finish(bytes(tail))
        raise SolveError(f"{_shown(op)}: {error}", log=bytes(tail), exit_code=error.exit_code) from error
    context.check()
    if code not in (op.meta.valid_exit_codes or (0,)):
        clip.finish(bytes(tail))
        raise SolveError(f"{_shown(op)}: exit code: {code}", exit_code=code, log=bytes(tail))


def _shown(op: ExecOp) -> str:
    from ...frontend.dockerfile.gotext import quote

    return f"process {quote(' '.join(op.meta.args))} did not complete successfully"


def _resources(vertex: Vertex) -> Resources:
    limits = vertex.metadata.resources
    if limits is None:
        return Resources()
    return Resources(
        memory=limits.memory,
        memory_swap=limits.memory_swap,
        cpu_shares=limits.cpu_shares,
        cpu_period=limits.cpu_period,
        cpu_quota=limits.cpu_quota,
        cpuset_cpus=limits.cpuset_cpus,
        cpuset_mems=limits.cpuset_mems,
    )


def _env(op: ExecOp, context: Context) -> tuple[str, ...]:
    env = [*op.meta.env, *_proxy(op.meta.proxy_env)]
    if not any(entry.startswith("PATH=") for entry in env):
        env.append(f"PATH={_DEFAULT_PATH}")
    for secret in op.secretenv:
        if not secret.id:
            raise SolveError(f"secret ID missing for {secret.name!r} environment variable")
        data = context.session.secret(secret.id)
        if data is None and not secret.optional:
            raise _no_secret(secret.id, f"env={secret.name}")
        try:
            text = (data or b"").decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise SolveError(f"secret {secret.id} is not text, so it can't be a variable")
        env.append(f"{secret.name}={text}")
    return tuple(env)


def _no_secret(id: str, form: str) -> SolveError:
    return SolveError(f"secret {id}: not found", hint=f"give it with --secret id={id},{form}")


def _proxy(proxy: ProxyEnv | None) -> list[str]:
    if proxy is None:
        return []
    names = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    found = [(name, getattr(proxy, name)) for name in names if getattr(proxy, name)]
    return [f"{key}={value}" for name, value in found for key in (name.upper(), name)]


@contextmanager
def mounted(op: ExecOp, inputs: Sequence[Result], context: Context, out: Prepared) -> Iterator[Path]:
    """Everything that the process sees, for the time of the block; gives the root."""
    with ExitStack() as stack:
        caches = CacheFolders(context, f"exec {' '.join(op.meta.args)}", stack)
        for mount in op.mounts:
            context.check()
            if mount.input >= len(inputs):
                raise SolveError(f"missing input {mount.input}")
            snapshot = inputs[mount.input].snapshot if mount.input >= 0 else None
            _add(mount, snapshot, op, context, out, caches, stack)
        assert out.rootfs is not None
        yield out.rootfs


def _add(
    mount: Mount,
    snapshot: str | None,
    op: ExecOp,
    context: Context,
    out: Prepared,
    caches: CacheFolders,
    stack: ExitStack,
) -> None:
    if mount.dest == "/" and mount.type is not MountType.BIND:
        raise SolveError(f"invalid mount type {mount.type.name} for /")
    try:
        dest = from_root(mount.dest if mount.dest.startswith("/") else posixpath.join(op.meta.cwd or "/", mount.dest))
    except UnsafePath as error:
        raise SolveError(f"mount: {error}") from error
    match mount.type:
        case MountType.BIND:
            folder = _bind(mount, snapshot, context, out, stack)
            if dest == "/":
                out.rootfs, out.readonly_root = folder, mount.readonly
                return
            bind = BindMount(dest[1:], selected(folder, mount.selector), readonly=mount.readonly)
        case MountType.CACHE:
            bind = BindMount(dest[1:], caches.folder(mount, snapshot), readonly=mount.readonly)
            if mount.output >= 0:
                out.outputs[mount.output] = snapshot
        case MountType.TMPFS:
            bind = BindMount(dest[1:], None, readonly=mount.readonly, kind="tmpfs", size=mount.tmpfs_size)
        case MountType.SECRET:
            secret = _secret(mount, context, stack)
            if secret is None:
                return
            bind = BindMount(dest[1:], secret, readonly=True)
        case MountType.SSH:
            socket = _ssh(mount, context, stack)
            if socket is None:
                return
            bind = BindMount(dest[1:], socket)
    if dest == "/":
        raise SolveError(f"invalid mount target {mount.dest!r}")
    out.binds.append(bind)


def _bind(mount: Mount, snapshot: str | None, context: Context, out: Prepared, stack: ExitStack) -> Path:
    """The folder of an input, or of a new snapshot on it where the process may write or an output is wanted."""
    if mount.readonly and mount.dest != "/" and (mount.output < 0 or snapshot is not None):
        if mount.output >= 0:
            out.outputs[mount.output] = snapshot
        return stack.enter_context(context.snapshots.mounted(snapshot))
    made = context.snapshots.prepare(snapshot)
    out.made.append(made)
    if mount.output >= 0:
        out.outputs[mount.output] = made
    return stack.enter_context(context.snapshots.mounted(made, readonly=False))


def selected(folder: Path, selector: str) -> Path:
    """The file or folder of a mount's selector, links followed inside the folder. Raises SolveError."""
    try:
        if from_root(selector) == "/":
            return folder
        with Root(folder) as root:
            found = root.resolve(selector)
    except (OSError, UnsafePath) as error:
        raise SolveError(f"the source of a mount can't be reached: {selector!r}: {error}") from error
    if not found.exists():
        raise SolveError(f"the source of a mount is not there: {selector!r}: not found")
    return found


def _secret(mount: Mount, context: Context, stack: ExitStack) -> Path | None:
    """A file with a secret; None for one that nobody has and nothing needs."""
    option = mount.file
    if option is None or not option.id:
        raise SolveError("secret ID missing from mount options")
    data = context.session.secret(option.id)
    if data is None:
        if option.optional:
            return None
        raise _no_secret(option.id, "src=FILE")
    return stack.enter_context(secret_file(data, option, context.root))


def _ssh(mount: Mount, context: Context, stack: ExitStack) -> Path | None:
    """A socket to the client's agent, owned as the mount says; None for one that nobody has and nothing needs."""
    import os

    from ..ssh_agent import agent_socket

    option = mount.file
    id = option.id if option is not None else ""
    if not context.session.has_ssh(id):
        if option is not None and option.optional:
            return None
        name = id or "default"
        raise SolveError(f'no SSH key "{name}" forwarded from the client', hint=f"give one with --ssh {name}")
    path = stack.enter_context(agent_socket(context.session, id))
    if option is not None:
        if os.geteuid() == 0:
            os.chown(path, option.uid, option.gid)
        path.chmod(option.mode & 0o777 or 0o600)
    return path
