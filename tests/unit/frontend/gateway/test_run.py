"""The frontend container's process: its environment in, its result over the pipes out."""

import json
import subprocess
import sys

from brickyard.frontend.gateway.run import options
from brickyard.llb.bridge import BridgeError
from brickyard.wire.errors import read_details
from brickyard.wire.pb import errdefs_pb2, gateway_pb2


def test_options_may_hold_equal_signs() -> None:
    environ = {"BUILDKIT_FRONTEND_OPT_0": "build-arg:A=b=c", "BUILDKIT_FRONTEND_OPT_11": "target=", "OTHER": "x=y"}
    assert options(environ) == {"build-arg:A": "b=c", "target": ""}


def test_a_build(frontend) -> None:
    gateway = frontend.gateway("FROM alpine\nRUN echo $A\n" + "".join(f"LABEL l{n}={'x' * 900}\n" for n in range(300)))
    assert frontend.run(gateway, {"cmdline": "x", "platform": "linux/amd64,linux/arm64"}) == (0, "")
    (request,) = gateway.returned
    assert set(request.result.refs.refs) == {"linux/amd64", "linux/arm64"}
    assert not request.HasField("error")


def test_an_error_is_returned(frontend) -> None:
    gateway = frontend.gateway("FROM alpine\nRUM x\n")
    assert frontend.run(gateway, {"cmdline": "x"}) == (0, "")
    (request,) = gateway.returned
    assert not request.HasField("result")
    assert request.error.message == "unknown instruction: RUM (did you mean RUN?)"
    (detail,) = read_details(request.error)
    assert detail.ranges[0].start.line == 2


def test_the_details_of_a_failed_call_are_returned(frontend) -> None:
    gateway = frontend.gateway(
        "FROM alpine\n", failing={"docker-image://docker.io/library/alpine:latest": BridgeError("no", 5)}
    )
    assert frontend.run(gateway, {"cmdline": "x"}) == (0, "")
    error = gateway.returned[0].error
    assert (error.code, error.message) == (5, "alpine: no")
    assert [type(detail) for detail in read_details(error)] == [errdefs_pb2.Vertex, errdefs_pb2.Source]


def test_a_fault_is_returned_and_no_traceback(frontend) -> None:
    gateway = frontend.gateway(images={"docker.io/library/a:latest": b"[1]"})
    gateway.files = {"Dockerfile": "FROM a\n"}
    code, said = frontend.run(gateway, {"cmdline": "x", "build-arg:SOURCE_DATE_EPOCH": "9" * 18})
    assert code == 0
    assert "Traceback" not in said
    assert gateway.returned[0].error.message


def test_a_gateway_of_the_first_days(frontend) -> None:
    gateway = frontend.gateway("FROM alpine\nENV A=b\n", gateway_caps=frozenset(), llb_caps=frozenset({"file.base"}))
    gateway.llb_caps = frozenset()
    assert frontend.run(gateway, {}) == (0, "")
    assert gateway.returned == []
    final = gateway.solved[-1]
    assert final.Final
    assert final.Definition == gateway.solved[-2].Definition
    assert "containerimage.config" in json.loads(final.ExporterAttr)


def test_a_gateway_without_lists_of_refs(frontend) -> None:
    gateway = frontend.gateway(gateway_caps={"solve.base", "return"})
    assert frontend.run(gateway, {"platform": "linux/amd64,linux/arm64"}) == (0, "")
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
    assert frontend.run(gateway, {}, BUILDKIT_WORKERS=workers) == (0, "")
    config = json.loads(gateway.returned[0].result.metadata["containerimage.config"])
    assert "P=linux/riscv64" in config["config"]["Env"]


def test_the_other_side_goes_away() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "brickyard.frontend.gateway"], input=b"", capture_output=True, check=False, timeout=30
    )
    assert process.returncode == 1
    assert process.stderr.decode().strip() == "the other side closed the connection"
