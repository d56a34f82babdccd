"""`brickyard build`."""

import os
import sys
from typing import TYPE_CHECKING

from ..engine import ROOT, open_solver
from ..flags import Command, Flag, Parsed, UsageError
from . import COMMANDS

if TYPE_CHECKING:
    from ...client.build import BuildResult
    from ...client.options import BuildOptions
    from ...client.solver import OnStatus
    from ...wire.pb import control_pb2
    from ..progress import Display

_HIDDEN = (
    Flag("builder", "", metavar="name"),
    Flag("compress", "", "switch"),
    Flag("cpu-period", ""),
    Flag("cpu-quota", ""),
    Flag("cpu-shares", "", short="c"),
    Flag("cpuset-cpus", ""),
    Flag("cpuset-mems", ""),
    Flag("disable-content-trust", "", "switch"),
    Flag("force-rm", "", "switch"),
    Flag("isolation", ""),
    Flag("memory", "", short="m"),
    Flag("memory-swap", ""),
    Flag("print", ""),
    Flag("rm", "", "switch"),
    Flag("security-opt", "", "list"),
    Flag("squash", "", "switch"),
)
"""Flags of `docker build` that its help doesn't show: buildx takes them, and most do nothing."""

_LIMITS = ("cpu-period", "cpu-quota", "cpu-shares", "cpuset-cpus", "cpuset-mems", "memory", "memory-swap")
_LOST = {
    **dict.fromkeys(_LIMITS, "the limits of a build are --ulimit and --cgroup-parent"),
    "isolation": "processes run in containers",
    "security-opt": "write RUN --security=insecure in the Dockerfile",
    "squash": "copy the result into a last stage",
}
"""Those that somebody may rely on, with what to do instead."""

COMMAND = Command(
    "build",
    COMMANDS["build"],
    (
        Flag("add-host", "Add a host-to-address mapping (NAME=ADDRESS)", "list"),
        Flag("allow", "Allow a privilege (network.host, security.insecure, device)", "list"),
        Flag("annotation", "Add an annotation to the image ([TYPE:]KEY=VALUE)", "list"),
        Flag("attest", "Add an attestation (type=sbom|provenance,…)", "list"),
        Flag("build-arg", "Set a build argument (NAME=VALUE; NAME alone takes it from the environment)", "list"),
        Flag("build-context", "Add a named context (NAME=DIR, oci-layout://DIR[:TAG], docker-image://REF)", "list"),
        Flag("cache-from", "Cache to begin with (NAME, type=registry,ref=NAME, type=local,src=DIR)", "list"),
        Flag("cache-to", "Where to keep cache (type=inline, type=registry,ref=NAME, type=local,dest=DIR)", "list"),
        Flag("call", "Ask about the Dockerfile: check, outline or targets, with ,format=json for a document"),
        Flag("cgroup-parent", "Parent cgroup of the RUN instructions"),
        Flag("check", "Check the Dockerfile, and build nothing (--call check)", "switch"),
        Flag("debug", "Show where warnings come from, and why", "switch", "D"),
        Flag("explain", "Say for each step whether it was cached, and if not, what changed", "switch"),
        Flag("file", "The Dockerfile (default CONTEXT/Dockerfile; - reads standard input)", short="f"),
        Flag("iidfile", "Write the image's ID to a file", metavar="file"),
        Flag("label", "Set a label of the image (KEY=VALUE)", "list"),
        Flag("load", "Load the image into the local Docker Engine", "switch"),
        Flag("metadata-file", "Write what the exporters said to a file, as JSON", metavar="file"),
        Flag("network", "Network of the RUN instructions: default, none or host"),
        Flag("no-cache", "Do not use the cache", "switch"),
        Flag("no-cache-filter", "Do not use the cache for these stages", "list"),
        Flag("output", "Where the result goes (type=local|tar|oci|docker|image|registry,dest=PATH)", "list", "o"),
        Flag("platform", "Target platform", "list"),
        Flag("progress", "How progress is shown: auto, plain, tty, rawjson, quiet or none"),
        Flag("provenance", "Add provenance (--attest type=provenance)", implied="true"),
        Flag("pull", "Ask the registry for newer base images", "switch"),
        Flag("push", "Push the image to its registry", "switch"),
        Flag("quiet", "Only print the image's ID", "switch", "q"),
        ROOT,
        Flag("sbom", "Add an SBOM (--attest type=sbom)", implied="true"),
        Flag("secret", "A secret for the build (id=NAME[,src=FILE|env=VARIABLE])", "list"),
        Flag("shm-size", "Size of /dev/shm of the RUN instructions", metavar="bytes"),
        Flag("ssh", "An SSH agent for the build (default, ID=SOCKET or ID=KEYFILE)", "list"),
        Flag("tag", "Name of the image ([REGISTRY/]NAME[:TAG])", "list", "t"),
        Flag("target", "The stage to build"),
        Flag("ulimit", "Resource limit of the RUN instructions (NAME=SOFT[:HARD])", "list"),
    ),
    arguments="CONTEXT",
    required=1,
    most=1,
    notes="CONTEXT is a folder, a git repository, a URL, or - for standard input: a Dockerfile, or a tar of a context.",
    hidden=_HIDDEN,
)


