"""A Docker Engine of the test run's own, and buildx without one.

The Engine is the one that `components.py` unpacks. It has no bridge network, so that it needs neither iptables nor a
free address range: a RUN that wants a network says `--network=host`, one that doesn't `--network=none`.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import components
import pytest


@dataclass(frozen=True)
class Cli:
    """The docker command with a configuration of its own."""

    root: Path
    """What the Engine's packages are unpacked into."""
    config: Path
    """`$DOCKER_CONFIG`: empty, but for the buildx plugin."""
    host: str
    """`$DOCKER_HOST`."""

    @property
    def env(self) -> dict[str, str]:
        """The environment of the command: this one, without anything that could change what a build does."""
        dropped = re.compile(
            r"(?i)^(docker_|buildx_|buildkit_|source_date_epoch$|ssh_auth_sock$|(http|https|no|all)_proxy$)"
        )
        kept = {key: value for key, value in os.environ.items() if not dropped.match(key)}
        return {**kept, "PATH": engine_path(self.root), "DOCKER_CONFIG": str(self.config), "DOCKER_HOST": self.host}

    def docker(
        self,
        *args: str | Path,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bytes | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGS`; gives what it wrote. With `check`, the test fails if docker does."""
        done = subprocess.run(
            ["docker", *args],
            env={**self.env, **(env or {})},
            cwd=cwd,
            input=b"" if stdin is None else stdin,
            capture_output=True,
            check=False,
            timeout=timeout,
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if check and done.returncode:
            said = f"{out[-4000:]}{err[-8000:]}"
            pytest.fail(f"docker {' '.join(map(str, args))} fails with exit code {done.returncode}:\n{said}")
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def buildx(
        self,
        *args: str | Path,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bytes | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker buildx ARGS`."""
        return self.docker("buildx", *args, check=check, env=env, cwd=cwd, stdin=stdin, timeout=timeout)


@dataclass(frozen=True)
class Engine(Cli):
    """A running Docker Engine."""

    folder: Path
    """Its data, sockets and log."""

    @property
    def log(self) -> str:
        """What the daemon said so far."""
        return (self.folder / "log").read_text(errors="replace")


def engine_path(root: Path) -> str:
    """`$PATH` with the Engine's programs first, and runc wherever the system has it."""
    return f"{root}/usr/bin:{root}/usr/sbin:{components.search_path()}"


def needed_engine() -> Path:
    """The folder with the Engine's programs, or a skip."""
    root = components.engine_root()
    if not components.engine_is_there(root):
        pytest.skip(f"no Docker Engine in {root} (tests/real/components.py install)")
    return root


def config_folder(root: Path, folder: Path) -> Path:
    """A `$DOCKER_CONFIG` that has buildx."""
    plugins = folder / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-buildx").symlink_to(root / components.BUILDX)
    (folder / "config.json").write_text("{}")
    return folder


@contextmanager
def running_engine(folder: Path, insecure: Sequence[str] = ()) -> Iterator[Engine]:
    """A Docker Engine with its state in `folder`, stopped and unmounted at the end.

    Images are in containerd's store, so that buildx's default builder has every exporter. `insecure` are registries
    without TLS.
    """
    if os.geteuid() != 0:
        pytest.skip("Docker Engine needs root")
    root = needed_engine()
    folder.mkdir(parents=True, exist_ok=True)
    socket = folder / "docker.sock"
    engine = Engine(root, config_folder(root, folder / "config"), f"unix://{socket}", folder)
    (folder / "daemon.json").write_text('{"features": {"containerd-snapshotter": true}}')
    command = [
        # An Engine doesn't outlive a test run that is killed.
        "setpriv", "--pdeathsig", "TERM", "--",
        "dockerd", "--config-file", folder / "daemon.json", "--iptables=false", "--ip6tables=false", "--bridge=none",
        "--data-root", folder / "data", "--exec-root", folder / "exec", "-p", folder / "pid", "-H", engine.host,
        "--log-level", "warn", *(word for host in insecure for word in ("--insecure-registry", host)),
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=engine.env)
    try:
        deadline = time.monotonic() + 60
        # Its API answers a little after the socket is there.
        while not socket.exists() or engine.docker("version", check=False).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"dockerd does not start: {engine.log[-4000:]}")
            time.sleep(0.05)
        yield engine
    finally:
        stop(process, folder)


def stop(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Stop dockerd and what it started, take its mounts down, and drop its data."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
    # The containerd of a dockerd that was killed.
    left = folder / "exec/containerd/containerd.pid"
    if left.exists() and left.read_text().strip():
        try:
            os.kill(int(left.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            pass
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed([mount for mount in mounts if mount.startswith(f"{folder}/")]):
        subprocess.run(["umount", "-l", mount], check=False)
    for name in ("data", "exec"):
        shutil.rmtree(folder / name, ignore_errors=True)


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory, registry: str) -> Iterator[Engine]:
    """A Docker Engine with buildx that reads and writes the test registry."""
    with running_engine(tmp_path_factory.mktemp("engine"), [registry]) as engine:
        yield engine


@pytest.fixture
def buildx(tmp_path: Path) -> Cli:
    """buildx alone, for a remote builder: there is no Engine behind it."""
    root = needed_engine()
    return Cli(root, config_folder(root, tmp_path / "docker-config"), f"unix://{tmp_path}/no-engine.sock")
