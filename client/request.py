"""A build as BuildKit's `SolveRequest`, with the attribute names that buildx sends."""

import uuid
from dataclasses import replace
from ipaddress import ip_address

from ..wire.pb import control_pb2
from .caches import Caches
from .errors import ClientError
from .inputs import Inputs
from .options import FALSE, BuildOptions, Output
from .outputs import ALLOW_DELETE

FRONTEND = "dockerfile.v0"
_NAMED = ("image", "oci", "docker")


def outputs_of(options: BuildOptions) -> list[Output]:
    """The exporters that the outputs, tags, annotations, `--push` and `--load` ask for together.

    Raises:
        ClientError: something would be pushed without a name.
    """
    outputs = [replace(output, attrs=dict(output.attrs)) for output in options.outputs if output.type != "cacheonly"]
    if options.push:
        if not any(output.type == "image" for output in outputs):
            outputs.append(Output("image"))
        outputs = [
            replace(o, attrs={"unpack": "false", **o.attrs, "push": "true"}) if o.type == "image" else o
            for o in outputs
        ]
    if options.load and not any(output.type == "docker" and not output.dest for output in outputs):
        outputs.append(Output("docker"))
    named = []
    for output in outputs:
        attrs = dict(output.attrs)
        if output.type in _NAMED:
            if options.tags:
                attrs["name"] = ",".join(options.tags)
            attrs |= options.annotations
        if output.type == "image" and not attrs.get("name") and attrs.get("push", "false") not in FALSE:
            raise ClientError("a push needs a name", "give one with -t REGISTRY/NAME:TAG")
        named.append(replace(output, attrs=attrs))
    return named


def solve_request(
    options: BuildOptions, inputs: Inputs, outputs: list[Output], session: str, caches: Caches | None = None
) -> control_pb2.SolveRequest:
    """The request of one build."""
    request = control_pb2.SolveRequest(
        Ref=uuid.uuid4().hex,
        Session=session,
        Frontend=FRONTEND,
        FrontendAttrs=frontend_attrs(options) | inputs.attrs,
        Entitlements=_entitlements(options),
    )
    for output in outputs:
        request.Exporters.add(Type=output.type, Attrs=output.attrs)
    for kind, attrs in caches.imports if caches else ():
        request.Cache.Imports.add(Type=kind, Attrs=attrs)
    for kind, attrs in caches.exports if caches else ():
        request.Cache.Exports.add(Type=kind, Attrs=attrs)
    return request


def _entitlements(options: BuildOptions) -> list[str]:
    names = [*options.allow, *(["network.host"] if options.network == "host" else [])]
    return [name for name in dict.fromkeys(names) if name != ALLOW_DELETE]


def frontend_attrs(options: BuildOptions) -> dict[str, str]:
    """The attributes that do not depend on the contexts."""
    attrs = {f"build-arg:{name}": value for name, value in options.build_args.items()}
    attrs |= {f"label:{name}": value for name, value in options.labels.items()}
    if options.target:
        attrs["target"] = options.target
    if options.platforms:
        attrs["platform"] = ",".join(options.platforms)
    if options.pull:
        attrs["image-resolve-mode"] = "pull"
    if options.no_cache:
        attrs["no-cache"] = ""
    elif options.no_cache_filter:
        attrs["no-cache"] = ",".join(options.no_cache_filter)
    if options.network not in ("", "default"):
        attrs["force-network-mode"] = options.network
    if options.add_hosts:
        attrs["add-hosts"] = ",".join(pair for text in options.add_hosts for pair in _host(text))
    if options.ulimits:
        attrs["ulimit"] = ",".join(options.ulimits)
    if options.shm_size:
        attrs["shm-size"] = str(options.shm_size)
    if options.cgroup_parent:
        attrs["cgroup-parent"] = options.cgroup_parent
    attrs |= {f"attest:{kind}": value for kind, value in options.attestations.items()}
    return attrs


def _host(text: str) -> list[str]:
    cut = "=" if "=" in text else ":"
    name, _, addresses = text.partition(cut)
    found = [address.strip("[]") for address in addresses.split(",")]
    try:
        for address in found:
            ip_address(address)
    except ValueError:
        raise ClientError(f"--add-host {text}: write NAME=ADDRESS") from None
    if not name:
        raise ClientError(f"--add-host {text}: write NAME=ADDRESS")
    return [f"{name}={address}" for address in found]
