"""The image config as a plain dict, checked where it is read (OCI image spec, config; Docker image spec 1.2)."""

import json
from typing import Any

from . import digest as _digest
from .platform import Platform

_TYPES: dict[str, type | tuple[type, ...]] = {
    "architecture": str,
    "os": str,
    "variant": str,
    "os.version": str,
    "os.features": list,
    "config": dict,
    "rootfs": dict,
    "history": list,
    "created": str,
    "author": str,
}
_CONFIG_TYPES: dict[str, type | tuple[type, ...]] = {
    "User": str,
    "ExposedPorts": dict,
    "Env": list,
    "Entrypoint": list,
    "Cmd": list,
    "Volumes": dict,
    "WorkingDir": str,
    "Labels": dict,
    "StopSignal": str,
    "OnBuild": list,
    "Shell": list,
}


class ConfigError(ValueError):
    """An image config that breaks the specification; the message names the field."""


def decode_config(data: bytes) -> dict[str, Any]:
    """Read an image config; fields that are not known stay as they are.

    Raises:
        ConfigError: where a known field has a wrong type.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"image config: not a JSON document: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"image config: expected an object, got {type(value).__name__}")
    _check(value, _TYPES, "")
    _check(value.get("config") or {}, _CONFIG_TYPES, "config.")
    for key in ("Env", "Entrypoint", "Cmd", "OnBuild", "Shell"):
        if not all(isinstance(item, str) for item in (value.get("config") or {}).get(key) or ()):
            raise ConfigError(f"image config: config.{key}: expected a list of strings")
    return value


def platform_of(config: dict[str, Any]) -> Platform:
    """The platform that an image config is for."""
    return Platform(
        config.get("os") or "",
        config.get("architecture") or "",
        config.get("variant") or "",
        config.get("os.version") or "",
        tuple(config.get("os.features") or ()),
    )


def diff_ids(config: dict[str, Any]) -> tuple[str, ...]:
    """The digests of the uncompressed layers, lowest first.

    Raises:
        ConfigError: where the list or a digest in it is not valid.
    """
    found = (config.get("rootfs") or {}).get("diff_ids") or ()
    if not isinstance(found, list | tuple) or not all(isinstance(item, str) for item in found):
        raise ConfigError("image config: rootfs.diff_ids: expected a list of strings")
    try:
        return tuple(_digest.validate(item) for item in found)
    except _digest.InvalidDigest as error:
        raise ConfigError(f"image config: rootfs.diff_ids: {error}") from None


def chain_ids(diffs: tuple[str, ...]) -> tuple[str, ...]:
    """The name of each stack of layers, from one layer to all of them (OCI image spec, layer chain id)."""
    out: list[str] = []
    for diff in diffs:
        out.append(_digest.of_bytes(f"{out[-1]} {diff}".encode()) if out else diff)
    return tuple(out)


def _check(obj: dict[str, Any], types: dict[str, type | tuple[type, ...]], prefix: str) -> None:
    for key, kind in types.items():
        value = obj.get(key)
        if value is not None and not isinstance(value, kind):
            raise ConfigError(f"image config: {prefix}{key}: unexpected {type(value).__name__}")
