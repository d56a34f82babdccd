"""Platforms: `os/arch/variant`, in the normal form that containerd gives them (OCI image index, platform)."""

import platform as _host
import re
from dataclasses import dataclass, replace

_OS = {"macos": "darwin"}
_ARCH = {
    "i386": ("386", ""),
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "amd64": ("amd64", None),
    "aarch64": ("arm64", None),
    "arm64": ("arm64", None),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_COMPONENT = re.compile(r"^[A-Za-z0-9_.-]+$")
_OS_COMPONENT = re.compile(r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.+-]*)\))?$")
_KNOWN_OS = frozenset(
    "aix android darwin dragonfly freebsd illumos ios js linux netbsd openbsd plan9 solaris windows".split()
)
_KNOWN_ARCH = frozenset(
    "386 amd64 amd64p32 arm armbe arm64 arm64be loong64 mips mipsle mips64 mips64le mips64p32 mips64p32le ppc ppc64 "
    "ppc64le riscv riscv64 s390 s390x sparc sparc64 wasm".split()
)


class PlatformError(ValueError):
    """A text that names no platform."""


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and a processor architecture."""

    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The form that `parse` reads, without the version of the operating system."""
        return "/".join(part for part in (self.os or "unknown", self.architecture, self.variant) if part)


def format_all(platform: Platform) -> str:
    """The text form with the version of the operating system: `windows(10.0.17763)/amd64`."""
    if not platform.os_version:
        return str(platform)
    return "/".join(p for p in (f"{platform.os}({platform.os_version})", platform.architecture, platform.variant) if p)


def normalize(platform: Platform) -> Platform:
    """The one form that equal platforms share: lower case, aliases resolved, default variants dropped or set."""
    os = platform.os.lower()
    os = _OS.get(os, os)
    arch, variant = platform.architecture.lower(), platform.variant.lower()
    alias = _ARCH.get(arch)
    if alias is not None:
        arch = alias[0]
        if alias[1] is not None:
            variant = alias[1]
    if (arch == "amd64" and variant == "v1") or (arch == "arm64" and variant in ("8", "v8", "v8.0")):
        variant = ""
    elif arch == "arm64" and variant in ("9", "9.0", "v9.0"):
        variant = "v9"
    elif arch == "arm":
        variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
    return replace(platform, os=os, architecture=arch, variant=variant)


def host() -> Platform:
    """The platform of this machine."""
    return normalize(Platform("linux", _host.machine()))


def parse(text: str) -> Platform:
    """Read `os`, `arch`, `os/arch` or `os/arch/variant`.

    Raises:
        PlatformError: for any other text.
    """
    if "*" in text:
        raise PlatformError(f"{text!r}: wildcards are not supported in a platform")
    parts = text.split("/")
    os_match = _OS_COMPONENT.match(parts[0])
    if os_match is None or not all(_COMPONENT.match(part) for part in parts[1:]) or len(parts) > 3:
        raise PlatformError(f"{text!r} is not a platform: write os/arch or os/arch/variant, such as linux/arm64")
    if len(parts) == 1:
        name = _OS.get(parts[0].lower(), parts[0].lower())
        if name in _KNOWN_OS:
            return normalize(Platform(name, host().architecture, host().variant))
        guess = normalize(Platform(host().os, parts[0]))
        if guess.architecture in _KNOWN_ARCH:
            variant = "" if guess.architecture == "arm" and guess.variant == "v7" else guess.variant
            return replace(guess, variant=variant)
        raise PlatformError(f"{text!r} is neither an operating system nor an architecture that is known")
    found = normalize(Platform(os_match[1], parts[1], parts[2] if len(parts) == 3 else "", os_match[2] or ""))
    if len(parts) == 2 and found.architecture == "arm" and found.variant == "v7":
        found = replace(found, variant="")
    return found
