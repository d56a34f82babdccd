"""An immutable file system with the surroundings of its processes: what a frontend builds with.

Every method returns a new State. The ops they make are those of BuildKit's own client (client/llb), so that the
digests are equal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ..oci.platform import Platform
from . import caps
from .caps import ALL, CapSet
from .graph import LinuxResources, Metadata, Output, ProgressGroup, SourceRange, Vertex
from .ops import (
    EMPTY,
    SKIP_OUTPUT,
    CacheSharing,
    CDIDevice,
    ChownOpt,
    Copy,
    DiffOp,
    ExecOp,
    FileAction,
    FileOp,
    FileOpt,
    HostIP,
    MergeOp,
    Meta,
    MkDir,
    MkFile,
    Mount,
    MountType,
    NetMode,
    ProxyEnv,
    Rm,
    SecretEnv,
    SecurityMode,
    SourceOp,
    Symlink,
    Ulimit,
    UserName,
)
from .paths import join

CUSTOM_NAME = "llb.customname"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NO_ENV: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Notes:
    """What an op carries beside its content: its name in the progress, other descriptions, its place in the source."""

    name: str = ""
    description: Mapping[str, str] = field(default_factory=dict)
    ignore_cache: bool = False
    progress_group: ProgressGroup | None = None
    locations: tuple[SourceRange, ...] = ()
    resources: LinuxResources | None = None

    def metadata(self, *wanted: str) -> Metadata:
        """The op's metadata, with the capabilities it asks for."""
        description = dict(self.description)
        if self.name:
            description[CUSTOM_NAME] = self.name
        if self.resources is not None:
            wanted = (*wanted, caps.EXEC_META_LINUX_RESOURCES)
        return Metadata(
            description, frozenset(wanted), self.ignore_cache, self.progress_group, self.locations, self.resources
        )


@dataclass(frozen=True, slots=True)
class RunMount:
    """A mount of a process: `source` None is an empty file system; `cache_id` makes it a cache, `tmpfs` a tmpfs."""

    target: str
    source: Output | None = None
    selector: str = ""
    readonly: bool = False
    no_output: bool = False
    tmpfs: bool = False
    tmpfs_size: int = 0
    cache_id: str = ""
    cache_sharing: CacheSharing = CacheSharing.SHARED


@dataclass(frozen=True, slots=True)
class RunSecret:
    """A secret as a file at `target`, as the variable `env`, or both."""

    id: str
    target: str | None
    env: str | None = None
    uid: int = 0
    gid: int = 0
    mode: int = 0o400
    optional: bool = False


@dataclass(frozen=True, slots=True)
class RunSSH:
    """An ssh agent's socket; an empty `target` is numbered under /run/buildkit."""

    id: str = ""
    target: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0o600
    optional: bool = False


@dataclass(frozen=True, slots=True)
class CopyFrom:
    """A copy with the file system that it reads."""

    source: "State"
    copy: Copy


FileStep = CopyFrom | MkDir | MkFile | Rm | Symlink


