"""The components the real tests run against, none of them ours: `components.py install` puts them on this machine.

With root on Debian the packages are installed; elsewhere the missing programs are named and the tests that need them
skip (in CI a skip fails the run).
"""

import os
import shutil
import subprocess
import sys

# program -> Debian package
PROGRAMS = {
    "crun": "crun",
    "skopeo": "skopeo",
    "umoci": "umoci",
    "docker-registry": "docker-registry",
    "htpasswd": "apache2-utils",
    "busybox": "busybox-static",
}


def missing() -> dict[str, str]:
    """The programs that are not on this machine, each with the package that has it."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return {program: package for program, package in PROGRAMS.items() if shutil.which(program, path=path) is None}


def install() -> None:
    """Install what is missing where that is possible, and name what is not."""
    packages = sorted(set(missing().values()))
    if packages and os.geteuid() == 0 and shutil.which("apt-get"):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], env=env, check=False)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
            env=env,
            check=False,
            stdout=subprocess.DEVNULL,
        )
    for program, package in missing().items():
        print(f"missing: {program} (Debian package {package}); the tests that need it will skip", file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit("usage: components.py install")
    install()
