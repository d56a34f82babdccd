"""The frontend container's process: its environment in, its result over the pipes out."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from brickyard.frontend.gateway.run import options
from brickyard.llb.bridge import BridgeError
from brickyard.wire.errors import make_status, read_details
from brickyard.wire.h2.server import Server, Unary, serve
from brickyard.wire.h2.server import status_of as plain_status
from brickyard.wire.pb import errdefs_pb2, gateway_pb2, rpc_status_pb2

METHODS = {
    "Ping": ("ping", gateway_pb2.PingRequest),
    "Inputs": ("inputs", gateway_pb2.InputsRequest),
    "Solve": ("solve", gateway_pb2.SolveRequest),
    "ReadFile": ("read_file", gateway_pb2.ReadFileRequest),
    "ResolveImageConfig": ("resolve_image_config", gateway_pb2.ResolveImageConfigRequest),
    "ResolveSourceMeta": ("resolve_source_meta", gateway_pb2.ResolveSourceMetaRequest),
    "Warn": ("warn", gateway_pb2.WarnRequest),
}


def described(error: BaseException) -> rpc_status_pb2.Status:
    if isinstance(error, BridgeError):
        return make_status(error.code, str(error), [errdefs_pb2.Vertex(digest="sha256:1")])
    return plain_status(error)


def run(gateway, opts: dict[str, str], **environ: str) -> tuple[int, str]:
    """Run the process against a gateway; gives its exit code and what it wrote to its standard error."""
    methods: dict[str, Unary] = {}
    for name, (method, kind) in METHODS.items():
        call = getattr(gateway, method)
        takes_none = method in ("ping", "inputs")
        methods[f"/moby.buildkit.v1.frontend.LLBBridge/{name}"] = Unary(
            kind, (lambda _, __, call=call: call()) if takes_none else (lambda request, _, call=call: call(request))
        )

    def take(request: gateway_pb2.ReturnRequest, call: object) -> gateway_pb2.ReturnResponse:
        gateway.returned.append(request)
        return gateway_pb2.ReturnResponse()

    methods["/moby.buildkit.v1.frontend.LLBBridge/Return"] = Unary(gateway_pb2.ReturnRequest, take)
    server = Server(methods, 8, described)
    ours, theirs = socket.socketpair()
    connection = server.connect(ours.sendall)
    thread = threading.Thread(target=serve, args=(connection, lambda: ours.recv(65536), ours.close), daemon=True)
    thread.start()
    numbered = {f"BUILDKIT_FRONTEND_OPT_{n}": f"{key}={value}" for n, (key, value) in enumerate(opts.items())}
    process = subprocess.Popen(
        [sys.executable, "-m", "brickyard.frontend.gateway"],
        stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
        env={**os.environ, "BUILDKIT_SESSION_ID": "session", **numbered, **environ},
    )  # fmt: skip
    theirs.close()
    _, said = process.communicate(timeout=30)
    thread.join(10)
    server.stop()
    return process.returncode, said.decode()


def test_options_may_hold_equal_signs() -> None:
    environ = {"BUILDKIT_FRONTEND_OPT_0": "build-arg:A=b=c", "BUILDKIT_FRONTEND_OPT_11": "target=", "OTHER": "x=y"}
    assert options(environ) == {"build-arg:A": "b=c", "target": ""}


def test_a_build(frontend) -> None:
    gateway = frontend.gateway("FROM alpine\nRUN echo $A\n" + "".join(f"LABEL l{n}={'x' * 900}\n" for n in range(300)))
    assert run(gateway, {"cmdline": "x", "platform": "linux/amd64,linux/arm64"}) == (0, "")
    (request,) = gateway.returned
    assert set(request.result.refs.refs) == {"linux/amd64", "linux/arm64"}
    assert not request.HasField("error")


def test_an_error_is_returned(frontend) -> None:
    gateway = frontend.gateway("FROM alpine\nRUM x\n")
    assert run(gateway, {"cmdline": "x"}) == (0, "")
    (request,) = gateway.returned
    assert not request.HasField("result")
    assert request.error.message == "unknown instruction: RUM (did you mean RUN?)"
    (detail,) = read_details(request.error)
    assert detail.ranges[0].start.line == 2


def test_the_details_of_a_failed_call_are_returned(frontend) -> None:
    gateway = frontend.gateway(
        "FROM alpine\n", failing={"docker-image://docker.io/library/alpine:latest": BridgeError("no", 5)}
    )
    assert run(gateway, {"cmdline": "x"}) == (0, "")
    error = gateway.returned[0].error
    assert (error.code, error.message) == (5, "alpine: no")
    assert [type(detail) for detail in read_details(error)] == [errdefs_pb2.Vertex, errdefs_pb2.Source]


def test_a_fault_is_returned_and_no_traceback(frontend) -> None:
    gateway = frontend.gateway(images={"docker.io/library/a:latest": b"[1]"})
    gateway.files = {"Dockerfile": "FROM a\n"}
    code, said = run(gateway, {"cmdline": "x", "build-arg:SOURCE_DATE_EPOCH": "9" * 18})
    assert code == 0
    assert "Traceback" not in said
    assert gateway.returned[0].error.message


def test_a_gateway_of_the_first_days(frontend) -> None:
    gateway = frontend.gateway("FROM alpine\nENV A=b\n", gateway_caps=frozenset(), llb_caps=frozenset({"file.base"}))
    gateway.llb_caps = frozenset()
    assert run(gateway, {}) == (0, "")
    assert gateway.returned == []
    final = gateway.solved[-1]
    assert final.Final
    assert final.Definition == gateway.solved[-2].Definition
    assert "containerimage.config" in json.loads(final.ExporterAttr)


def test_a_gateway_without_lists_of_refs(frontend) -> None:
    gateway = frontend.gateway(gateway_caps={"solve.base", "return"})
    assert run(gateway, {"platform": "linux/amd64,linux/arm64"}) == (0, "")
    result = gateway.returned[0].result
    assert set(result.refsDeprecated.refs) == {"linux/amd64", "linux/arm64"}


def test_workers_from_the_environment(frontend) -> None:
    gateway = frontend.gateway("FROM scratch\nARG BUILDPLATFORM\nENV P=$BUILDPLATFORM\n")
    ping = gateway.ping

    def without_workers() -> gateway_pb2.PongResponse:
        pong = ping()
        del pong.Workers[:]
        return pong

    gateway.ping = without_workers
    workers = json.dumps([{"ID": "w", "Platforms": [{"os": "linux", "architecture": "riscv64"}]}])
    assert run(gateway, {}, BUILDKIT_WORKERS=workers) == (0, "")
    config = json.loads(gateway.returned[0].result.metadata["containerimage.config"])
    assert "P=linux/riscv64" in config["config"]["Env"]


def test_the_other_side_goes_away() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "brickyard.frontend.gateway"], input=b"", capture_output=True, check=False, timeout=30
    )
    assert process.returncode == 1
    assert process.stderr.decode().strip() == "the other side closed the connection"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's files, laid out by this interpreter."""
    out = tmp_path_factory.mktemp("image")
    pack = [sys.executable, "-m", "brickyard.frontend.image.pack", str(out)]
    done = subprocess.run(pack, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def test_the_bundle_has_what_is_needed_and_no_more(packed: Path) -> None:
    import marshal

    data = (packed / "brickyard/bundle").read_bytes()
    size = int.from_bytes(data[:8], "little")
    index = marshal.loads(data[8 : 8 + size])
    assert {"brickyard.frontend.gateway.run", "brickyard.grammar.dockerfile._tables", "jinja2"} <= set(index)
    assert not [name for name in index if name.startswith(("brickyard.solver", "brickyard.client", "grpc", "lark"))]
    name = "brickyard.frontend.gateway.run"
    offset, length, package = index[name]
    code = marshal.loads(data[8 + size + offset : 8 + size + offset + length])
    assert (code.co_filename, package) == ("run.py", False)


@pytest.mark.skipif(not hasattr(os, "chroot") or os.geteuid() != 0, reason="chroot needs root")
def test_the_packed_image_builds(packed: Path, frontend, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = ["/usr/sbin/chroot", str(packed), "/usr/bin/python3", "-I", "-S", "-X", "utf8", "/brickyard/boot.pyc"]
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **more: real(boot, **more))
    gateway = frontend.gateway("# check=error=true\nFROM alpine\nRUN <<EOF\nx\nEOF\nCOPY --parents a/*.c /b\nCMD x\n")
    assert run(gateway, {"cmdline": "x"}) == (0, "")
    assert gateway.returned[0].error.message == "lint violation found for rules: JSONArgsRecommended"
    template = frontend.gateway("# brickyard: template\nFROM {{ b }}\n")
    assert run(template, {"cmdline": "x", "build-arg:b": "scratch"}) == (0, "")
    assert template.returned[0].result.ref.id
