"""Programs that tests start: where they are, when they are ready, and a registry."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def program(name: str) -> str:
    """The path of a program, or a skip."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (tests/real/components.py install)")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: "subprocess.Popen[bytes]", log: Path | None = None) -> None:
    """Until a server that was started listens."""
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text()[-2000:] if log else ""
                pytest.fail(f"{process.args!r} does not start: {said}")
            time.sleep(0.05)


@contextmanager
def serving(folder: Path, auth: dict[str, Any], tls: dict[str, str] | None = None) -> Iterator[str]:
    """A registry that keeps its content in `folder`; gives its `host:port`."""
    command = program("docker-registry")
    port = free_port()
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "test", **({"tls": tls} if tls else {})},
    }
    if auth:
        config["auth"] = auth
    # JSON is YAML.
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([command, "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        wait_for_port(port, process, folder / "log")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
