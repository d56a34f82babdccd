"""A definition off the wire to a graph of vertices, checked: every input known, every op of a kind we can solve."""

from dataclasses import dataclass, replace

from ..oci.platform import Platform
from ..wire.pb import ops_pb2 as pb
from .graph import EncodedVertex, LinuxResources, Metadata, Output, ProgressGroup, SourceRange, Vertex
from .marshal import digest_of
from .ops import (
    EMPTY,
    BuildOp,
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
    OpKind,
    PassthroughOp,
    ProxyEnv,
    Rm,
    SecretEnv,
    SecurityMode,
    SourceOp,
    Symlink,
    Ulimit,
    UserName,
)


class DefinitionError(ValueError):
    """A definition that is broken or asks for something that is not supported."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A loaded definition; `result` is None for an empty file system. `digests` has every vertex's digest."""

    result: Output | None
    digests: dict[Vertex, str]


def load(definition: pb.Definition) -> Graph:
    """The graph that `definition` holds.

    Raises:
        DefinitionError: for bytes that are no op, an input that is not in the definition or comes after its user, an
            input index out of range, or a kind of op that is not supported (named).
    """
    ops = list(getattr(definition, "def"))
    if not ops:
        return Graph(None, {})
    vertices: dict[str, Vertex] = {}
    digests: dict[Vertex, str] = {}
    for data in ops[:-1]:
        digest = digest_of(data)
        message = _parse(data, digest)
        try:
            vertex = _vertex(message, _inputs(message, vertices, digest), _metadata(definition, digest), digest)
        except DefinitionError:
            raise
        except ValueError as error:
            raise DefinitionError(f"{digest}: {error}") from None
        vertices[digest] = vertex
        digests[vertex] = digest
    terminal = _parse(ops[-1], "the last op")
    if terminal.WhichOneof("op") is not None or len(terminal.inputs) != 1:
        raise DefinitionError("the last op of a definition must hold one input and nothing else")
    return Graph(_inputs(terminal, vertices, "the last op")[0], digests)


def given(definition: pb.Definition) -> Output | None:
    """The result of a definition that goes into another one with its bytes as they are; None where it is empty.

    Raises:
        DefinitionError: as `load` does.
    """
    graph = load(definition)
    if graph.result is None:
        return None
    data = {digest_of(encoded): encoded for encoded in getattr(definition, "def")}
    made: dict[Vertex, Vertex] = {}
    for vertex, digest in graph.digests.items():
        inputs = [Output(made[i.vertex], i.index) for i in vertex.inputs]
        metadata = replace(vertex.metadata, locations=())
        made[vertex] = EncodedVertex(data[digest], vertex.op, inputs, vertex.platform, metadata)
    return Output(made[graph.result.vertex], graph.result.index)


def _parse(data: bytes, name: str) -> pb.Op:
    try:
        return pb.Op.FromString(data)
    except Exception as error:
        raise DefinitionError(f"{name} is not an encoded op: {error}") from None


def _inputs(message: pb.Op, vertices: dict[str, Vertex], name: str) -> list[Output]:
    out = []
    for ref in message.inputs:
        vertex = vertices.get(ref.digest)
        if vertex is None:
            raise DefinitionError(f"{name} reads {ref.digest}, which is not in the definition before it")
        if ref.index < 0:
            raise DefinitionError(f"{name} reads output {ref.index} of {ref.digest}")
        out.append(Output(vertex, ref.index))
    return out


def _metadata(definition: pb.Definition, digest: str) -> Metadata:
    locations: list[SourceRange] = []
    if digest in definition.Source.locations:
        for location in definition.Source.locations[digest].locations:
            locations += [
                SourceRange(r.start.line, r.end.line, r.start.character, r.end.character) for r in location.ranges
            ]
    if digest not in definition.metadata:
        return Metadata(locations=tuple(locations))
    message = definition.metadata[digest]
    group = None
    if message.HasField("progress_group"):
        group = ProgressGroup(message.progress_group.id, message.progress_group.name, message.progress_group.weak)
    resources = None
    if message.HasField("linux_resources"):
        r = message.linux_resources
        resources = LinuxResources(
            r.memory, r.memorySwap, r.cpuShares, r.cpuPeriod, r.cpuQuota, r.cpusetCpus, r.cpusetMems
        )
    return Metadata(
        description=dict(message.description),
        caps=frozenset(cap for cap, on in message.caps.items() if on),
        ignore_cache=message.ignore_cache,
        progress_group=group,
        locations=tuple(locations),
        resources=resources,
    )


def _vertex(message: pb.Op, inputs: list[Output], metadata: Metadata, name: str) -> Vertex:
    kind = message.WhichOneof("op")
    op: OpKind
    if kind == "exec":
        op = _exec(message.exec)
        used = [mount.input for mount in op.mounts]
    elif kind == "source":
        op = SourceOp(message.source.identifier, dict(message.source.attrs))
        used = []
    elif kind == "file":
        op = FileOp(tuple(_action(action) for action in message.file.actions))
        if not op.actions:
            raise DefinitionError(f"{name}: a file op without actions")
        used = [EMPTY]
        for position, action in enumerate(op.actions):
            if max(action.input, action.secondary_input) >= len(inputs) + position:
                raise DefinitionError(f"{name}: file action {position} reads an input that is not there")
    elif kind == "merge":
        op = MergeOp(tuple(i.input for i in message.merge.inputs))
        used = list(op.inputs)
    elif kind == "diff":
        op = DiffOp(message.diff.lower.input, message.diff.upper.input)
        used = [op.lower, op.upper]
    elif kind == "build":
        op = _build(message.build, name)
        used = [op.definition]
    elif kind == "passthrough":
        op = PassthroughOp(message.passthrough.id, tuple(message.passthrough.outputs))
        if not op.id or not op.outputs or min(op.outputs) < 0:
            raise DefinitionError(f"{name}: a passthrough op without id, or with outputs that are no inputs")
        used = list(op.outputs)
    else:
        raise DefinitionError(f"{name}: an op of kind {kind or 'unknown'!r} is not supported")
    if any(position >= len(inputs) or position < EMPTY for position in used):
        raise DefinitionError(f"{name}: an input that is not there")
    platform = None
    if message.HasField("platform"):
        p = message.platform
        platform = Platform(p.OS, p.Architecture, p.Variant, p.OSVersion, tuple(p.OSFeatures))
    return Vertex(op, inputs, platform, metadata)


