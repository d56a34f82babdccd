"""Daemons of ours for tests, and real buildx in front of them."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from engine import Cli

from brickyard.wire.h2.client import Caller
from brickyard.wire.h2.connection import Connection
from brickyard.wire.h2.server import serve

STOP_SECONDS = 30


@dataclass
class Daemon:
    """A daemon that runs."""

    folder: Path
    process: "subprocess.Popen[bytes]"
    started: float
    """How long it took until it listened."""

    @property
    def address(self) -> str:
        return f"unix://{self.folder}/socket"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


@contextmanager
def running_daemon(folder: Path, *flags: str, config: str = "", root: Path | None = None) -> Iterator[Daemon]:
    """`brickyard daemon` with its state and log in a folder, stopped in the orderly way at the end."""
    if os.geteuid() != 0:
        pytest.skip("the daemon's sandboxes are tested as root")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "buildkitd.toml").write_text(config)
    command = [
        sys.executable, "-m", "brickyard", "daemon", "--addr", f"unix://{folder}/socket", "--debug",
        "--root", root or folder / "root", "--config", folder / "buildkitd.toml", *flags,
    ]  # fmt: skip
    began = time.monotonic()
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    daemon = Daemon(folder, process, 0.0)
    try:
        while not (folder / "socket").exists():
            if process.poll() is not None or time.monotonic() - began > 20:
                pytest.fail(f"the daemon does not start: {daemon.log[-4000:]}")
            time.sleep(0.02)
        daemon.started = time.monotonic() - began
        yield daemon
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
                pytest.fail(f"the daemon does not stop: {daemon.log[-4000:]}")


@dataclass(frozen=True)
class Builder:
    """buildx with a daemon of ours as its builder."""

    cli: Cli
    daemon: Daemon
    name: str = "ours"

    def buildx(self, command: str, *args: str | Path, **options: object) -> "subprocess.CompletedProcess[str]":
        """Run `docker buildx COMMAND --builder …`."""
        words = command.split()
        return self.cli.buildx(*words, "--builder", self.name, *args, **options)  # type: ignore[arg-type]

    def build(self, *args: str | Path, **options: object) -> "subprocess.CompletedProcess[str]":
        """Run `docker buildx build`."""
        return self.buildx("build", *args, **options)


def connect(cli: Cli, daemon: Daemon, name: str = "ours", address: str = "", *options: str) -> Builder:
    """Tell buildx of a daemon."""
    words = [word for option in options for word in ("--driver-opt", option)]
    cli.buildx("create", "--name", name, "--driver", "remote", *words, address or daemon.address)
    return Builder(cli, daemon, name)


@contextmanager
def calling(daemon: Daemon) -> Iterator[Caller]:
    """A connection to a daemon, for calls that buildx does not make."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(daemon.address.removeprefix("unix://"))
        ours = Connection(connection.sendall)
        reader = threading.Thread(target=serve, args=(ours, lambda: connection.recv(65536), lambda: None))
        reader.start()
        try:
            yield Caller(ours)
        finally:
            connection.shutdown(socket.SHUT_RDWR)
            reader.join(10)
