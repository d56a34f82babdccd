"""The frontend options of a build, checked (BuildKit's frontend/dockerui)."""

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...grammar.errors import SourceError
from ...llb.graph import LinuxResources
from ...llb.ops import HostIP, NetMode, Ulimit
from ...oci.platform import Platform, PlatformError, normalize, parse
from ...oci.reference import InvalidReference
from ...oci.reference import parse as parse_reference
from ...wire.pb import gateway_pb2
from ..lint.linter import Checks, parse_checks
from .mounts import boolean, fields

DEFAULT_SCANNER = "docker/buildkit-syft-scanner:stable-1"
_RESOLVE_MODES = ("default", "pull", "local")
_NETWORKS = {"": NetMode.SANDBOX, "sandbox": NetMode.SANDBOX, "host": NetMode.HOST, "none": NetMode.NONE}
_LIMITS = frozenset(
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)
_CPU_SET = re.compile(r"[0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*")


@dataclass(frozen=True, slots=True)
class Sbom:
    """The scanner that makes a software bill of materials, and what it is told."""

    generator: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the options say. `platforms` empty means the platform of the worker."""

    target: str = ""
    platforms: Sequence[Platform] = ()
    multi_platform: bool = False
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    resolve_mode: str = "default"
    cache_id_namespace: str = ""
    network: NetMode = NetMode.SANDBOX
    hostname: str = ""
    extra_hosts: Sequence[HostIP] = ()
    ulimits: Sequence[Ulimit] = ()
    shm_size: int = 0
    cgroup_parent: str = ""
    resources: LinuxResources | None = None
    no_cache: frozenset[str] | None = None
    cache_imports: Sequence[gateway_pb2.CacheOptionsEntry] = ()
    sbom: Sbom | None = None
    checks: Checks | None = None

    def without_cache(self, stage: str) -> bool:
        """Whether a stage is built without cache: none, all (an empty set), or those named."""
        return self.no_cache is not None and (not self.no_cache or stage.lower() in self.no_cache)


def prefixed(options: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The options that begin with a prefix, by the rest of their names."""
    return {key[len(prefix) :]: value for key, value in options.items() if key.startswith(prefix)}


def read_settings(options: Mapping[str, str]) -> Settings:
    """Read the options.

    Raises:
        SourceError: for one whose value means nothing, naming it.
    """
    if options.get("override-copy-image"):
        raise SourceError('support for "override-copy-image" was removed in BuildKit 0.11')
    if boolean(options.get("build-arg:BUILDKIT_DISABLE_FILEOP", "")):
        raise SourceError('support for "BUILDKIT_DISABLE_FILEOP" build-arg was removed in BuildKit 0.11')
    platforms = _platforms(options.get("platform", ""))
    mode = options.get("image-resolve-mode") or "default"
    if mode not in _RESOLVE_MODES:
        raise SourceError(f"invalid image-resolve-mode: {mode}", None, "default, pull and local are known")
    network = options.get("force-network-mode", "")
    if network not in _NETWORKS:
        raise SourceError(f"invalid netmode {network}", None, "sandbox, host and none are known")
    no_cache = options.get("no-cache")
    checks = options.get("build-arg:BUILDKIT_DOCKERFILE_CHECK")
    return Settings(
        target=options.get("target", ""),
        platforms=platforms,
        multi_platform=_multi_platform(options, len(platforms)),
        build_args=prefixed(options, "build-arg:"),
        labels=prefixed(options, "label:"),
        resolve_mode=mode,
        cache_id_namespace=options.get("build-arg:BUILDKIT_CACHE_MOUNT_NS", ""),
        network=_NETWORKS[network],
        hostname=options.get("build-arg:BUILDKIT_SANDBOX_HOSTNAME") or options.get("hostname", ""),
        extra_hosts=_hosts(options.get("add-hosts", "")),
        ulimits=_ulimits(options.get("ulimit", "")),
        shm_size=_integer(options, "shm-size"),
        cgroup_parent=options.get("cgroup-parent", ""),
        resources=_resources(options),
        no_cache=None if no_cache is None else frozenset(n.lower() for n in no_cache.split(",")) - {""},
        cache_imports=_cache_imports(options),
        sbom=_sbom(options),
        checks=None if checks is None else _checks(checks),
    )


def _platforms(text: str) -> list[Platform]:
    if not text:
        return []
    out = []
    for part in text.split(","):
        try:
            out.append(normalize(parse(part)))
        except PlatformError as error:
            raise SourceError(f"failed to parse target platform {part}: {error}") from None
    return out


def _multi_platform(options: Mapping[str, str], count: int) -> bool:
    text = options.get("build-arg:BUILDKIT_MULTI_PLATFORM") or options.get("multi-platform", "")
    if not text:
        return count > 1
    wanted = boolean(text)
    if wanted is None:
        raise SourceError(f"invalid boolean value for multi-platform: {text}")
    if not wanted and count > 1:
        raise SourceError("conflicting config: returning multiple target platforms is not allowed")
    return wanted


def _list(option: str, text: str) -> list[str]:
    if not text:
        return []
    try:
        return fields(text)
    except ValueError as error:
        raise SourceError(f"{option}: {error}") from None


