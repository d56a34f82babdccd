"""What goes wrong, or is done on purpose, around a daemon: it is killed, a frontend means harm, secrets pass through.

More of it: killed builds and a full disk in test_kill.py, broken frontends and clients in test_daemon_hostile.py,
certificates, entitlements, clients that leave and two daemons on a folder in test_daemon.py, hostile caches in
test_remote_cache.py.
"""

import base64
import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from daemons import Builder, Daemon, connect, running_daemon
from engine import Cli
from services import program

from brickyard.solver.snapshots.mounts import mounted_below

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
DAEMON_KILLS = 20
COMMAND_KILLS = 30
"""With the fifty of test_kill.py, a hundred."""

DOCKERFILE = """
FROM {base} AS one
COPY data /data
RUN --network=none --mount=type=cache,target=/c cat /data/* > /sum && echo x >> /c/log && sleep 0.03
FROM {base}
COPY --from=one /sum /sum
COPY --link data /all/
RUN --network=none sleep 0.03 && rm /all/0
"""


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in time"
        time.sleep(0.05)


class Context:
    """Files that say which round it is."""

    def __init__(self, folder: Path, base: str) -> None:
        self.folder = folder
        (folder / "data").mkdir(parents=True)
        (folder / "Dockerfile").write_text(DOCKERFILE.format(base=base))

    def begin(self, number: int) -> None:
        for name in range(6):
            (self.folder / "data" / str(name)).write_text(f"{name}: {number // (1 + name % 2)}\n")

    def check(self, out: Path) -> None:
        """What a build of the files has made."""
        files = {path.name: path.read_text() for path in (self.folder / "data").iterdir()}
        assert (out / "sum").read_text() == "".join(files[name] for name in sorted(files))
        del files["0"]
        assert {path.name: path.read_text() for path in (out / "all").iterdir()} == files
        assert (out / "bin/busybox").stat().st_size > 100_000
        subprocess.run(["rm", "-rf", out], check=True)


def brickyard(root: Path, *words: str | Path) -> "subprocess.Popen[str]":
    """Begin a command on a state folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "brickyard", *words], env={**os.environ, "BRICKYARD_ROOT": os.fspath(root)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def ended(process: "subprocess.Popen[str]", seconds: float = 120) -> str:
    said, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, said
    return said


def in_order(root: Path) -> None:
    """Nothing is mounted or half written, and the check of everything finds no damage.

    A prune that was killed may leave records of what it has removed: they count as none.
    """
    process = brickyard(root, "debug", "fsck")
    said, _ = process.communicate(timeout=120)
    found = [line for line in said.splitlines()[:-1] if not line.endswith("names a snapshot that is gone")]
    assert found == []
    assert process.returncode in (0, 1), said
    assert "Traceback" not in said
    assert mounted_below(root) == []
    assert os.listdir(root / "ingest") == []
    assert os.listdir(root / "mounts") == []


def test_commands_killed_while_they_export_and_prune(tmp_path: Path, base_layout: Path) -> None:
    root, context, out = tmp_path / "root", Context(tmp_path / "context", "base"), tmp_path / "out"
    base = ("--build-context", f"base=oci-layout://{base_layout}")
    kinds = (
        ("build", *base, "-o", f"type=oci,dest={tmp_path}/image.tar", context.folder),
        ("build", *base, "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max", context.folder),
        ("prune", "--all", "--force"),
    )

    def check() -> None:
        ended(brickyard(root, "build", *base, "-o", f"type=local,dest={out}", context.folder))
        context.check(out)

    takes = []
    for number, kind in enumerate(kinds):
        context.begin(number)
        began = time.monotonic()
        ended(brickyard(root, *kind))
        takes.append(time.monotonic() - began)
    moments = random.Random(2027)
    killed = 0
    for number in range(4 * COMMAND_KILLS):
        context.begin(number)
        turn = number % len(kinds)
        if turn == 2:
            check()
        process = brickyard(root, *kinds[turn])
        time.sleep(moments.uniform(0.3, 1.05) * takes[turn])
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        if process.returncode == 0:
            # The machine has become faster, or this was a short one: the next is killed earlier.
            takes[turn] *= 0.9
        else:
            assert process.returncode == -signal.SIGKILL
            killed += 1
        if killed == COMMAND_KILLS:
            break
    check()
    # The folder with the cache holds a whole one, whichever build was the last to end.
    ended(
        brickyard(
            tmp_path / "other", "build", *base, "--cache-from", f"type=local,src={tmp_path}/cache", context.folder
        )
    )
    assert killed == COMMAND_KILLS
    in_order(root)


def test_daemons_killed_while_they_build_export_and_prune(tmp_path: Path, buildx: Cli, base_image: str) -> None:
    context, out, folder = Context(tmp_path / "context", base_image), tmp_path / "out", tmp_path / "daemon"
    moments = random.Random(2028)
    with running_daemon(folder) as daemon:
        builder = connect(buildx, daemon)
        context.begin(0)
        builder.build(context.folder, "-o", f"type=local,dest={out}")
        context.begin(1)
        began = time.monotonic()
        builder.build(context.folder, "-o", f"type=local,dest={out}")
        takes = time.monotonic() - began
        context.check(out)
    flags = (
        ("-o", f"type=oci,dest={tmp_path}/image.tar"), ("--cache-to", f"type=local,dest={tmp_path}/cache,mode=max"),
        ("-o", f"type=local,dest={out}"),
    )  # fmt: skip
    for number in range(2, DAEMON_KILLS + 2):
        context.begin(number)
        with running_daemon(folder) as daemon:
            commands: list[list[str | Path]] = [["build", context.folder, *flags[number % len(flags)]]]
            if number % 2:
                commands.append(["prune", "--all", "--force"])
            clients = [
                subprocess.Popen(
                    ["docker", "buildx", command[0], "--builder", builder.name, *command[1:]], env=buildx.env,
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )
                for command in commands
            ]  # fmt: skip
            time.sleep(moments.uniform(0.1, 1.1) * takes)
            daemon.process.kill()
            daemon.process.wait(30)
            for client in clients:
                client.kill()
                client.wait(30)
        subprocess.run(["rm", "-rf", out], check=True)
    with running_daemon(folder) as daemon:
        builder.build(context.folder, "-o", f"type=local,dest={out}")
        context.check(out)
        assert "Traceback" not in daemon.log
    in_order(folder / "root")


HOSTILE = """
import os, sys, threading, time
from brickyard.frontend.gateway.bridge import ConnectedBridge
from brickyard.frontend.gateway.run import options
from brickyard.frontend.gateway.stdio import connect
from brickyard.llb.bridge import BridgeError
from brickyard.wire.pb import gateway_pb2 as g, ops_pb2

