"""Vertices to the bytes of `pb.Op` and to definitions; the digests are those of BuildKit's own client.

BuildKit writes inputs, platform and constraints before the kind of op, whose field numbers are smaller. Protobuf's
Python library writes by number, so the two halves are encoded apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import cast

from ..oci.platform import Platform
from ..wire.pb import ops_pb2 as pb
from . import caps
from .graph import EncodedVertex, Metadata, Output, SourceRange, Vertex
from .ops import (
    EMPTY,
    BuildOp,
    ChownOpt,
    Copy,
    DiffOp,
    ExecOp,
    FileAction,
    FileOp,
    MergeOp,
    MkDir,
    MkFile,
    Mount,
    MountType,
    Rm,
    SourceOp,
    Symlink,
    UserName,
)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """The file that ops come from, for errors that point into it; `definition` gives the folder it was read from."""

    filename: str
    data: bytes
    language: str = "Dockerfile"
    definition: "Definition | None" = None

    def to_pb(self) -> pb.SourceInfo:
        """The wire form."""
        info = pb.SourceInfo(filename=self.filename, data=self.data, language=self.language)
        if self.definition is not None:
            info.definition.CopyFrom(self.definition.to_pb())
        return info


@dataclass(frozen=True, slots=True)
class Definition:
    """A marshalled graph: op bytes, each after its inputs, the last one naming the result (`pb.Definition`)."""

    ops: tuple[bytes, ...] = ()
    metadata: Mapping[str, Metadata] = field(default_factory=dict)
    source: SourceFile | None = None

    @property
    def head(self) -> str:
        """The digest of the last op, empty for an empty file system."""
        return digest_of(self.ops[-1]) if self.ops else ""

    def to_pb(self) -> pb.Definition:
        """The wire form."""
        definition = pb.Definition()
        getattr(definition, "def").extend(self.ops)
        for digest, metadata in self.metadata.items():
            _metadata_to_pb(metadata, definition.metadata[digest])
        if self.source is not None:
            definition.Source.infos.append(self.source.to_pb())
            for digest, metadata in self.metadata.items():
                if metadata.locations:
                    location = definition.Source.locations[digest].locations.add()
                    for place in metadata.locations:
                        _range_to_pb(place, location.ranges.add())
        return definition


def digest_of(data: bytes) -> str:
    """The digest of op bytes."""
    return "sha256:" + sha256(data).hexdigest()


def marshal(output: Output | None, source: SourceFile | None = None) -> Definition:
    """The definition whose result is `output`; None is an empty file system, with no ops at all.

    Raises:
        ValueError: for an op that no solver takes, such as a process without arguments.
    """
    if output is None:
        return Definition(source=source)
    order: list[bytes] = []
    metadata: dict[str, Metadata] = {}
    digests: dict[Vertex, str] = {}
    pending: list[tuple[Vertex, int]] = [(output.vertex, 0)]
    while pending:
        vertex, position = pending.pop()
        if vertex in digests:
            continue
        walk = vertex.walk
        while position < len(walk) and walk[position].vertex in digests:
            position += 1
        if position < len(walk):
            pending.append((vertex, position + 1))
            pending.append((walk[position].vertex, 0))
            continue
        data = encode(vertex, digests)
        digest = digest_of(data)
        digests[vertex] = digest
        known = metadata.get(digest)
        if known is None:
            order.append(data)
            metadata[digest] = vertex.metadata
        else:
            metadata[digest] = _merge(known, vertex.metadata)
    terminal = pb.Op(inputs=[pb.Input(digest=digests[output.vertex], index=output.index)]).SerializeToString()
    asked = {caps.CONSTRAINTS, caps.PLATFORM}
    if any(m.description for m in metadata.values()):
        asked.add(caps.META_DESCRIPTION)
    if any(m.ignore_cache for m in metadata.values()):
        asked.add(caps.META_IGNORE_CACHE)
    metadata[digest_of(terminal)] = Metadata(caps=frozenset(asked))
    return Definition((*order, terminal), metadata, source)


def _merge(first: Metadata, second: Metadata) -> Metadata:
    return Metadata(
        description={**first.description, **second.description},
        caps=first.caps | second.caps,
        ignore_cache=first.ignore_cache or second.ignore_cache,
        progress_group=second.progress_group or first.progress_group,
        locations=first.locations + tuple(p for p in second.locations if p not in first.locations),
        resources=second.resources or first.resources,
    )


def encode(vertex: Vertex, digests: Mapping[Vertex, str]) -> bytes:
    """The bytes of one vertex's `pb.Op`; `digests` has those of its inputs."""
    if isinstance(vertex, EncodedVertex):
        return vertex.data
    op = vertex.op
    pairs = [(digests[o.vertex], o.index) for o in vertex.inputs]
    if isinstance(op, MergeOp | DiffOp):
        places = list(range(len(pairs)))
        unique = pairs
    else:
        known: dict[tuple[str, int], int] = {}
        places = [known.setdefault(pair, len(known)) for pair in pairs]
        unique = list(known)
    head = pb.Op(inputs=[pb.Input(digest=digest, index=index) for digest, index in unique])
    if vertex.platform is not None:
        head.platform.CopyFrom(_platform_to_pb(vertex.platform))
    head.constraints.SetInParent()
    body = pb.Op()
    if isinstance(op, ExecOp):
        _exec_to_pb(op, places, body.exec)
    elif isinstance(op, SourceOp):
        body.source.identifier = op.identifier
        body.source.attrs.update(op.attrs)
    elif isinstance(op, FileOp):
        for action in op.actions:
            _action_to_pb(action, places, len(unique), body.file.actions.add())
    elif isinstance(op, MergeOp):
        for position in op.inputs:
            body.merge.inputs.add(input=position)
    elif isinstance(op, DiffOp):
        body.diff.lower.input = op.lower
        body.diff.upper.input = op.upper
    elif isinstance(op, BuildOp):
        body.build.builder = EMPTY
        body.build.inputs["buildkit.llb.definition"].input = places[op.definition]
        body.build.attrs["llb.filename"] = op.filename
    else:
        body.passthrough.id = op.id
        body.passthrough.outputs.extend(places[position] for position in op.outputs)
    return head.SerializeToString(deterministic=True) + body.SerializeToString(deterministic=True)


