"""Real buildx on a daemon of ours: what it does beside a plain build."""

import base64
import hashlib
import json
import os
import pty
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import Builder, Daemon, connect, running_daemon
from engine import Cli, Engine
from ociarchive import images
from services import free_port, program

pytestmark = pytest.mark.real

ALLOWED = ("--allow-insecure-entitlement", "network.host", "--allow-insecure-entitlement", "security.insecure")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running_daemon(tmp_path_factory.mktemp("daemon"), *ALLOWED) as running:
        yield running


@pytest.fixture
def builder(buildx: Cli, daemon: Daemon) -> Builder:
    return connect(buildx, daemon)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "a.txt").write_text("a\n")
    return folder


def dockerfile(context: Path, text: str, base: str = "") -> Path:
    (context / "Dockerfile").write_text(text.replace("@BASE@", base))
    return context


def lines(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if word in line]


def test_inspect_shows_the_worker(builder: Builder) -> None:
    shown = builder.cli.buildx("inspect", builder.name).stdout
    assert "Status:           running" in shown
    assert "org.mobyproject.buildkit.worker.executor" in shown
    assert "linux/amd64" in shown
    assert "GC Policy rule#3" in shown


def test_push_and_inspect(builder: Builder, context: Path, base_image: str, registry: str) -> None:
    name = f"{registry}/daemon/pushed:1"
    dockerfile(context, "FROM @BASE@\nCOPY a.txt /\nLABEL x=y\n", base_image)
    builder.build(context, "--push", "-t", name, "--provenance=false")
    shown = builder.cli.buildx("imagetools", "inspect", "--format", "{{json .Image}}", name).stdout
    assert json.loads(shown)["config"]["Labels"] == {"x": "y"}
    raw = subprocess.run(
        [program("skopeo"), "inspect", "--tls-verify=false", f"docker://{name}"], capture_output=True, check=True
    )
    assert len(json.loads(raw.stdout)["Layers"]) == 2


def test_push_an_index_of_platforms(builder: Builder, context: Path, registry: str) -> None:
    name = f"{registry}/daemon/index:1"
    dockerfile(context, "FROM scratch\nARG TARGETARCH\nCOPY a.txt /$TARGETARCH\n")
    builder.build(context, "--push", "-t", name, "--platform", "linux/amd64,linux/arm64", "--provenance=false")
    index = json.loads(builder.cli.buildx("imagetools", "inspect", "--raw", name).stdout)
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]


def test_push_with_provenance(builder: Builder, context: Path, registry: str) -> None:
    name = f"{registry}/daemon/attested:1"
    dockerfile(context, "FROM scratch\nCOPY a.txt /\n")
    builder.build(context, "--push", "-t", name, "--attest", "type=provenance,mode=max")
    shown = builder.cli.buildx("imagetools", "inspect", "--format", "{{json .Provenance}}", name).stdout
    assert "buildDefinition" in shown or "buildType" in shown


