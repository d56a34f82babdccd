"""`buildkitd.toml`: BuildKit's keys, checked; a key that is not known is warned of with the nearest that is.

Source: BuildKit's cmd/buildkitd/config and docs/buildkitd.toml.md. Keys that have no meaning here (the containerd
worker, CNI, snapshotters of other kinds, …) are read and, where something was asked for that can't be done, warned of.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .durations import parse_duration

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?\Z", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


class ConfigError(Exception):
    """A configuration that can't be used. The text names the file and the key."""


class DiskSpace(BaseModel):
    """An amount of disk: bytes, or a share of the whole disk in percent."""

    model_config = ConfigDict(frozen=True)

    bytes: int = 0
    percent: int = 0

    def of(self, total: int) -> int:
        """In bytes, on a disk of `total` bytes."""
        if self.bytes or not self.percent:
            return self.bytes
        # A share is rounded up to whole gigabytes, as buildkitd does.
        return (total * self.percent // 100 // (1 << 30) + 1) * 10**9

    def __bool__(self) -> bool:
        return bool(self.bytes or self.percent)


def disk_space(value: Any) -> Any:
    """`512MB`, `10%` or a number of bytes. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return value
    if isinstance(value, int):
        return DiskSpace(bytes=value)
    text = value.strip()
    if text.endswith("%") and text[:-1].isdigit():
        return DiskSpace(percent=int(text[:-1]))
    match = _SIZE.match(text)
    if match is None:
        raise ValueError(f"invalid disk space {value!r}: write for example 512MB, 20GB or 10%")
    return DiskSpace(bytes=int(float(match[1]) * 1024 ** _POWERS[match[2].lower()]))


def duration(value: Any) -> Any:
    """`48h` or a number of seconds. Raises ValueError."""
    if isinstance(value, str):
        return float(value) if value.isdigit() else parse_duration(value)
    return value


Space = Annotated[DiskSpace, BeforeValidator(disk_space)]
Seconds = Annotated[float, BeforeValidator(duration)]


class Table(BaseModel):
    """A table of the file. Unknown keys are kept aside to be warned of."""

    model_config = ConfigDict(extra="allow", populate_by_name=True, frozen=True)


class Log(Table):
    """[log]"""

    format: str = "text"
    level: str = ""


class Tls(Table):
    """[grpc.tls]: with `ca`, only clients that show a certificate it signed are let in."""

    cert: str = ""
    key: str = ""
    ca: str = ""


class Grpc(Table):
    """[grpc]"""

    address: list[str] = []
    debug_address: str = Field("", alias="debugAddress")
    uid: int | None = None
    gid: int | None = None
    security_descriptor: str = Field("", alias="securityDescriptor")
    tls: Tls = Tls()


class Otel(Table):
    """[otel]"""

    socket_path: str = Field("", alias="socketPath")


class Cdi(Table):
    """[cdi]"""

    disabled: bool | None = None
    spec_dirs: list[str] = Field([], alias="specDirs")
    auto_allowed: list[str] = Field([], alias="autoAllowed")


class GcPolicy(Table):
    """[[worker.oci.gcpolicy]]"""

    all: bool = False
    filters: list[str] = []
    keep_duration: Seconds = Field(0.0, alias="keepDuration")
    keep_bytes: Space = Field(DiskSpace(), alias="keepBytes")
    reserved_space: Space = Field(DiskSpace(), alias="reservedSpace")
    max_used_space: Space = Field(DiskSpace(), alias="maxUsedSpace")
    min_free_space: Space = Field(DiskSpace(), alias="minFreeSpace")


class Oci(Table):
    """[worker.oci]"""

    enabled: bool | None = None
    labels: dict[str, str] = {}
    platforms: list[str] = []
    snapshotter: str = "auto"
    rootless: bool = False
    no_process_sandbox: bool = Field(False, alias="noProcessSandbox")
    gc: bool = True
    gc_keep_storage: Space = Field(DiskSpace(), alias="gckeepstorage")
    reserved_space: Space = Field(DiskSpace(), alias="reservedSpace")
    max_used_space: Space = Field(DiskSpace(), alias="maxUsedSpace")
    min_free_space: Space = Field(DiskSpace(), alias="minFreeSpace")
    gc_policy: list[GcPolicy] = Field([], alias="gcpolicy")
    network_mode: str = Field("auto", alias="networkMode")
    cni_config_path: str = Field("", alias="cniConfigPath")
    cni_binary_path: str = Field("", alias="cniBinaryPath")
    cni_pool_size: int = Field(0, alias="cniPoolSize")
    bridge_name: str = Field("", alias="bridgeName")
    bridge_subnet: str = Field("", alias="bridgeSubnet")
    user_remap: str = Field("", alias="userRemapUnsupported")
    binary: str = ""
    proxy_snapshotter_path: str = Field("", alias="proxySnapshotterPath")
    default_cgroup_parent: str = Field("", alias="defaultCgroupParent")
    stargz_snapshotter: dict[str, Any] = Field({}, alias="stargzSnapshotter")
    apparmor_profile: str = Field("", alias="apparmor-profile")
    selinux: bool = False
    max_parallelism: int = Field(0, alias="max-parallelism", ge=0)


class Containerd(Table):
    """[worker.containerd]: there is no such worker here."""

    enabled: bool | None = None


class Worker(Table):
    """[worker]"""

    oci: Oci = Oci()
    containerd: Containerd = Containerd()


class KeyPair(Table):
    """[[registry."HOST".keypair]]"""

    key: str = ""
    cert: str = ""


class Registry(Table):
    """[registry."HOST"]"""

    mirrors: list[str] = []
    http: bool | None = None
    insecure: bool | None = None
    ca: list[str] = []
    keypair: list[KeyPair] = []
    tls_config_dir: list[str] = Field([], alias="tlsconfigdir")


class Dns(Table):
    """[dns]"""

    nameservers: list[str] = []
    options: list[str] = []
    search_domains: list[str] = Field([], alias="searchDomains")


class HistoryLimits(Table):
    """[history]"""

    max_age: Seconds = Field(48 * 3600.0, alias="maxAge")
    max_entries: int = Field(50, alias="maxEntries")


class DockerfileFrontend(Table):
    """[frontend."dockerfile.v0"]"""

    enabled: bool = True


class GatewayFrontend(Table):
    """[frontend."gateway.v0"]"""

    enabled: bool = True
    allowed_repositories: list[str] = Field([], alias="allowedRepositories")


class Frontends(Table):
    """[frontend]"""

    dockerfile: DockerfileFrontend = Field(DockerfileFrontend(), alias="dockerfile.v0")
    gateway: GatewayFrontend = Field(GatewayFrontend(), alias="gateway.v0")


class System(Table):
    """[system]"""

    platforms_cache_max_age: Seconds = Field(0.0, alias="platformsCacheMaxAge")
    max_registry_concurrency: int | None = Field(None, alias="maxRegistryConcurrency", gt=0)


class Config(Table):
    """The whole file."""

    debug: bool = False
    trace: bool = False
    root: str = ""
    insecure_entitlements: list[str] = Field([], alias="insecure-entitlements")
    proxy_network: bool = Field(False, alias="proxyNetwork")
    log: Log = Log()
    grpc: Grpc = Grpc()
    otel: Otel = Otel()
    cdi: Cdi = Cdi()
    worker: Worker = Worker()
    registry: dict[str, Registry] = {}
    dns: Dns = Dns()
    history: HistoryLimits = HistoryLimits()
    frontend: Frontends = Frontends()
    system: System = System()
    provenance_env_dir: str = Field("", alias="provenanceEnvDir")
    cache: dict[str, Any] = {}


def default_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the file is looked for when none is named."""
    if os.geteuid() == 0:
        return Path("/etc/buildkit/buildkitd.toml")
    home = environ.get("XDG_CONFIG_HOME", "")
    return (Path(home) if home else Path.home() / ".config") / "buildkit" / "buildkitd.toml"


def load(path: Path, *, required: bool) -> tuple[Config, list[str]]:
    """The configuration of a file, and warnings; the defaults where it is not there and not required.

    Raises:
        ConfigError: where it can't be read, is no TOML, or has a value of a wrong kind.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        if required:
            raise ConfigError(f"{path}: no such file") from None
        return Config(), []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    return parse(text, str(path))


def parse(text: str, name: str) -> tuple[Config, list[str]]:
    """The configuration of a text, and warnings. Raises ConfigError."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: {error}") from None
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_problem(dict(found)) for found in error.errors())
        raise ConfigError(f"{name}: {problems}") from None
    return config, [f"{name}: {warning}" for warning in [*_unknown(config, ""), *_unusable(config)]]


