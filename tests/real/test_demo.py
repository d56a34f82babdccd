"""`make demo`, and the same image in the hands of tools that are not ours."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = "one was here\ntwo was here\nthree was here\nfour was here\n"

pytestmark = pytest.mark.real


@dataclass(frozen=True)
class Demo:
    """The demo after it ran."""

    out: Path
    text: str

    def part(self, number: int) -> str:
        """What it said under one of its headings."""
        return re.split(r"\n\x1b\[1m==> [^\n]*\n", "\n" + self.text)[number]


@pytest.fixture(scope="module")
def brickyard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, as a program of one word."""
    program = tmp_path_factory.mktemp("bin") / "brickyard"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m brickyard "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, brickyard: Path) -> Demo:
    """The demo, run once in a folder of its own."""
    home = tmp_path_factory.mktemp("demo")
    shutil.copytree(ROOT / "examples", home / "examples")
    env = {key: value for key, value in os.environ.items() if key != "BRICKYARD_ROOT"}
    done = subprocess.run(
        ["sh", "examples/demo.sh", brickyard, "out"], cwd=home, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Demo(home / "out", done.stdout + done.stderr)


def test_stages_run_at_the_same_time(demo: Demo) -> None:
    took = re.search(r"first build  ([0-9.]+) s", demo.text)
    assert took is not None
    # One after the other the stages take 20 seconds. `benchmarks/` has the exact figure, on a machine at rest.
    assert float(took[1]) < 15


def test_the_second_build_runs_nothing(demo: Demo) -> None:
    second = demo.text.rindex("[internal] load build definition")
    runs = re.findall(r"^#(\d+) \[\w+ \d/\d\] RUN sleep", demo.text[second:], re.MULTILINE)
    cached = re.findall(r"^#(\d+) CACHED", demo.text[second:], re.MULTILINE)
    assert len(runs) == 4
    assert set(runs) <= set(cached)


def test_the_command_ran(demo: Demo) -> None:
    assert FILES in demo.text


def test_skopeo_reads_the_image(demo: Demo) -> None:
    done = subprocess.run(
        ["skopeo", "inspect", f"oci:{demo.out / 'image'}:latest"], capture_output=True, text=True, check=True
    )
    digest = json.loads((demo.out / "metadata.json").read_text())["containerimage.digest"]
    assert json.loads(done.stdout)["Digest"] == digest
    assert f"digest       {digest}" in demo.text


def test_skopeo_copies_it_to_a_registry(demo: Demo, registry: str) -> None:
    there = f"docker://{registry}/demo:latest"
    copy = ["skopeo", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"]
    subprocess.run([*copy, f"oci:{demo.out / 'image'}:latest", there], check=True)
    inspect = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", there]
    digest = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()
    assert f"digest       {digest}" in demo.text


def test_umoci_unpacks_it_and_a_runtime_runs_it(demo: Demo, tmp_path: Path) -> None:
    image = f"{demo.out / 'image'}:latest"
    subprocess.run(["umoci", "unpack", "--image", image, tmp_path / "bundle"], check=True, capture_output=True)
    assert (tmp_path / "bundle/rootfs/three.txt").read_text() == "three was here\n"
    config = tmp_path / "bundle/config.json"
    config.write_text(config.read_text().replace('"terminal": true', '"terminal": false'))
    # crun refuses machines with both versions of cgroups where the second one has controllers; runc takes them.
    controllers = Path("/sys/fs/cgroup/unified/cgroup.controllers")
    runtime = "runc" if controllers.exists() and controllers.read_text().strip() else "crun"
    done = subprocess.run(
        [runtime, "run", "--bundle", tmp_path / "bundle", f"brickyard-test-{os.getpid()}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == FILES


def test_the_web_site_builds(demo: Demo, brickyard: Path, tmp_path: Path) -> None:
    """The other example: cache mount, secret, test stage, ignore file."""
    (tmp_path / "key").write_text("s3cret-key")
    command = [
        brickyard, "build", "--root", tmp_path / "root", "--progress", "plain",
        "--build-context", f"base=oci-layout://{demo.out / 'base'}",
        "--secret", f"id=signing_key,src={tmp_path / 'key'}",
        "--build-arg", "VERSION=1.2", "-o", tmp_path / "rootfs", ROOT / "examples/webapp",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "all pages are good" in done.stderr
    site = tmp_path / "rootfs/site"
    assert sorted(path.name for path in site.glob("*.html")) == ["index.html", "opening.html"]
    assert (site / "version.txt").read_text() == "1.2\n"
    found = subprocess.run(["grep", "-r", "s3cret-key", tmp_path / "rootfs"], capture_output=True, check=False)
    assert found.returncode == 1
    (tmp_path / "key").unlink()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ERROR: secret signing_key: the file" in done.stderr


def test_ctrl_c_stops_everything(demo: Demo, brickyard: Path, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM base\nRUN echo begun && sleep 98765\n")
    command = [
        brickyard, "build", "--root", tmp_path / "root", "--progress", "plain",
        "--build-context", f"base=oci-layout://{demo.out / 'base'}", "-o", f"type=oci,dest={tmp_path / 'a.tar'}",
        tmp_path,
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    seen = ""
    while " begun\n" not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    rest = process.stderr.read()
    assert process.wait(timeout=30) == 130
    assert time.monotonic() - began < 10
    assert rest.endswith("ERROR: interrupted\n")
    assert "Traceback" not in rest
    assert not [path for path in tmp_path.iterdir() if "a.tar" in path.name]
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(tmp_path) not in mounts
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 98765" not in processes.replace("echo begun && sleep 98765", "")
