"""The files that every process is given beside its root file system: /etc/hosts and /etc/resolv.conf."""

import os
from collections.abc import Sequence
from pathlib import Path

from ...llb.ops import HostIP

HOSTNAME = "buildkitsandbox"
"""The name of a machine that was given none, BuildKit's."""

_RESOLV_CONF = "/etc/resolv.conf"


def write_hosts(folder: Path, hostname: str, extra: Sequence[HostIP]) -> Path:
    """Write a hosts file as BuildKit's: the loopback names, then the extra lines."""
    lines = [f"127.0.0.1\tlocalhost {hostname}\n", "::1\tlocalhost ip6-localhost ip6-loopback\n"]
    lines += [f"{entry.ip}\t{entry.host}\n" for entry in extra]
    path = folder / "hosts"
    path.write_text("".join(lines), encoding="utf-8")
    path.chmod(0o644)
    return path


def resolv_conf(folder: Path) -> Path:
    """This machine's own name servers, as the process uses this machine's network; an empty file where it has none."""
    path = Path(os.path.realpath(_RESOLV_CONF))
    if path.is_file():
        return path
    path = folder / "resolv.conf"
    path.touch()
    return path