@dataclass(frozen=True, slots=True)
class State:
    """A file system (`output` None: empty) and what a process on it would see."""

    output: Output | None = None
    platform: Platform | None = None
    env: Mapping[str, str] = field(default_factory=lambda: _NO_ENV)
    cwd: str = "/"
    user: str = ""
    hostname: str = ""
    network: NetMode = NetMode.SANDBOX

    def with_env(self, key: str, value: str) -> "State":
        """With one variable set; a variable that is set again moves to the end, as in BuildKit."""
        env = dict(self.env)
        env.pop(key, None)
        env[key] = value
        return replace(self, env=env)

    def with_dir(self, path: str) -> "State":
        """With another working directory; a relative one is joined to this one's."""
        return replace(self, cwd=path if path.startswith("/") else join(self.cwd, path))

    def with_user(self, user: str) -> "State":
        """With another user: a name or number, with `:group` if wanted."""
        return replace(self, user=user)

    def run(
        self,
        args: Sequence[str],
        *,
        mounts: Sequence[RunMount] = (),
        secrets: Sequence[RunSecret] = (),
        ssh: Sequence[RunSSH] = (),
        network: NetMode | None = None,
        security: SecurityMode = SecurityMode.SANDBOX,
        proxy: ProxyEnv | None = None,
        extra_hosts: Sequence[HostIP] = (),
        ulimit: Sequence[Ulimit] = (),
        devices: Sequence[CDIDevice] = (),
        cgroup_parent: str = "",
        notes: Notes | None = None,
        result_of: str = "/",
        known: CapSet = ALL,
    ) -> "State":
        """The file system after a process has run on it, or the mount at `result_of`.

        What the op says depends on what the solver knows: an old one needs a PATH in the environment, for example.
        """
        wanted = {caps.EXEC_META_BASE}
        if caps.EXEC_META_SETS_DEFAULT_PATH in known:
            wanted.add(caps.EXEC_META_SETS_DEFAULT_PATH)
        net = self.network if network is None else network
        if net is not NetMode.SANDBOX:
            wanted.add(caps.EXEC_META_NETWORK)
        if security is not SecurityMode.SANDBOX:
            wanted.add(caps.EXEC_META_SECURITY)
        if proxy is not None:
            wanted.add(caps.EXEC_META_PROXY)
        if ulimit:
            wanted.add(caps.EXEC_META_ULIMIT)
        if devices:
            wanted.add(caps.EXEC_META_CDI)
        root = RunMount("/", self.output)
        inputs: list[Output] = []
        out: list[Mount] = []
        outputs = 0
        result = 0
        for mount in sorted((root, *mounts), key=lambda m: m.target.encode()):
            writes = not (mount.no_output or mount.readonly or mount.cache_id or mount.tmpfs)
            if mount.target == result_of:
                result = outputs
            out.append(
                Mount(
                    dest=mount.target,
                    input=len(inputs) if mount.source is not None else EMPTY,
                    selector=mount.selector,
                    output=outputs if writes else SKIP_OUTPUT,
                    readonly=mount.readonly,
                    type=MountType.CACHE if mount.cache_id else MountType.TMPFS if mount.tmpfs else MountType.BIND,
                    tmpfs_size=mount.tmpfs_size,
                    cache_id=mount.cache_id,
                    cache_sharing=mount.cache_sharing,
                )
            )
            outputs += writes
            if mount.source is not None:
                inputs.append(mount.source)
            wanted |= _mount_caps(mount)
        secretenv = tuple(SecretEnv(s.id, s.env, s.optional) for s in secrets if s.env is not None)
        for secret in secrets:
            if secret.target is not None:
                option = FileOpt(secret.id, secret.uid, secret.gid, secret.mode, secret.optional)
                out.append(Mount(secret.target, output=0, type=MountType.SECRET, file=option))
        if secrets:
            wanted.add(caps.EXEC_MOUNT_SECRET)
        if secretenv:
            wanted.add(caps.EXEC_SECRET_ENV)
        env = dict(self.env)
        for number, socket in enumerate(ssh):
            target = socket.target or f"/run/buildkit/ssh_agent.{number}"
            env.setdefault("SSH_AUTH_SOCK", target)
            option = FileOpt(socket.id, socket.uid, socket.gid, socket.mode, socket.optional)
            out.append(Mount(target, output=0, type=MountType.SSH, file=option))
            wanted.add(caps.EXEC_MOUNT_SSH)
        windows = self.platform is not None and self.platform.os == "windows"
        if caps.EXEC_META_SETS_DEFAULT_PATH not in known and not windows:
            env.setdefault("PATH", DEFAULT_PATH)
        meta = Meta(
            args=tuple(args),
            env=tuple(f"{key}={value}" for key, value in env.items()),
            cwd=self.cwd,
            user=self.user,
            proxy_env=proxy,
            extra_hosts=tuple(extra_hosts),
            hostname=self.hostname,
            ulimit=tuple(ulimit),
            cgroup_parent=cgroup_parent,
            # BuildKit has a capability of this name, but no version of it announces it.
            remove_mount_stubs_recursive=True,
        )
        op = ExecOp(meta, tuple(out), net, security, secretenv, tuple(devices))
        vertex = Vertex(op, inputs, self.platform, (notes or Notes()).metadata(*wanted))
        return replace(self, output=Output(vertex, result))

    def file(self, steps: Sequence[FileStep], notes: Notes | None = None) -> "State":
        """The file system after these steps, one after the other, as one op."""
        inputs: list[Output] = []
        if self.output is not None:
            inputs.append(self.output)
        base = 0 if inputs else EMPTY
        sources: list[Output] = []
        placed: list[tuple[Copy | MkDir | MkFile | Rm | Symlink, int]] = []
        for step in steps:
            if isinstance(step, CopyFrom):
                position = EMPTY
                if step.source.output is not None:
                    position = len(inputs)
                    inputs.append(step.source.output)
                    sources.append(step.source.output)
                placed.append((_owned(step.copy, base), position))
            else:
                placed.append((_owned(step, base), EMPTY))
        actions = tuple(
            FileAction(
                action,
                input=base if number == 0 else len(inputs) + number - 1,
                secondary_input=secondary,
                output=0 if number == len(placed) - 1 else SKIP_OUTPUT,
            )
            for number, (action, secondary) in enumerate(placed)
        )
        walk = ([self.output] if self.output is not None else []) + sources[::-1]
        vertex = Vertex(FileOp(actions), inputs, None, (notes or Notes()).metadata(caps.FILE_BASE), walk)
        return replace(self, output=Output(vertex))

    def merged_with(self, *others: "State", notes: Notes | None = None) -> "State":
        """This file system with others laid over it; empty ones don't count."""
        inputs = [state.output for state in (self, *others) if state.output is not None]
        if not inputs:
            return replace(self, output=None)
        if len(inputs) == 1:
            return replace(self, output=inputs[0])
        vertex = Vertex(MergeOp(tuple(range(len(inputs)))), inputs, None, (notes or Notes()).metadata(caps.MERGE_OP))
        return replace(self, output=Output(vertex))