def _problem(found: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in found["loc"])
    reason = str(found["msg"]).removeprefix("Value error, ")
    return f"{place}: {reason}"


def _unknown(table: Table, place: str) -> Iterator[str]:
    known = [field.alias or name for name, field in type(table).model_fields.items()]
    for key in table.model_extra or {}:
        from difflib import get_close_matches

        near = get_close_matches(key, known, 1, 0.6)
        hint = f": did you mean {place}{near[0]}?" if near else ""
        yield f"unknown key {place}{key}{hint}"
    for name, field in type(table).model_fields.items():
        yield from _inside(getattr(table, name), f"{place}{field.alias or name}", get_args(field.annotation))


def _inside(value: Any, place: str, kinds: tuple[Any, ...]) -> Iterator[str]:
    if isinstance(value, Table):
        yield from _unknown(value, f"{place}.")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _inside(item, f"{place}[{number}]", kinds)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _inside(item, f'{place}."{key}"', kinds)


def _unusable(config: Config) -> Iterator[str]:
    oci = config.worker.oci
    if config.worker.containerd.enabled:
        yield "worker.containerd: there is no containerd worker here; builds run on the OCI worker"
    if config.grpc.debug_address:
        yield "grpc.debugAddress: there is no debugging address here; the key has no effect"
    if config.trace or config.debug:
        yield "'debug' and 'trace' are old keys: use log.level"
    for key, given in (
        ("proxyNetwork", config.proxy_network),
        ("worker.oci.cniConfigPath", oci.cni_config_path),
        ("worker.oci.bridgeName", oci.bridge_name),
        ("worker.oci.proxySnapshotterPath", oci.proxy_snapshotter_path),
        ("worker.oci.apparmor-profile", oci.apparmor_profile),
        ("worker.oci.selinux", oci.selinux),
        ("worker.oci.userRemapUnsupported", oci.user_remap),
        ("worker.oci.noProcessSandbox", oci.no_process_sandbox),
        ("worker.oci.defaultCgroupParent", oci.default_cgroup_parent),
        ("otel.socketPath", config.otel.socket_path),
        ("dns", config.dns != Dns()),
        ("provenanceEnvDir", config.provenance_env_dir),
        ("system.maxRegistryConcurrency", config.system.max_registry_concurrency),
    ):
        if given:
            yield f"{key}: not supported here; the key has no effect"