writer = os.dup(1)
os.dup2(2, 1)
sys.excepthook = lambda kind, error, trace: print(kind.__name__, error, file=sys.stderr)
bridge = ConnectedBridge(connect(0, writer))
pong = bridge.ping()


def refused(call):
    try:
        call()
    except BridgeError:
        return
    raise SystemExit("it was not refused")


def forged():
    for ref in ("0" * 24, "../../etc", "x" * 100_000, "sha256:" + "0" * 64):
        refused(lambda: bridge.read_file(g.ReadFileRequest(Ref=ref, FilePath="/etc/passwd")))
        refused(lambda: bridge.read_dir(g.ReadDirRequest(Ref=ref, DirPath="/")))
        refused(lambda: bridge.stat_file(g.StatFileRequest(Ref=ref, Path="/")))
        refused(lambda: bridge.evaluate(g.EvaluateRequest(Ref=ref)))
        refused(lambda: bridge.give_back(g.ReturnRequest(result=g.Result(ref=g.Ref(id=ref)))))
    bridge.give_back(g.ReturnRequest(result=g.Result(metadata={"frontend.said": b"all refused"})))


def broken():
    noise = os.urandom(1000)
    digest = "sha256:" + "0" * 64
    own = ops_pb2.Op(inputs=[ops_pb2.Input(digest=digest)]).SerializeToString()
    for definition in ([noise], [own], [b""] * 1000, [b"\\\\xff" * 1_000_000]):
        refused(lambda: bridge.solve(g.SolveRequest(Definition=ops_pb2.Definition(**{"def": definition}))))
    refused(lambda: bridge.solve(g.SolveRequest(Frontend="gateway.v0", FrontendOpt={"source": "../x"})))
    refused(lambda: bridge.solve(g.SolveRequest(Frontend="none.v0")))
    refused(lambda: bridge.resolve_image_config(g.ResolveImageConfigRequest(Ref="../..")))
    bridge.give_back(g.ReturnRequest(result=g.Result(metadata={"frontend.said": b"all refused"})))


def flood():
    def call():
        for number in range(150):
            bridge.ping()
            refused(lambda: bridge.evaluate(g.EvaluateRequest(Ref=str(number))))
            bridge.solve(g.SolveRequest(allowResultReturn=True))

    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bridge.give_back(g.ReturnRequest(result=g.Result(metadata={"frontend.said": b"flooded"})))