def diff(lower: State, upper: State, notes: Notes | None = None) -> State:
    """What `upper` has that `lower` has not, on an empty file system."""
    inputs: list[Output] = []
    places: list[int] = []
    for state in (lower, upper):
        places.append(len(inputs) if state.output is not None else EMPTY)
        if state.output is not None:
            inputs.append(state.output)
    vertex = Vertex(DiffOp(places[0], places[1]), inputs, None, (notes or Notes()).metadata(caps.DIFF_OP))
    return State(output=Output(vertex), platform=upper.platform)


def source(
    identifier: str,
    attrs: Mapping[str, str] | None = None,
    *,
    platform: Platform | None = None,
    wanted: Sequence[str] = (),
    notes: Notes | None = None,
) -> State:
    """A file system from outside. Only image sources are given the platform in their op."""
    in_op = platform if identifier.startswith(("docker-image://", "oci-layout://")) else None
    vertex = Vertex(SourceOp(identifier, dict(attrs or {})), (), in_op, (notes or Notes()).metadata(*wanted))
    return State(output=Output(vertex), platform=platform)


def chown(spec: str) -> ChownOpt | None:
    """The owner that `user[:group]` names; numbers and `root` become ids."""
    if not spec:
        return None
    user, separator, group = spec.partition(":")
    return ChownOpt(_user(user), _user(group) if separator else None)


def _user(text: str) -> UserName | int:
    if text == "root":
        return 0
    digits = text[1:] if text[:1] in ("+", "-") else text
    if digits.isascii() and digits.isdigit() and -(2**31) <= int(text) < 2**31:
        return int(text)
    return UserName(text) if text else 0


def _owned(action: Copy | MkDir | MkFile | Rm | Symlink, base: int) -> Copy | MkDir | MkFile | Rm | Symlink:
    """The action with the names of its owner looked up in the file system that the op starts from."""
    if isinstance(action, Rm) or action.owner is None:
        return action

    def based(user: UserName | int | None) -> UserName | int | None:
        return UserName(user.name, base) if isinstance(user, UserName) else user

    return replace(action, owner=ChownOpt(based(action.owner.user), based(action.owner.group)))


def _mount_caps(mount: RunMount) -> set[str]:
    wanted = {caps.EXEC_MOUNT_SELECTOR} if mount.selector else set()
    if mount.cache_id:
        wanted |= {caps.EXEC_MOUNT_CACHE, caps.EXEC_MOUNT_CACHE_SHARING}
    elif mount.tmpfs:
        wanted.add(caps.EXEC_MOUNT_TMPFS)
        if mount.tmpfs_size > 0:
            wanted.add(caps.EXEC_MOUNT_TMPFS_SIZE)
    elif mount.source is not None:
        wanted.add(caps.EXEC_MOUNT_BIND)
    return wanted
