"""Foreign processors whose programs this machine's kernel hands to an emulator (Linux's binfmt_misc)."""

from pathlib import Path

from ...oci.platform import Platform

_FOLDER = Path("/proc/sys/fs/binfmt_misc")
_NAMES = {
    "x86_64": Platform("linux", "amd64"),
    "aarch64": Platform("linux", "arm64"),
    "arm": Platform("linux", "arm", "v7"),
    "i386": Platform("linux", "386"),
    "loongarch64": Platform("linux", "loong64"),
    "mips64": Platform("linux", "mips64"),
    "mips64el": Platform("linux", "mips64le"),
    "ppc64le": Platform("linux", "ppc64le"),
    "riscv64": Platform("linux", "riscv64"),
    "s390x": Platform("linux", "s390x"),
}
"""QEMU's names of processors."""


def emulated(folder: Path = _FOLDER) -> list[Platform]:
    """The platforms with an emulator that is switched on, in the order of QEMU's names."""
    found = []
    for name, platform in _NAMES.items():
        try:
            text = (folder / f"qemu-{name}").read_text()
        except OSError:
            continue
        if text.startswith("enabled"):
            found.append(platform)
            if name == "arm":
                found.append(Platform("linux", "arm", "v6"))
    return found