def _hosts(text: str) -> list[HostIP]:
    out = []
    for part in _list("add-hosts", text):
        name, separator, address = part.lower().partition("=")
        if not separator:
            raise SourceError(f"failed to parse additional hosts: invalid key-value pair {part}", None, "HOST=ADDRESS")
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            raise SourceError(f"failed to parse additional hosts: failed to parse IP {address}") from None
        mapped = getattr(found, "ipv4_mapped", None)
        out.append(HostIP(name, str(mapped or found)))
    return out


def _ulimits(text: str) -> list[Ulimit]:
    out = []
    for part in _list("ulimit", text):
        name, separator, limits = part.partition("=")
        if not separator:
            raise SourceError(f"failed to parse ulimit: invalid ulimit argument: {part}", None, "NAME=SOFT[:HARD]")
        if name not in _LIMITS:
            raise SourceError(f"failed to parse ulimit: invalid ulimit type: {name}", None, ", ".join(sorted(_LIMITS)))
        numbers = limits.split(":")
        try:
            soft, hard = int(numbers[0]), int(numbers[-1])
        except ValueError:
            raise SourceError(f"failed to parse ulimit: {part} is not NAME=SOFT[:HARD]") from None
        if len(numbers) > 2:
            raise SourceError(f"failed to parse ulimit: too many limit value arguments in {part}")
        if (soft > hard and hard != -1) or (soft == -1 and hard != -1):
            raise SourceError(f"failed to parse ulimit: the soft limit of {part} is above the hard limit")
        out.append(Ulimit(name, soft, hard))
    return out


def _integer(options: Mapping[str, str], key: str) -> int:
    text = options.get(key, "")
    if not text:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]+", text, re.ASCII):
        raise SourceError(f"{key} takes a number, not {text!r}")
    return int(text)


def _resources(options: Mapping[str, str]) -> LinuxResources | None:
    found: dict[str, int | str] = {}
    for key in ("memory", "memswap", "cpushares", "cpuperiod", "cpuquota"):
        value = _integer(options, key)
        if not options.get(key):
            continue
        if value <= 0 and not (key == "memswap" and value == -1):
            raise SourceError(f"invalid {key} value: {options[key]}: must be > 0")
        found[key] = value
    for key in ("cpusetcpus", "cpusetmems"):
        if not (text := options.get(key)):
            continue
        if not _CPU_SET.fullmatch(text):
            raise SourceError(f"invalid {key} value: {text}", None, "write numbers and ranges, such as 0-2,4")
        found[key] = text
    if not found:
        return None
    return LinuxResources(
        memory=int(found.get("memory", 0)),
        memory_swap=int(found.get("memswap", 0)),
        cpu_shares=int(found.get("cpushares", 0)),
        cpu_period=int(found.get("cpuperiod", 0)),
        cpu_quota=int(found.get("cpuquota", 0)),
        cpuset_cpus=str(found.get("cpusetcpus", "")),
        cpuset_mems=str(found.get("cpusetmems", "")),
    )


def _cache_imports(options: Mapping[str, str]) -> list[gateway_pb2.CacheOptionsEntry]:
    out = []
    if text := options.get("cache-imports"):
        try:
            for entry in json.loads(text) or []:
                out.append(
                    gateway_pb2.CacheOptionsEntry(Type=entry.get("Type", ""), Attrs=entry.get("Attrs") or {}),
                )
        except (ValueError, TypeError, AttributeError) as error:
            raise SourceError(f"failed to unmarshal cache-imports ({text!r}): {error}") from None
    out += [
        gateway_pb2.CacheOptionsEntry(Type="registry", Attrs={"ref": reference})
        for reference in options.get("cache-from", "").split(",")
        if reference
    ]
    return out


def _sbom(options: Mapping[str, str]) -> Sbom | None:
    attributes = _attestations(options).get("sbom")
    if attributes is None:
        return None
    generator = attributes.pop("generator")
    if not generator:
        raise SourceError("sbom scanner cannot be empty")
    try:
        return Sbom(str(parse_reference(generator).tag_name_only()), attributes)
    except InvalidReference as error:
        raise SourceError(f"failed to parse sbom scanner {generator}: {error}") from None


def _attestations(options: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The attributes of `attest:KIND`, or of its form as a build arg, by kind; provenance is the daemon's own."""
    given = {key.lower(): value for key, value in prefixed(options, "attest:").items()}
    given |= {key.lower(): value for key, value in prefixed(options, "build-arg:BUILDKIT_ATTEST_").items()}
    out = {}
    for kind, text in given.items():
        if kind not in ("sbom", "provenance"):
            raise SourceError(f"unknown attestation type {kind!r}", None, "sbom and provenance are known")
        attributes = {"generator": DEFAULT_SCANNER} if kind == "sbom" else {}
        for part in _list(kind, text):
            key, _, value = part.partition("=")
            attributes[key] = value
        out[kind] = attributes
    return out


def _checks(text: str) -> Checks:
    try:
        return parse_checks(text)
    except ValueError as error:
        raise SourceError(f"failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: {error}") from None