def run(parsed: Parsed) -> int:
    """Build, show the progress, and write what was asked for."""
    options = options_of(parsed)
    mode = progress_mode(parsed)
    call = _call(parsed)
    _old_flags(parsed)
    if call[0] != "build":
        from ..calls import run_call

        with open_solver(parsed) as solver:
            return run_call(solver, options, *call, mode)
    from ...client import places
    from ...client.build import build
    from ..progress import open_display

    for flag in ("iidfile", "metadata-file"):
        if parsed.given(flag):
            places.check(parsed.text(flag), f"--{flag}")
    if parsed.given("iidfile"):
        # A build that fails must not leave an earlier image's ID behind.
        places.forget(parsed.text("iidfile"))
    with open_solver(parsed) as solver:
        display = open_display(mode, sys.stderr)
        warnings: list[control_pb2.VertexWarning] = []
        try:
            result = build(solver, options, _watch(display, warnings))
        finally:
            display.close()
    _report(parsed, mode, options, result, warnings)
    if parsed.given("iidfile"):
        places.write(parsed.text("iidfile"), result.image_id.encode())
    if parsed.given("metadata-file"):
        import json

        text = json.dumps(result.metadata(), indent=2, ensure_ascii=False)
        places.write(parsed.text("metadata-file"), text.encode())
    return 0


def _watch(display: "Display", warnings: list["control_pb2.VertexWarning"]) -> "OnStatus":
    def watch(status: "control_pb2.StatusResponse") -> None:
        warnings.extend(status.warnings)
        display.update(status)

    return watch


def options_of(parsed: Parsed) -> "BuildOptions":
    """The build that a command line asks for.

    Raises:
        UsageError: a value is malformed.
    """
    from ...client.options import BuildOptions
    from .. import specs

    build_args = specs.pairs(parsed.texts("build-arg"), os.environ)
    if os.environ.get("SOURCE_DATE_EPOCH"):
        build_args.setdefault("SOURCE_DATE_EPOCH", os.environ["SOURCE_DATE_EPOCH"])
    network = parsed.text("network", "default")
    if network not in ("default", "none", "host"):
        raise UsageError(f"--network {network}: write default, none or host")
    annotations: dict[str, str] = {}
    for text in parsed.texts("annotation"):
        annotations |= specs.annotation(text)
    return BuildOptions(
        context=parsed.arguments[0],
        file=parsed.text("file"),
        tags=[specs.tag(text) for text in parsed.texts("tag")],
        target=parsed.text("target"),
        build_args=build_args,
        labels=specs.pairs(parsed.texts("label")),
        annotations=annotations,
        platforms=specs.platforms(parsed.texts("platform") or [os.environ.get("DOCKER_DEFAULT_PLATFORM", "")]),
        named_contexts=dict(map(specs.named_context, parsed.texts("build-context"))),
        secrets=[specs.secret(text) for text in parsed.texts("secret")],
        ssh=dict(map(specs.ssh, parsed.texts("ssh"))),
        outputs=[specs.output(text) for text in parsed.texts("output")],
        push=parsed.on("push"),
        load=parsed.on("load"),
        pull=parsed.on("pull"),
        no_cache=parsed.on("no-cache"),
        no_cache_filter=[name for text in parsed.texts("no-cache-filter") for name in text.split(",")],
        network=network,
        add_hosts=[specs.add_host(text) for text in parsed.texts("add-host")],
        ulimits=[specs.ulimit(text) for text in parsed.texts("ulimit")],
        shm_size=specs.size(parsed.text("shm-size"), "shm-size") if parsed.given("shm-size") else 0,
        cgroup_parent=parsed.text("cgroup-parent"),
        allow=[specs.entitlement(text) for text in parsed.texts("allow")],
        explain=parsed.on("explain"),
        attestations=_attestations(parsed),
        cache_from=[specs.cache(text, "cache-from") for text in parsed.texts("cache-from")],
        cache_to=[specs.cache(text, "cache-to") for text in parsed.texts("cache-to")],
    )


