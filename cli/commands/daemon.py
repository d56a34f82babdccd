"""`brickyard daemon`, and the program `brickyardd`."""

import sys
from typing import TYPE_CHECKING

from ..flags import Command, Flag, Parsed, UsageError
from . import COMMANDS

if TYPE_CHECKING:
    from ...oci.platform import Platform
    from ...solver.daemon.config import Config
    from ...solver.daemon.daemon import Options
    from ...solver.daemon.listeners import Tls

COMMAND = Command(
    "daemon",
    COMMANDS["daemon"],
    (
        Flag("addr", "Address to listen on: unix://PATH, tcp://HOST:PORT or fd:// (socket activation)", "list"),
        Flag(
            "allow-insecure-entitlement",
            "Entitlement that builds may ask for (network.host, security.insecure)",
            "list",
        ),
        Flag("config", "Configuration file in the form of buildkitd.toml", metavar="file"),
        Flag("debug", "Log more", "switch"),
        Flag("group", "Group, by name or number, that owns the Unix sockets", metavar="group"),
        Flag("log-format", "Form of the log: text or json", metavar="form"),
        Flag("log-level", "How much is logged: debug, info, warn or error", metavar="level"),
        Flag("oci-max-parallelism", "How many steps may run at the same time (0: no limit)", metavar="number"),
        Flag("oci-worker", "Accepted for buildkitd's sake: this is the only worker", metavar="bool"),
        Flag("oci-worker-binary", "OCI runtime to use", metavar="name"),
        Flag("oci-worker-gc", "Collect garbage by itself (default true)", "switch"),
        Flag("oci-worker-gc-keepstorage", "What collection keeps, as RESERVED[,FREE[,MAXIMUM]] in MB", metavar="sizes"),
        Flag("oci-worker-labels", "Label of the worker (KEY=VALUE)", "list"),
        Flag("oci-worker-platform", "Platform that the worker says it builds for", "list"),
        Flag("containerd-worker", "Accepted for buildkitd's sake: only false and auto", metavar="bool"),
        Flag("root", "Folder of the state (default /var/lib/brickyard, or below the home folder)", metavar="dir"),
        Flag("tlscacert", "Authority whose certificates clients must show", metavar="file"),
        Flag("tlscert", "Certificate of the server", metavar="file"),
        Flag("tlskey", "Key of the server's certificate", metavar="file"),
        Flag("trace", "Log everything", "switch"),
    ),
    notes="Serves BuildKit's API, for buildctl, buildx and brickyard itself. Flags are those of buildkitd.",
)