def _build(message: pb.BuildOp, name: str) -> BuildOp:
    if message.builder != EMPTY:
        raise DefinitionError(f"{name}: a build op with a builder of its own is not supported")
    wanted = "buildkit.llb.definition"
    if wanted not in message.inputs:
        raise DefinitionError(f"{name}: a build op without the input {wanted}")
    filename = message.attrs.get("llb.filename", "") or f"/{wanted}"
    return BuildOp(message.inputs[wanted].input, filename)


def _exec(message: pb.ExecOp) -> ExecOp:
    return ExecOp(
        meta_of(message.meta),
        tuple(mount_of(mount) for mount in message.mounts),
        NetMode(message.network),
        SecurityMode(message.security),
        tuple(SecretEnv(s.ID, s.name, s.optional) for s in message.secretenv),
        tuple(CDIDevice(d.name, d.optional) for d in message.cdiDevices),
    )


def meta_of(meta: pb.Meta) -> Meta:
    """A process off the wire."""
    proxy = None
    if meta.HasField("proxy_env"):
        p = meta.proxy_env
        proxy = ProxyEnv(p.http_proxy, p.https_proxy, p.ftp_proxy, p.no_proxy, p.all_proxy)
    return Meta(
        args=tuple(meta.args),
        env=tuple(meta.env),
        cwd=meta.cwd,
        user=meta.user,
        proxy_env=proxy,
        extra_hosts=tuple(HostIP(h.Host, h.IP) for h in meta.extraHosts),
        hostname=meta.hostname,
        ulimit=tuple(Ulimit(u.Name, u.Soft, u.Hard) for u in meta.ulimit),
        cgroup_parent=meta.cgroupParent,
        remove_mount_stubs_recursive=meta.removeMountStubsRecursive,
        valid_exit_codes=tuple(meta.validExitCodes),
    )


def mount_of(message: pb.Mount) -> Mount:
    """A mount off the wire. Raises ValueError for a kind that is not known."""
    file = None
    kind = MountType(int(message.mountType))
    if kind in (MountType.SECRET, MountType.SSH):
        option = message.secretOpt if kind is MountType.SECRET else message.SSHOpt
        file = FileOpt(option.ID, option.uid, option.gid, option.mode, option.optional)
    return Mount(
        dest=message.dest,
        input=message.input,
        selector=message.selector,
        output=message.output,
        readonly=message.readonly,
        type=kind,
        tmpfs_size=message.TmpfsOpt.size,
        cache_id=message.cacheOpt.ID,
        cache_sharing=CacheSharing(message.cacheOpt.sharing),
        file=file,
        content_cache=message.contentCache,
    )


def _user(message: pb.UserOpt) -> UserName | int | None:
    which = message.WhichOneof("user")
    if which == "byName":
        return UserName(message.byName.name, message.byName.input)
    return message.byID if which == "byID" else None


def _owner(
    message: pb.FileActionCopy | pb.FileActionMkFile | pb.FileActionMkDir | pb.FileActionSymlink,
) -> ChownOpt | None:
    if not message.HasField("owner"):
        return None
    owner = message.owner
    return ChownOpt(
        _user(owner.user) if owner.HasField("user") else None, _user(owner.group) if owner.HasField("group") else None
    )


def _action(message: pb.FileAction) -> FileAction:
    kind = message.WhichOneof("action")
    action: Copy | MkFile | MkDir | Rm | Symlink
    if kind == "copy":
        c = message.copy
        action = Copy(
            src=c.src,
            dest=c.dest,
            owner=_owner(c),
            mode=c.mode,
            mode_str=c.modeStr,
            follow_symlink=c.followSymlink,
            dir_copy_contents=c.dirCopyContents,
            attempt_unpack=c.attemptUnpackDockerCompatibility,
            create_dest_path=c.createDestPath,
            allow_wildcard=c.allowWildcard,
            allow_empty_wildcard=c.allowEmptyWildcard,
            timestamp=c.timestamp,
            include_patterns=tuple(c.include_patterns),
            exclude_patterns=tuple(c.exclude_patterns),
            always_replace_existing_dest_paths=c.alwaysReplaceExistingDestPaths,
            required_paths=tuple(c.required_paths),
        )
    elif kind == "mkfile":
        f = message.mkfile
        action = MkFile(f.path, f.mode, f.data, _owner(f), f.timestamp)
    elif kind == "mkdir":
        d = message.mkdir
        action = MkDir(d.path, d.mode, d.makeParents, _owner(d), d.timestamp)
    elif kind == "rm":
        action = Rm(message.rm.path, message.rm.allowNotFound, message.rm.allowWildcard)
    elif kind == "symlink":
        s = message.symlink
        action = Symlink(s.oldpath, s.newpath, _owner(s), s.timestamp)
    else:
        raise DefinitionError(f"a file action of kind {kind or 'unknown'!r} is not supported")
    return FileAction(action, message.input, message.secondaryInput, message.output)