def _old_flags(parsed: Parsed) -> None:
    """Refuse, or warn of, what docker's command line has and a build here doesn't."""
    if parsed.text("builder"):
        raise UsageError(
            f"--builder {parsed.text('builder')}: brickyard builds with the solver it brings along",
            "serve it with `brickyard daemon`, and docker buildx can use it as a builder",
        )
    for name, instead in _LOST.items():
        if parsed.given(name) and parsed.switches.get(name, True):
            print(f"WARNING: --{name} has no effect: {instead}", file=sys.stderr)


def _attestations(parsed: Parsed) -> dict[str, str]:
    from .. import specs

    given = [(text, specs.attestation(text, "attest")) for text in parsed.texts("attest")]
    given += [
        (kind, specs.switched_attestation(kind, parsed.text(kind)))
        for kind in ("sbom", "provenance")
        if parsed.given(kind)
    ]
    return dict(found for _, found in given if found is not None)


def _call(parsed: Parsed) -> tuple[str, str]:
    """What `--call` and `--check` ask for, and whether as text or JSON."""
    from ...client.call import REQUESTS

    name, _, rest = parsed.text("call", parsed.text("print", "build")).partition(",")
    form = rest.removeprefix("format=") if rest else "text"
    if parsed.on("check"):
        if parsed.given("call") and name not in ("check", "lint"):
            raise UsageError(f"--check and --call {name} exclude each other")
        name = "check"
    if name not in ("build", *REQUESTS):
        raise UsageError(f"--call {name}: write one of {', '.join(('build', *REQUESTS))}")
    if form not in ("text", "json"):
        raise UsageError(f"--call {name},{rest}: write format=json, or nothing")
    return name, form


def progress_mode(parsed: Parsed, environ: "os._Environ[str] | dict[str, str]" = os.environ) -> str:
    """The display that the flags and `BUILDKIT_PROGRESS` ask for."""
    from ..progress import MODES

    mode = parsed.text("progress") or environ.get("BUILDKIT_PROGRESS", "") or "auto"
    if mode not in MODES:
        raise UsageError(f"--progress {mode}: write one of {', '.join(MODES)}")
    if parsed.on("quiet"):
        if parsed.given("progress") and mode not in ("auto", "quiet"):
            raise UsageError(f"--progress {mode} and --quiet exclude each other")
        return "quiet"
    return mode


def _report(
    parsed: Parsed,
    mode: str,
    options: "BuildOptions",
    result: "BuildResult",
    warnings: list["control_pb2.VertexWarning"],
) -> None:
    from ..report import print_warnings

    for said in result.loaded:
        print(said, file=sys.stderr)
    if result.explained:
        from ..report import print_explanations

        print_explanations(result.explained, sys.stderr)
    if mode == "quiet":
        if result.image_id:
            print(result.image_id)
        return
    if mode in ("rawjson", "none"):
        return
    details = parsed.on("debug") or os.environ.get("BRICKYARD_DEBUG", "") not in ("", "0")
    print_warnings(warnings, sys.stderr, details)
    if not (options.outputs or options.push or options.load):
        print("\nThe result stays in the build cache: -o, --push or --load takes it out.", file=sys.stderr)