def run(parsed: Parsed) -> int:
    """Serve until a signal comes."""
    from ...solver.base import SolveError
    from ...solver.daemon.config import ConfigError
    from ...solver.daemon.daemon import serve
    from ...solver.daemon.listeners import ListenError
    from ...solver.daemon.log import log, setup

    try:
        config, warnings = _config(parsed)
        level = parsed.text("log-level") or config.log.level or ("debug" if config.debug or config.trace else "info")
        if parsed.on("debug") or parsed.on("trace"):
            level = "debug"
        setup(level, parsed.text("log-format") or config.log.format)
        for warning in warnings:
            log.warning("%s", warning)
        serve(_options(parsed, config), _tell_ready)
    except (ConfigError, ListenError, SolveError, ValueError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


def main() -> None:
    """The program `brickyardd`."""
    from ..main import run as run_command

    words = sys.argv[1:]
    sys.exit(run_command(["version"] if words in (["--version"], ["-v"]) else ["daemon", *words]))


def _config(parsed: Parsed) -> "tuple[Config, list[str]]":
    from pathlib import Path

    from ...solver.daemon.config import default_path, load

    named = parsed.text("config")
    return load(Path(named) if named else default_path(), required=bool(named))


def _options(parsed: Parsed, config: "Config") -> "Options":
    import os
    from pathlib import Path

    from ...frontend.dockerfile.frontend import dockerfile_frontend
    from ...solver.daemon.daemon import Options

    config = _with_flags(parsed, config)
    root = parsed.text("root") or config.root or _default_root()
    owner = os.geteuid() == 0
    default = "unix:///run/brickyard/brickyardd.sock" if owner else f"unix://{_runtime_dir()}/brickyard/brickyardd.sock"
    return Options(
        root=Path(root).expanduser().absolute(),
        addresses=parsed.texts("addr") or config.grpc.address or [default],
        config=config,
        tls=_tls(parsed, config),
        uid=config.grpc.uid,
        gid=_group(parsed.text("group")) if parsed.given("group") else config.grpc.gid,
        entitlements=frozenset([*parsed.texts("allow-insecure-entitlement"), *config.insecure_entitlements]),
        platforms=_platforms([*parsed.texts("oci-worker-platform")] or config.worker.oci.platforms),
        executor=_runtime(parsed.text("oci-worker-binary") or config.worker.oci.binary),
        frontends={"dockerfile.v0": dockerfile_frontend},
    )


def _with_flags(parsed: Parsed, config: "Config") -> "Config":
    """The configuration with what flags say of the worker."""
    from ...solver.daemon.config import disk_space

    oci = config.worker.oci
    if parsed.text("oci-worker") == "false" or oci.enabled is False:
        raise UsageError("the OCI worker is the only one there is: it can't be switched off")
    if parsed.text("containerd-worker") == "true":
        raise UsageError("there is no containerd worker here")
    changes: dict[str, object] = {}
    if parsed.given("oci-max-parallelism"):
        text = parsed.text("oci-max-parallelism")
        if not text.isdigit():
            raise UsageError(f"--oci-max-parallelism={text}: write a number")
        changes["max_parallelism"] = int(text)
    if "oci-worker-gc" in parsed.switches:
        changes["gc"] = parsed.switches["oci-worker-gc"]
    if parsed.given("oci-worker-gc-keepstorage"):
        names = ("reserved_space", "min_free_space", "max_used_space")
        for name, size in zip(names, parsed.text("oci-worker-gc-keepstorage").split(","), strict=False):
            if size:
                changes[name] = disk_space(f"{size}MB" if size.isdigit() else size)
    labels = dict(oci.labels)
    for text in parsed.texts("oci-worker-labels"):
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--oci-worker-labels={text}: write KEY=VALUE")
        labels[key] = value
    changes["labels"] = labels
    worker = config.worker.model_copy(update={"oci": oci.model_copy(update=changes)})
    return config.model_copy(update={"worker": worker})


def _tls(parsed: Parsed, config: "Config") -> "Tls | None":
    from pathlib import Path

    from ...solver.daemon.listeners import Tls

    cert = parsed.text("tlscert") or config.grpc.tls.cert
    key = parsed.text("tlskey") or config.grpc.tls.key
    ca = parsed.text("tlscacert") or config.grpc.tls.ca
    if not cert and not key:
        if ca:
            raise UsageError("a CA for clients needs a certificate and a key of the server: --tlscert and --tlskey")
        return None
    if not cert or not key:
        raise UsageError("--tlscert and --tlskey only work together")
    return Tls(Path(cert), Path(key), Path(ca) if ca else None)


def _runtime(binary: str) -> str | None:
    """The runtime that a program is, by its name: `buildkit-runc` is buildkitd's own name for runc."""
    import os

    name = os.path.basename(binary).removeprefix("buildkit-")
    if name not in ("", "crun", "runc", "bwrap"):
        raise UsageError(f"--oci-worker-binary={binary}: known are crun, runc and bwrap")
    return name or None


def _group(name: str) -> int:
    import grp

    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise UsageError(f"--group={name}: there is no such group") from None


def _platforms(texts: list[str]) -> "list[Platform]":
    from ...oci.platform import PlatformError, parse

    try:
        return [parse(text) for text in texts]
    except PlatformError as error:
        raise UsageError(f"--oci-worker-platform: {error}") from None


def _default_root() -> str:
    import os
    from pathlib import Path

    if os.geteuid() == 0:
        return "/var/lib/brickyard"
    data = os.environ.get("XDG_DATA_HOME", "")
    return str((Path(data) if data else Path.home() / ".local" / "share") / "brickyard" / "daemon")


def _runtime_dir() -> str:
    """Where a user's socket goes: never a folder that somebody else could have made."""
    import os
    from pathlib import Path

    return os.environ.get("XDG_RUNTIME_DIR", "") or str(Path.home() / ".local" / "state")


def _tell_ready() -> None:
    """Tell a service manager that asked for it (sd_notify(3))."""
    import os
    import socket

    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        try:
            notify.connect("\0" + place[1:] if place.startswith("@") else place)
            notify.send(b"READY=1")
        except OSError:
            # A manager that went away must not stop us.
            return
