"""Handing a file over to the frontend that it names."""

import pytest

from brickyard.frontend.gateway.status import FrontendError, status_of
from brickyard.llb.bridge import BridgeError
from brickyard.wire.errors import make_status, read_details
from brickyard.wire.pb import errdefs_pb2, gateway_pb2

DONE = gateway_pb2.Result(metadata={"from": b"other"})


@pytest.mark.parametrize(
    "text",
    [
        "# syntax=example.com/other:1 --flag\nFROM x\n",
        "#!/usr/bin/env x\n# syntax = example.com/other:1 --flag\n",
        "// syntax=example.com/other:1 --flag\n{}",
        '{"syntax": "example.com/other:1 --flag"}',
    ],
)
def test_the_file_names_another(frontend, text: str) -> None:
    gateway = frontend.gateway(text, forwarded=DONE)
    result = frontend.build(gateway, target="t")
    assert result.metadata["from"] == b"other"
    request = gateway.solved[-1]
    assert request.Frontend == "gateway.v0"
    cmdline = "example.com/other:1 --flag"
    assert dict(request.FrontendOpt) == {"target": "t", "source": request.FrontendOpt["source"], "cmdline": cmdline}
    assert request.FrontendOpt["source"] in (cmdline, "example.com/other:1")


def test_an_argument_wins(frontend) -> None:
    gateway = frontend.gateway("# syntax=one\nFROM x\n", forwarded=DONE)
    frontend.build(gateway, **{"build-arg:BUILDKIT_SYNTAX": "two:1 x"})
    assert gateway.solved[-1].FrontendOpt["source"] == "two:1"
    assert gateway.solved[-1].FrontendOpt["cmdline"] == "two:1 x"


@pytest.mark.parametrize(
    "name", ["brickyard/frontend", "example.com/x/brickyard/frontend:1", "docker/dockerfile:1.4-labs"]
)
def test_names_of_this_one(frontend, name: str) -> None:
    gateway = frontend.gateway(f"# syntax={name}\nFROM scratch\n")
    frontend.build(gateway, ("docker/dockerfile",))
    assert not any(request.Frontend for request in gateway.solved)


def test_dockers_own_is_another_for_the_image(frontend) -> None:
    gateway = frontend.gateway("# syntax=docker/dockerfile:1\nFROM scratch\n", forwarded=DONE)
    frontend.build(gateway)
    assert gateway.solved[-1].Frontend == "gateway.v0"


def test_a_frontend_that_was_started_for_the_file_keeps_it(frontend) -> None:
    gateway = frontend.gateway("# syntax=other\nFROM scratch\n")
    frontend.build(gateway, cmdline="brickyard/frontend")
    assert not any(request.Frontend for request in gateway.solved)


def test_inputs_go_along(frontend) -> None:
    from brickyard.llb.marshal import marshal
    from brickyard.llb.state import source

    given = marshal(source("docker-image://docker.io/library/x:latest").output).to_pb()
    gateway = frontend.gateway("# syntax=other\n", forwarded=DONE, given={"i": given})
    frontend.build(gateway)
    assert gateway.solved[-1].FrontendInputs["i"] == given


def test_a_failure_points_at_the_directive(frontend) -> None:
    gateway = frontend.gateway("#!x\n# syntax=other\n", failing={"solve": BridgeError("other: not found", 5)})
    with pytest.raises(FrontendError) as raised:
        frontend.build(gateway)
    status = status_of(raised.value)
    assert (status.code, status.message) == (5, "other: not found")
    (detail,) = read_details(status)
    assert isinstance(detail, errdefs_pb2.Source)
    assert detail.ranges[0].start.line == 2


def test_a_failure_that_has_a_place_keeps_it(frontend) -> None:
    place = errdefs_pb2.Source()
    place.ranges.add().start.line = 7
    failed = BridgeError("wrong", 2, make_status(2, "wrong", [place]).SerializeToString())
    gateway = frontend.gateway("# syntax=other\n", failing={"solve": failed})
    with pytest.raises(BridgeError) as raised:
        frontend.build(gateway)
    (detail,) = read_details(status_of(raised.value))
    assert detail == place


def test_a_failure_of_an_argument_names_it(frontend) -> None:
    gateway = frontend.gateway(failing={"solve": BridgeError("gone", 14)})
    with pytest.raises(BridgeError, match="failed with build-arg:BUILDKIT_SYNTAX = other: gone"):
        frontend.build(gateway, **{"build-arg:BUILDKIT_SYNTAX": "other"})


def test_capabilities_of_the_frontend(frontend) -> None:
    wanted = "moby.buildkit.frontend.contexts,moby.buildkit.frontend.inputs"
    assert frontend.build(frontend.gateway(), **{"frontend.caps": wanted}).ref.id
    with pytest.raises(BridgeError, match=r"unsupported frontend capability example\.magic") as raised:
        frontend.build(frontend.gateway(), **{"frontend.caps": "example.magic"})
    (detail,) = read_details(status_of(raised.value))
    assert detail == errdefs_pb2.FrontendCap(name="example.magic")
    gateway = frontend.gateway("# syntax=other\n", forwarded=DONE)
    assert frontend.build(gateway, **{"frontend.caps": "example.magic+forward"}).metadata["from"] == b"other"
