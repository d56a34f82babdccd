"""The components that the real tests run against, none of them ours: `components.py install` puts them on this machine.

With root on Debian the missing packages are installed, and a current Docker Engine is unpacked into a folder of its own
(`BRICKYARD_TEST_ENGINE`, by default `$XDG_CACHE_HOME/brickyard-tests/engine`): its packages come from a newer suite of
the same archive, and neither the system's package lists nor its Docker are touched. Elsewhere the missing programs are
named and the tests that need them skip (in CI a skip fails the run).
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# program -> Debian package
PROGRAMS = {
    "busybox": "busybox-static",
    "crun": "crun",
    "docker-registry": "docker-registry",
    "git": "git",
    "htpasswd": "apache2-utils",
    "openssl": "openssl",
    "runc": "runc",
    "skopeo": "skopeo",
    "ssh-agent": "openssh-client",
    "umoci": "umoci",
    "xz": "xz-utils",
}

# Debian's stable has an older Engine. The suite's runc is left out: it wants a newer libc, the system's own serves.
SUITE = "forky"
ENGINE_PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "containerd")
ENGINE_PROGRAMS = ("usr/sbin/dockerd", "usr/bin/docker", "usr/bin/containerd", "usr/bin/containerd-shim-runc-v2")
BUILDX = "usr/libexec/docker/cli-plugins/docker-buildx"


def search_path() -> str:
    """Where programs are looked for: daemons may stand in the administrator's folders."""
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def missing() -> dict[str, str]:
    """The programs that are not on this machine, each with the package that has it."""
    path = search_path()
    return {program: package for program, package in PROGRAMS.items() if shutil.which(program, path=path) is None}


def engine_root() -> Path:
    """The folder that the Docker Engine is unpacked into."""
    if chosen := os.environ.get("BRICKYARD_TEST_ENGINE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brickyard-tests/engine"


def engine_is_there(root: Path) -> bool:
    """Whether a Docker Engine with buildx is in the folder."""
    return all(os.access(root / program, os.X_OK) for program in (*ENGINE_PROGRAMS, BUILDX))


def install() -> None:
    """Install what is missing where that is possible, and name what is not."""
    root = engine_root()
    debian = os.geteuid() == 0 and shutil.which("apt-get") is not None
    if debian and (packages := sorted(set(missing().values()))):
        install_packages(packages)
    if debian and not engine_is_there(root):
        install_engine(root)
    why = "" if debian else ", which needs root on Debian to be installed from here"
    for program, package in missing().items():
        print(f"missing: {program} (Debian package {package}){why}; the tests with it will skip", file=sys.stderr)
    if not engine_is_there(root):
        print(f"missing: Docker Engine in {root}{why}; the tests with it will skip", file=sys.stderr)


def install_packages(packages: list[str]) -> None:
    """Install Debian packages the ordinary way."""
    print(f"installing {' '.join(packages)}", file=sys.stderr)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=env, check=False)
    subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
        env=env,
        check=False,
        stdout=subprocess.DEVNULL,
    )


def install_engine(root: Path) -> None:
    """Unpack the Docker Engine's packages into a folder. Says so, and leaves nothing, if that fails."""
    entry = newer_source()
    if entry is None:
        print("no entry for this Debian among the apt sources: Docker Engine can't be fetched", file=sys.stderr)
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with (root.parent / f"{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if engine_is_there(root):
            return
        print(f"unpacking {' '.join(ENGINE_PACKAGES)} of {SUITE} into {root}", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="engine-", dir=root.parent) as folder:
            try:
                unpack(entry, Path(folder))
            except subprocess.CalledProcessError as error:
                said = (error.stderr or error.stdout or b"").decode(errors="replace").strip()
                print(f"{error.cmd[0]} fails with exit code {error.returncode}:\n{said}", file=sys.stderr)
                return
            shutil.rmtree(root, ignore_errors=True)
            (Path(folder) / "root").rename(root)


def unpack(entry: str, folder: Path) -> None:
    """Fetch and unpack the packages into `folder/root`, with package lists of its own."""
    sources = folder / "engine.sources"
    sources.write_text(entry)
    for name in ("lists/partial", "cache/archives/partial", "debs", "root"):
        (folder / name).mkdir(parents=True)
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    subprocess.run(["apt-get", "update", "-qq", *flags], check=True, capture_output=True)
    subprocess.run(
        ["apt-get", "download", "-qq", *ENGINE_PACKAGES, *flags], cwd=folder / "debs", check=True, capture_output=True
    )
    for package in sorted((folder / "debs").glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, folder / "root"], check=True, capture_output=True)


def newer_source() -> str | None:
    """The machine's own apt source for Debian, for the newer suite, in the deb822 form."""
    release = Path("/etc/os-release").read_text()
    name = re.search(r'^VERSION_CODENAME="?(\w+)', release, re.MULTILINE)
    if name is None:
        return None
    for source in machine_sources():
        if name[1] in source.get("suites", "").split() and "deb" in source.get("types", "").split():
            wanted = {**source, "types": "deb", "suites": SUITE, "components": "main"}
            return "".join(f"{key.title()}: {value}\n" for key, value in wanted.items())
    return None


def machine_sources() -> Iterator[dict[str, str]]:
    """What the machine's apt source files say, in either form, as fields with their names in lower case."""
    etc = Path("/etc/apt")
    for path in sorted((etc / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            lines = "\n".join(line for line in stanza.splitlines() if not line.startswith("#"))
            fields = re.findall(r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", lines, re.MULTILINE)
            source = {key.lower(): value for key, value in fields}
            if source.pop("enabled", "yes").strip().lower() in ("yes", "true"):
                yield source
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]:
        for line in path.read_text().splitlines() if path.exists() else []:
            entry = re.match(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uris>\S+)\s+(?P<suites>\S+)", line)
            if entry is not None:
                options = dict(option.split("=", 1) for option in (entry["options"] or "").split() if "=" in option)
                key = {"signed-by": options["signed-by"]} if "signed-by" in options else {}
                yield {"types": "deb", "uris": entry["uris"], "suites": entry["suites"], **key}


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit("usage: components.py install")
    install()
