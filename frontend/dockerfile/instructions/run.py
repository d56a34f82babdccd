"""RUN: a process in the stage."""

from dataclasses import dataclass, replace
from typing import Any

from ....grammar.dockerfile.heredoc import chomp
from ....grammar.dockerfile.tree import Instruction
from ....grammar.dockerfile.words import Words
from ....llb import caps
from ....llb.ops import CacheSharing, CDIDevice, ChownOpt, MkDir, MkFile, NetMode, SecurityMode
from ....llb.paths import clean, join
from ....llb.state import Notes, RunMount, RunSecret, RunSSH, State
from ...lint.linter import Linter
from ..command import Command, Dispatch
from ..devices import parse_device
from ..errors import fail
from ..expansion import command_name, expand, numbered
from ..flags import Flags, Kind
from ..heredocs import marker_of, summary
from ..image import shell_of
from ..mounts import MountSpec, parse_mount
from ..outline import Wanted

FLAGS = {"mount": Kind.STRINGS, "network": Kind.STRING, "security": Kind.STRING, "device": Kind.STRINGS}
_NETWORKS = {"default": None, "none": NetMode.NONE, "host": NetMode.HOST}
_SECURITY = {"sandbox": SecurityMode.SANDBOX, "insecure": SecurityMode.INSECURE}
_PIPES = "/dev/pipes/"


@dataclass(frozen=True, slots=True)
class Run(Command):
    """RUN process; `origins` names what each mount is made from, "scratch" where it names nothing."""

    args: tuple[str, ...]
    shell: bool
    flags: Flags
    origins: tuple[str, ...]
    network: NetMode | None
    security: SecurityMode
    devices: tuple[CDIDevice, ...] = ()

    def sources(self) -> list[str]:
        """The stages and images of the mounts, one for each mount."""
        return list(self.origins)


def parse(node: Instruction, lint: Linter) -> Command:
    """Check the form."""
    flags = Flags(node, FLAGS)
    mounts = [
        parse_mount(node, flags.where("mount", number), text, None) for number, text in enumerate(flags.all("mount"))
    ]
    network = flags.get("network", "default")
    if network not in _NETWORKS:
        raise fail(
            node, f"invalid network mode {network!r}", "default, none and host are known", flags.where("network")
        )
    security = flags.get("security", "sandbox")
    if security not in _SECURITY:
        raise fail(
            node, f"security {security!r} is not valid", "sandbox and insecure are known", flags.where("security")
        )
    return Run(
        node,
        node.words,
        not node.json,
        flags,
        tuple(mount.origin or "scratch" for mount in mounts),
        _NETWORKS[network],
        _SECURITY[security],
        tuple(parse_device(node, flags.where("device", n), text) for n, text in enumerate(flags.all("device"))),
    )


@dataclass(slots=True)
class _Mounts:
    """A process's mounts as they are collected."""

    binds: list[RunMount]
    secrets: list[RunSecret]
    ssh: list[RunSSH]


def apply(command: Run, dispatch: Dispatch) -> None:
    """Run the process on the stage's file system."""
    stage, options = dispatch.stage, dispatch.options
    stage.paths.add("/")
    specs = [
        parse_mount(dispatch.node, command.flags.where("mount", number), text, lambda word: expand(dispatch, word))
        for number, text in enumerate(command.flags.all("mount"))
    ]
    if command.devices and not options.labs:
        raise fail(
            dispatch.node,
            "the device feature is only supported in the labs channel of the frontend",
            "begin the file with a # syntax= directive whose tag ends in -labs",
            command.flags.where("device"),
        )
    args, name, binds = _process(command, dispatch)
    mounts = _Mounts(binds, [], [])
    for number, spec in enumerate(specs):
        _mount(spec, number, mounts, dispatch)
    masked: dict[str, str] = {spec.env: "****" for spec in specs if spec.type == "secret" and spec.env is not None}
    env = stage.state.env
    shown = command_name(dispatch, name, Words(dispatch.escape, raw_quotes=True, skip_unset=True), {**env, **masked})
    shown = numbered(
        stage,
        shown,
        stage.state.platform,
        env,
        multi_platform=options.multi_platform,
        on_build=dispatch.planned.on_build,
    )
    known = options.caps
    if options.shm_size > 0 and caps.EXEC_MOUNT_TMPFS_SIZE in known:
        mounts.binds.append(RunMount("/dev/shm", tmpfs=True, tmpfs_size=options.shm_size))
    history = _history(args, dispatch)
    stage.state = stage.state.run(
        args,
        mounts=mounts.binds,
        secrets=mounts.secrets,
        ssh=mounts.ssh,
        network=command.network,
        security=command.security,
        proxy=dispatch.proxy,
        extra_hosts=options.extra_hosts,
        ulimit=options.ulimits if caps.EXEC_META_ULIMIT in known else (),
        devices=(*options.devices, *command.devices) if caps.EXEC_META_CDI in known else (),
        cgroup_parent=options.cgroup_parent if caps.EXEC_META_CGROUP_PARENT in known else "",
        known=known,
        notes=Notes(
            shown,
            {"com.docker.dockerfile.v1.command": command.text},
            ignore_cache=stage.ignore_cache,
            locations=dispatch.locations,
            resources=options.resources if caps.EXEC_META_LINUX_RESOURCES in known else None,
        ),
    )
    dispatch.commit(history, layer=True)


