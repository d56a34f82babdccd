"""The ops of a build graph as values: what `pb.Op` holds, one dataclass a kind (BuildKit's solver/pb/ops.proto).

Field names follow the protocol. An input is a position in the vertex's `inputs`; -1 (`EMPTY`) means an empty
file system.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType

EMPTY = -1
"""The input index of an empty file system."""
SKIP_OUTPUT = -1
"""The output index of a mount or file action whose result nothing reads."""
NO_ATTRS: Mapping[str, str] = MappingProxyType({})


class NetMode(IntEnum):
    """How a process reaches the network."""

    SANDBOX = 0
    HOST = 1
    NONE = 2


class SecurityMode(IntEnum):
    """The confinement of a process."""

    SANDBOX = 0
    INSECURE = 1


class MountType(IntEnum):
    """What a mount shows."""

    BIND = 0
    SECRET = 1
    SSH = 2
    CACHE = 3
    TMPFS = 4


class CacheSharing(IntEnum):
    """How concurrent builds share a cache mount."""

    SHARED = 0
    PRIVATE = 1
    LOCKED = 2


@dataclass(frozen=True, slots=True)
class ProxyEnv:
    """Proxy settings that a process sees and that do not count for its cache key."""

    http_proxy: str = ""
    https_proxy: str = ""
    ftp_proxy: str = ""
    no_proxy: str = ""
    all_proxy: str = ""


@dataclass(frozen=True, slots=True)
class HostIP:
    """One extra line of /etc/hosts."""

    host: str
    ip: str


@dataclass(frozen=True, slots=True)
class Ulimit:
    """One resource limit of a process."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class SecretEnv:
    """A secret shown as an environment variable."""

    id: str
    name: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class CDIDevice:
    """A device named in the Container Device Interface's form."""

    name: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Meta:
    """The process of an exec op."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    proxy_env: ProxyEnv | None = None
    extra_hosts: tuple[HostIP, ...] = ()
    hostname: str = ""
    ulimit: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    remove_mount_stubs_recursive: bool = False
    valid_exit_codes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FileOpt:
    """The owner and mode of a secret file or an ssh socket, and the id it is asked for by."""

    id: str
    uid: int = 0
    gid: int = 0
    mode: int = 0
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of an exec op; `dest` "/" is the root file system."""

    dest: str
    input: int = EMPTY
    selector: str = ""
    output: int = SKIP_OUTPUT
    readonly: bool = False
    type: MountType = MountType.BIND
    tmpfs_size: int = 0
    cache_id: str = ""
    cache_sharing: CacheSharing = CacheSharing.SHARED
    file: FileOpt | None = None
    content_cache: int = 0


@dataclass(frozen=True, slots=True)
class ExecOp:
    """Run a process over mounts; each mount with an output index gives one result."""

    meta: Meta
    mounts: tuple[Mount, ...]
    network: NetMode = NetMode.SANDBOX
    security: SecurityMode = SecurityMode.SANDBOX
    secretenv: tuple[SecretEnv, ...] = ()
    cdi_devices: tuple[CDIDevice, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceOp:
    """Something from outside: `docker-image://`, `local://`, `git://`, `https://`, `oci-layout://`."""

    identifier: str
    attrs: Mapping[str, str] = field(default_factory=lambda: NO_ATTRS)


@dataclass(frozen=True, slots=True)
class UserName:
    """A user or group by name, looked up in the file system of `input`."""

    name: str
    input: int = EMPTY


@dataclass(frozen=True, slots=True)
class ChownOpt:
    """The owner of what a file action makes: names or numbers."""

    user: UserName | int | None = None
    group: UserName | int | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy `src` of the secondary input to `dest`."""

    src: str
    dest: str
    owner: ChownOpt | None = None
    mode: int = -1
    mode_str: str = ""
    follow_symlink: bool = False
    dir_copy_contents: bool = False
    attempt_unpack: bool = False
    create_dest_path: bool = False
    allow_wildcard: bool = False
    allow_empty_wildcard: bool = False
    timestamp: int = -1
    include_patterns: tuple[str, ...] = ()
    exclude_patterns: tuple[str, ...] = ()
    always_replace_existing_dest_paths: bool = False
    required_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MkFile:
    """Make a file with `data`."""

    path: str
    mode: int
    data: bytes
    owner: ChownOpt | None = None
    timestamp: int = -1


@dataclass(frozen=True, slots=True)
class MkDir:
    """Make a directory."""

    path: str
    mode: int
    make_parents: bool = False
    owner: ChownOpt | None = None
    timestamp: int = -1


@dataclass(frozen=True, slots=True)
class Rm:
    """Remove a path."""

    path: str
    allow_not_found: bool = False
    allow_wildcard: bool = False


@dataclass(frozen=True, slots=True)
class Symlink:
    """Make `newpath` a symbolic link to `oldpath`."""

    oldpath: str
    newpath: str
    owner: ChownOpt | None = None
    timestamp: int = -1


@dataclass(frozen=True, slots=True)
class FileAction:
    """One step of a file op.

    `input` and `secondary_input` are positions in the vertex's inputs, or, from `len(inputs)` on, the result of an
    earlier action of the same op.
    """

    action: Copy | MkFile | MkDir | Rm | Symlink
    input: int = EMPTY
    secondary_input: int = EMPTY
    output: int = SKIP_OUTPUT


@dataclass(frozen=True, slots=True)
class FileOp:
    """Change files without running a process."""

    actions: tuple[FileAction, ...]


@dataclass(frozen=True, slots=True)
class MergeOp:
    """The inputs laid over each other, later ones on top."""

    inputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DiffOp:
    """What `upper` has that `lower` has not."""

    lower: int
    upper: int


@dataclass(frozen=True, slots=True)
class BuildOp:
    """Solve a definition that is a file of input number `definition`, and give its result (`pb.BuildOp`)."""

    definition: int
    filename: str = "/buildkit.llb.definition"


@dataclass(frozen=True, slots=True)
class PassthroughOp:
    """Some of the inputs again, once all of them are there."""

    id: str
    outputs: tuple[int, ...]


type_names = {
    ExecOp: "exec",
    SourceOp: "source",
    FileOp: "file",
    MergeOp: "merge",
    DiffOp: "diff",
    BuildOp: "build",
    PassthroughOp: "passthrough",
}
"""The protocol's name of each kind of op."""

OpKind = ExecOp | SourceOp | FileOp | MergeOp | DiffOp | BuildOp | PassthroughOp