def _platform_to_pb(platform: Platform) -> pb.Platform:
    return pb.Platform(
        OS=platform.os,
        Architecture=platform.architecture,
        Variant=platform.variant,
        OSVersion=platform.os_version,
        OSFeatures=list(platform.os_features),
    )


def _place(position: int, places: list[int], inputs: int) -> int:
    """Where an input stands once equal inputs are one; from the inputs' end on it counts earlier actions."""
    if position < 0:
        return position
    return places[position] if position < len(places) else position - len(places) + inputs


def _exec_to_pb(op: ExecOp, places: list[int], out: pb.ExecOp) -> None:
    meta = op.meta
    if not meta.args:
        raise ValueError("a process needs at least one argument")
    out.meta.args.extend(meta.args)
    out.meta.env.extend(meta.env)
    out.meta.cwd = meta.cwd
    out.meta.user = meta.user
    out.meta.hostname = meta.hostname
    out.meta.cgroupParent = meta.cgroup_parent
    out.meta.removeMountStubsRecursive = meta.remove_mount_stubs_recursive
    out.meta.validExitCodes.extend(meta.valid_exit_codes)
    if (proxy := meta.proxy_env) is not None:
        out.meta.proxy_env.SetInParent()
        out.meta.proxy_env.http_proxy = proxy.http_proxy
        out.meta.proxy_env.https_proxy = proxy.https_proxy
        out.meta.proxy_env.ftp_proxy = proxy.ftp_proxy
        out.meta.proxy_env.no_proxy = proxy.no_proxy
        out.meta.proxy_env.all_proxy = proxy.all_proxy
    for host in meta.extra_hosts:
        out.meta.extraHosts.add(Host=host.host, IP=host.ip)
    for limit in meta.ulimit:
        out.meta.ulimit.add(Name=limit.name, Soft=limit.soft, Hard=limit.hard)
    out.network = cast(pb.NetMode, int(op.network))
    out.security = cast(pb.SecurityMode, int(op.security))
    for secret in op.secretenv:
        out.secretenv.add(ID=secret.id, name=secret.name, optional=secret.optional)
    for device in op.cdi_devices:
        out.cdiDevices.add(name=device.name, optional=device.optional)
    for mount in op.mounts:
        _mount_to_pb(mount, places, out.mounts.add())


def _mount_to_pb(mount: Mount, places: list[int], out: pb.Mount) -> None:
    out.input = places[mount.input] if mount.input >= 0 else EMPTY
    out.selector = mount.selector
    out.dest = mount.dest
    out.output = mount.output
    out.readonly = mount.readonly
    out.mountType = cast(pb.MountType, int(mount.type))
    out.contentCache = cast(pb.MountContentCache, int(mount.content_cache))
    if mount.type is MountType.TMPFS:
        out.TmpfsOpt.SetInParent()
        out.TmpfsOpt.size = mount.tmpfs_size
    elif mount.type is MountType.CACHE:
        out.cacheOpt.ID = mount.cache_id
        out.cacheOpt.sharing = cast(pb.CacheSharingOpt, int(mount.cache_sharing))
    elif mount.type is not MountType.BIND and mount.file is not None:
        file = out.secretOpt if mount.type is MountType.SECRET else out.SSHOpt
        file.SetInParent()
        file.ID = mount.file.id
        file.uid = mount.file.uid
        file.gid = mount.file.gid
        file.mode = mount.file.mode
        file.optional = mount.file.optional