def test_output_of_each_type(builder: Builder, context: Path, tmp_path: Path) -> None:
    dockerfile(context, "FROM scratch\nCOPY a.txt /folder/\n")
    builder.build(context, "-o", f"type=local,dest={tmp_path}/local")
    assert (tmp_path / "local/folder/a.txt").read_text() == "a\n"
    builder.build(context, "-o", f"type=tar,dest={tmp_path}/files.tar")
    with tarfile.open(tmp_path / "files.tar") as tar:
        assert "folder/a.txt" in tar.getnames()
    builder.build(context, "-o", f"type=oci,dest={tmp_path}/oci.tar", "--provenance=false")
    ((_, (layer,)),) = images(tmp_path / "oci.tar").values()
    assert layer["folder/a.txt"][6] == b"a\n"
    builder.build(context, "-o", f"type=oci,tar=false,dest={tmp_path}/layout", "--provenance=false")
    assert json.loads((tmp_path / "layout/index.json").read_text())["manifests"]
    for blob in (tmp_path / "layout/blobs/sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    builder.build(context, "-o", f"type=docker,dest={tmp_path}/docker.tar", "-t", "made:1", "--provenance=false")
    with tarfile.open(tmp_path / "docker.tar") as tar:
        assert json.load(tar.extractfile("manifest.json"))[0]["RepoTags"] == ["made:1"]  # type: ignore[arg-type]
    piped = builder.build(context, "-o", "type=tar,dest=-", check=False)
    assert "folder/a.txt" in piped.stdout


def test_several_outputs_at_once(builder: Builder, context: Path, tmp_path: Path, registry: str) -> None:
    dockerfile(context, "FROM scratch\nCOPY a.txt /\n")
    builder.build(
        context, "-o", f"type=local,dest={tmp_path}/one", "-o", f"type=tar,dest={tmp_path}/two.tar",
        "-o", f"type=image,name={registry}/daemon/three:1,push=true", "--provenance=false",
    )  # fmt: skip
    assert (tmp_path / "one/a.txt").exists()
    assert (tmp_path / "two.tar").exists()
    assert "three" in builder.cli.buildx("imagetools", "inspect", f"{registry}/daemon/three:1").stdout


@pytest.mark.xdist_group("engine")
def test_load_into_an_engine_that_runs_it(
    docker_engine: Engine, daemon: Daemon, context: Path, base_image: str
) -> None:
    builder = connect(docker_engine, daemon, "loading")
    dockerfile(context, "@BASE@".join(["FROM ", '\nCOPY a.txt /\nCMD ["cat", "/a.txt"]\n']), base_image)
    builder.build(context, "--load", "-t", "loaded:1", "--provenance=false")
    ran = docker_engine.docker("run", "--rm", "--network", "none", "loaded:1")
    assert ran.stdout == "a\n"
    docker_engine.buildx("rm", "loading")


def signed_in(builder: Builder, login: Any, secret: str, key: str = "auth") -> None:
    """Give the client's docker credentials for a registry."""
    encoded = base64.b64encode(f"{login.user}:{secret}".encode()).decode()
    entry = {"auth": encoded} if key == "auth" else {"auth": encoded, key: secret}
    config = builder.cli.config / "config.json"
    config.write_text(json.dumps({"auths": {login.host: entry}}))


def test_credentials_of_the_client(builder: Builder, context: Path, registry_basic: Any) -> None:
    dockerfile(context, "FROM scratch\nCOPY a.txt /\n")
    push = ("--push", "-t", f"{registry_basic.host}/private/a:1", "--provenance=false")
    refused = builder.build(context, *push, check=False)
    assert refused.returncode == 1
    assert registry_basic.host in refused.stderr
    signed_in(builder, registry_basic, "wrong")
    assert builder.build(context, *push, check=False).returncode == 1
    signed_in(builder, registry_basic, registry_basic.password)
    builder.build(context, *push)
    dockerfile(context, f"FROM {registry_basic.host}/private/a:1\nCOPY a.txt /b.txt\n")
    builder.build(context)


def test_tokens_that_the_client_fetches(builder: Builder, context: Path, registry_token: Any, daemon: Daemon) -> None:
    """The token server is asked by buildx; the daemon never sees the password."""
    dockerfile(context, "FROM scratch\nCOPY a.txt /\n")
    signed_in(builder, registry_token, registry_token.identity, "identitytoken")
    asked = len(registry_token.requests)
    builder.build(context, "--push", "-t", f"{registry_token.host}/private/b:1", "--provenance=false")
    assert any("private/b:" in request for request in registry_token.requests[asked:])
    secret = registry_token.identity.encode()
    found = [path for path in daemon.folder.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert found == []


def test_registries_of_the_configuration(
    buildx: Cli, context: Path, tmp_path: Path, base_image: str, registry: str, registry_tls: tuple[str, Path]
) -> None:
    """A mirror for docker.io, and an authority for a registry with a certificate of its own."""
    secure, authority = registry_tls
    for name in (f"{registry}/library/mirrored:1", f"{secure}/library/secured:1"):
        copy = [program("skopeo"), "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]
        subprocess.run([*copy, f"docker://{base_image}", f"docker://{name}"], check=True)
    dockerfile(context, f"FROM mirrored:1\nCOPY --from={secure}/library/secured:1 /etc/passwd /\n")
    config = (
        f'[registry."docker.io"]\nmirrors = ["{registry}"]\n[registry."{registry}"]\nhttp = true\n'
        f'[registry."{secure}"]\nca = ["{authority}"]\n'
    )
    with running_daemon(tmp_path / "d", config=config) as daemon:
        connect(buildx, daemon).build(context)
    with running_daemon(
        tmp_path / "plain", config=config.replace("ca = ", "mirrors = ").replace(str(authority), "")
    ) as daemon:
        assert connect(buildx, daemon, "plain").build(context, check=False).returncode == 1


def test_bake_with_linked_targets(
    builder: Builder, context: Path, base_image: str, registry: str, tmp_path: Path
) -> None:
    (context / "docker-bake.json").write_text(json.dumps({
        "group": {"default": {"targets": ["app", "other"]}},
        "target": {
            "base": {"dockerfile-inline": f"FROM {base_image}\nRUN --network=none echo base > /base\n"},
            "app": {
                "contexts": {"base": "target:base"},
                "dockerfile-inline": "FROM base\nRUN --network=none grep base /base\n",
                "tags": [f"{registry}/daemon/app:1"], "output": ["type=registry"],
            },
            "other": {
                "dockerfile-inline": "FROM scratch\nCOPY a.txt /\n", "output": [f"type=local,dest={tmp_path}/other"],
            },
        },
    }))  # fmt: skip
    builder.buildx("bake", "--allow", "fs=*", cwd=context)
    assert (tmp_path / "other/a.txt").exists()
    assert "app:1" in builder.cli.buildx("imagetools", "inspect", f"{registry}/daemon/app:1").stdout


def test_history(builder: Builder, context: Path, tmp_path: Path) -> None:
    dockerfile(context, "FROM scratch\nCOPY a.txt /\n")
    builder.build(context, "--metadata-file", tmp_path / "metadata.json")
    ref = json.loads((tmp_path / "metadata.json").read_text())["buildx.build.ref"].rpartition("/")[2]
    assert ref in builder.buildx("history ls", "--no-trunc").stdout
    assert "COPY a.txt /" in builder.buildx("history logs", "--progress", "plain", ref).stderr
    shown = json.loads(builder.buildx("history inspect", "--format", "json", ref).stdout)
    assert shown["Ref"] == ref
    assert shown["Status"] == "completed"
    assert shown["NumTotalSteps"] >= 3
    attached = builder.buildx("history inspect attachment", "--type", "provenance", ref).stdout
    assert json.loads(attached)["buildDefinition"]["buildType"]
    dockerfile(context, "FROM scratch\nCOPY none /\n")
    assert builder.build(context, check=False).returncode == 1
    failed = builder.buildx("history inspect").stdout
    assert "none" in failed
    assert ">>> COPY none /" in failed
    builder.buildx("history rm", ref)
    assert ref not in builder.buildx("history ls", "--no-trunc").stdout


def test_history_survives_a_restart(buildx: Cli, context: Path, tmp_path: Path) -> None:
    dockerfile(context, "FROM scratch\nCOPY a.txt /\n")
    with running_daemon(tmp_path / "d") as daemon:
        builder = connect(buildx, daemon)
        builder.build(context)
        before = builder.buildx("history ls", "--no-trunc").stdout.split()[6:7]
    with running_daemon(tmp_path / "d"):
        listed = builder.buildx("history ls", "--no-trunc").stdout
        assert listed.split()[6:7] == before
        assert "COPY a.txt /" in builder.buildx("history logs", "--progress", "plain").stderr
        assert lines(builder.build(context, "--progress", "plain").stderr, "CACHED")


def test_du_and_prune(buildx: Cli, context: Path, tmp_path: Path) -> None:
    dockerfile(context, "FROM scratch\nCOPY a.txt /\n")
    with running_daemon(tmp_path / "d") as daemon:
        builder = connect(buildx, daemon)
        builder.build(context)
        assert "source.local" in builder.buildx("du", "--verbose").stdout
        builder.buildx("prune", "--force", "--filter", "type=source.local")
        assert "source.local" not in builder.buildx("du", "--verbose").stdout
        builder.buildx("prune", "--all", "--force")
        assert lines(builder.buildx("du").stdout, "Total:")[0].split()[1] == "0B"


@pytest.fixture(scope="module")
def other_frontend(frontend_image: str) -> str:
    """A frontend image under a name that the daemon's own frontend does not take for itself."""
    other = frontend_image.replace("brickyard/frontend", "other/dockerfile")
    flags = ["--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]
    subprocess.run([program("skopeo"), "copy", *flags, f"docker://{frontend_image}", f"docker://{other}"], check=True)
    return other


def test_frontend_image(builder: Builder, context: Path, other_frontend: str, base_image: str) -> None:
    dockerfile(
        context,
        f"# syntax={other_frontend}\nFROM @BASE@\nRUN --network=none echo by an image\nCOPY a.txt /\n",
        base_image,
    )
    said = builder.build(context, "--progress", "plain").stderr
    assert "resolve image config for docker-image://" in said
    assert "by an image" in said


def test_failing_build_through_a_frontend_image(builder: Builder, context: Path, other_frontend: str) -> None:
    dockerfile(context, f"# syntax={other_frontend}\nFROM scratch\nCOPY none /\n")
    failed = builder.build(context, check=False)
    assert failed.returncode == 1
    assert "   3 | >>> COPY none /" in failed.stderr


def test_entitlements_are_asked_for_and_granted(buildx: Cli, context: Path, tmp_path: Path, base_image: str) -> None:
    dockerfile(context, "# syntax=\nFROM @BASE@\nRUN --network=host true\n".replace("# syntax=\n", ""), base_image)
    with running_daemon(tmp_path / "d") as daemon:
        builder = connect(buildx, daemon)
        refused = builder.build(context, "--allow", "network.host", check=False)
        assert refused.returncode == 1
        assert "network.host" in refused.stderr
    with running_daemon(tmp_path / "d", "--allow-insecure-entitlement", "network.host") as daemon:
        refused = builder.build(context, check=False)
        assert refused.returncode == 1
        assert "network.host" in refused.stderr
        builder.build(context, "--allow", "network.host")


def test_contexts_on_standard_input(builder: Builder, tmp_path: Path) -> None:
    text = b"FROM scratch\nCOPY <<x /\nhello\nx\n"
    builder.build("-", "-o", f"type=local,dest={tmp_path}/one", stdin=text)
    assert (tmp_path / "one/x").read_text() == "hello\n"
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY b.txt /\n")
    (folder / "b.txt").write_text("b\n" * 100_000)
    packed = subprocess.run(["tar", "-cz", "-C", folder, "."], capture_output=True, check=True).stdout
    builder.build("-", "-o", f"type=local,dest={tmp_path}/two", stdin=packed)
    assert (tmp_path / "two/b.txt").read_text() == "b\n" * 100_000


def test_a_cancelled_build_stops_what_it_runs(builder: Builder, daemon: Daemon, context: Path, base_image: str) -> None:
    dockerfile(context, "FROM @BASE@\nRUN --network=none sleep 313\n", base_image)
    command = ["docker", "buildx", "build", "--builder", builder.name, "--progress", "plain", context]
    build = subprocess.Popen(command, env=builder.cli.env, stderr=subprocess.PIPE)
    assert build.stderr is not None
    for line in build.stderr:
        if b"sleep 313" in line:
            break
    wait_for(lambda: running("sleep 313"))
    build.send_signal(signal.SIGINT)
    build.stderr.read()
    assert build.wait(20) != 0
    wait_for(lambda: not running("sleep 313"))
    assert json.loads(builder.buildx("history inspect", "--format", "json").stdout)["Status"] == "canceled"


def test_a_client_that_is_killed_stops_its_own_build_only(builder: Builder, context: Path, base_image: str) -> None:
    dockerfile(context, "FROM @BASE@\nARG N\nRUN --network=none sleep $N && echo slept\n", base_image)
    command = ["docker", "buildx", "build", "--builder", builder.name, "--progress", "plain", context, "--build-arg"]
    first = subprocess.Popen(
        [*command, "N=314"], env=builder.cli.env, stderr=subprocess.DEVNULL, start_new_session=True
    )
    second = subprocess.Popen([*command, "N=3"], env=builder.cli.env, stderr=subprocess.PIPE)
    wait_for(lambda: running("sleep 314") and running("sleep 3"))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait(10)
    wait_for(lambda: not running("sleep 314"))
    assert second.stderr is not None
    said = second.stderr.read()
    assert second.wait(20) == 0
    assert b"slept" in said


def test_many_clients_at_once(builder: Builder, context: Path, base_image: str) -> None:
    dockerfile(context, "FROM @BASE@\nARG N\nRUN --network=none echo $N > /n && cat /n\nCOPY a.txt /\n", base_image)
    done: list[subprocess.CompletedProcess[str]] = []

    def build(number: int) -> None:
        done.append(builder.build(context, "--build-arg", f"N={number % 4}", "--progress", "plain", check=False))

    threads = [threading.Thread(target=build, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.returncode for one in done] == [0] * 8, [one.stderr[-500:] for one in done if one.returncode]


@pytest.mark.parametrize(("on", "last"), [("always", "true"), ("error", "exit 7")])
def test_a_shell_in_a_step(builder: Builder, context: Path, base_image: str, on: str, last: str) -> None:
    """buildx's debugger: in the result of a build, or in what a step that failed began with."""
    dockerfile(context, f"FROM @BASE@\nRUN --network=none echo left > /file\nRUN --network=none {last}\n", base_image)
    command = [
        "docker",
        "buildx",
        "debug",
        "--on",
        on,
        "--invoke",
        "/bin/sh",
        "build",
        "--builder",
        builder.name,
        context,
    ]
    terminal, inside = pty.openpty()
    env = {**builder.cli.env, "BUILDX_EXPERIMENTAL": "1", "BUILDKIT_PROGRESS": "plain"}
    shell = subprocess.Popen(command, env=env, stdin=inside, stdout=inside, stderr=inside, start_new_session=True)
    os.close(inside)
    said = b""
    answers = [(b"/ # ", b"cat /file; exit\n"), (b"(buildx) ", b"exit\n")]
    try:
        while True:
            said += os.read(terminal, 65536)
            if answers and answers[0][0] in said:
                os.write(terminal, answers.pop(0)[1])
    except OSError:
        # How the end of a terminal's other side is read.
        assert shell.wait(30) == (1 if on == "error" else 0), said
    finally:
        os.close(terminal)
    assert b"\nleft\r" in said, said.decode(errors="replace")[-2500:]
    assert b"panic" not in said


def test_two_daemons_do_not_share_a_folder(daemon: Daemon, tmp_path: Path) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "brickyard", "daemon", "--addr", f"unix://{tmp_path}/s", f"--root={daemon.folder}/root"],
        capture_output=True, check=False, timeout=20,
    )  # fmt: skip
    assert second.returncode == 1
    assert b"another process is using" in second.stderr
    assert b"Traceback" not in second.stderr


def test_killed_daemon_starts_again(buildx: Cli, context: Path, tmp_path: Path, base_image: str) -> None:
    dockerfile(context, "FROM @BASE@\nRUN --network=none echo kept\nCOPY a.txt /\n", base_image)
    with running_daemon(tmp_path / "d") as daemon:
        builder = connect(buildx, daemon)
        builder.build(context)
        daemon.process.kill()
        daemon.process.wait(10)
    with running_daemon(tmp_path / "d"):
        said = builder.build(context, "--progress", "plain").stderr
        assert len(lines(said, "CACHED")) >= 2


def test_a_daemon_that_is_told_to_stop(buildx: Cli, context: Path, tmp_path: Path, base_image: str) -> None:
    """In the middle of a build: its client is told, nothing is left, and the next start goes on."""
    dockerfile(context, "FROM @BASE@\nRUN --network=none echo kept\nRUN --network=none sleep 317\n", base_image)
    with running_daemon(tmp_path / "d") as daemon:
        builder = connect(buildx, daemon)
        command = ["docker", "buildx", "build", "--builder", builder.name, "--progress", "plain", context]
        build = subprocess.Popen(command, env=buildx.env, stderr=subprocess.PIPE)
        wait_for(lambda: running("sleep 317"))
        daemon.process.send_signal(signal.SIGTERM)
        assert build.stderr is not None
        said = build.stderr.read()
        assert build.wait(20) != 0
        assert daemon.process.wait(20) == 0
        assert b"context canceled" in said
        assert not running("sleep 317")
        assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
        assert "Traceback" not in daemon.log
    with running_daemon(tmp_path / "d"):
        dockerfile(context, "FROM @BASE@\nRUN --network=none echo kept\n", base_image)
        assert lines(builder.build(context, "--progress", "plain").stderr, "CACHED")


def test_socket_activation(buildx: Cli, context: Path, tmp_path: Path) -> None:
    dockerfile(context, "FROM scratch\nCOPY a.txt /\n")
    path = tmp_path / "activated"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3);"
            " os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
            " os.execv(sys.executable, [sys.executable, '-m', 'brickyard', 'daemon', '--addr', 'fd://', *sys.argv[2:]])"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(listener.fileno()), "--root", tmp_path / "root"],
            pass_fds=[listener.fileno(), 3] if listener.fileno() != 3 else [3], stderr=subprocess.PIPE,
        )  # fmt: skip
    try:
        builder = Builder(buildx, Daemon(tmp_path, process, 0.0))
        buildx.buildx("create", "--name", "ours", "--driver", "remote", f"unix://{path}")
        builder.build(context)
    finally:
        process.terminate()
        assert process.wait(20) == 0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates for a server and a client; another authority's client."""
    folder = tmp_path_factory.mktemp("tls")
    openssl = program("openssl")

    def make(name: str, authority: str, subject: str, *more: str) -> None:
        request = [openssl, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-subj", f"/CN={subject}"]
        if not authority:
            subprocess.run(
                [*request, "-x509", "-days", "2", "-out", f"{name}.pem"], cwd=folder, check=True, capture_output=True
            )
            return
        subprocess.run([*request, "-out", f"{name}.csr"], cwd=folder, check=True, capture_output=True)
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
        sign = [openssl, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key"]
        subprocess.run(
            [*sign, "-CAcreateserial", "-days", "2", "-out", f"{name}.pem", "-extfile", "names"],
            cwd=folder, check=True, capture_output=True,
        )  # fmt: skip

    make("ca", "", "authority")
    make("server", "ca", "localhost")
    make("client", "ca", "client")
    make("otherca", "", "other")
    make("stranger", "otherca", "stranger")
    return folder


def test_tcp_with_mutual_tls(buildx: Cli, context: Path, tmp_path: Path, certificates: Path, base_image: str) -> None:
    dockerfile(context, "FROM @BASE@\nRUN --network=none echo tls\nCOPY big /\n", base_image)
    (context / "big").write_bytes(os.urandom(5 << 20))
    port = free_port()
    flags = ("--addr", f"tcp://127.0.0.1:{port}", "--tlscert", f"{certificates}/server.pem", "--tlskey",
             f"{certificates}/server.key", "--tlscacert", f"{certificates}/ca.pem")  # fmt: skip
    with running_daemon(tmp_path / "d", *flags) as daemon:
        address = f"tcp://127.0.0.1:{port}"
        own = f"cacert={certificates}/ca.pem", f"cert={certificates}/client.pem", f"key={certificates}/client.key"
        builder = connect(buildx, daemon, "tls", address, *own)
        out = tmp_path / "out"
        builder.build(context, "-o", f"type=local,dest={out}")
        assert (out / "big").read_bytes() == (context / "big").read_bytes()
        stranger = (
            f"cacert={certificates}/ca.pem",
            f"cert={certificates}/stranger.pem",
            f"key={certificates}/stranger.key",
        )
        refused = connect(buildx, daemon, "stranger", address, *stranger).build(context, check=False, timeout=60)
        assert refused.returncode == 1
        for certificate in ((), (f"{certificates}/stranger.pem", f"{certificates}/stranger.key")):
            client = ssl.create_default_context(cafile=f"{certificates}/ca.pem")
            client.set_alpn_protocols(["h2"])
            if certificate:
                client.load_cert_chain(*certificate)
            with socket.create_connection(("127.0.0.1", port)) as raw, pytest.raises(OSError):  # noqa: PT012
                wrapped = client.wrap_socket(raw, server_hostname="localhost")
                wrapped.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                if not wrapped.recv(100):
                    raise OSError("closed")
        assert "Traceback" not in daemon.log


def test_garbage_collection_keeps_the_store_small(buildx: Cli, context: Path, tmp_path: Path) -> None:
    dockerfile(context, "FROM scratch\nCOPY big /\n")
    config = "[worker.oci]\n[[worker.oci.gcpolicy]]\nall = true\nmaxUsedSpace = '4MB'\nreservedSpace = '1MB'\n"
    with running_daemon(tmp_path / "d", config=config) as daemon:
        builder = connect(buildx, daemon)
        for number in range(3):
            (context / "big").write_bytes(bytes([number]) * (3 << 20))
            builder.build(context)
        wait_for(lambda: size(builder) <= 4_200_000, 30)


def size(builder: Builder) -> float:
    text = lines(builder.buildx("du").stdout, "Total:")[0].split()[1]
    units = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
    unit = next(unit for unit in ("kB", "MB", "GB", "B") if text.endswith(unit))
    return float(text.removesuffix(unit)) * units[unit]


def running(command: str) -> bool:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            except OSError:
                continue
            if b" ".join(words) == command.encode():
                return True
    return False


def wait_for(condition: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
