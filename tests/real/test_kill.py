"""Builds and prunes that are killed at any moment, or run out of disk: what comes later is right, nothing is left."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from brickyard.solver.cache.store import CacheStore
from brickyard.solver.snapshots.mounts import mounted_below, unmount
from brickyard.solver.snapshots.store import Snapshots

pytestmark = pytest.mark.real

KILLS = 50
CHECK_EVERY = 10
PRUNE_EVERY = 7
DOCKERFILE = """
FROM base AS one
COPY data /data
RUN --mount=type=cache,target=/c cat /data/* > /sum && echo x >> /c/log && rm -rf /home && sleep 0.03
FROM base AS two
COPY --link data/1 /l/1
RUN cp -r /l /copy && rm /l/1 && sleep 0.03
FROM base
COPY --from=one /sum /sum
COPY --link --from=two /copy /copy
COPY --link data /all/
RUN --mount=from=one,target=/one mv /copy/1 /moved && test ! -e /one/home && rm /all/0 && sleep 0.02
"""


class Builds:
    """Builds of one context whose files say which round it is."""

    def __init__(self, base: Path, root: Path, layout: Path) -> None:
        self.context = base / "context"
        self.out = base / "out"
        self.root = root
        self._layout = layout
        (self.context / "data").mkdir(parents=True)
        (self.context / "Dockerfile").write_text(DOCKERFILE)

    def begin(self, number: int) -> None:
        """The files of a round; one of them is the same in every other."""
        for name in range(8):
            (self.context / "data" / str(name)).write_text(f"{name}: {number // (1 + name % 2)}\n")

    def start(self) -> subprocess.Popen[str]:
        command = ["build", "--progress", "plain", "--build-context", f"base=oci-layout://{self._layout}"]
        return self._run(*command, "-o", f"type=local,dest={self.out}", self.context)

    def prune(self) -> subprocess.Popen[str]:
        return self._run("prune", "--all", "--force")

    def _run(self, *command: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "brickyard", *command],
            env={**os.environ, "BRICKYARD_ROOT": os.fspath(self.root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def check(self) -> float:
        """Build to the end, and look at what came out; gives the seconds that it took."""
        began = time.monotonic()
        process = self.start()
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
        took = time.monotonic() - began
        files = {path.name: path.read_text() for path in (self.context / "data").iterdir()}
        assert (self.out / "sum").read_text() == "".join(files[name] for name in sorted(files))
        assert (self.out / "moved").read_text() == files["1"]
        assert not list((self.out / "copy").iterdir())
        del files["0"]
        assert {path.name: path.read_text() for path in (self.out / "all").iterdir()} == files
        assert (self.out / "bin/busybox").stat().st_size > 100_000
        self.clear()
        return took

    def clear(self) -> None:
        subprocess.run(["rm", "-rf", self.out], check=True)


def in_order(root: Path) -> None:
    """Nothing is mounted or left over, and every record names what is there."""
    assert mounted_below(root) == []
    snapshots = Snapshots(root)
    cache = CacheStore(root)
    try:
        assert snapshots.check() == []
        assert os.listdir(root / "ingest") == []
        assert os.listdir(root / "mounts") == []
    finally:
        snapshots.close()
        cache.close()


def test_killed_at_any_moment(tmp_path: Path, base_layout: Path) -> None:
    builds = Builds(tmp_path, tmp_path / "root", base_layout)
    builds.begin(0)
    builds.check()
    builds.begin(1)
    takes = builds.check()
    moments = random.Random(2026)
    killed = 0
    for number in range(2, 4 * KILLS):
        builds.begin(number)
        pruned = number % PRUNE_EVERY == 0
        process = builds.prune() if pruned else builds.start()
        time.sleep(moments.uniform(0.15 * takes, (0.5 if pruned else 1.05) * takes))
        process.send_signal(signal.SIGKILL)
        assert process.stdout is not None
        if process.wait() == 0:
            # The machine has become faster, or this was a short one: the next is killed earlier.
            takes *= 0.95
        else:
            assert process.returncode == -signal.SIGKILL
            killed += 1
        process.stdout.close()
        builds.clear()
        if number % CHECK_EVERY == 0:
            builds.check()
        if killed == KILLS:
            break
    builds.check()
    assert killed == KILLS
    in_order(tmp_path / "root")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a small file system is mounted")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], check=True)
    yield folder
    for left in mounted_below(folder):
        unmount(left)
    unmount(folder)


def test_a_full_disk(tmp_path: Path, base_layout: Path, small_disk: Path) -> None:
    root = small_disk / "root"
    builds = Builds(tmp_path, root, base_layout)
    builds.begin(0)
    builds.check()
    for instruction in ("COPY big /", "COPY --link big /", "RUN dd if=/dev/zero of=/big bs=1M count=40"):
        (builds.context / "Dockerfile").write_text(f"FROM base\n{instruction}\n")
        (builds.context / "big").write_bytes(os.urandom(40_000_000) if "COPY" in instruction else b"")
        process = builds.start()
        said, _ = process.communicate(timeout=60)
        assert process.returncode != 0, said
        assert "no space left on" in said.lower(), said
        assert "Traceback" not in said
        builds.clear()
    (builds.context / "big").unlink()
    (builds.context / "Dockerfile").write_text(DOCKERFILE)
    builds.begin(1)
    builds.check()
    in_order(root)