def _action_to_pb(action: FileAction, places: list[int], inputs: int, out: pb.FileAction) -> None:
    out.input = _place(action.input, places, inputs)
    out.secondaryInput = _place(action.secondary_input, places, inputs)
    out.output = action.output
    kind = action.action
    if isinstance(kind, Copy):
        copy = out.copy
        copy.src = kind.src
        copy.dest = kind.dest
        copy.mode = 0 if kind.mode_str else kind.mode
        copy.modeStr = kind.mode_str
        copy.followSymlink = kind.follow_symlink
        copy.dirCopyContents = kind.dir_copy_contents
        copy.attemptUnpackDockerCompatibility = kind.attempt_unpack
        copy.createDestPath = kind.create_dest_path
        copy.allowWildcard = kind.allow_wildcard
        copy.allowEmptyWildcard = kind.allow_empty_wildcard
        copy.timestamp = kind.timestamp
        copy.include_patterns.extend(kind.include_patterns)
        copy.exclude_patterns.extend(kind.exclude_patterns)
        copy.alwaysReplaceExistingDestPaths = kind.always_replace_existing_dest_paths
        copy.required_paths.extend(kind.required_paths)
        _owner_to_pb(kind.owner, places, copy)
    elif isinstance(kind, MkFile):
        out.mkfile.path = kind.path
        out.mkfile.mode = kind.mode
        out.mkfile.data = kind.data
        out.mkfile.timestamp = kind.timestamp
        _owner_to_pb(kind.owner, places, out.mkfile)
    elif isinstance(kind, MkDir):
        out.mkdir.path = kind.path
        out.mkdir.mode = kind.mode
        out.mkdir.makeParents = kind.make_parents
        out.mkdir.timestamp = kind.timestamp
        _owner_to_pb(kind.owner, places, out.mkdir)
    elif isinstance(kind, Rm):
        out.rm.path = kind.path
        out.rm.allowNotFound = kind.allow_not_found
        out.rm.allowWildcard = kind.allow_wildcard
    else:
        symlink: Symlink = kind
        out.symlink.oldpath = symlink.oldpath
        out.symlink.newpath = symlink.newpath
        out.symlink.timestamp = symlink.timestamp
        _owner_to_pb(symlink.owner, places, out.symlink)


def _owner_to_pb(
    owner: ChownOpt | None,
    places: list[int],
    out: pb.FileActionCopy | pb.FileActionMkFile | pb.FileActionMkDir | pb.FileActionSymlink,
) -> None:
    if owner is None:
        return
    out.owner.SetInParent()
    for value, field_ in ((owner.user, "user"), (owner.group, "group")):
        if value is None:
            continue
        option = getattr(out.owner, field_)
        if isinstance(value, UserName):
            option.byName.name = value.name
            option.byName.input = places[value.input] if value.input >= 0 else EMPTY
        else:
            option.byID = value & 0xFFFFFFFF


def _metadata_to_pb(metadata: Metadata, out: pb.OpMetadata) -> None:
    out.ignore_cache = metadata.ignore_cache
    out.description.update(metadata.description)
    for cap in metadata.caps:
        out.caps[cap] = True
    if (group := metadata.progress_group) is not None:
        out.progress_group.id = group.id
        out.progress_group.name = group.name
        out.progress_group.weak = group.weak
    if (limits := metadata.resources) is not None:
        out.linux_resources.SetInParent()
        out.linux_resources.memory = limits.memory
        out.linux_resources.memorySwap = limits.memory_swap
        out.linux_resources.cpuShares = limits.cpu_shares
        out.linux_resources.cpuPeriod = limits.cpu_period
        out.linux_resources.cpuQuota = limits.cpu_quota
        out.linux_resources.cpusetCpus = limits.cpuset_cpus
        out.linux_resources.cpusetMems = limits.cpuset_mems


def _range_to_pb(place: SourceRange, out: pb.Range) -> None:
    out.start.line = place.start_line
    out.start.character = place.start_column
    out.end.line = place.end_line
    out.end.character = place.end_column