def metadata():
    bridge.give_back(g.ReturnRequest(result=g.Result(metadata={"x%d" % n: b"x" * 150 for n in range(100_000)})))


def names():
    made = {"containerimage.config": b"[" * 100_000, "refs.platforms": b"{}", "frontend." + "x" * 1_000_000: b"y"}
    bridge.give_back(g.ReturnRequest(result=g.Result(metadata=made)))


def never():
    time.sleep(3600)


def garbage():
    while True:
        os.write(writer, os.urandom(65536))


globals()[options(os.environ)["build-arg:MODE"]]()
os._exit(0)
"""

IMAGE = """
FROM base
COPY --from=packages google /packages/google
COPY --from=packages hpack /packages/hpack
COPY --from=rooms brickyard/__init__.py /packages/brickyard/
COPY --from=rooms grammar /packages/brickyard/grammar
COPY --from=rooms wire /packages/brickyard/wire
COPY --from=rooms oci /packages/brickyard/oci
COPY --from=rooms llb /packages/brickyard/llb
COPY --from=rooms frontend /packages/brickyard/frontend
COPY hostile.py /
ENV PYTHONPATH=/packages
ENTRYPOINT ["/usr/bin/python3", "/hostile.py"]
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running_daemon(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest.fixture
def builder(buildx: Cli, daemon: Daemon) -> Builder:
    return connect(buildx, daemon)


@pytest.fixture(scope="module")
def hostile(
    tmp_path_factory: pytest.TempPathFactory, frontend_sources: tuple[str, ...], registry: str, daemon: Daemon
) -> str:
    """A frontend image that does what its build argument MODE says."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "Dockerfile").write_text(IMAGE)
    (folder / "hostile.py").write_text(HOSTILE)
    name = f"{registry}/faults/frontend:1"
    contexts = (*frontend_sources[2:], "--build-context", f"rooms={ROOT}")
    ended(brickyard(folder / "root", "build", *contexts, "--push", "-t", name, folder))
    return name


@pytest.fixture
def context(tmp_path: Path, hostile: str) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"# syntax={hostile}\nFROM scratch\n")
    return folder


def plain_build_works(builder: Builder, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(f"FROM scratch\nCOPY Dockerfile /\nLABEL n={time.time_ns()}\n")
    builder.build(folder, "-o", f"type=local,dest={folder}/out")
    assert (folder / "out/Dockerfile").exists()


MODES = {
    "forged": "",
    "broken": "",
    "flood": "",
    "metadata": "",
    "names": "",
    "garbage": "HTTP/2",
}


@pytest.mark.parametrize("mode", MODES)
def test_a_frontend_that_means_harm(mode: str, builder: Builder, daemon: Daemon, context: Path, tmp_path: Path) -> None:
    """It is refused by name, or gets nothing out of it; other builds go on meanwhile."""
    builds = threading.Thread(target=plain_build_works, args=(builder, tmp_path / "other"))
    builds.start()
    metadata = tmp_path / "metadata.json"
    done = builder.build(context, "--build-arg", f"MODE={mode}", "--metadata-file", metadata, check=False)
    builds.join(120)
    assert not builds.is_alive()
    assert (tmp_path / "other/out/Dockerfile").exists()
    assert "it was not refused" not in done.stderr
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    if mode in ("forged", "broken", "flood"):
        assert done.returncode == 0, done.stderr[-3000:]
    if MODES[mode]:
        assert done.returncode == 1
        assert MODES[mode] in done.stderr, done.stderr[-3000:]
    assert "Traceback" not in daemon.log
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{daemon.process.pid}/status").read_text())
    assert peak is not None
    assert int(peak[1]) < 1_000_000


def test_a_frontend_that_never_returns_ends_with_its_build(builder: Builder, context: Path, tmp_path: Path) -> None:
    command = ["docker", "buildx", "build", "--builder", builder.name, "--build-arg", "MODE=never", context]
    build = subprocess.Popen(command, env=builder.cli.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: frontends(), "the start of the frontend")
    plain_build_works(builder, tmp_path / "other")
    assert build.poll() is None
    build.send_signal(signal.SIGINT)
    assert build.wait(60) != 0
    wait_for(lambda: not frontends(), "the end of the frontend")


def frontends() -> list[str]:
    """The hostile frontends that run."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[:2] == [b"/usr/bin/python3", b"/hostile.py"]:
                found.append(process.name)
    return found


SECRETS = {name: f"{name}-s3cret-of-the-faults-test-{name}" for name in ("file", "env", "login")}


def forms(secret: str) -> list[bytes]:
    """A secret as it is, in hexadecimal, and in base64 wherever it begins in a text."""
    data = secret.encode()
    coded = [base64.b64encode(bytes(shift) + data)[4:-4] for shift in range(3)]
    return [data, data.hex().encode(), *coded]


def unpacked(data: bytes) -> bytes:
    """A blob without its compression."""
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def holding(folder: Path, secrets: dict[str, str]) -> set[str]:
    """The files below a folder that have a secret in them, and the secrets' names."""
    wanted = [(name, form) for name, secret in secrets.items() for form in forms(secret)]
    found = set()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            for text in {data, unpacked(data)}:
                found |= {f"{path.relative_to(folder)}: {name}" for name, form in wanted if form in text}
    return found


def test_secrets_leave_no_trace(tmp_path: Path, buildx: Cli, base_image: str, registry_basic: Any) -> None:
    """They are in no blob, snapshot, log, history row, cache record, image, cache or attestation."""
    key, context = tmp_path / "key", tmp_path / "context"
    subprocess.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "mason", "-f", key], check=True)
    secrets = SECRETS | {"key": "".join(key.read_text().splitlines()[2:4])[:80], "password": registry_basic.password}
    login = base64.b64encode(f"{registry_basic.user}:{registry_basic.password}".encode()).decode()
    (buildx.config / "config.json").write_text(json.dumps({"auths": {registry_basic.host: {"auth": login}}}))
    (tmp_path / "secret").write_text(SECRETS["file"])
    context.mkdir()
    (context / "Dockerfile").write_text(f"""
FROM {base_image}
RUN --network=none --mount=type=secret,id=file,required=true wc -c < /run/secrets/file > /length
RUN --network=none --mount=type=secret,id=file,target=/deep/er/secret,mode=0444 test -s /deep/er/secret
RUN --network=none --mount=type=secret,id=env,env=TOKEN,required=true test -n "$TOKEN" && echo ${{#TOKEN}} > /again
RUN --network=none --mount=type=secret,id=env --mount=type=cache,target=/c test -s /run/secrets/env && echo x > /c/x
RUN --network=none --mount=type=ssh,required=true test -S "$SSH_AUTH_SOCK" && echo "$SSH_AUTH_SOCK" > /socket
ARG FAIL=
RUN --network=none --mount=type=secret,id=file --mount=type=secret,id=env,env=TOKEN test -z "$FAIL"
""")
    flags = ("--secret", f"id=file,src={tmp_path}/secret", "--secret", "id=env,env=SECRET", "--ssh", f"default={key}")
    env = {"SECRET": SECRETS["env"]}
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    with running_daemon(tmp_path / "daemon") as daemon:
        builder = connect(buildx, daemon)
        for compression in ("gzip", "zstd"):
            builder.build(
                context, *flags, "-o", f"type=oci,dest={outputs}/{compression}.tar,compression={compression}",
                "-o", f"type=image,push=true,name={registry_basic.host}/faults/secrets:{compression}",
                "--cache-to", f"type=local,dest={outputs}/cache-{compression},mode=max,compression={compression}",
                "--attest", "type=provenance,mode=max", "--progress", "plain", env=env,
            )  # fmt: skip
        failed = builder.build(context, *flags, "--build-arg", "FAIL=1", env=env, check=False)
        assert failed.returncode == 1
        shown = builder.buildx("history ls").stdout + builder.buildx("du", "--verbose").stdout + failed.stderr
        assert not any(form in shown.encode() for secret in secrets.values() for form in forms(secret))
        # Once while it runs, with all that it has open, and once when it has ended.
        assert holding(tmp_path / "daemon", secrets) == set()
    assert holding(tmp_path / "daemon", secrets) == set()
    for tar in outputs.glob("*.tar"):
        (outputs / tar.stem).mkdir()
        subprocess.run(["tar", "-xf", tar, "-C", outputs / tar.stem], check=True)
    assert len(list((outputs / "zstd/blobs/sha256").iterdir())) > 5
    assert holding(outputs, secrets) == set()
    # The search itself finds what is there.
    (outputs / "left").write_bytes(gzip.compress(b"x" + base64.b64encode(b"ab" + SECRETS["env"].encode())))
    assert holding(outputs, secrets) == {"left: env"}
