"""The image config that a stage builds up: Docker's image spec over the OCI image config."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

from ...llb.state import DEFAULT_PATH
from ...oci.platform import Platform, normalize
from .gojson import dumps

HISTORY_COMMENT = "buildkit.dockerfile.v0"
_CONFIG = (
    ("User", "user"),
    ("ExposedPorts", "exposed_ports"),
    ("Env", "env"),
    ("Entrypoint", "entrypoint"),
    ("Cmd", "cmd"),
    ("Volumes", "volumes"),
    ("WorkingDir", "working_dir"),
    ("Labels", "labels"),
    ("StopSignal", "stop_signal"),
    ("ArgsEscaped", "args_escaped"),
    ("Healthcheck", "healthcheck"),
    ("OnBuild", "on_build"),
    ("StopTimeout", "stop_timeout"),
    ("Shell", "shell"),
)


_HISTORY = ("created", "created_by", "author", "comment", "empty_layer")
_HEALTH = ("Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")


def _ordered(name: str, value: Any) -> Any:
    """Maps by key, the health check by field."""
    if name == "Healthcheck":
        return {key: value[key] for key in _HEALTH if value.get(key)}
    return dict(sorted(value.items())) if isinstance(value, dict) else value


@dataclass(slots=True)
class ImageConfig:
    """What is run from the image; a stage changes its own copy."""

    user: str = ""
    exposed_ports: dict[str, Any] = field(default_factory=dict)
    env: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)
    volumes: dict[str, Any] = field(default_factory=dict)
    working_dir: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: dict[str, Any] | None = None
    on_build: list[str] = field(default_factory=list)
    stop_timeout: int | None = None
    shell: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Image:
    """An image config; `created` is what a base image had, which its stages don't take over."""

    platform: Platform
    config: ImageConfig = field(default_factory=ImageConfig)
    author: str = ""
    rootfs: dict[str, Any] = field(default_factory=lambda: {"type": "layers", "diff_ids": None})
    history: list[dict[str, Any]] = field(default_factory=list)
    created: str | None = None

    def copy(self) -> "Image":
        """A copy whose lists and maps can be changed."""
        c = self.config
        config = replace(
            c,
            exposed_ports=dict(c.exposed_ports),
            env=list(c.env),
            entrypoint=list(c.entrypoint),
            cmd=list(c.cmd),
            volumes=dict(c.volumes),
            labels=dict(c.labels),
            on_build=list(c.on_build),
            shell=list(c.shell),
        )
        return replace(self, config=config, history=list(self.history), rootfs=dict(self.rootfs))

    def set_env(self, key: str, value: str) -> None:
        """Set a variable in its place, or at the end."""
        for number, entry in enumerate(self.config.env):
            if entry.partition("=")[0] == key:
                self.config.env[number] = f"{key}={value}"
                return
        self.config.env.append(f"{key}={value}")

    def commit(self, created_by: str, *, layer: bool = False, created: str | None = None) -> None:
        """Add one line to the history."""
        entry: dict[str, Any] = {}
        if created is not None:
            entry["created"] = created
        entry |= {"created_by": created_by, "comment": HISTORY_COMMENT}
        if not layer:
            entry["empty_layer"] = True
        self.history.append(entry)

    def to_dict(self, *, created: bool = False) -> dict[str, Any]:
        """The config as JSON, in the shape and order that BuildKit gives it."""
        out: dict[str, Any] = {}
        if created and self.created is not None:
            out["created"] = self.created
        if self.author:
            out["author"] = self.author
        out["architecture"] = self.platform.architecture
        if self.platform.variant:
            out["variant"] = self.platform.variant
        out["os"] = self.platform.os
        if self.platform.os_version:
            out["os.version"] = self.platform.os_version
        if self.platform.os_features:
            out["os.features"] = list(self.platform.os_features)
        config: dict[str, Any] = {}
        for name, attribute in _CONFIG:
            value = getattr(self.config, attribute)
            if value or (name == "Healthcheck" and value is not None) or (name == "StopTimeout" and value is not None):
                config[name] = _ordered(name, value)
        out["config"] = config
        out["rootfs"] = self.rootfs
        if self.history:
            out["history"] = [{key: entry[key] for key in _HISTORY if entry.get(key)} for entry in self.history]
        return out

    def to_json(self, *, created: bool = False) -> bytes:
        """The config as bytes."""
        return dumps(self.to_dict(created=created))


def empty_image(platform: Platform) -> Image:
    """The image of `FROM scratch`."""
    config = ImageConfig(working_dir="/")
    if platform.os != "windows":
        config.env.append(f"PATH={DEFAULT_PATH}")
    return Image(platform, config)


def load_image(data: bytes) -> Image:
    """An image config as a registry holds it.

    Raises:
        ValueError: for bytes that are no image config.
    """
    try:
        document = json.loads(data)
        known = document.get("config") or {}
        config = ImageConfig()
        for name, attribute in _CONFIG:
            value = known.get(name)
            if value is not None:
                setattr(config, attribute, value)
        platform = Platform(
            document.get("os", ""),
            document.get("architecture", ""),
            document.get("variant", ""),
            document.get("os.version", ""),
            tuple(document.get("os.features") or ()),
        )
        rootfs = document.get("rootfs") or {}
        return Image(
            platform,
            config,
            document.get("author", ""),
            {"type": rootfs.get("type", ""), "diff_ids": rootfs.get("diff_ids")},
            [dict(entry) for entry in document.get("history") or ()],
            document.get("created"),
        )
    except (AttributeError, TypeError) as error:
        raise ValueError(f"not an image config: {error}") from None


def normalized(image: Image) -> Image:
    """With its platform in the normal form."""
    image.platform = normalize(image.platform)
    return image


def shell_of(image: Image) -> list[str]:
    """The shell of RUN, CMD and ENTRYPOINT in their shell form."""
    if image.config.shell:
        return list(image.config.shell)
    return ["cmd", "/S", "/C"] if image.platform.os == "windows" else ["/bin/sh", "-c"]