def _process(command: Run, dispatch: Dispatch) -> tuple[list[str], str, list[RunMount]]:
    """The arguments, the name in the progress, and the mount of a script."""
    stage = dispatch.stage
    heredocs = dispatch.node.heredocs
    args, name = list(command.args), command.text
    mounts: list[RunMount] = []
    if heredocs:
        if marker_of(args[0]) is not None:
            first = heredocs[0]
            content = chomp(first.content) if first.chomp else first.content
            if stage.image.platform.os != "windows" and content.startswith("#!"):
                script = State(platform=stage.platform).file(
                    [MkFile(join("/", first.name), 0o755, content.encode())],
                    Notes("[internal] preparing inline document"),
                )
                mounts.append(RunMount(_PIPES, script.output, selector="/", readonly=True))
                args = [join(_PIPES, first.name)]
            else:
                args = [content]
            name += f" ({summary(first.content)})"
        else:
            args = [args[0] + "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in heredocs)]
    if command.shell:
        args = [*shell_of(stage.image), " ".join(args)]
    return args, name, mounts


def _history(args: list[str], dispatch: Dispatch) -> str:
    stage = dispatch.stage
    values: dict[str, str] = {}
    for key, value in stage.build_args:
        values[key] = stage.state.env.get(key, value or "")
    prefix = [f"|{len(values)}", *(f"{key}={value}" for key, value in values.items())] if values else []
    return "RUN " + " ".join([*prefix, *args]) + " # buildkit"


def _mount(spec: MountSpec, number: int, out: _Mounts, dispatch: Dispatch) -> None:
    flag = dispatch.planned.command.flags.where("mount", number)  # type: ignore[attr-defined]
    if spec.type == "secret":
        out.secrets.append(_secret(spec, dispatch))
        return
    if spec.type == "ssh":
        if spec.source:
            raise fail(dispatch.node, "ssh does not support source", "name the agent with id=", flag)
        out.ssh.append(_ssh(spec, dispatch))
        return
    stage, known = dispatch.stage, dispatch.options.caps
    origin = spec.origin or ("scratch" if spec.type == "cache" else "")
    state = dispatch.context
    if origin:
        source = dispatch.planned.sources[number]
        if not source.dispatched:
            message = f"cannot mount from stage {origin!r} to {spec.target!r}"
            raise fail(dispatch.node, f"{message}: it needs to be defined before {stage.label!r}", "", flag)
        state = source.state
    if spec.type == "tmpfs":
        state = State(platform=state.platform)
    target = spec.target if clean(spec.target).startswith("/") else join("/", stage.state.cwd, spec.target)
    if target == "/":
        raise fail(dispatch.node, f"invalid mount target {target!r}", "", flag)
    mount = RunMount(
        target,
        readonly=spec.readonly,
        no_output=not spec.readonly and spec.type == "bind" and caps.EXEC_MOUNT_BIND_NO_OUTPUT in known,
        tmpfs=spec.type == "tmpfs",
        tmpfs_size=spec.size,
    )
    if spec.type == "cache":
        cache_id = f"{dispatch.options.cache_id_namespace}/{spec.id or clean(spec.target)}"
        mount = replace(mount, cache_id=cache_id, cache_sharing=spec.sharing or CacheSharing.SHARED)
    selector = join("/", spec.source)
    if selector != "/":
        mount = replace(mount, selector=selector)
    elif spec.owned:
        mode = 0o755 if spec.mode is None else spec.mode
        owner = ChownOpt(spec.uid or 0, spec.gid or 0)
        state = state.file(
            [MkDir("/cache", mode & 0o777, owner=owner)], Notes("[internal] setting cache mount permissions")
        )
        mount = replace(mount, selector="/cache")
    out.binds.append(replace(mount, source=state.output))
    if origin:
        dispatch.planned.sources[number].paths.add(join("/", spec.source))
    else:
        stage.context_paths.add(join("/", spec.source))


def _owner(spec: MountSpec, mode: int) -> dict[str, Any]:
    if not spec.owned:
        return {}
    return {"uid": spec.uid or 0, "gid": spec.gid or 0, "mode": mode if spec.mode is None else spec.mode}


def _secret(spec: MountSpec, dispatch: Dispatch) -> RunSecret:
    secret = spec.source or spec.id or spec.target.rstrip("/").rpartition("/")[2]
    dispatch.stage.outline.secrets.setdefault(secret, Wanted(secret, spec.required, dispatch.lines))
    target = spec.target or None
    if spec.env is None and target is None:
        target = "/run/secrets/" + secret.rstrip("/").rpartition("/")[2]
    return RunSecret(secret, target, spec.env, optional=not spec.required, **_owner(spec, 0o400))


def _ssh(spec: MountSpec, dispatch: Dispatch) -> RunSSH:
    name = spec.id or "default"
    dispatch.stage.outline.ssh.setdefault(name, Wanted(name, spec.required, dispatch.lines))
    return RunSSH(spec.id, spec.target, optional=not spec.required, **_owner(spec, 0o600))
